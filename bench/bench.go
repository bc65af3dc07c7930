package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	r, err := newRun(dir)
	if err != nil {
		return err
	}
	defer func() {
		if o.keep {
			fmt.Fprintln(os.Stderr, "bench: logs and data stay in", dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()

	if o.quick {
		return r.quick(ctx, o)
	}
	return r.full(ctx, o)
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

// full measures everything that is wanted and there is time for, and writes it down.
func (r *run) full(ctx context.Context, o options) error {
	began := time.Now()
	res := results{
		Date:    began.UTC().Truncate(time.Second),
		Commit:  commit(r.root),
		Machine: thisMachine(),
		Rounds:  o.rounds,
		Each:    o.each.Seconds(),
	}

	// What Ctrl-C or the limit cuts off is not measured; what was, is written.
	limited, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	res.Systems = r.measureAll(limited, o)
	res.Scenarios = r.measureScenarios(limited, o)
	res.Machine.PostgreSQL = r.postgresVersion
	res.Seconds = time.Since(began).Seconds()

	dir := filepath.Join(r.root, "bench", "results", res.Date.Format("2006-01-02T150405"))
	if err := res.write(dir, os.Stdout); err != nil {
		return err
	}
	fmt.Printf("\n%s; the table, results.json and plot.svg are in %s\n", time.Since(began).Round(time.Second), dir)
	return nil
}

// write writes table, JSON and picture into the directory, and the table to out too.
func (res results) write(dir string, out io.Writer) error {
	var table, plot bytes.Buffer
	if err := writeTable(&table, res); err != nil {
		return err
	}
	if err := writePlot(&plot, res); err != nil {
		return err
	}
	text, err := json.MarshalIndent(res, "", "  ")
	if err != nil {
		return err
	}

	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, content := range map[string][]byte{"table.txt": table.Bytes(), "plot.svg": plot.Bytes(), "results.json": text} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	_, err = out.Write(table.Bytes())
	return err
}

// say tells a person what is under way.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// rival is a contender with its place in this run.
type rival struct {
	*systemResult
	stack  *stack
	system system
}

// measureAll gives each contender its turns, in one order and then in the other: what a machine does beside us comes and goes.
func (r *run) measureAll(ctx context.Context, o options) []systemResult {
	var rivals []rival
	for _, c := range contenders() {
		if o.wants(c.name) {
			rivals = append(rivals, r.rival(c))
		}
	}

	for n := range o.rounds {
		for _, v := range rivals {
			if v.NotMeasured == "" {
				r.turn(ctx, v, n, plan{Rates: []int{5, memoryRate, 100}, Each: o.each, Saturated: o.each})
			}
		}
		slices.Reverse(rivals)
	}
	if o.rounds%2 == 1 {
		slices.Reverse(rivals)
	}

	var results []systemResult
	for _, v := range rivals {
		v.All = pool(v.Rounds)
		results = append(results, *v.systemResult)
	}
	return results
}

// rival makes a place for a contender, or says why it is not measured.
func (r *run) rival(c contender) rival {
	result := &systemResult{Name: c.name, Title: c.title}
	if missing := c.missing(r); missing != "" {
		result.NotMeasured = "install it: " + missing
		return rival{systemResult: result}
	}
	s, err := newStack(r, c.name)
	if err != nil {
		result.NotMeasured = err.Error()
		return rival{systemResult: result}
	}
	return rival{systemResult: result, stack: s, system: c.build(s)}
}

// turn is one of a contender's. One that fails makes no round.
func (r *run) turn(ctx context.Context, v rival, n int, p plan) {
	began := time.Now()
	measured, err := takeTurn(ctx, v.system, v.stack, p)
	switch {
	case err == nil:
		v.Rounds = append(v.Rounds, measured)
		say("round %d, %s: %s", n+1, v.Title, time.Since(began).Round(time.Second))
	case ctx.Err() != nil:
		say("round %d, %s: not measured, the time is up", n+1, v.Title)
		err = errors.New("the time was up: give it more with -limit")
	default:
		say("round %d, %s: not measured: %v", n+1, v.Title, err)
	}
	if len(v.Rounds) == 0 {
		v.NotMeasured = err.Error()
	}
}
