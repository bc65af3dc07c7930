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
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	if errors.Is(err, errWorse) {
		os.Exit(1)
	}
	os.Exit(2) // it could not measure
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
	quick, accept bool
	rounds        int
	each          time.Duration
	limit         time.Duration
	parked        int
	parking       time.Duration
	only          []string
	keep          bool
}

func parseOptions(args []string) (options, error) {
	var o options
	var only string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.BoolVar(&o.quick, "quick", false, "compare ours with the floor for a minute; exit with 1 when it is twice as bad as accepted.json")
	flags.BoolVar(&o.accept, "accept", false, "with -quick: write what was found into accepted.json")
	flags.IntVar(&o.rounds, "rounds", 2, "how many turns each contender has")
	flags.DurationVar(&o.each, "each", 6*time.Second, "how long readings are sent at each rate")
	flags.DurationVar(&o.limit, "limit", 14*time.Minute, "when to stop measuring; what is left is not measured")
	flags.IntVar(&o.parked, "parked", 20_000, "how many transmissions wait for their retry in the scenario parked")
	flags.DurationVar(&o.parking, "parking", time.Hour, "how long they may take to get there")
	flags.StringVar(&only, "only", "", "measure only these, separated by commas: "+strings.Join(names(), ", "))
	flags.BoolVar(&o.keep, "keep", false, "keep data and logs")
	if err := flags.Parse(args); err != nil {
		return o, err
	}

	if o.rounds < 1 || o.each < time.Second || o.parked < 1 {
		return o, errors.New("-rounds and -parked must be 1 or more, -each a second or more")
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
	for _, kind := range scenarioKinds() {
		all = append(all, kind.name)
	}
	return all
}

func (o options) wants(name string) bool { return o.only == nil || slices.Contains(o.only, name) }
