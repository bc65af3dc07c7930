package main

import (
	"cmp"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vantrexia/vantrexia/worker"
)

func migrateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database schema and Temporal's namespace up to date",
		Long: `Runs the migrations that DATABASE_URL lacks, under a lock, so that several may start together, creates TEMPORAL_NAMESPACE
when the server does not have it, has it keep histories for RETAIN_HISTORIES if that is set, and registers the search
attributes that it lacks. Run it before an upgrade's first new process; running it again does nothing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig()
			if err != nil {
				return err
			}
			store, err := openStore(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			defer store.Close()
			count, err := store.Migrate(cmd.Context())
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d migrations run; the schema is up to date.\n", count)
			temporal, err := newTemporalClient(cfg)
			if err != nil {
				return err
			}
			defer temporal.Close()
			created, added, err := prepareNamespace(cmd.Context(), temporal, cfg)
			if err != nil {
				return err
			}
			if created {
				fmt.Fprintf(cmd.OutOrStdout(), "The namespace %q is created.\n", cfg.TemporalNamespace)
			}
			if created || cfg.Retain.Histories != 0 {
				kept := cmp.Or(cfg.Retain.Histories, worker.Retention)
				fmt.Fprintf(cmd.OutOrStdout(), "The namespace %q keeps the history of ended workflows for %.0f hours.\n",
					cfg.TemporalNamespace, kept.Hours())
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d search attributes registered; the namespace %q has them all.\n", len(added), cfg.TemporalNamespace)
			return nil
		},
	}
}
