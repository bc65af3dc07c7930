package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vantrexia/vantrexia/health"
)

// probe returns the probe of a process with these parts. ctx ends when the process has to stop.
func (d dependencies) probe(ctx context.Context, p parts) *health.Probe {
	probe := &health.Probe{
		Store:         d.store,
		Temporal:      d.temporal,
		Logger:        d.log.With("component", "health"),
		TakesRequests: p.api,
	}
	if p.worker {
		probe.Worker = func() string {
			switch {
			case ctx.Err() != nil:
				return health.WorkerStopping
			case d.working.Load():
				return health.WorkerRunning
			default:
				return health.WorkerStarting
			}
		}
	}
	return probe
}

func healthCommand() *cobra.Command {
	var ready bool
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask the API or worker on this machine whether it runs, for a container's health check",
		Long: `Asks the process that listens on HEALTH_ADDRESS whether it runs. When HEALTH_ADDRESS is not set, it asks on API_ADDRESS.
With --ready it asks whether the process can do its work now. It prints the answer, and ends with 0 for yes or 1 for no.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig()
			if err != nil {
				return err
			}
			path := "/healthz"
			if ready {
				path = "/readyz"
			}
			url := cfg.apiURL()
			if cfg.HealthAddress != "" {
				url = localURL(cfg.HealthAddress)
			}
			return askHealth(cmd.Context(), cfg.localClient(), url+path, cmd.OutOrStdout())
		},
	}

	cmd.Flags().BoolVar(&ready, "ready", false, "ask whether it can do its work now, not only whether it runs")
	return cmd
}

func askHealth(ctx context.Context, client *http.Client, url string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}

	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("nothing answers: check that the process runs, and with the same HEALTH_ADDRESS or API_ADDRESS: %w", err)
	}
	defer res.Body.Close()

	answer, err := io.ReadAll(io.LimitReader(res.Body, 4<<10))
	if err != nil {
		return err
	}

	fmt.Fprintln(out, strings.TrimSpace(string(answer)))
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, res.Status)
	}
	return nil
}
