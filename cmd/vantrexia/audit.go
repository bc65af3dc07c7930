package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring"
)

func auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Verify the audit trail, and show the keys of its checkpoints",
		Long: `Verifies the audit trail, which says who has done what to whose data. GET /api/v1/audit/ searches it, and
GET /api/v1/audit/export/ makes files of it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(auditVerifyCommand(), auditKeyCommand())
	return cmd
}

// The exit codes of `vantrexia audit verify`.
const (
	exitFound     = 1
	exitUnchecked = 2
)

func auditVerifyCommand() *cobra.Command {
	var files []string
	var practice string
	verify := &cobra.Command{
		Use:   "verify",
		Short: "Check that no row of the audit trail was changed, removed or added",
		Long: `Checks each row's code and its place in its writer's chain, each sealed row's digest, and the log of the seals at every checkpoint.
It names each row that is not as it was written, one a line, and ends with 0 when there is none, with 1 when it has found something,
and with 2 when it could not check. It reads the whole trail and changes nothing but to add a row that says what came of it; everything
else goes on meanwhile.

Give the file to which processes append checkpoints (AUDIT_CHECKPOINTS_FILE), or a copy of it from another machine: without, somebody
who can write to the database and has a copy of the keyring could have made all of the trail anew.

What cannot be proved: the last rows of a process that died before it had sealed them, a minute's at most, may be removed together.`,
		Example: `  vantrexia audit verify --checkpoints /var/lib/vantrexia/audit-checkpoints
  vantrexia audit verify --checkpoints api.txt --checkpoints worker.txt`,
		Args: func(cmd *cobra.Command, args []string) error { return withExit(exitUnchecked, cobra.NoArgs(cmd, args)) },
		RunE: func(cmd *cobra.Command, _ []string) error {
			found, err := verifyAudit(cmd.Context(), cmd.OutOrStdout(), practice, files)
			if found > 0 { // also when that could not be recorded
				return withExit(exitFound, fmt.Errorf("the audit trail is not as it was written: %d findings; docs/operations.md says what to do", found))
			}
			return withExit(exitUnchecked, err)
		},
	}
	verify.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return withExit(exitUnchecked, err) })
	verify.Flags().StringArrayVar(&files, "checkpoints", nil, "a file with checkpoints from outside of the database; may be repeated")
	definePractice(verify, &practice)
	return verify
}

func definePractice(cmd *cobra.Command, practice *string) {
	cmd.Flags().StringVar(practice, "practice", "", "the practice's code (default: ECW_PRACTICE_CODE)")
}

// auditConfig reads the settings. A practice that is named wins over that of the settings.
func auditConfig(practice string) (config, error) {
	cfg, err := loadConfig()
	if err != nil {
		return cfg, err
	}
	cfg.ECW.PracticeCode = cmp.Or(practice, cfg.ECW.PracticeCode)
	if cfg.ECW.PracticeCode == "" {
		return cfg, errors.New("ECW_PRACTICE_CODE is not set: set it to the code of the practice, or use --practice")
	}
	return cfg, nil
}

// verifyAudit prints what it looked at and what it found, and returns how much that is.
func verifyAudit(ctx context.Context, out io.Writer, practice string, files []string) (found int, err error) {
	cfg, err := auditConfig(practice)
	if err != nil {
		return 0, err
	}
	outside, err := readCheckpoints(files)
	if err != nil {
		return 0, err
	}
	keys, err := cfg.keyring()
	if err != nil {
		return 0, err
	}
	store, err := openMigrated(ctx, cfg)
	if err != nil {
		return 0, err
	}
	defer store.Close()

	report, err := audit.Verify(ctx, store, keys, cfg.ECW.PracticeCode, outside)
	if err != nil {
		return 0, err
	}
	showReport(out, report)
	return len(report.Findings), cfg.recordVerification(ctx, store, report)
}

func readCheckpoints(files []string) (all []string, err error) {
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		found := audit.ReadCheckpoints(string(content))
		if len(found) == 0 {
			return nil, fmt.Errorf("%s holds no checkpoint: give the file that AUDIT_CHECKPOINTS_FILE names, or a copy of it", file)
		}
		all = append(all, found...)
	}
	return all, nil
}

// lateSeal is how old a row may be that is not sealed, while processes run.
const lateSeal = 5 * time.Minute

func showReport(out io.Writer, r audit.Report) {
	for _, finding := range r.Findings {
		fmt.Fprintln(out, finding)
	}
	if len(r.Findings) > 0 {
		fmt.Fprintln(out)
	}

	fmt.Fprintf(out, "Rows:         %d, of which %d are sealed, in %d seals\n", r.Rows, r.Sealed, r.Leaves)
	fmt.Fprintf(out, "Checkpoints:  %d compared, of which %d are from outside of the database\n", r.Checkpoints, r.Outside)
	if !r.PrunedBefore.IsZero() {
		fmt.Fprintf(out, "Pruned:       what was before %s, as the trail itself says\n", r.PrunedBefore.Format(time.DateOnly))
	}
	fmt.Fprintf(out, "Findings:     %d\n", len(r.Findings))

	if !r.OldestUnsealed.IsZero() && time.Since(r.OldestUnsealed) > lateSeal {
		fmt.Fprintf(out, "\nThe row of %s is not sealed yet: a process that runs seals every minute, and its log says why it cannot.\n",
			r.OldestUnsealed.UTC().Format(time.RFC3339))
	}
	if r.Outside == 0 {
		fmt.Fprint(out, "\nNo checkpoint from outside of the database was given (--checkpoints), so a trail that was made anew as a whole, with a copy\n"+
			"of the keyring, would not show.\n")
	}
}

// recordVerification adds a row to the trail: who has verified it, and what came of it.
func (c config) recordVerification(ctx context.Context, store *db.Store, r audit.Report) error {
	event := c.byOperator(audit.AuditVerify, "")
	if n := len(r.Findings); n > 0 {
		event.Outcome, event.Reason = audit.Failure, fmt.Sprintf("%d findings", n)
	}
	return audit.RecordNow(ctx, store, event)
}

func auditKeyCommand() *cobra.Command {
	var practice string
	key := &cobra.Command{
		Use:   "key",
		Short: "Print the public keys that verify checkpoints",
		Long: `Prints the public keys of the checkpoints of the audit trail, one a line, the newest last, in the form of golang.org/x/mod/sumdb/note.
They are no secret. Give them to whoever keeps copies of the checkpoints: who has them can check, without us, that we have signed a
checkpoint. They follow from the keyring (KEYRING_FILE); a rotation of its keyset audit adds one.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := auditConfig(practice)
			if err != nil {
				return err
			}
			keys, err := cfg.keyring()
			if err != nil {
				return err
			}
			return printVerifierKeys(cmd.OutOrStdout(), keys, cfg.ECW.PracticeCode)
		},
	}
	definePractice(key, &practice)
	return key
}

func printVerifierKeys(out io.Writer, keys *keyring.Keyring, practice string) error {
	list, err := audit.VerifierKeys(keys, practice)
	if err != nil {
		return err
	}
	for _, key := range list {
		fmt.Fprintln(out, key)
	}
	return nil
}
