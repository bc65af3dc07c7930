// Command cluster runs an installation as in production, without containers: PostgreSQL, a Temporal server
// with the files that docker-compose.yml mounts, its Web UI, two API processes, three workers, and the
// sandbox EHR. `make cluster` runs it until Ctrl-C, and deletes its data then. `make test-cluster` stops and
// replaces its processes under load.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"text/tabwriter"

	"github.com/vantrexia/vantrexia/devstack"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// run runs a cluster until ctx ends or one of its processes does. Its logs stay when something went wrong.
func run(ctx context.Context, out io.Writer) (err error) {
	root, err := devstack.Root()
	if err != nil {
		return err
	}

	dir, err := newDirectory()
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			err = os.RemoveAll(dir)
		}
	}()

	fmt.Fprintf(out, "Starting a cluster, logs and data in %s …\n", dir)
	c, err := start(ctx, config{root: root, dir: dir, binary: root + "/bin/vantrexia"})
	defer func() { err = errors.Join(err, c.stop()) }()

	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}

	if err := c.welcome(ctx, out); err != nil {
		return err
	}

	err = c.wait(ctx)
	fmt.Fprintln(out, "\nStopping …")
	return err
}

// newDirectory makes a directory that PostgreSQL can enter, because it may run in another account.
func newDirectory() (string, error) {
	dir, err := os.MkdirTemp("", "vantrexia-cluster-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o711)
}

// welcome prints the address of every part, and how to use them.
func (c *cluster) welcome(ctx context.Context, out io.Writer) error {
	token, err := c.vantrexia.Output(ctx, "token", "--role", "admin", "--ttl", "12h")
	if err != nil {
		return err
	}

	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, name := range apiNames() {
		fmt.Fprintf(w, "%s\t%s\n", name, c.url(name))
	}

	fmt.Fprintf(w, "%d workers\tlogs in %s\n", workers, c.vantrexia.LogFile("worker-*"))
	fmt.Fprintf(w, "sandbox EHR\t%s\n", c.url(sandboxName))
	fmt.Fprintf(w, "Temporal\t%s with a certificate of %s, Web UI %s\n", c.address(temporalName), c.certificates("admin"), c.url(uiName))
	fmt.Fprintf(w, "PostgreSQL\t%s, TLS with %s\n", c.address(postgresName), filepath.Join(c.certificates("postgres"), "ca.pem"))
	if err := w.Flush(); err != nil {
		return err
	}

	fmt.Fprintf(out, "\nSend readings of the sandbox's patients:\n\n  VANTREXIA_TOKEN=%s bin/vantrexia simulate --url %s\n\n",
		token, c.url(apiNames()[0]))

	fmt.Fprintln(out, "Ctrl-C stops the cluster and deletes its data.")
	return nil
}
