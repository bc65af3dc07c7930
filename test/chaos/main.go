// Command chaos checks that no reading is lost and none is sent twice. It runs the whole system as separate
// processes, with two APIs and two workers. While readings come in, it kills and stops the processes, and
// makes the sandbox EHR fail. In the end it waits until every reading is delivered or has failed, and
// compares what was accepted with the database and the EHR. `make chaos` runs it. CHAOS_SEED decides
// everything that it does; CHAOS_EHR chooses another kind of EHR.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/vantrexia/vantrexia/devstack"
)

// config chooses a run.
type config struct {
	Seed           uint64        `env:"CHAOS_SEED"`     // 0: a new one
	Duration       time.Duration `env:"CHAOS_DURATION"` // of the disturbances; settling comes on top
	Every          time.Duration `env:"CHAOS_EVERY"`    // a reading
	RateLimit      int           `env:"CHAOS_RATE_LIMIT"`
	EHR            string        `env:"CHAOS_EHR"` // its kind; "": as the seed has it
	Binary         string        `env:"CHAOS_BINARY"`
	TemporalBinary string        `env:"CHAOS_TEMPORAL"`
}

func (c config) check() error {
	if c.EHR != "" && !slices.Contains(ehrKinds(), c.EHR) {
		return fmt.Errorf("CHAOS_EHR %q is unknown: use one of %s", c.EHR, strings.Join(ehrKinds(), ", "))
	}
	return nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := runFromEnvironment(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func runFromEnvironment(ctx context.Context) error {
	cfg := config{
		Duration:       3 * time.Minute,
		Every:          300 * time.Millisecond,
		RateLimit:      240,
		Binary:         "bin/vantrexia",
		TemporalBinary: "bin/temporaldev",
	}
	if err := env.Parse(&cfg); err != nil {
		return err
	}

	if err := cfg.check(); err != nil {
		return err
	}

	if cfg.Seed == 0 {
		cfg.Seed = uint64(time.Now().UnixNano() % 1_000_000)
	}

	root, err := devstack.Root()
	if err != nil {
		return err
	}

	for _, path := range []*string{&cfg.Binary, &cfg.TemporalBinary} {
		if !filepath.IsAbs(*path) {
			*path = filepath.Join(root, *path)
		}
	}

	return run(ctx, cfg, os.Stdout)
}
