package main

import (
	"context"
	"errors"
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
	var where source
	keys := &cobra.Command{
		Use:   "apikeys",
		Short: "Manage the API keys of machines, such as device gateways",
		Long: `Manages the API keys of machines, through the API, with an administrator's token (--token or VANTREXIA_TOKEN).

With --local it works on the database alone (DATABASE_URL, ECW_PRACTICE_CODE): for an installation without an administrator,
and for emergencies. A change then needs a --reason, which is kept with the key.`,
		Example: `  vantrexia apikeys create "device gateway" --device 'BP-OMRON-*' --device SCALE-7
  vantrexia apikeys revoke 0b9c5a52-7a3e-4a57-9d55-0d6a3f0a9f11`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}

	where.addFlags(keys)
	keys.AddCommand(where.createKeyCommand(), where.listKeysCommand(), where.revokeKeyCommand())
	return keys
}

// machines are the API keys and the denied tokens, in the API or in the database.
type machines interface {
	createKey(ctx context.Context, want account.NewKey) (cliKey, string, error)
	keys(ctx context.Context) ([]cliKey, error)
	revokeKey(ctx context.Context, id uuid.UUID) error
	deny(ctx context.Context, tokenID, reason string) error
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

// openMachines connects to the API or to the database. The caller calls the function that it returns.
func (f source) openMachines(ctx context.Context) (machines, func(), error) {
	cfg, err := loadConfig()
	if err != nil {
		return nil, nil, err
	}
	if !f.local {
		api, err := newRemoteAPI(cfg, f, "")
		return remoteMachines{api}, func() {}, err
	}

	store, err := openLocal(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	all := account.NewMachines(store, cfg.ECW.PracticeCode, cfg.logger(slog.LevelWarn))
	return localMachines{all, localBy(f.reason)}, store.Close, nil
}

func (f *source) createKeyCommand() *cobra.Command {
	var want account.NewKey
	var life time.Duration
	cmd := &cobra.Command{
		Use:   "create <name>",
		Short: "Make an API key, and print it, this once",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(true); err != nil {
				return err
			}
			if life < 0 {
				return fmt.Errorf("ttl %s is negative: use a duration such as 2160h", life)
			}
			all, done, err := f.openMachines(cmd.Context())
			if err != nil {
				return err
			}
			defer done()

			want.Name = args[0]
			if life > 0 {
				expires := time.Now().Add(life).UTC().Truncate(time.Second)
				want.ExpiresAt = &expires
			}
			key, text, err := all.createKey(cmd.Context(), want)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "API key %s made. It is shown this once:\n", key.ID)
			fmt.Fprintln(cmd.OutOrStdout(), text)
			return nil
		},
	}

	flags := cmd.Flags()
	flags.StringVar((*string)(&want.Role), "role", string(account.Service), "what the key may do: "+account.JoinRoles(account.Roles()))
	flags.StringArrayVar(&want.Devices, "device", nil,
		"a device whose readings the key may post, or the beginning of its name with a * at the end; may be repeated (default: any)")
	flags.DurationVar(&life, "ttl", 0, "how long the key is valid, for example 2160h (default: until it is revoked)")
	return cmd
}

func (f *source) listKeysCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the API keys, revoked ones too",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(false); err != nil {
				return err
			}
			all, done, err := f.openMachines(cmd.Context())
			if err != nil {
				return err
			}
			defer done()

			keys, err := all.keys(cmd.Context())
			if err != nil {
				return err
			}
			return printKeys(cmd.OutOrStdout(), keys, time.Now())
		},
	}
}

func (f *source) revokeKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke <id>",
		Short: "Refuse an API key from now on, for good",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(true); err != nil {
				return err
			}
			id, err := uuid.Parse(args[0])
			if err != nil {
				return errors.New("this is not the id of an API key: `vantrexia apikeys list` shows the ids, and how each key begins")
			}
			all, done, err := f.openMachines(cmd.Context())
			if err != nil {
				return err
			}
			defer done()

			if err := all.revokeKey(cmd.Context(), id); err != nil {
				return err
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "API key", id, "is refused within five seconds")
			return nil
		},
	}
}

func printKeys(out io.Writer, keys []cliKey, now time.Time) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tNAME\tBEGINS WITH\tROLE\tDEVICES\tSTATE\tLAST USED")
	for _, k := range keys {
		devices, state, used := "any", "active", "never"
		if len(k.Devices) > 0 {
			devices = strings.Join(k.Devices, ", ")
		}
		switch {
		case k.RevokedAt != nil:
			state = "revoked"
		case k.ExpiresAt != nil && k.ExpiresAt.Before(now):
			state = "expired"
		case k.ExpiresAt != nil:
			state = "until " + k.ExpiresAt.UTC().Format(time.RFC3339)
		}
		if k.LastUsedAt != nil {
			used = k.LastUsedAt.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Name, k.Prefix, k.Role, devices, state, used)
	}
	return table.Flush()
}

// localMachines are those in the database.
type localMachines struct {
	all *account.Machines
	by  account.By
}

func (l localMachines) createKey(ctx context.Context, want account.NewKey) (cliKey, string, error) {
	row, text, err := l.all.CreateKey(ctx, want, l.by)
	return showCLIKey(row), text, err
}

func (l localMachines) keys(ctx context.Context) ([]cliKey, error) {
	rows, err := l.all.Keys(ctx)
	keys := make([]cliKey, len(rows))
	for i, row := range rows {
		keys[i] = showCLIKey(row)
	}
	return keys, err
}

func (l localMachines) revokeKey(ctx context.Context, id uuid.UUID) error {
	_, err := l.all.RevokeKey(ctx, id, l.by)
	return err
}

func (l localMachines) deny(ctx context.Context, tokenID, _ string) error {
	return l.all.Deny(ctx, tokenID, l.by)
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

// remoteMachines are those behind the API.
type remoteMachines struct{ remoteAPI }

func (r remoteMachines) createKey(ctx context.Context, want account.NewKey) (cliKey, string, error) {
	body := map[string]any{"name": want.Name, "role": want.Role}
	if len(want.Devices) > 0 {
		body["devices"] = want.Devices
	}
	if want.ExpiresAt != nil {
		body["expires_at"] = want.ExpiresAt
	}

	var made struct {
		cliKey
		Key string `json:"key"`
	}
	err := r.call(ctx, http.MethodPost, "api-keys/", body, &made)
	return made.cliKey, made.Key, err
}

func (r remoteMachines) keys(ctx context.Context) ([]cliKey, error) {
	var list struct {
		Results []cliKey `json:"results"`
	}
	err := r.call(ctx, http.MethodGet, "api-keys/", nil, &list)
	return list.Results, err
}

func (r remoteMachines) revokeKey(ctx context.Context, id uuid.UUID) error {
	return r.call(ctx, http.MethodDelete, "api-keys/"+id.String()+"/", nil, nil)
}

func (r remoteMachines) deny(ctx context.Context, tokenID, reason string) error {
	return r.call(ctx, http.MethodPost, "tokens/revoke/", map[string]string{"jti": tokenID, "reason": reason}, nil)
}
