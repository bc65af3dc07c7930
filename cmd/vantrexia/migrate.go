package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func migrateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database schema and Temporal's search attributes up to date",
		Long: `Runs the migrations that DATABASE_URL lacks, under a lock, so that several may start together, and registers the search
attributes that the Temporal namespace lacks. Run it before an upgrade's first new process; running it again does nothing.`,
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
			added, err := registerSearchAttributes(cmd.Context(), temporal, cfg)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d search attributes registered; the namespace %q has them all.\n", len(added), cfg.TemporalNamespace)
			return nil
		},
	}
}
