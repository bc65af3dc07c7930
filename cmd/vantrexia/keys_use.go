package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring"
	"github.com/vantrexia/vantrexia/worker"
)

// keyUsers are where keys of the keyring are used.
type keyUsers struct {
	cfg      config
	keys     *keyring.Keyring
	store    *db.Store
	temporal client.Client
}

func openKeyUsers(ctx context.Context) (u keyUsers, err error) {
	if u.cfg, err = loadConfig(); err != nil {
		return u, err
	}
	if u.keys, err = u.cfg.keyring(); err != nil {
		return u, err
	}
	if u.store, err = openMigrated(ctx, u.cfg); err != nil {
		return u, err
	}
	if u.temporal, err = newTemporalClient(u.cfg, u.keys); err != nil {
		u.store.Close()
	}
	return u, err
}

func (u keyUsers) close() {
	u.temporal.Close()
	u.store.Close()
}

func keysStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the keys, their age, and what still needs each",
		Long: `Lists the keys of KEYRING_FILE, and how many rows and workflows need each of them, and then the keys for eCW. It reads whole tables:
with a million readings that takes some seconds.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			u, err := openKeyUsers(cmd.Context())
			if err != nil {
				return err
			}
			defer u.close()
			return u.show(cmd.Context(), cmd.OutOrStdout())
		},
	}
}

func (u keyUsers) show(ctx context.Context, out io.Writer) error {
	uses, err := u.store.Uses(ctx)
	if err != nil {
		return err
	}

	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KEYSET\tKEY\tAGE\tSTATE\tNEEDED BY")
	for _, key := range u.keys.Keys() {
		needed, err := u.needed(ctx, key, uses)
		if err != nil {
			return err
		}
		if len(needed) == 0 {
			needed = []string{"nothing"}
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", key.Keyset, key.ID, since(key.CreatedAt), state(key), needed[0])
		for _, more := range needed[1:] {
			fmt.Fprintf(table, "\t\t\t\t%s\n", more)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, use := range uses {
		if use.Key != "" && !u.has(use) {
			fmt.Fprintf(out, "\n%d rows of %s.%s need the key %s of %s, which is not in the keyring: restore a copy that has it.\n",
				use.Rows, use.Table, use.Column, use.Key, use.Keyset)
		}
	}

	for _, use := range uses {
		if use.Key == "" && use.Rows > 0 {
			fmt.Fprintf(out, "\n%d rows of %s are in clear, from before they were encrypted: "+
				"a worker encrypts them, or `vantrexia keys reencrypt`.\n", use.Rows, use.Table)
		}
	}

	ecwKeys, err := u.cfg.ecwKeyStatus()
	if err != nil {
		fmt.Fprintf(out, "\nThe keys for eCW are not shown: %v\n", err)
		return nil
	}
	if len(ecwKeys) == 0 {
		return nil
	}
	fmt.Fprintln(out, "\nThe keys for eCW:")
	return showECWKeys(out, ecwKeys)
}

// has reports whether the keyring has the key that rows need.
func (u keyUsers) has(use db.Use) bool {
	return slices.ContainsFunc(u.keys.Keys(), func(k keyring.Key) bool { return k.Keyset == use.Keyset && k.ID == use.Key })
}

func since(from time.Time) string {
	if days := int(time.Since(from).Hours() / 24); days > 0 {
		return fmt.Sprintf("%d days", days)
	}
	return time.Since(from).Truncate(time.Minute).String()
}

func state(key keyring.Key) string {
	switch {
	case key.InUse:
		return "in use"
	case key.UsedFrom.After(time.Now()):
		return "in use from " + key.UsedFrom.Format(time.RFC3339) + " on"
	}
	return "old"
}

// needed lists what needs a key, for people.
func (u keyUsers) needed(ctx context.Context, key keyring.Key, uses []db.Use) (needed []string, err error) {
	for _, use := range uses {
		if use.Keyset == key.Keyset && use.Key == key.ID {
			needed = append(needed, fmt.Sprintf("%s.%s: %d rows", use.Table, use.Column, use.Rows))
		}
	}
	switch {
	case key.Keyset == keyring.Temporal && key.InUse:
		needed = append(needed, "new workflows")
	case key.Keyset == keyring.Temporal:
		n, err := u.workflowsOf(ctx, key)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			needed = append(needed, fmt.Sprintf("%d workflows, open or with a history that is kept", n))
		}
	}
	return needed, nil
}

// workflowsOf counts the workflows that may have payloads of an old key: those that began before every process
// used the next one.
func (u keyUsers) workflowsOf(ctx context.Context, key keyring.Key) (int64, error) {
	next := u.next(key)
	if next == nil {
		return 0, nil // it was never used
	}
	ctx, cancel := context.WithTimeout(ctx, temporalTimeout)
	defer cancel()

	counted, err := u.temporal.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{
		Query: "StartTime < '" + next.UsedFrom.Add(2*keyring.RereadEvery).UTC().Format(time.RFC3339) + "'",
	})
	if err != nil {
		return 0, temporalError(u.cfg, err)
	}
	return counted.Count, nil
}

// next returns the key that came into use after another; nil if none has.
func (u keyUsers) next(key keyring.Key) (next *keyring.Key) {
	for _, other := range u.keys.Keys() {
		isLater := other.Keyset == key.Keyset && other.UsedFrom.After(key.UsedFrom) && !other.UsedFrom.After(time.Now())
		if isLater && (next == nil || other.UsedFrom.Before(next.UsedFrom)) {
			next = &other
		}
	}
	return next
}

func keysReencryptCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reencrypt",
		Short: "Encrypt with the keys in use what older keys encrypted",
		Long: `Goes through all tables, some rows at a time, and encrypts anew what was not encrypted with the key in use; blind indexes get the hash
