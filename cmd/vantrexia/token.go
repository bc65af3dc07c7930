package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vantrexia/vantrexia/account"
)

func tokenCommand() *cobra.Command {
	var role, subject string
	var life time.Duration
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Print a signed bearer token for the API",
		Long: `Prints a bearer token of a machine for the API, signed with API_TOKEN_SECRET (or the secret in API_TOKEN_SECRET_FILE,
which "make run" creates). README.md says what each role may do. A machine that stays has an API key instead.`,
		Example: `  curl -H "Authorization: Bearer $(vantrexia token --role provider)" http://localhost:8000/api/v1/patients/`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig()
			if err != nil {
				return err
			}
			token, err := cfg.signToken(subject, account.Role(role), life)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), token)
			return nil
		},
	}

	cmd.Flags().StringVar(&role, "role", string(account.Provider), "what the token may do: "+account.JoinRoles(account.Roles()))
	cmd.Flags().StringVar(&subject, "sub", "cli", "who uses the token; the log and workflows name it")
	cmd.Flags().DurationVar(&life, "ttl", time.Hour, "how long the token is valid, 12h at most")
	cmd.AddCommand(revokeTokenCommand())
	return cmd
}

func revokeTokenCommand() *cobra.Command {
	var where adminFlags
	cmd := &cobra.Command{
		Use:   "revoke <jti or ->",
		Short: "Refuse a token from now on, before it expires",
		Long: `Has a token refused before it expires, through the API, with an administrator's token in VANTREXIA_TOKEN, or with --local on
the database alone. The --reason is kept. With - it reads the token from the terminal or from the standard input, because
other accounts of this machine see the arguments of a command. Of the token only its jti is sent.`,
		Example: `  vantrexia token revoke 7d444840-9dc0-41d0-b3a4-8a1f3e2c5b6d --reason "it stood in a log"
  vantrexia token revoke - --reason "it stood in a log" <the-token`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := revokedID(cmd, args[0])
			if err != nil {
				return err
			}
			if strings.TrimSpace(where.reason) == "" {
				return errors.New("--reason is missing, it is kept: say for example --reason \"it stood in a log\"")
			}
			if err := where.denyToken(cmd.Context(), id); err != nil {
				return err
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "the token", id, "is refused within five seconds")
			return nil
		},
	}
	where.define(cmd.Flags())
	cmd.Flags().Lookup("reason").Usage = "why"
	return cmd
}

// denyToken has a token refused, with the reason, which the API takes too.
func (f adminFlags) denyToken(ctx context.Context, id string) error {
	reason := f.reason
	if !f.local {
		f.reason = ""
	}
	cfg, err := f.load(true)
	if err != nil {
		return err
	}
	if !f.local {
		api, err := newAPIClient(cfg, f.url, "")
		if err != nil {
			return err
		}
		return api.call(ctx, http.MethodPost, "/tokens/revoke/", map[string]string{"jti": id, "reason": reason}, nil)
	}

	store, err := openMigrated(ctx, cfg)
	if err != nil {
		return err
	}
	defer store.Close()
	return account.NewMachines(store, cfg.ECW.PracticeCode, cfg.logger(slog.LevelWarn)).Deny(ctx, id, localBy(reason))
}

// revokedID returns the jti that a person gives as an argument, or within its token on the standard input.
func revokedID(cmd *cobra.Command, given string) (string, error) {
	typed := given == "-"
	if typed {
		line, err := prompt(cmd, bufio.NewReader(cmd.InOrStdin()), "Token: ")
		if err != nil {
			return "", err
		}
		given = strings.TrimSpace(line)
	}

	isToken := strings.Count(given, ".") == 2
	switch {
	case account.IsAPIKey(given):
		return "", errors.New("this is an API key: use `vantrexia apikeys revoke` with its id")
	case isToken && !typed:
		return "", errors.New("this is a whole token, and other accounts of this machine see it here: " +
			"give its jti, or - and the token on the standard input")
	case isToken:
		return account.TokenID(given)
	case given == "":
		return "", errors.New("the standard input is empty: give the token or its jti there")
	}
	return given, nil
}
