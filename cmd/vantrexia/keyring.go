package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/vantrexia/vantrexia/keyring"
	"github.com/vantrexia/vantrexia/secretfile"
)

func keysCreateCommand() *cobra.Command {
	var keep bool
	create := &cobra.Command{
		Use:   "create",
		Short: "Make the keyring of a new installation",
		Long: `Writes a new keyring, with which the patients' data is encrypted in the database and in Temporal, into KEYRING_FILE
(.local/keyring.json). Only you can read the file. An existing one is never overwritten.

Every process of the installation needs this file. Without it nobody can read the data: keep a copy of it in another place than
the copies of the database, see "vantrexia keys escrow".`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig()
			if err != nil {
				return err
			}
			if keep && !missing(cfg.KeyringFile) {
				_, err := cfg.keyring()
				return err
			}
			if err := createKeyring(cfg.KeyringFile); err != nil {
				return fmt.Errorf("KEYRING_FILE: %w", err)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "keyring written to %s: make a copy of it with `vantrexia keys escrow`. "+
				"This is not recorded in the audit trail, which begins with `vantrexia migrate`\n", cfg.KeyringFile)
			return nil
		},
	}
	create.Flags().BoolVar(&keep, "keep", false, "end well when there is a keyring, if it can be read")
	return create
}

// createKeyring makes the keys of a new installation, and stores them in a new file.
func createKeyring(path string) error {
	content, err := keyring.Generate()
	if err != nil {
		return err
	}
	return writeNew(path, content)
}

func keysEscrowCommand() *cobra.Command {
	var out string
	var recipients []string
	escrow := &cobra.Command{
		Use:   "escrow",
		Short: "Write a copy of the keyring that only the holder of another key can open",
		Long: `Encrypts KEYRING_FILE with age (https://age-encryption.org) for one or more recipients, and writes it into a new file. Keep that in
another place than the copies of the database, and the recipients' private keys in a third. Write a new copy after each rotation.

To restore it: age --decrypt --identity KEY --output keyring.json COPY`,
		Example: "  vantrexia keys escrow --recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p --out keyring-2026-11.age",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig()
			if err != nil {
				return err
			}
			if len(recipients) == 0 || out == "" {
				return errors.New("say --recipient (what `age-keygen` prints as the public key) and --out (the file to write)")
			}
			if err := escrowKeyring(cfg, recipients, out); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "copy written to %s: keep it apart from the copies of the database\n", out)
			cfg.recordKeys(cmd.Context(), cmd.ErrOrStderr(), cfg.keysChanged("escrow"))
			return nil
		},
	}
	escrow.Flags().StringArrayVar(&recipients, "recipient", nil, "public key of age; may be given several times")
	escrow.Flags().StringVar(&out, "out", "", "file to write")
	return escrow
}

func escrowKeyring(cfg config, recipients []string, out string) error {
	to, err := age.ParseRecipients(strings.NewReader(strings.Join(recipients, "\n")))
	if err != nil {
		return fmt.Errorf("--recipient is no public key of age, as `age-keygen` prints it: %w", err)
	}
	content, err := readKeyring(cfg)
	if err != nil {
		return err
	}

	var sealed strings.Builder
	writer, err := age.Encrypt(&sealed, to...)
	if err != nil {
		return err
	}
	if _, err := writer.Write(content); err != nil {
		return err
	}
	if err := writer.Close(); err != nil {
		return err
	}
	return writeNew(out, []byte(sealed.String()))
}

// readKeyring returns the content of KEYRING_FILE, which is a keyring.
func readKeyring(cfg config) ([]byte, error) {
	if _, err := cfg.keyring(); err != nil {
		return nil, err
	}
	return secretfile.Read(cfg.KeyringFile)
}

// rotateAfter is a quarter of a year, after which keys shall be rotated, and some days to do it.
const rotateAfter = 100 * 24 * time.Hour

// warnOfOldKeys warns of keys that encrypt for longer than a quarter of a year.
func warnOfOldKeys(log *slog.Logger, keys *keyring.Keyring) {
	for _, key := range keys.Keys() {
		if key.InUse && key.Keyset != keyring.Audit && time.Since(key.UsedFrom) > rotateAfter {
			log.Warn("a key of the keyring is due to be rotated: run `vantrexia keys rotate`, as the runbook says",
				"keyset", key.Keyset, "key", key.ID, "in_use_since", key.UsedFrom)
		}
	}
}

