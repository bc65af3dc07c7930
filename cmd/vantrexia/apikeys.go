package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/db"
)

func apiKeysCommand() *cobra.Command {
	var where adminFlags
	keys := &cobra.Command{
		Use:   "apikeys",
		Short: "Manage the API keys of machines",
		Long: `Manages the API keys of machines, such as a device gateway, through the API, with an administrator's token in
VANTREXIA_TOKEN. With --local it works on the database alone; a change then needs a --reason, which is kept.

Cryptographic keys are the matter of "vantrexia keys".`,
		Example: `  vantrexia apikeys create --name "device gateway"
  vantrexia apikeys create --name tablet --role nurse --expires 720h
  vantrexia apikeys revoke 0b9c5a52-7a3e-4a57-9d55-0d6a3f0a9f11`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	where.define(keys.PersistentFlags())
	keys.AddCommand(where.createKeyCommand(), where.listKeysCommand(), where.revokeKeyCommand())
	return keys
}

// apiKeys are the API keys behind the API or in the database.
type apiKeys interface {
	// create returns the key, which is shown this once.
	create(ctx context.Context, want account.NewKey) (cliKey, string, error)
	list(ctx context.Context) ([]cliKey, error)
	revoke(ctx context.Context, id uuid.UUID) error
}

// cliKey is an API key as the API shows it.
type cliKey struct {
	ID         uuid.UUID    `json:"id"`
	Name       string       `json:"name"`
	Role       account.Role `json:"role"`
	Devices    []string     `json:"devices"`
	Prefix     string       `json:"prefix"`
	ExpiresAt  *time.Time   `json:"expires_at"`
	LastUsedAt *time.Time   `json:"last_used_at"`
	RevokedAt  *time.Time   `json:"revoked_at"`
}

func (f adminFlags) keys(ctx context.Context, changes bool) (apiKeys, func(), error) {
	cfg, err := f.load(changes)
	if err != nil {
		return nil, nil, err
	}
	if !f.local {
		remote, err := newAPIClient(cfg, f.url, "")
		return remoteKeys{remote}, func() {}, err
	}

	store, err := openMigrated(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	machines := account.NewMachines(store, cfg.ECW.PracticeCode, cfg.logger(slog.LevelWarn))
	return localKeys{machines, localBy(f.reason)}, store.Close, nil
}

func (f *adminFlags) createKeyCommand() *cobra.Command {
	want := account.NewKey{Role: account.Service}
	var lasts time.Duration
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make an API key, and print it, this once",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, done, err := f.keys(cmd.Context(), true)
			if err != nil {
				return err
			}
			defer done()

			if lasts != 0 {
				expires := time.Now().Add(lasts)
				want.ExpiresAt = &expires
			}
			made, text, err := all.create(cmd.Context(), want)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "API key %s made. It is shown this once:\n", made.ID)
			fmt.Fprintln(cmd.OutOrStdout(), text)
			return nil
		},
	}

	flags := cmd.Flags()
	flags.StringVar(&want.Name, "name", "", "which machine uses the key")
	flags.StringVar((*string)(&want.Role), "role", string(want.Role), "what the key may do: "+account.JoinRoles(account.Roles()))
	flags.StringSliceVar(&want.Devices, "device", nil, "a device whose readings it may post, or the beginning of names with * at its end; may be repeated (default: any)")
	flags.DurationVar(&lasts, "expires", 0, "how long the key is good, in hours, for example 8760h (default: until it is revoked)")
	_ = cmd.MarkFlagRequired("name") // the flag is there
	return cmd
}

func (f *adminFlags) listKeysCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the API keys",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, done, err := f.keys(cmd.Context(), false)
			if err != nil {
				return err
			}
			defer done()

			keys, err := all.list(cmd.Context())
			if err != nil {
				return err
			}
			return printKeys(cmd.OutOrStdout(), keys, time.Now())
		},
	}
}

func (f *adminFlags) revokeKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke <id>",
		Short: "Refuse an API key from now on, for good",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := uuid.Parse(args[0])
			if err != nil {
				return fmt.Errorf("%q is not the id of an API key: `vantrexia apikeys list` shows them", args[0])
			}
			all, done, err := f.keys(cmd.Context(), true)
			if err != nil {
				return err
			}
			defer done()
			if err := all.revoke(cmd.Context(), id); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "API key %s is revoked\n", id)
			return nil
		},
	}
}

func printKeys(out io.Writer, keys []cliKey, now time.Time) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tNAME\tROLE\tKEY\tDEVICES\tSTATE\tLAST USED")
	for _, k := range keys {
		devices, state, used := "any", "active", "never"
		if len(k.Devices) > 0 {
			devices = strings.Join(k.Devices, ",")
		}
		switch {
		case k.RevokedAt != nil:
			state = "revoked"
		case k.ExpiresAt != nil && !k.ExpiresAt.After(now):
			state = "expired"
		case k.ExpiresAt != nil:
			state = "until " + k.ExpiresAt.UTC().Format(time.RFC3339)
		}
		if k.LastUsedAt != nil {
			used = k.LastUsedAt.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s…\t%s\t%s\t%s\n", k.ID, k.Name, k.Role, k.Prefix, devices, state, used)
	}
	return table.Flush()
}

// remoteKeys are the API keys behind the API.
type remoteKeys struct{ apiClient }

func (r remoteKeys) create(ctx context.Context, want account.NewKey) (cliKey, string, error) {
	body := map[string]any{"name": want.Name, "role": want.Role, "devices": append([]string{}, want.Devices...)}
	if want.ExpiresAt != nil {
		body["expires_at"] = want.ExpiresAt
	}
	var made struct {
		cliKey
		Key string `json:"key"`
	}
	err := r.call(ctx, http.MethodPost, "/api-keys/", body, &made)
	return made.cliKey, made.Key, err
}

func (r remoteKeys) list(ctx context.Context) ([]cliKey, error) {
	var list struct {
		Results []cliKey `json:"results"`
	}
	err := r.call(ctx, http.MethodGet, "/api-keys/", nil, &list)
	return list.Results, err
}

func (r remoteKeys) revoke(ctx context.Context, id uuid.UUID) error {
	return r.call(ctx, http.MethodDelete, "/api-keys/"+id.String()+"/", nil, nil)
}

// localKeys are the API keys in the database.
type localKeys struct {
	machines *account.Machines
	by       account.By
}

func (l localKeys) create(ctx context.Context, want account.NewKey) (cliKey, string, error) {
	row, text, err := l.machines.CreateKey(ctx, want, l.by)
	return showCLIKey(row), text, err
}

func (l localKeys) list(ctx context.Context) ([]cliKey, error) {
	rows, err := l.machines.Keys(ctx)
	keys := make([]cliKey, len(rows))
	for i, row := range rows {
		keys[i] = showCLIKey(row)
	}
	return keys, err
}

func (l localKeys) revoke(ctx context.Context, id uuid.UUID) error {
	_, err := l.machines.RevokeKey(ctx, id, l.by)
	return err
}

func showCLIKey(row db.APIKey) cliKey {
	return cliKey{
		ID:         row.ID,
		Name:       row.Name,
		Role:       account.Role(row.Role),
		Devices:    row.Devices,
		Prefix:     row.Prefix,
		ExpiresAt:  row.ExpiresAt,
		LastUsedAt: row.LastUsedAt,
		RevokedAt:  row.RevokedAt,
	}
}
