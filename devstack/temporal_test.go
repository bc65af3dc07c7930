package devstack_test

import (
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	sdktemporal "go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/vantrexia/vantrexia/devstack"
)

func temporaldev() (string, error) {
	root, err := devstack.Root()
	return filepath.Join(root, "bin", "temporaldev"), err
}

func temporal(t *testing.T, cfg devstack.TemporalConfig) *devstack.Temporal {
	t.Helper()
	var err error
	if cfg.Binary, err = temporaldev(); err != nil {
		t.Fatal(err)
	}
	server, err := devstack.StartTemporal(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	return server
}

func TestTemporalKeepsItsStateOverACrash(t *testing.T) {
	t.Parallel()
	cfg := devstack.TemporalConfig{
		Dir:              tempDir(t),
		Namespaces:       []string{"vantrexia"},
		SearchAttributes: map[string]string{"Practice": "Keyword"},
		DynamicConfig:    map[string]any{"frontend.WorkflowTimeSkippingEnabled": true},
	}

	server := temporal(t, cfg)
	if !answers(strings.TrimPrefix(server.UIURL(), "http://")) {
		t.Errorf("no Web UI on %q", server.UIURL())
	}

	ctx := t.Context()
	c, err := client.DialContext(ctx, client.Options{HostPort: server.Address(), Namespace: "vantrexia"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{TaskQueue: "transmissions"}, "Transmission")
	if err != nil {
		t.Fatal(err)
	}

	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}

	server = temporal(t, cfg)
	again, err := client.DialContext(ctx, client.Options{HostPort: server.Address(), Namespace: "vantrexia"})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()

	if _, err := again.DescribeWorkflowExecution(ctx, run.GetID(), run.GetRunID()); err != nil {
		t.Errorf("the workflow started before the crash: %v", err)
	}
}

func TestTemporalNamesATakenPort(t *testing.T) {
	t.Parallel()
	binary, err := temporaldev()
	if err != nil {
		t.Fatal(err)
	}
	port := takePort(t)
	_, err = devstack.StartTemporal(t.Context(), devstack.TemporalConfig{Binary: binary, Dir: tempDir(t), Port: port})
	checkPortError(t, err, port)
	_, err = devstack.StartTemporal(t.Context(), devstack.TemporalConfig{Binary: binary, Dir: tempDir(t), UIPort: port})
	checkPortError(t, err, port)
}

func TestTemporalSaysHowToBuildIt(t *testing.T) {
	t.Parallel()
	_, err := devstack.StartTemporal(t.Context(), devstack.TemporalConfig{Binary: filepath.Join(tempDir(t), "bin", "temporaldev"), Dir: tempDir(t)})
	if err == nil || !strings.Contains(err.Error(), "run `make bin/temporaldev`") {
		t.Errorf("error is %v", err)
	}
}

func TestTemporalSaysWhyItEnded(t *testing.T) {
	t.Parallel()
	binary, err := temporaldev()
	if err != nil {
		t.Fatal(err)
	}
	_, err = devstack.StartTemporal(t.Context(), devstack.TemporalConfig{
		Binary: binary, Dir: tempDir(t), SearchAttributes: map[string]string{"Practice": "String"},
	})
	if err == nil || !strings.Contains(err.Error(), `"String" is none of`) {
		t.Errorf("error is %v", err)
	}
}

// The SDK starts a server with the Temporal CLI's command line, so temporaldev must understand it.
func TestTemporaldevServesTheSDKsTestsuite(t *testing.T) {
	t.Parallel()
	binary, err := temporaldev()
	if err != nil {
		t.Fatal(err)
	}

	practice := sdktemporal.NewSearchAttributeKeyKeyword("Practice")
	server, err := testsuite.StartDevServer(t.Context(), testsuite.DevServerOptions{
		ExistingPath:     binary,
		ClientOptions:    &client.Options{Namespace: "vantrexia"},
		DBFilename:       filepath.Join(tempDir(t), "temporal.db"),
		EnableUI:         true,
		LogFormat:        "pretty",
		LogLevel:         "warn",
		SearchAttributes: sdktemporal.NewSearchAttributes(practice.ValueSet("")),
	})
	if err != nil {
		t.Fatal(err)
	}

	if err := server.Stop(); err != nil {
		t.Error(err)
	}
}

func TestServersAreOutOfReachOfCtrlC(t *testing.T) {
	t.Parallel()
	p := postgres(t, tempDir(t))
	group, err := syscall.Getpgid(p.ProcessID())
	if err != nil {
		t.Fatal(err)
	}
	if group == syscall.Getpgrp() {
		t.Error("PostgreSQL is in our process group: a Ctrl-C would stop it before the processes that use it")
	}
}

func answers(address string) bool {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}
