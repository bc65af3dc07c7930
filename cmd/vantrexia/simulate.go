package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/simulate"
)

func simulateCommand() *cobra.Command {
	var run simulate.Config
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Play the devices of the sample patients: send 602 real visits through the API",
		Long: `Sends the readings of 602 real, de-identified visits of 29 patients through the API, as a device gateway would, and waits
until each is delivered. The patients are those of the sandbox EHR; missing ones are created. Sending the same readings again
does no harm, because the API stores each once.

The caller is a provider: VANTREXIA_TOKEN, or a token that it signs with the API's secret.`,
		Example: "  vantrexia simulate --visits 50",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig()
			if err != nil {
				return err
			}
			if run.APIURL == "" {
				run.APIURL = cfg.apiURL()
			}
			if strings.TrimRight(run.APIURL, "/") == cfg.apiURL() {
				run.TLS = cfg.localTLS()
			}
			if run.Token = cfg.CommandToken; run.Token == "" {
				run.Token, err = cfg.signToken("simulate", account.Provider, account.MaxTokenLife)
				if err != nil {
					return fmt.Errorf("set VANTREXIA_TOKEN to a provider's token; %w", err)
				}
			}

			run.Progress = progressTo(os.Stderr)
			result, err := simulate.Run(cmd.Context(), run)
			if err == nil || result.Sent() > 0 {
				fmt.Fprintln(cmd.OutOrStdout(), result)
			}
			return err
		},
	}

	flags := cmd.Flags()
	flags.StringVar(&run.APIURL, "url", "", "the API's address (default: API_ADDRESS on this machine)")
	flags.IntVar(&run.Visits, "visits", 0, "how many of the 602 visits to send; 0 = all")
	flags.IntVar(&run.Parallel, "parallel", 8, "how many readings are sent at a time")
	flags.DurationVar(&run.Wait, "wait", 30*time.Minute, "how long to wait for the deliveries; 0 = not at all")
	return cmd
}

// progressTo returns where to draw the progress bar: the file if it is a terminal, otherwise nowhere, because
// the bar would fill a log.
func progressTo(file *os.File) io.Writer {
	if info, err := file.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return io.Discard
	}
	return file
}
