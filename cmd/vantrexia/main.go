// Command vantrexia carries home readings into eClinicalWorks. One binary holds every role; `vantrexia --help` lists them.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends us at once
	if err := rootCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "vantrexia:", err)
		os.Exit(1)
	}
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "vantrexia",
		Short: "Carries home readings into eClinicalWorks, durably and exactly once",
		Long: `Vantrexia carries blood pressures, weights and other home readings into the practice's EHR, eClinicalWorks (eCW), as
FHIR R4 Observations. Every reading is a Temporal workflow that goes on until eCW has acknowledged it.

Settings are environment variables; a file named .env in the working directory is read first. .env.example lists and
explains them all.`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.AddCommand(devCommand(), apiCommand(), workerCommand(), migrateCommand(), sandboxCommand(), simulateCommand(), tokenCommand(), keysCommand())
	return root
}
