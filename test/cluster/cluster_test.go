package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"github.com/vantrexia/vantrexia/devstack"
	"github.com/vantrexia/vantrexia/ecw/sandbox"
	"github.com/vantrexia/vantrexia/test/proof"
)

// readings are sent through the cluster while it is disturbed.
const readings = 1000

// perMinute is how many requests a minute the workers may send together. They could send more. The EHR allows
// a little more than that, by the same margin as eCW, and refuses the rest.
const (
	perMinute    = 500
	ehrPerMinute = perMinute * 250 / 240
)

// TestReplacedUnderLoad sends readings through both APIs while one worker and one API are stopped and started
// again, as in a deploy. Every reading must be in the EHR once.
func TestReplacedUnderLoad(t *testing.T) {
	if os.Getenv("TEST_CLUSTER") == "" {
		t.Skip("`make test-cluster` runs this: it takes minutes and the Temporal server as published")
	}

	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()

	c := startCluster(t)
	checkConnections(t, c)
	admin, err := c.vantrexia.Output(ctx, "token", "--role", "admin", "--ttl", "1h")
	if err != nil {
		t.Fatal(err)
	}

	devices, err := proof.NewDevices(ctx, admin, c.url("api-1"), c.url("api-2"))
	if err != nil {
		t.Fatal(err)
	}

	if err := replaceUnderLoad(ctx, c, devices); err != nil {
		t.Fatal(err)
	}

	t.Log("all readings are accepted; answers:", devices.Answers())
	asked := witnesses(t, c, admin)
	asked.Settled = func(context.Context) error {
		checkLoad(t, c)
		if err := c.replace(sandboxName, "SANDBOX_RATE_LIMIT=0"); err != nil { // for the verdict's searches
			return err
		}
		return awaitSandbox(ctx, c)
	}

	verdict, err := asked.Judge(ctx, devices)
	if err != nil {
		t.Fatal(err)
	}
	checkAttributes(t, c.postgres)
	checkAccounts(t, c)

	var table bytes.Buffer
	if err := verdict.Write(&table); err != nil {
		t.Fatal(err)
	}

	t.Logf("\n%s", &table)
	if !verdict.OK() || verdict.Delivered != readings {
		t.Errorf("%d readings were sent; not every one was delivered exactly once", readings)
	}
}

// awaitSandbox asks until the sandbox answers.
func awaitSandbox(ctx context.Context, c *cluster) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for proof.Call(ctx, http.MethodGet, c.url(sandboxName)+"/admin/stats", "", nil, nil) != nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// startCluster builds our binary and starts a cluster that ends with the test. Its logs are shown when the
// test fails.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	root, err := devstack.Root()
	if err != nil {
		t.Fatal(err)
	}

	binary := filepath.Join(t.TempDir(), "vantrexia")
	if said, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../cmd/vantrexia").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, said)
	}

	dir, err := newDirectory()
	if err != nil {
		t.Fatal(err)
	}

	c, err := start(t.Context(), config{
		root:   root,
		dir:    dir,
		binary: binary,
		settings: []string{
			fmt.Sprint("ECW_RATE_LIMIT=", perMinute), fmt.Sprint("SANDBOX_RATE_LIMIT=", ehrPerMinute),
		},
	})

	t.Cleanup(func() {
		if err := c.stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log("logs and data stay in", dir)
		} else if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// replaceUnderLoad sends all readings, twenty at a time, and replaces a worker and an API on the way.
func replaceUnderLoad(ctx context.Context, c *cluster, devices *proof.Devices) error {
	var sending, replacing errgroup.Group
	sending.SetLimit(20)
	for n := range readings {
		switch n {
		case readings / 4:
			replacing.Go(func() error { return c.replace("worker-1") })
		case readings / 2:
			replacing.Go(func() error { return c.replace("api-1") })
		}
		sending.Go(func() error {
			devices.Send(ctx, n)
			return ctx.Err()
		})
	}

	if err := sending.Wait(); err != nil {
		return err
	}
	return replacing.Wait()
}

func witnesses(t *testing.T, c *cluster, admin string) proof.Witnesses {
	t.Helper()
	ehr, err := c.vantrexia.EHR(c.address(sandboxName))
	if err != nil {
		t.Fatal(err)
	}

	caller, err := devstack.ClientTLS(c.certificates("admin"))
	if err != nil {
		t.Fatal(err)
	}
	temporal, err := client.DialContext(t.Context(), client.Options{
		HostPort:          c.address(temporalName),
		Namespace:         namespace,
		ConnectionOptions: client.ConnectionOptions{TLS: caller},
	})
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(temporal.Close)
	w := proof.Witnesses{
		Operator: proof.Operator{API: c.url("api-2"), Token: admin, Log: slog.New(slog.DiscardHandler)},
		Sandbox:  c.url(sandboxName),
		EHR:      ehr,
		Temporal: temporal,
	}
	for _, m := range c.members {
		w.Processes = append(w.Processes, c.vantrexia.LogFile(m.name))
	}

	return w
}

// checkLoad makes sure that the workers shared the work, and together kept to the limit.
func checkLoad(t *testing.T, c *cluster) {
	t.Helper()
	var stats sandbox.Stats
	if err := proof.Call(t.Context(), http.MethodGet, c.url(sandboxName)+"/admin/stats", "", nil, &stats); err != nil {
		t.Fatal(err)
	}

	if stats.Tokens.Issued < workers {
		t.Errorf("%d tokens were issued: fewer than %d workers have delivered", stats.Tokens.Issued, workers)
	}

	t.Logf("the EHR was asked: %v", stats.Requests)
	for route, answers := range stats.Requests {
		if refused := answers[strconv.Itoa(http.StatusTooManyRequests)]; refused > 0 {
			t.Errorf("%s: %d requests in excess of the limit", route, refused)
		}
	}
}
