package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring"
)

// newStore makes the connection pool, and does not connect yet.
func newStore(ctx context.Context, cfg config, keys *keyring.Keyring) (*db.Store, error) {
	if cfg.DatabaseURL == "" {
		return nil, errors.New("DATABASE_URL is not set: set it to postgres://user:password@host:5432/database?sslmode=verify-full, or " +
			"use `make run`, which starts a database")
	}
	if err := cfg.checkDatabaseTLS(); err != nil {
		return nil, err
	}
	return db.NewStore(ctx, cfg.DatabaseURL, keys)
}

// openStore is newStore followed by a ping: it fails if the database is unreachable.
func openStore(ctx context.Context, cfg config, keys *keyring.Keyring) (*db.Store, error) {
	store, err := newStore(ctx, cfg, keys)
	if err != nil {
		return nil, err
	}

	if err := store.Ping(ctx); err != nil {
		store.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, databaseError(err)
	}
	return store, nil
}

// databaseError says in one line why there is no connection.
func databaseError(err error) error {
	var refused *pgconn.ConnectError
	if !errors.As(err, &refused) {
		return err
	}

	// pgx lists a reason for each address and encryption that it tried. One is enough.
	reason := strings.ReplaceAll(refused.Unwrap().Error(), "\n", "; ")
	var answer *pgconn.PgError
	var dial *net.OpError
	var lookup *net.DNSError
	switch {
	case errors.As(refused, &answer):
		reason = answer.Message
	case errors.As(refused, &dial):
		reason = dial.Error()
	case errors.As(refused, &lookup):
		reason = lookup.Error()
	}

	text := fmt.Sprintf("no connection to the database %q at %s (%s): check that it runs and that DATABASE_URL is right",
		refused.Config.Database, net.JoinHostPort(refused.Config.Host, strconv.Itoa(int(refused.Config.Port))), reason)
	return &explained{text: text, cause: err}
}

// explained is an error with a text of ours in place of its cause's.
type explained struct {
	text  string
	cause error
}

func (e *explained) Error() string { return e.text }

func (e *explained) Unwrap() error { return e.cause }

// awaitDatabase waits until the database answers and its schema is as new as this binary. Then it closes
// migrated, and returns when ctx ends.
func awaitDatabase(ctx context.Context, d dependencies, migrated chan<- struct{}) error {
	ask := func(ctx context.Context) error {
		if err := d.checkDatabase(ctx); err != nil {
			return databaseError(err)
		}
		return nil
	}

	err := await(ctx, d.log, "the database", ask, neverWorks)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}

	warnOfServerLog(ctx, d)
	warnOfOwner(ctx, d)
	close(migrated)
	<-ctx.Done()
	return nil
}

// neverWorks reports whether asking the database again is in vain.
func neverWorks(err error) bool { return db.IsRefused(err) || errors.Is(err, db.ErrOtherKeyring) }

func (d dependencies) checkDatabase(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return d.store.Check(ctx)
}

// acceptKeyring returns an error unless a changed KEYRING_FILE is still the keyring of the database.
func (d dependencies) acceptKeyring(ctx context.Context, changed *keyring.Keyring) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return d.store.Accepts(ctx, changed)
}

// warnOfServerLog warns of PostgreSQL settings that let patient data into the server's log, which nobody
// expects there.
func warnOfServerLog(ctx context.Context, d dependencies) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()

	settings, err := d.store.RevealingLogSettings(ctx)
	if err != nil {
		d.log.WarnContext(ctx, "the settings of PostgreSQL's log could not be read", "error", err)
	}
	if len(settings) > 0 {
		d.log.WarnContext(ctx, "PostgreSQL may write rows into its log: set what is named here", "set", settings)
	}
}

// warnOfOwner warns of an account that could erase the traces of what was done: nobody needs it to serve requests.
func warnOfOwner(ctx context.Context, d dependencies) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()

	may, err := d.store.MayErase(ctx)
	if err != nil {
		d.log.WarnContext(ctx, "the rights of the account in DATABASE_URL could not be read", "error", err)
	}
	if may {
		d.log.WarnContext(ctx, "DATABASE_URL names an account that owns the tables, or a superuser: who takes over this process could "+
			"erase the audit trail. docs/operations.md#database-roles says how to separate the accounts")
	}
}
