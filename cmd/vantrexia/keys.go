package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/vantrexia/vantrexia/ecw"
)

func keysCommand() *cobra.Command {
	keys := &cobra.Command{
		Use:   "keys",
		Short: "Make and change the keys: those of stored data, and the one for eCW",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}

	var out, kid string
	generate := &cobra.Command{
		Use:   "generate",
		Short: "Write a new RSA private key and print the public JWKS",
		Long: `Writes a new 3072-bit RSA private key that only you can read. It never overwrites a file. It prints the JWKS that the API
publishes for the key at /.well-known/jwks.json.

Then set ECW_PRIVATE_KEY_FILE to the file, and ECW_KEY_ID to the kid. A key in backend/keys/private.pem is found without a
setting. Or set ECW_KEYS_DIR to the directory of a file that is named after its kid, such as vantrexia-ecw-key-1.pem: then
"vantrexia keys rotate-ecw" can replace the key while everything runs.`,
		Example: "  vantrexia keys generate --out ecw-2027.pem --kid vantrexia-ecw-key-2",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, err := generateKey(out, kid)
			if err != nil {
				return err
			}
			jwks, err := ecw.PublicJWKS(key)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "private key written to", out)
			fmt.Fprintln(cmd.OutOrStdout(), string(jwks))
			return nil
		},
	}

	generate.Flags().StringVar(&out, "out", ".local/ecw-private.pem", "file to write the private key to")
	generate.Flags().StringVar(&kid, "kid", "vantrexia-ecw-key-1", "id under which the public key is published")
	keys.AddCommand(generate, rotateECWCommand(), keysCreateCommand(), keysStatusCommand(), keysRotateCommand(),
		keysReencryptCommand(), keysRetireCommand(), keysEscrowCommand())
	return keys
}

// generateKey makes a key and stores it in a new file that only its owner can read.
func generateKey(path, kid string) (*ecw.Key, error) {
	key, err := ecw.GenerateKey(kid)
	if err != nil {
		return nil, err
	}
	pem, err := key.PEM()
	if err != nil {
		return nil, err
	}
	return key, writeNew(path, pem)
}

// writeNew writes a secret to a file that must not exist yet, mode 0600.
func writeNew(path string, secret []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}

	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists already and is never overwritten: move it away, or choose another file", path)
	}
	if err != nil {
		return err
	}

	_, err = file.Write(secret)
	return errors.Join(err, file.Sync(), file.Close())
}
