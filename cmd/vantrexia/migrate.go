package main

import (
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/keyring"
	"github.com/vantrexia/vantrexia/worker"
)

func migrateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database schema and Temporal's namespace up to date",
		Long: `Runs the migrations that the database lacks, creates TEMPORAL_NAMESPACE if Temporal does not have it, has it keep
histories for RETAIN_HISTORIES if that is set, and registers the search attributes that the namespace lacks. Run it in an
upgrade, before the first new process starts. Running it again changes nothing. Several may run at the same time: a lock lets
one after the other migrate.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig()
			if err != nil {
				return err
			}
			keys, err := cfg.keyring()
			if err != nil {
				return err
			}
			if err := migrateDatabase(cmd.Context(), cfg, keys, cmd.OutOrStdout()); err != nil {
				return err
			}
			return migrateTemporal(cmd.Context(), cfg, keys, cmd.OutOrStdout())
		},
	}
}

func migrateDatabase(ctx context.Context, cfg config, keys *keyring.Keyring, out io.Writer) error {
	store, err := openStore(ctx, cfg, keys)
	if err != nil {
		return err
	}
	defer store.Close()

	count, err := store.Migrate(ctx)
	if err != nil {
		return err
	}

	if count > 0 {
		migrated := cfg.byOperator(audit.SchemaMigrate, fmt.Sprintf("%d migrations", count))
		if err := audit.RecordNow(ctx, store, migrated); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "%d migrations run; the schema is up to date.\n", count)
	return nil
}

func migrateTemporal(ctx context.Context, cfg config, keys *keyring.Keyring, out io.Writer) error {
	temporal, err := newTemporalClient(cfg, keys)
	if err != nil {
		return err
	}
	defer temporal.Close()

	created, added, err := prepareNamespace(ctx, temporal, cfg)
	if err != nil {
		return err
	}

	if created {
		fmt.Fprintf(out, "The namespace %q is created.\n", cfg.TemporalNamespace)
	}
	if created || cfg.Retain.Histories != 0 {
		fmt.Fprintf(out, "The namespace %q keeps the history of ended workflows for %.0f hours.\n",
			cfg.TemporalNamespace, cmp.Or(cfg.Retain.Histories, worker.Retention).Hours())
	}
	fmt.Fprintf(out, "%d search attributes registered; the namespace %q has them all.\n", len(added), cfg.TemporalNamespace)
	return nil
}
