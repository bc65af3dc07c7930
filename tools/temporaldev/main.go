// Command temporaldev is a whole Temporal service in one process: the server, its SQLite store and the Web
// UI.
//
// It exists so that a laptop or a CI runner needs no Docker and no download to run the real server. It lives
// in a module of its own because the server brings some four hundred dependencies along, none of which belong
// in the program that talks to it. Its command line is the part of the Temporal CLI's "server start-dev" that
// the Go SDK's testsuite uses, so the binary also serves as testsuite.DevServerOptions.ExistingPath.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run serves until ctx ends and returns the process's exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	opts, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "temporaldev:", err)
		return 2
	}

	if opts.exitWithStdin {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		go func() {
			// Nothing is expected on it: only its end counts, which the kernel brings about however the
			// parent dies.
			_, _ = io.Copy(io.Discard, stdin)
			cancel()
		}()
	}

	if err := serve(ctx, opts, stdout); err != nil {
		fmt.Fprintln(stderr, "temporaldev:", err)
		return 1
	}
	return 0
}
