package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// accepted is what a delivery may take, as bench/accepted.json has it. CPU time in milliseconds differs from machine to
// machine; how many times the floor's it is differs less.
type accepted struct {
	TimesFloor float64 `json:"cpu_times_floor"`
	Date       string  `json:"date"`
	Commit     string  `json:"commit"`
	CPU        string  `json:"cpu"`
}

// tooMuch is how many times the accepted figure is a failure: less than that, another machine or a busy one may be.
const tooMuch = 2

// errWorse means that a delivery takes twice of what is accepted.
var errWorse = errors.New("a delivery takes more than twice the CPU time that is accepted")

// quickRounds and quickEach make a minute with the start of everything.
const (
	quickRounds = 2
	quickEach   = 5 * time.Second
)

// quick compares ours with the floor, and that with what is accepted.
func (r *run) quick(ctx context.Context, o options) (err error) {
	var rivals []rival
	for _, c := range contenders() {
		if c.name != "floor" && c.name != "ours" {
			continue
		}
		v := r.rival(c)
		if v.NotMeasured != "" {
			return fmt.Errorf("%s: %s", c.title, v.NotMeasured)
		}
		rivals = append(rivals, v)
	}

	for _, v := range rivals {
		defer func() { err = errors.Join(err, v.stack.Stop(), v.stack.stopPostgres()) }()
		if err := startAndWarmUp(ctx, v.system, v.stack); err != nil {
			return fmt.Errorf("%s: %w", v.Title, err)
		}
	}
	for range quickRounds {
		for _, v := range rivals {
			p, err := measurePhase(ctx, v.system, v.stack, memoryRate, quickEach)
			if err != nil {
				return fmt.Errorf("%s: %w", v.Title, err)
			}
			v.Rounds = append(v.Rounds, round{Phases: []phase{p}, Deliveries: p.Stored})
		}
	}

	var cost []float64
	for _, v := range rivals {
		p, _ := pool(v.Rounds).at(memoryRate)
		cost = append(cost, p.cost())
		fmt.Printf("%s: %.2f ms CPU a delivery (%s), of %d\n", v.Title, p.cost(), list(p.CPU, "%.2f"), p.Stored)
	}
	return r.judge(o, cost[1]/cost[0])
}

// judge compares with what is accepted, or makes it what is accepted.
func (r *run) judge(o options, timesFloor float64) error {
	file := filepath.Join(r.root, "bench", "accepted.json")
	if o.accept {
		text, err := json.MarshalIndent(accepted{
			TimesFloor: float64(int(timesFloor*10+0.5)) / 10,
			Date:       time.Now().UTC().Format(time.DateOnly),
			Commit:     commit(r.root),
			CPU:        thisMachine().CPU,
		}, "", "  ")
		if err != nil {
			return err
		}
		fmt.Printf("ours is %.1f times the floor, which is accepted from now on\n", timesFloor)
		return os.WriteFile(file, append(text, '\n'), 0o644)
	}

	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var a accepted
	if err := json.Unmarshal(text, &a); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	fmt.Printf("ours is %.1f times the floor; accepted are %.1f, of %s\n", timesFloor, a.TimesFloor, a.Date)
	if timesFloor > tooMuch*a.TimesFloor {
		return errWorse
	}
	return nil
}