under the key in use. Everything else goes on meanwhile. It may be broken off (Ctrl-C) and started again: rows that are done are
skipped. The schedules in Temporal are written anew too. Workflows keep their key until their histories expire.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			u, err := openKeyUsers(cmd.Context())
			if err != nil {
				return err
			}
			defer u.close()

			if err := audit.RecordNow(cmd.Context(), u.store, u.cfg.keysChanged("reencrypt")); err != nil {
				return err
			}
			bar := progressbar.NewOptions64(-1, progressbar.OptionSetWriter(cmd.ErrOrStderr()), progressbar.OptionSetDescription("rows"),
				progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("rows"),
				progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
			changed, err := u.store.Reencrypt(cmd.Context(), func(done, total int64) {
				bar.ChangeMax64(total)
				_ = bar.Set64(done)
			})
			_ = bar.Exit()
			fmt.Fprintf(cmd.OutOrStdout(), "%d rows encrypted anew.\n", changed)
			if err != nil {
				return err
			}
			for _, key := range u.keys.Keys() {
				if key.UsedFrom.After(time.Now()) {
					fmt.Fprintf(cmd.OutOrStdout(), "The key %s of %s is not in use before %s: run this again then.\n",
						key.ID, key.Keyset, key.UsedFrom.Format(time.RFC3339))
				}
			}
			return u.rewriteSchedules(cmd.Context())
		},
	}
}

// rewriteSchedules writes the inputs of the schedules with the key in use.
func (u keyUsers) rewriteSchedules(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, temporalTimeout)
	defer cancel()
	if err := worker.EnsureSchedules(ctx, u.temporal, u.cfg.ECW.PracticeCode); err != nil {
		return temporalError(u.cfg, err)
	}
	return nil
}

func keysRetireCommand() *cobra.Command {
	var out string
	retire := &cobra.Command{
		Use:   "retire KEYSET KEY",
		Short: "Remove an old key that nothing needs any more",
		Long: `Removes a key from KEYRING_FILE, when no row, no open workflow and no history that is kept needs it; otherwise it says what does.
A key of the audit trail is needed as long as a row or a checkpoint bears it: for ever, if it was ever used.
"vantrexia keys status" lists the keys. Copies of the database that are older than the last "vantrexia keys reencrypt" need the key:
keep the copy of the keyring from before as long as them.`,
		Example: "  vantrexia keys retire columns 1a2b3c4d",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkKeyset(args[0]); err != nil {
				return err
			}
			u, err := openKeyUsers(cmd.Context())
			if err != nil {
				return err
			}
			defer u.close()

			set, id := keyring.Keyset(args[0]), args[1]
			if err := u.checkUnneeded(cmd.Context(), set, id); err != nil {
				return err
			}
			content, err := readKeyring(u.cfg)
			if err != nil {
				return err
			}
			if content, err = keyring.Retire(content, set, id); err != nil {
				return err
			}
			if err := audit.RecordNow(cmd.Context(), u.store, u.cfg.keysChanged("retire", keyName(set, id))); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%-9s key %s is removed\n", set, id)
			return putKeyring(cmd.ErrOrStderr(), u.cfg, content, out)
		},
	}
	retire.Flags().StringVar(&out, "out", "", "write the changed keyring into this new file, and leave KEYRING_FILE alone")
	return retire
}

// checkUnneeded returns an error when something needs a key, or may until all processes use the next one.
func (u keyUsers) checkUnneeded(ctx context.Context, set keyring.Keyset, id string) error {
	all := u.keys.Keys()
	at := slices.IndexFunc(all, func(k keyring.Key) bool { return k.Keyset == set && k.ID == id })
	if at < 0 {
		return fmt.Errorf("the keyset %q has no key %s: `vantrexia keys status` lists them", set, id)
	}
	key := all[at]

	next := u.next(key)
	switch {
	case key.InUse:
		return fmt.Errorf("the key %s is in use: rotate the keyset %q first", id, set)
	case key.UsedFrom.After(time.Now()):
		return fmt.Errorf("the key %s is about to be used: retire the one before it instead, later", id)
	case next != nil && time.Since(next.UsedFrom) < settleTime:
		return fmt.Errorf("a process may still use the key %s: try again after %s", id, next.UsedFrom.Add(settleTime).Format(time.RFC3339))
	}

	if set == keyring.Temporal {
		if err := u.rewriteSchedules(ctx); err != nil {
			return err
		}
	}
	uses, err := u.store.Uses(ctx)
	if err != nil {
		return err
	}
	needed, err := u.needed(ctx, key, uses)
	if err != nil {
		return err
	}
	if len(needed) > 0 {
		remedy := "run `vantrexia keys reencrypt` first"
		switch set {
		case keyring.Indexes:
			remedy += "; idempotency keys and failed sign-ins are deleted by themselves, after RETAIN_IDEMPOTENCY_KEYS"
		case keyring.Temporal:
			remedy = "try again when the histories have expired (RETAIN_HISTORIES)"
		case keyring.Audit:
			remedy = "keep it, for without it the audit trail cannot be verified"
		}
		return fmt.Errorf("the key %s is needed by %s: %s", id, strings.Join(needed, ", "), remedy)
	}
	return nil
}
