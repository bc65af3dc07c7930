// Command bench measures what a delivery takes: ours beside a bare loop, a plain Temporal workflow, River and Celery, in turns,
// on one machine, with the sandbox as the EHR. docs/performance.md says what is measured and how. `make bench` runs it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := play(ctx, os.Args[1:])
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// play runs the benchmark, or a role in it: `bench role floor`.
func play(ctx context.Context, args []string) error {
	if len(args) == 2 && args[0] == "role" {
		return playRole(ctx, args[1])
	}
	return runBenchmark(ctx, args)
}

func playRole(ctx context.Context, role string) error {
	text := []byte(os.Getenv(roleSetting))
	if role == "ehr" {
		var cfg ehrConfig
		if err := json.Unmarshal(text, &cfg); err != nil {
			return err
		}
		return runEHR(ctx, cfg)
	}

	roles := map[string]func(context.Context, roleConfig) error{
		"floor": runFloor,
		"naive": runNaive,
		"river": runRiver,
	}
	run, ok := roles[role]
	if !ok {
		return fmt.Errorf("there is no role %q", role)
	}
	var cfg roleConfig
	if err := json.Unmarshal(text, &cfg); err != nil {
		return err
	}
	return run(ctx, cfg)
}

// options are the flags.
type options struct {
	rounds    int
	each      time.Duration
	saturated time.Duration
	only      []string
	keep      bool
}

func parseOptions(args []string) (options, error) {
	var o options
	var only string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&o.rounds, "rounds", 2, "how many turns each contender has")
	flags.DurationVar(&o.each, "each", 8*time.Second, "how long readings are sent at each rate")
	flags.DurationVar(&o.saturated, "saturated", 8*time.Second, "how long as many are sent as a contender takes")
	flags.StringVar(&only, "only", "", "measure only these, separated by commas: "+strings.Join(names(), ", "))
	flags.BoolVar(&o.keep, "keep", false, "keep data and logs")
	if err := flags.Parse(args); err != nil {
		return o, err
	}

	if o.rounds < 1 {
		return o, errors.New("-rounds must be 1 or more")
	}
	if only != "" {
		o.only = strings.Split(only, ",")
	}
	for _, name := range o.only {
		if !slices.Contains(names(), name) {
			return o, fmt.Errorf("-only: there is no %q; there are %s", name, strings.Join(names(), ", "))
		}
	}
	return o, nil
}

func names() (all []string) {
	for _, c := range contenders() {
		all = append(all, c.name)
	}
	return all
}

func (o options) wants(name string) bool { return o.only == nil || slices.Contains(o.only, name) }
