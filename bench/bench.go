package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"
)

// runBenchmark is the command.
func runBenchmark(ctx context.Context, args []string) (err error) {
	o, err := parseOptions(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	dir, err := newDirectory()
	if err != nil {
		return err
	}
	defer func() {
		if err != nil || o.keep {
			fmt.Fprintln(os.Stderr, "bench: logs and data stay in", dir)
			return
		}
		err = os.RemoveAll(dir)
	}()
	r, err := newRun(dir)
	if err != nil {
		return err
	}

	results := r.measureAll(ctx, o)
	text, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	fmt.Println(string(text))
	return ctx.Err()
}

// newDirectory makes one that PostgreSQL can enter too, which may run in another account than ours: on a disk, where fsync
// costs what it costs, unlike in a /tmp that is memory.
func newDirectory() (string, error) {
	parent := os.Getenv("TMPDIR")
	if parent == "" {
		parent = "/var/tmp"
	}
	dir, err := os.MkdirTemp(parent, "vantrexia-bench-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o711)
}

// systemResult is what was measured of a contender.
type systemResult struct {
	Name        string  `json:"name"`
	Title       string  `json:"title"`
	NotMeasured string  `json:"not_measured,omitempty"`
	Rounds      []round `json:"rounds,omitempty"`
}

// measureAll gives each contender its turns, in one order and then in the other: what a machine does beside us comes and goes.
func (r *run) measureAll(ctx context.Context, o options) []systemResult {
	p := plan{Rates: []int{5, 50, 100}, Each: o.each, Saturated: o.saturated}
	var results []systemResult
	var stacks []*stack
	var systems []system
	for _, c := range contenders() {
		if !o.wants(c.name) {
			continue
		}
		result := systemResult{Name: c.name, Title: c.title}
		s, err := newStack(r, c.name)
		if missing := c.missing(r); missing != "" {
			result.NotMeasured = "install " + missing
		} else if err != nil {
			result.NotMeasured = err.Error()
		}
		results, stacks, systems = append(results, result), append(stacks, s), append(systems, c.build(s))
	}

	order := make([]int, len(results))
	for i := range order {
		order[i] = i
	}
	for n := range o.rounds {
		for _, i := range order {
			result := &results[i]
			if result.NotMeasured != "" || ctx.Err() != nil {
				continue
			}
			began := time.Now()
			measured, err := takeTurn(ctx, systems[i], stacks[i], p)
			if err != nil {
				result.NotMeasured = err.Error()
				continue
			}
			result.Rounds = append(result.Rounds, measured)
			fmt.Fprintf(os.Stderr, "round %d: %s, %s\n", n+1, result.Title, time.Since(began).Round(time.Second))
		}
		slices.Reverse(order)
	}
	return results
}
