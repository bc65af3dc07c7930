package devstack

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// TemporalConfig says how the Temporal server runs.
type TemporalConfig struct {
	// Binary is the path of temporaldev, built from tools/temporaldev.
	Binary string
	// Dir takes the server's log and, unless InMemory, its database. It is created when it is missing.
	Dir string
	// InMemory forgets everything at the end.
	InMemory bool
	// Port of the server and UIPort of the Web UI on 127.0.0.1; 0 picks a free one.
	Port, UIPort int
	// Codec is where the Web UI has payloads decoded; "" is nowhere.
	Codec string
	// Headless leaves the Web UI out.
	Headless bool
	// Namespaces are created when they are missing; the first is the one the Web UI opens with. None means
	// "default".
	Namespaces []string
	// SearchAttributes maps the name of each to its type ("Keyword", "Int", "Datetime", ...). Every namespace
	// has them.
	SearchAttributes map[string]string
	// DynamicConfig maps keys of the server's dynamic configuration to values.
	DynamicConfig map[string]any
	// Logger logs starts and stops. nil discards them.
	Logger *slog.Logger
}

// Temporal is a Temporal server that runs.
type Temporal struct {
	address string
	uiURL   string
	process *process
	logger  *slog.Logger
}

// StartTemporal starts the server and returns when it accepts work. The error is a *PortError when a port is
// taken. ctx bounds the start only; the caller must Stop the server.
func StartTemporal(ctx context.Context, cfg TemporalConfig) (*Temporal, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}

	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()

	t, err := startTemporal(ctx, cfg)
	// The server picks free ports for its internal services and opens them a moment later. Another process
	// may have taken one by then.
	for retries := 2; retries > 0 && err != nil && strings.Contains(err.Error(), syscall.EADDRINUSE.Error()); retries-- {
		t, err = startTemporal(ctx, cfg)
	}

	if err != nil {
		return nil, fmt.Errorf("Temporal: %w", err)
	}

	cfg.Logger.Debug("Temporal is ready", "address", t.address, "web_ui", t.uiURL)
	return t, nil
}

func startTemporal(ctx context.Context, cfg TemporalConfig) (*Temporal, error) {
	if _, err := os.Stat(cfg.Binary); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is missing: run `make bin/temporaldev`", cfg.Binary)
	}

	for _, port := range []int{cfg.Port, cfg.UIPort} {
		if err := checkPort(port); err != nil {
			return nil, err
		}
	}

	if err := makeDir(cfg.Dir); err != nil {
		return nil, err
	}

	args, err := temporalArgs(cfg)
	if err != nil {
		return nil, err
	}

	cmd := exec.Command(cfg.Binary, args...)
	// The server ends when its standard input ends. That happens when this process ends, also on systems
	// without a death signal.
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}

	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}

	child, err := startProcess(cmd, filepath.Join(cfg.Dir, "temporal.log"), os.O_TRUNC, syscall.SIGTERM)
	if err != nil {
		return nil, err
	}

	_ = stdin // stays open until the process has been waited for

	t := &Temporal{process: child, logger: cfg.Logger}
	line := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(stdout).ReadString('\n') // an end without a line is an empty line
		line <- text
	}()

	select {
	case text := <-line:
		if t.address, t.uiURL, err = parseReady(text); err == nil {
			return t, nil
		}
	case <-ctx.Done():
		err = fmt.Errorf("it does not get ready: %w", ctx.Err())
	}

	err = child.explain(err)
	_ = t.Stop()
	return nil, err
}

func temporalArgs(cfg TemporalConfig) ([]string, error) {
	args := []string{
		"server", "start-dev", "--exit-with-stdin",
		"--ip", loopback, "--port", strconv.Itoa(cfg.Port), "--ui-port", strconv.Itoa(cfg.UIPort),
	}
	if cfg.Headless {
		args = append(args, "--headless")
	}
	if cfg.Codec != "" {
		args = append(args, "--codec-endpoint", cfg.Codec)
	}
	if !cfg.InMemory {
		args = append(args, "--db-filename", filepath.Join(cfg.Dir, "temporal.db"))
	}

	for _, name := range cfg.Namespaces {
		args = append(args, "--namespace", name)
	}

	for name, kind := range cfg.SearchAttributes {
		args = append(args, "--search-attribute", name+"="+kind)
	}

	for key, value := range cfg.DynamicConfig {
		text, err := json.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("dynamic configuration %s: %w", key, err)
		}
		args = append(args, "--dynamic-config-value", key+"="+string(text))
	}

	return args, nil
}

// parseReady reads the line that temporaldev prints when it is ready:
// "ready address=127.0.0.1:7233 ui=http://127.0.0.1:8233", without the ui when it is headless.
func parseReady(line string) (address, uiURL string, err error) {
	fields := strings.Fields(line)
	if len(fields) == 0 || fields[0] != "ready" {
		return "", "", fmt.Errorf("the server ended while it started; its last words: %q", strings.TrimSpace(line))
	}

	for _, field := range fields[1:] {
		switch key, value, _ := strings.Cut(field, "="); key {
		case "address":
			address = value
		case "ui":
			uiURL = value
		}
	}

	return address, uiURL, nil
}

// Address is the host and port for client.Options.HostPort.
func (t *Temporal) Address() string { return t.address }

// UIURL is the address of the Web UI, or "" when there is none.
func (t *Temporal) UIURL() string { return t.uiURL }

// PID is the server's process id.
func (t *Temporal) PID() int { return t.process.cmd.Process.Pid }

// Done is closed when the server has ended, whether it was stopped or died.
func (t *Temporal) Done() <-chan struct{} { return t.process.done }

// Stop returns when the server has ended. It may be called twice.
func (t *Temporal) Stop() error {
	err := t.process.stop(stopStep{syscall.SIGTERM, 15 * time.Second})
	t.logger.Debug("Temporal has stopped")
	return err
}

// Kill ends the server as a crash would. Its database file keeps what was committed.
func (t *Temporal) Kill() error { return t.process.kill() }
