// Command vantrexia carries home readings into eClinicalWorks. One binary holds every role; `vantrexia
// --help` lists them.
package main

import (
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	stdlog.SetFlags(0)
	stdlog.SetOutput(libraryLog{os.Stderr})
	ctx := stopOnSignal()
	err := rootCommand().ExecuteContext(ctx)
	switch {
	case err == nil:
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "vantrexia: interrupted")
		os.Exit(exitInterrupted)
	default:
		fmt.Fprintln(os.Stderr, "vantrexia:", err)
		os.Exit(exitOf(err))
	}
}

// withExitCode is an error after which the process ends with a code of its own.
type withExitCode struct {
	error
	code int
}

func (e *withExitCode) Unwrap() error { return e.error }

// withExit gives an error an exit code; nil remains nil.
func withExit(code int, err error) error {
	if err == nil {
		return nil
	}
	return &withExitCode{err, code}
}

// exitOf is 1 unless the error says otherwise.
func exitOf(err error) int {
	var coded *withExitCode
	if errors.As(err, &coded) {
		return coded.code
	}
	return 1
}

// stopOnSignal returns a context that ends with the first signal. The second signal ends the process by
// os.Exit: the default effect of a signal would not do, because the kernel ignores it for the first process
// of a container.
func stopOnSignal() context.Context {
	ctx, stop := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, stopSignals()...)
	go func() {
		<-signals
		stop()
		<-signals
		os.Exit(exitInterrupted)
	}()
	return ctx
}

// exitInterrupted is what shells report for a command that Ctrl-C ended.
const exitInterrupted = 130

// stopSignals lists the signals that ask for an orderly stop. SIGHUP, from a closed terminal, is one unless
// nohup ignores it.
func stopSignals() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "vantrexia",
		Short: "Carries home readings into eClinicalWorks, durably and exactly once",
		Long: `Vantrexia carries blood pressures, weights and other home readings into the practice's EHR, eClinicalWorks (eCW), as
FHIR R4 Observations. Each reading has a Temporal workflow, which goes on until eCW has acknowledged it.

Settings are environment variables; a file named .env in the working directory is read first. .env.example lists and
explains them all.`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}

	root.AddCommand(
		devCommand(), apiCommand(), workerCommand(), serveCommand(), healthCommand(), migrateCommand(), sandboxCommand(),
		simulateCommand(), tokenCommand(), keysCommand(), certsCommand(), usersCommand(), apiKeysCommand(), codecCommand(),
		auditCommand(), versionCommand(),
	)
	return root
}
