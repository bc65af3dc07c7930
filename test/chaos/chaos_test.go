package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/vantrexia/vantrexia/devstack"
)

// TestNothingLostNothingTwice does for 20 seconds what `make chaos` does for minutes. CHAOS_SEED,
// CHAOS_DURATION and CHAOS_EHR choose another run.
func TestNothingLostNothingTwice(t *testing.T) {
	t.Parallel()
	root, err := devstack.Root()
	if err != nil {
		t.Fatal(err)
	}

	cfg := config{
		Seed:      1,
		Duration:  20 * time.Second,
		Every:     300 * time.Millisecond,
		RateLimit: 100,
	}
	if err := env.Parse(&cfg); err != nil {
		t.Fatal(err)
	}

	if err := cfg.check(); err != nil {
		t.Fatal(err)
	}

	cfg.Binary = filepath.Join(t.TempDir(), "vantrexia")
	cfg.TemporalBinary = filepath.Join(root, "bin", "temporaldev")
	if said, err := exec.CommandContext(t.Context(), "go", "build", "-o", cfg.Binary, "../../cmd/vantrexia").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, said)
	}

	var said bytes.Buffer
	if err := run(t.Context(), cfg, &said); err != nil {
		t.Errorf("%v\n%s", err, &said)
	}

	if testing.Verbose() {
		_, _ = said.WriteTo(os.Stderr)
	}
}
