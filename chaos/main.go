// Command chaos proves that no reading is lost and none is sent twice: it runs the whole system as separate processes,
// kills them with SIGKILL and lets the sandbox EHR fail while readings come in, and in the end compares what was accepted
// with what the database says and what the EHR holds. `make chaos` runs it; everything it does is derived from CHAOS_SEED.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/vantrexia/vantrexia/devstack"
)

// config is how a run is chosen.
type config struct {
	Seed           uint64        `env:"CHAOS_SEED"`     // 0: a new one
	Duration       time.Duration `env:"CHAOS_DURATION"` // of the disturbances; settling comes on top
	Every          time.Duration `env:"CHAOS_EVERY"`    // a reading
	Binary         string        `env:"CHAOS_BINARY"`
	TemporalBinary string        `env:"CHAOS_TEMPORAL"`
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
	cfg := config{Duration: 3 * time.Minute, Every: 300 * time.Millisecond, Binary: "bin/vantrexia", TemporalBinary: "bin/temporaldev"}
	if err := env.Parse(&cfg); err != nil {
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

// errBroken means that a promise was broken; the table says which.
var errBroken = errors.New("not every reading was delivered exactly once")

// run runs one plan to its verdict. The directory with all logs and data is removed when the verdict is good.
func run(ctx context.Context, cfg config, out io.Writer) error {
	dir, err := os.MkdirTemp("", "vantrexia-chaos-")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o711); err != nil { // PostgreSQL may run in another account than ours
		return err
	}
	fmt.Fprintf(out, "CHAOS_SEED=%d CHAOS_DURATION=%s, logs and data in %s\n", cfg.Seed, cfg.Duration, dir)
	log := slog.New(slog.NewTextHandler(out, nil))
	v, err := runIn(ctx, cfg, dir, log)
	if err != nil {
		return err
	}
	if err := v.write(out); err != nil {
		return err
	}
	if !v.ok() {
		return fmt.Errorf("%w; again with CHAOS_SEED=%d CHAOS_DURATION=%s, look into %s", errBroken, cfg.Seed, cfg.Duration, dir)
	}
	return os.RemoveAll(dir)
}

// What a start and an end of the disturbances may take at most; seconds and a minute are usual.
const (
	startTimeout  = 3 * time.Minute
	settleTimeout = 5 * time.Minute
)

func runIn(ctx context.Context, cfg config, dir string, log *slog.Logger) (v verdict, err error) {
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s, err := startSystem(starting, cfg, dir, log)
	stop := func() { v.Problems = append(v.Problems, s.stop()...) }
	defer stop()
	if err != nil {
		return v, err
	}
	token, err := s.command(starting, "token", "--role", "admin", "--ttl", "24h")
	if err != nil {
		return v, err
	}
	g, err := newGateway(starting, s.url(apiPart), token)
	if err != nil {
		return v, err
	}

	fed := make(chan struct{})
	bounded, cancel := context.WithTimeout(ctx, cfg.Duration+settleTimeout)
	defer cancel()
	go func() {
		defer close(fed)
		g.feed(bounded, cfg.Duration, cfg.Every)
	}()
	o := operator{api: s.url(apiPart), token: token, log: log}
	disturbed, healed := context.WithCancel(bounded)
	defer healed()
	go o.sweepOften(disturbed)
	s.disturb(bounded, plan(cfg.Seed, cfg.Duration))
	if err := s.heal(bounded); err != nil {
		return v, err
	}
	healed()
	<-fed
	log.Info("all readings are accepted", "answers", g.answers)
	e, err := gather(bounded, s, g, o)
	return judge(e), err
}

// disturb does what the plan says, when it says so.
func (s *system) disturb(ctx context.Context, events []event) {
	began := time.Now()
	for _, e := range events {
		pause(ctx, e.At-time.Since(began))
		if ctx.Err() != nil {
			return
		}
		s.log.Info(e.String())
		if e.Fault == nil {
			s.parts[e.Kill].kill(e.Down)
		} else if err := s.addFault(ctx, *e.Fault); err != nil {
			s.log.Error("fault not set", "error", err)
		}
	}
}

// heal ends every fault and returns when everything runs.
func (s *system) heal(ctx context.Context) error {
	if err := s.clearFaults(ctx); err != nil {
		return fmt.Errorf("end the faults: %w", err)
	}
	return s.awaitReady(ctx)
}
