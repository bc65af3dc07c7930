package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/ecw/keydir"
)

const jwksPath = "/.well-known/jwks.json"

// rotationWait is twice as long as our JWKS may be kept (max-age=300), and longer than an assertion lives.
const rotationWait = 10 * time.Minute

func rotateECWCommand() *cobra.Command {
	var kid string
	var wait time.Duration
	var status bool
	command := &cobra.Command{
		Use:   "rotate-ecw",
		Short: "Replace the key for eCW while everything runs",
		Long: `Replaces the key with which we authenticate with eCW, in ECW_KEYS_DIR. No delivery fails and no process is restarted:

  1. It makes a new key and publishes it beside the one that signs.
  2. When nobody keeps a JWKS without the new key any more (--wait), it asks eCW for an access token with it.
  3. If eCW gives one, the new key signs from then on. If not, nothing changes.
  4. When no assertion of the former key is under way any more (--wait), that key is deleted.

Ctrl-C breaks nothing at any moment: run the command again, and it goes on where it was. It has to run as the account of the
processes, or as root, with their settings, and be able to write to the directory. With API_PUBLIC_URL it also looks whether
our public JWKS lists the new key.

Without ECW_KEYS_DIR it prints the steps, with the settings to change.`,
		Example: `  vantrexia keys rotate-ecw
  vantrexia keys rotate-ecw --status`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig()
			if err != nil {
				return err
			}
			keys, err := cfg.ecwKeyStatus()
			switch {
			case err != nil:
				return err
			case len(keys) == 0:
				return errors.New("ECW_APP_TYPE is confidential_client: it authenticates with a client secret, and has no key")
			case wait < 0:
				return fmt.Errorf("--wait %s is negative: use for example %s", wait, rotationWait)
			case status:
				return showECWKeys(cmd.OutOrStdout(), keys)
			case cfg.ECW.KeysDir == "":
				cfg.printRotation(cmd.OutOrStdout(), keydir.NextID(kid, keys), wait)
				return nil
			}
			if err := cfg.rotateECW(cmd.Context(), cmd.OutOrStdout(), kid, wait); err != nil {
				return err
			}
			cfg.recordKeys(cmd.Context(), cmd.ErrOrStderr(), cfg.keysChanged("rotate", cfg.signingKeyNames()...))
			return nil
		},
	}

	command.Flags().StringVar(&kid, "kid", "", "id of the new key (default: that of the present one, with the next number)")
	command.Flags().DurationVar(&wait, "wait", rotationWait, "how long the new key is published before it signs, and the former one after it")
	command.Flags().BoolVar(&status, "status", false, "only show the keys")
	return command
}

func (c config) rotateECW(ctx context.Context, out io.Writer, kid string, wait time.Duration) error {
	quiet := slog.New(slog.DiscardHandler)
	settings, err := c.ehrConfig(quiet, nil, ecwKeys{})
	if err != nil {
		return err
	}
	if c.ECW.ClientID == "" || c.ECW.PracticeCode == "" {
		return errors.New("ECW_CLIENT_ID and ECW_PRACTICE_CODE are needed to try the new key with eCW: set them as the processes have them")
	}

	rotation := keydir.Rotation{
		Dir:  c.ECW.KeysDir,
		KID:  kid,
		Wait: wait,
		Accepted: func(ctx context.Context, key *ecw.Key) error {
			settings.Key = key
			client, err := ecw.New(settings)
			if err != nil {
				return err
			}
			return client.Authenticate(ctx) // one request, which does not pass the gate: eCW's limit is above ours
		},
		Say: func(text string) { fmt.Fprintln(out, text) },
	}
	if c.PublicURL != "" {
		rotation.Served = func(ctx context.Context, key *ecw.Key) error {
			return isServed(ctx, strings.TrimRight(c.PublicURL, "/")+jwksPath, key)
		}
	}
	return rotation.Run(ctx)
}

// isServed returns an error unless the JWKS at the URL lists the key.
func isServed(ctx context.Context, url string, key *ecw.Key) error {
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()

	type public struct{ Kid, N, E string }
	type set struct{ Keys []public }
	var served, own set
	const most = 1 << 20
	if err := json.NewDecoder(io.LimitReader(res.Body, most)).Decode(&served); err != nil || res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers with the status %d, and no JWKS", url, res.StatusCode)
	}

	text, err := ecw.PublicJWKS(key)
	if err == nil {
		err = json.Unmarshal(text, &own)
	}
	if err == nil && !slices.Contains(served.Keys, own.Keys[0]) {
		err = fmt.Errorf("%s does not list %s", url, key.ID())
	}
	return err
}

func showECWKeys(out io.Writer, keys []keydir.Key) error {
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "KID\tSTATE\tSINCE\tBITS\tMADE")
	for _, key := range keys {
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\n", key.ID, key.State, dayOf(key.Since), key.Bits, dayOf(key.Made))
	}
	return table.Flush()
}

func dayOf(at time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return at.Format(time.RFC3339)
}

// printRotation prints what an operator has to do where processes cannot take up another key by themselves.
func (c config) printRotation(out io.Writer, next string, wait time.Duration) {
	signing, file := c.ECW.KeyID, c.ECW.PrivateKeyFile
	if c.ECW.PrivateKey != "" {
		file = "the file with the key that is in ECW_PRIVATE_KEY now"
	}

	if c.ECW.OtherKeyFile != "" {
		fmt.Fprintf(out, "ECW_OTHER_KEY_FILE is set: a rotation is under way. Go on with the step that comes next.\n\n")
	}
	fmt.Fprintf(out, `ECW_KEYS_DIR is not set, so the processes keep the keys that they started with. These are the steps by hand. No
request is refused, if you wait between them as they say.

1. Make the new key, and publish it beside the present one. Set for the API, and restart it:

     vantrexia keys generate --out next.pem --kid %[2]s

     ECW_OTHER_KEY_FILE=next.pem
     ECW_OTHER_KEY_ID=%[2]s

2. Wait %[4]s: until then eCW may keep the JWKS from before. %[5]s must list %[2]s.
3. Swap the keys. Set for the API and the workers, and restart them. Take ECW_PRIVATE_KEY out, if it is set:

     ECW_PRIVATE_KEY_FILE=next.pem
     ECW_KEY_ID=%[2]s
     ECW_OTHER_KEY_FILE=%[3]s
     ECW_OTHER_KEY_ID=%[1]s

4. Wait %[4]s: until then requests may be under way that %[1]s has signed.
5. Take ECW_OTHER_KEY_FILE and ECW_OTHER_KEY_ID out, restart both, and delete the former key.
`, signing, next, file, wait, strings.TrimRight(c.PublicURL, "/")+jwksPath)
}
