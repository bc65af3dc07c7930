package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// twoRounds are of a contender whose second round was slower and delivered three times as much.
func twoRounds() []round {
	ms := func(n int) []time.Duration { return []time.Duration{time.Duration(n) * time.Millisecond} }
	return []round{
		{
			Phases: []phase{
				{Rate: 50, Stored: 100, CPU: map[string]float64{"it": 2, ehrPart: 9}, MemoryAll: 70, intake: ms(1), chart: ms(10)},
				{Rate: 0, Stored: 100, PerSecond: 300},
			},
			Deliveries: 200, Commits: 3, WAL: 1000,
		},
		{
			Phases: []phase{
				{Rate: 50, Stored: 300, CPU: map[string]float64{"it": 4, ehrPart: 9}, MemoryAll: 60, intake: ms(3), chart: ms(30)},
				{Rate: 0, Stored: 300, PerSecond: 100},
			},
			Deliveries: 600, Commits: 7, WAL: 2000,
		},
	}
}

func TestRoundsArePooled(t *testing.T) {
	t.Parallel()
	all := pool(twoRounds())
	steady, _ := all.at(50)
	saturated, _ := all.at(0)
	for what, c := range map[string][2]float64{
		"CPU, weighted by deliveries":  {steady.cost(), 3.5},
		"memory, the peak":             {steady.MemoryAll, 70},
		"stored":                       {float64(steady.Stored), 400},
		"intake p50, of all samples":   {steady.Intake.P50, 1},
		"chart p99, of all samples":    {steady.Chart.P99, 30},
		"deliveries a second, a mean":  {saturated.PerSecond, 200},
		"commits, weighted":            {all.Commits, 6},
		"WAL, weighted":                {all.WAL, 1750},
		"deliveries":                   {float64(all.Deliveries), 800},
		"a rate that was not measured": {float64(len(all.Phases)), 2},
	} {
		if math.Abs(c[0]-c[1]) > 1e-9 {
			t.Errorf("%s: got %v, want %v", what, c[0], c[1])
		}
	}
	if empty := pool(nil); empty.Phases != nil || empty.Commits != 0 {
		t.Errorf("no rounds make %+v", empty)
	}
}

func TestTheBeat(t *testing.T) {
	t.Parallel()
	// At half of what it can deliver, a beat's readings take half of the interval.
	q, ok := beatTimes(50, 100)
	if want := (quantiles{225_000, 292_500, 298_500, 300_000}); !ok || q != want {
		t.Errorf("got %v and %t, want %v", q, ok, want)
	}
	if _, ok := beatTimes(100, 100); ok {
		t.Error("it keeps up although a beat's readings take longer than to the next one")
	}
}

func TestWhatIsWritten(t *testing.T) {
	t.Parallel()
	res := results{
		Date: time.Date(2026, 2, 6, 10, 0, 0, 0, time.UTC),
		Systems: []systemResult{
			{Name: "floor", Title: "floor", All: pool(twoRounds()), Rounds: twoRounds()},
			{Name: "slow", Title: "slow & <steady>", All: round{Phases: []phase{{Rate: 50, Queues: true, CPU: map[string]float64{"it": 35}}}}},
			{Name: "celery", Title: "Celery", NotMeasured: "install it: `apt-get …`\nand a log"},
		},
		Scenarios: []scenario{{Title: "drain", Figures: []figure{{"backlog", 120, ""}, {"took", 27.5, "s"}}}},
	}
	dir := t.TempDir()
	var table bytes.Buffer
	if err := res.write(dir, &table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"100–300", "queues", "not measured: install it: `apt-get …`\n", "35.00", "10.0", "27.5 s"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &table)
		}
	}

	var again results
	text, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &again); err != nil || len(again.Systems) != 3 {
		t.Errorf("results.json: %v", err)
	}
	plot, err := os.Open(filepath.Join(dir, "plot.svg"))
	if err != nil {
		t.Fatal(err)
	}
	defer plot.Close()
	for decoder := xml.NewDecoder(plot); err == nil; _, err = decoder.Token() {
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("plot.svg: %v", err)
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	r := &run{root: t.TempDir()}
	if err := os.Mkdir(filepath.Join(r.root, "bench"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := r.judge(options{accept: true}, 40.04); err != nil {
		t.Fatal(err)
	}
	for timesFloor, want := range map[float64]error{10: nil, 79.9: nil, 80.1: errWorse} {
		if err := r.judge(options{}, timesFloor); !errors.Is(err, want) {
			t.Errorf("%.1f times the floor, of 40 that are accepted: %v", timesFloor, err)
		}
	}
}
