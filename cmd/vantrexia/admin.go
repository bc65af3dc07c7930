package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/pflag"

	"github.com/vantrexia/vantrexia/db"
)

// adminFlags say where a command of administrators works: through the API, or on the database alone.
type adminFlags struct {
	local  bool
	reason string
	url    string
}

func (f *adminFlags) define(flags *pflag.FlagSet) {
	flags.BoolVar(&f.local, "local", false, "work on the database, without the API")
	flags.StringVar(&f.reason, "reason", "", "why, with --local")
	flags.StringVar(&f.url, "url", "", "the API's address (default: API_ADDRESS on this machine)")
}

// load reads the settings and checks the flags. changes is whether the command changes anything.
func (f adminFlags) load(changes bool) (config, error) {
	cfg, err := loadConfig()
	switch {
	case err != nil:
		return cfg, err
	case !f.local && f.reason != "":
		return cfg, errors.New("--reason is for --local: the API keeps who the token belongs to")
	case f.local && f.url != "":
		return cfg, errors.New("--local works on the database in DATABASE_URL alone: leave --url out, or --local")
	case f.local && changes && strings.TrimSpace(f.reason) == "":
		return cfg, errors.New("--local needs --reason, which is kept with the change: say for example --reason \"first administrator\"")
	case f.local && cfg.ECW.PracticeCode == "":
		return cfg, errors.New("ECW_PRACTICE_CODE is not set: set it to the code of your practice. " +
			"Beside `make run`, leave --local out and use VANTREXIA_TOKEN=$(bin/vantrexia token --role admin)")
	}
	return cfg, nil
}

// openMigrated connects to a database whose schema is as new as this binary, and whose keyring ours is.
func openMigrated(ctx context.Context, cfg config) (*db.Store, error) {
	keys, err := cfg.keyring()
	if err != nil {
		return nil, err
	}
	store, err := openStore(ctx, cfg, keys)
	if err != nil {
		return nil, err
	}
	if err := store.Check(ctx); err != nil {
		store.Close()
		return nil, err
	}
	return store, nil
}
