// Command temporaldev is a whole Temporal service in one process: the server, its SQLite store and the Web
// UI.
//
// With it, a laptop or a CI runner needs no Docker and no download to run the real server. It is a module of
// its own, because the server has some four hundred dependencies, which the program that talks to it must not
// get. Its command line is the part of the Temporal CLI's "server start-dev" that the Go SDK's testsuite
// uses, so the binary also serves as testsuite.DevServerOptions.ExistingPath.
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
			// Nothing is expected on it. Only its end counts: the kernel closes it however the parent dies.
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
