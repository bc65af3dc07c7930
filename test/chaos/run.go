package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/test/proof"
)

// errBroken means that a promise was broken. The table shows which.
var errBroken = errors.New("not every reading was delivered exactly once")

// run runs the plan of cfg to its verdict. When the verdict is bad, the directory with all logs and data
// stays.
func run(ctx context.Context, cfg config, out io.Writer) error {
	dir, err := os.MkdirTemp("", "vantrexia-chaos-")
	if err != nil {
		return err
	}

	if err := os.Chmod(dir, 0o711); err != nil { // PostgreSQL may run in another account than ours
		return err
	}

	p := newPlan(cfg.Seed, cfg.Duration, cfg.EHR)
	chosen := fmt.Sprintf("CHAOS_SEED=%d CHAOS_DURATION=%s CHAOS_EHR=%s", cfg.Seed, cfg.Duration, p.EHR.Kind)
	fmt.Fprintf(out, "%s, logs and data in %s\n", chosen, dir)
	v, err := runIn(ctx, cfg, p, dir, slog.New(slog.NewTextHandler(out, nil)))
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), os.RemoveAll(dir))
	}
	if err == nil {
		err = v.Write(out)
	}
	if err == nil && !v.OK() {
		err = errBroken
	}
	if err != nil {
		return fmt.Errorf("%w; again with %s, look into %s", err, chosen, dir)
	}
	return os.RemoveAll(dir)
}

// The longest times for the start, which usually takes seconds, and for everything after the disturbances,
// which usually takes a minute or two.
const (
	startTimeout = 3 * time.Minute
	endTimeout   = 15 * time.Minute
)

// runIn starts the system, disturbs it, and judges the result. When it returns, everything that it started
// has ended.
func runIn(ctx context.Context, cfg config, p plan, dir string, log *slog.Logger) (v proof.Verdict, err error) {
	log.Info("the EHR of this run", "kind", p.EHR.String(), "limit", cfg.RateLimit+ehrMargin, "ours", cfg.RateLimit)
	s, err := startSystem(ctx, cfg, p.EHR, dir, log)
	defer func() { v.Problems = append(v.Problems, s.stop()...) }()

	if err != nil {
		return v, err
	}

	ctx, cancel := context.WithTimeout(ctx, cfg.Duration+endTimeout)
	defer cancel()

	token, err := s.vantrexia.Output(ctx, "token", "--role", "admin", "--ttl", "12h")
	if err != nil {
		return v, err
	}

	devices, err := proof.NewDevices(ctx, token, s.url(firstAPI), s.url(secondAPI))
	if err != nil {
		return v, err
	}

	witnesses, err := s.witnesses(proof.Operator{API: s.url(firstAPI), Token: token, Log: log})
	if err != nil {
		return v, err
	}

	openings := watchCircuit(ctx, log, witnesses.Operator)
	if err := suffer(ctx, s, p.Events, devices, witnesses.Operator); err != nil {
		return v, err
	}

	v, err = witnesses.Judge(ctx, devices)
	v.Openings = openings()
	v.Problems = append(v.Problems, needless(v.Failed)...)
	if err != nil {
		return v, err
	}
	problems, err := s.checkTrail(ctx)
	v.Problems = append(v.Problems, problems...)
	return v, err
}

// needless lists the failures that no fault explains. Two kinds are expected: the EHR refuses the data of a
// reading, or it refuses our credentials for a reading three times while it takes others. The retry schedule
// outlasts every other fault.
func needless(failed map[string]int) (problems []string) {
	for class, n := range failed {
		if class != string(ecw.ClassPermanentData) && class != string(ecw.ClassPermanentCredentials) {
			problems = append(problems, fmt.Sprintf("%d readings failed as %s", n, class))
		}
	}
	return problems
}

// suffer sends readings while the events happen. It returns when everything runs again and the API has taken
// every reading.
func suffer(ctx context.Context, s *system, events []event, devices *proof.Devices, o proof.Operator) error {
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		devices.Feed(ctx, s.cfg.Duration, s.cfg.Every)
	}()

	disturbed, healed := context.WithCancel(ctx)
	defer healed()

	go o.SweepOften(disturbed)
	go s.tryOften(disturbed)
	s.disturb(ctx, events)
	if err := s.heal(ctx); err != nil {
		return err
	}

	if err := s.awaitReady(ctx); err != nil {
		return err
	}

	<-fed
	s.log.Info("all readings are accepted", "answers", devices.Answers())
	return nil
}

// disturb causes each event at its time.
func (s *system) disturb(ctx context.Context, events []event) {
	began := time.Now()
	for _, e := range events {
		pause(ctx, e.At-time.Since(began))
		if ctx.Err() != nil {
			return
		}
		s.log.Info(e.String())
		if e.Fault == nil {
			s.parts[e.End].order(order{gently: e.Gently, down: e.Down})
		} else if err := s.addFault(ctx, *e.Fault); err != nil {
			s.log.Error("fault not set", "error", err)
		}
	}
}
