package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vantrexia/vantrexia/keyring"
)

func keysCreateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "create",
		Short: "Make the keyring of a new installation",
		Long: `Writes a new keyring, with which the patients' data is encrypted in the database and in Temporal, into KEYRING_FILE
(.local/keyring.json). Only you can read the file. An existing one is never overwritten.

Every process of the installation needs this file. Without it the data cannot be read by anybody: keep a copy of it in
another place than the copies of the database.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig()
			if err != nil {
				return err
			}
			if err := createKeyring(cfg.KeyringFile); err != nil {
				return fmt.Errorf("KEYRING_FILE: %w", err)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "keyring written to %s: keep a copy of it in a safe place\n", cfg.KeyringFile)
			return nil
		},
	}
}

// createKeyring makes the keys of a new installation, and stores them in a new file.
func createKeyring(path string) error {
	content, err := keyring.Generate()
	if err != nil {
		return err
	}
	return writeNew(path, content)
}
