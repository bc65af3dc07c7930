// Command vantrexia-kms keeps a keyring wrapped by a key management service: AWS KMS, Google Cloud KMS, or
// Vault's transit engine. An init container unwraps it once, into a volume in memory, where vantrexia reads it
// as KEYRING_FILE. It is a module of its own, so that the clouds' libraries are in no other binary.
//
// The keyring is encrypted with a new AES-256-GCM key, and that key by the service (Tink's KMS envelope): the
// service never sees the keyring, and its limit on sizes does not matter.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	vault "github.com/hashicorp/vault/api"
	"github.com/tink-crypto/tink-go-awskms/v3/integration/awskms"
	"github.com/tink-crypto/tink-go-gcpkms/v2/integration/gcpkms"
	"github.com/tink-crypto/tink-go-hcvault/v2/integration/hcvault"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/core/registry"
	"github.com/tink-crypto/tink-go/v2/tink"
)

const usage = `Wraps a keyring with a key of a key management service, or unwraps it.

  vantrexia-kms wrap   --key URI --in keyring.json    --out keyring.wrapped
  vantrexia-kms unwrap --key URI --in keyring.wrapped --out /run/keyring/keyring.json

The key is one of
  aws-kms://arn:aws:kms:REGION:ACCOUNT:key/ID           with AWS's usual environment, files or roles
  gcp-kms://projects/P/locations/L/keyRings/R/cryptoKeys/K   with Google's application default credentials
  hcvault://HOST:PORT/transit/keys/NAME                 with VAULT_TOKEN, and Vault's other variables

`

// timeout bounds the calls to the service.
const timeout = time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "vantrexia-kms:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var command string
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}

	flags := flag.NewFlagSet("vantrexia-kms", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	key := flags.String("key", os.Getenv("KEYRING_KMS_KEY"), "URI of the key; KEYRING_KMS_KEY is the default")
	in := flags.String("in", "", "file to read")
	out := flags.String("out", "", "file to write, readable for its owner alone")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *key == "" || *in == "" || *out == "" || flags.NArg() > 0 {
		return errors.New("say --key, --in and --out; vantrexia-kms --help explains them")
	}

	content, err := os.ReadFile(*in)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	envelope, err := newEnvelope(ctx, *key)
	if err != nil {
		return err
	}
	switch command {
	case "wrap":
		content, err = envelope.Encrypt(content, purpose)
	case "unwrap":
		content, err = envelope.Decrypt(content, purpose)
	default:
		return fmt.Errorf("unknown command %q: it is wrap or unwrap", command)
	}
	if err != nil {
		return fmt.Errorf("%s %s with %s: %w: check that this process may use the key, and that the file was wrapped with it",
			command, *in, *key, err)
	}
	return write(*out, content)
}

// purpose is the associated data: another file that was wrapped with the same key does not unwrap here.
var purpose = []byte("vantrexia keyring")

func newEnvelope(ctx context.Context, key string) (tink.AEAD, error) {
	client, err := newClient(ctx, key)
	if err != nil {
		return nil, err
	}
	remote, err := client.GetAEAD(key)
	if err != nil {
		return nil, err
	}
	return aead.NewKMSEnvelopeAEAD2(aead.AES256GCMKeyTemplate(), remote), nil
}

func newClient(ctx context.Context, key string) (registry.KMSClient, error) {
	switch {
	case strings.HasPrefix(key, "aws-kms://"):
		return awskms.NewClientWithOptions(ctx, key)
	case strings.HasPrefix(key, "gcp-kms://"):
		return gcpkms.NewClient(ctx, key)
	case strings.HasPrefix(key, "hcvault://"):
		return newVaultClient(key)
	}
	return nil, fmt.Errorf("the key %q begins with none of aws-kms://, gcp-kms://, hcvault://", key)
}

// newVaultClient takes the address from the key, and the rest, such as VAULT_TOKEN and VAULT_CACERT, from
// Vault's own variables.
func newVaultClient(key string) (registry.KMSClient, error) {
	config := vault.DefaultConfig()
	if config.Error != nil {
		return nil, config.Error
	}
	host, _, _ := strings.Cut(strings.TrimPrefix(key, "hcvault://"), "/")
	config.Address = "https://" + host
	client, err := vault.NewClient(config)
	if err != nil {
		return nil, err
	}
	if client.Token() == "" {
		return nil, errors.New("VAULT_TOKEN is not set: set it to a token that may use the key")
	}
	return hcvault.NewClientWithAEADOptions(key, client.Logical())
}

// write replaces a file at once, so that no reader sees half of it.
func write(path string, content []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".keyring-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())

	if _, err := file.Write(content); err != nil {
		file.Close()
		return err
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