// settleTime is how long after a rotation a new key is used: by then every process has read the file again.
const settleTime = 5 * keyring.RereadEvery

func keysRotateCommand() *cobra.Command {
	var after time.Duration
	var out string
	rotate := &cobra.Command{
		Use:   "rotate KEYSET...",
		Short: "Add a new key to keysets of the keyring",
		Long: `Adds a key to each of the keysets (columns, indexes, temporal, audit) in KEYRING_FILE. All processes read the file again every
minute. From --after on they encrypt with the new key, and those before it only decrypt: nothing stops, and nothing is lost when the
processes see the file at different times, as long as all have it by then.

Where KEYRING_FILE is mounted from a secret that cannot be written, use --out, and replace the secret with that file; choose --after so
that every process has it by then.

Then run "vantrexia keys reencrypt" and, days later, "vantrexia keys retire".`,
		Example: "  vantrexia keys rotate columns indexes temporal\n  vantrexia keys rotate columns --out keyring-new.json --after 2h",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("say which keysets are rotated: columns, indexes, temporal, audit")
			}
			for _, arg := range args {
				if err := checkKeyset(arg); err != nil {
					return err
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if after < settleTime && out == "" {
				return fmt.Errorf("--after %s is too short: processes read the file every minute, so say %s or more", after, settleTime)
			}
			cfg, err := loadConfig()
			if err != nil {
				return err
			}
			content, err := readKeyring(cfg)
			if err != nil {
				return err
			}

			from := time.Now().Add(after)
			var added []string
			for _, arg := range args {
				var id string
				if content, id, err = keyring.Rotate(content, keyring.Keyset(arg), from); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%-9s key %s encrypts from %s on\n", arg, id, from.UTC().Format(time.RFC3339))
				added = append(added, keyName(keyring.Keyset(arg), id))
			}
			if err := putKeyring(cmd.ErrOrStderr(), cfg, content, out); err != nil {
				return err
			}
			cfg.recordKeys(cmd.Context(), cmd.ErrOrStderr(), cfg.keysChanged("rotate", added...))
			return nil
		},
	}
	rotate.Flags().DurationVar(&after, "after", settleTime, "when the new keys are used")
	rotate.Flags().StringVar(&out, "out", "", "write the changed keyring into this new file, and leave KEYRING_FILE alone")
	return rotate
}

func checkKeyset(name string) error {
	for _, set := range keyring.Keysets() {
		if name == string(set) {
			return nil
		}
	}
	return fmt.Errorf("there is no keyset %q: it is columns, indexes, temporal or audit", name)
}

// putKeyring stores a changed keyring in the place of the old one, or in another file.
func putKeyring(say io.Writer, cfg config, content []byte, out string) error {
	if out != "" {
		if err := writeNew(out, content); err != nil {
			return err
		}
		fmt.Fprintf(say, "The changed keyring is in %s: replace the secret with it, and make a copy with `vantrexia keys escrow`.\n", out)
		return nil
	}
	if err := replaceFile(cfg.KeyringFile, content); err != nil {
		return fmt.Errorf("KEYRING_FILE cannot be replaced: %w: use --out where it is mounted from a secret", err)
	}
	fmt.Fprintf(say, "%s is changed: make a copy of it with `vantrexia keys escrow`.\n", cfg.KeyringFile)
	return nil
}

// replaceFile replaces a secret at once, so that no reader sees half of it. Owner and mode stay, and so does a
// symlink to it: others may have another path to the same file.
func replaceFile(path string, content []byte) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())

	_, err = file.Write(content)
	err = errors.Join(err, file.Chmod(info.Mode().Perm()), keepOwner(file, info), file.Sync(), file.Close())
	if err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

// keepOwner gives a file the owner and group of the one that it replaces.
func keepOwner(file *os.File, before fs.FileInfo) error {
	owner, ok := before.Sys().(*syscall.Stat_t)
	if !ok || int(owner.Uid) == os.Geteuid() && int(owner.Gid) == os.Getegid() {
		return nil
	}
	return file.Chown(int(owner.Uid), int(owner.Gid))
}
