package main

import (
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// results are everything that a run found.
type results struct {
	Date      time.Time      `json:"date"`
	Seconds   float64        `json:"seconds"` // that it took
	Commit    string         `json:"commit"`
	Machine   machine        `json:"machine"`
	Rounds    int            `json:"rounds"`
	Each      float64        `json:"seconds_at_each_rate"`
	Systems   []systemResult `json:"systems"`
	Scenarios []scenario     `json:"scenarios,omitempty"`
}

// systemResult is what was measured of a contender.
type systemResult struct {
	Name        string  `json:"name"`
	Title       string  `json:"title"`
	NotMeasured string  `json:"not_measured,omitempty"` // why
	All         round   `json:"all"`                    // of all rounds together
	Rounds      []round `json:"rounds,omitempty"`
}

// scenario is something else that was measured of ours.
type scenario struct {
	Name        string   `json:"name"`
	Title       string   `json:"title"`
	NotMeasured string   `json:"not_measured,omitempty"` // why
	Figures     []figure `json:"figures,omitempty"`
}

// figure is one of a scenario.
type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

// pool makes one round of several: times of all, costs a delivery of all, the highest memory, the mean of the speeds.
func pool(rounds []round) (all round) {
	var weights []float64
	for _, r := range rounds {
		weights = append(weights, float64(r.Deliveries))
		all.Deliveries += r.Deliveries
		all.Duplicates += r.Duplicates
		for _, p := range r.Phases {
			if !slices.ContainsFunc(all.Phases, func(known phase) bool { return known.Rate == p.Rate }) {
				all.Phases = append(all.Phases, poolPhase(rounds, p.Rate))
			}
		}
	}

	all.Commits = mean(rounds, weights, func(r round) float64 { return r.Commits })
	all.WAL = mean(rounds, weights, func(r round) float64 { return r.WAL })
	all.Stored = mean(rounds, weights, func(r round) float64 { return r.Stored })
	all.Events = mean(rounds, weights, func(r round) float64 { return r.Events })
	all.HistoryBytes = mean(rounds, weights, func(r round) float64 { return r.HistoryBytes })
	return all
}

func poolPhase(rounds []round, rate int) phase {
	var same []phase
	var stored []float64
	for _, r := range rounds {
		if p, ok := r.at(rate); ok {
			same, stored = append(same, p), append(stored, float64(p.Stored))
		}
	}

	all := phase{Rate: rate, CPU: map[string]float64{}, Memory: map[string]float64{}}
	for _, p := range same {
		all.Seconds += p.Seconds
		all.Sent += p.Sent
		all.Refused += p.Refused
		all.Stored += p.Stored
		all.Queues = all.Queues || p.Queues
		all.PerSecond += p.PerSecond / float64(len(same))
		all.MemoryAll = max(all.MemoryAll, p.MemoryAll)
		all.intake, all.chart = append(all.intake, p.intake...), append(all.chart, p.chart...)
		for name, size := range p.Memory {
			all.Memory[name] = max(all.Memory[name], size)
		}
		for name := range p.CPU {
			all.CPU[name] = mean(same, stored, func(p phase) float64 { return p.CPU[name] })
		}
	}
	all.Intake, all.Chart = quantilesOf(all.intake), quantilesOf(all.chart)
	return all
}

// mean is weighted.
func mean[T any](list []T, weights []float64, of func(T) float64) float64 {
	var sum, weight float64
	for i, item := range list {
		sum += of(item) * weights[i]
		weight += weights[i]
	}
	if weight == 0 {
		return 0
	}
	return sum / weight
}

// at finds the phase of a rate.
func (r round) at(rate int) (phase, bool) {
	i := slices.IndexFunc(r.Phases, func(p phase) bool { return p.Rate == rate })
	if i < 0 {
		return phase{}, false
	}
	return r.Phases[i], true
}

// cost is the CPU time of a delivery without the EHR's, in milliseconds.
func (p phase) cost() (sum float64) {
	for name, used := range p.CPU {
		if name != ehrPart {
			sum += used
		}
	}
	return sum
}

// machine is what the figures depend on.
type machine struct {
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"`
	MemoryGiB  int    `json:"memory_gib"`
	Kernel     string `json:"kernel"`
	PostgreSQL string `json:"postgresql,omitempty"`
	Go         string `json:"go"`
	LoadBefore string `json:"load_before"` // of one, five and fifteen minutes: above 1, others were at work
}

func thisMachine() machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	read := func(file string) string {
		text, _ := os.ReadFile(file) // what cannot be read stays empty
		return string(text)
	}
	for line := range strings.Lines(read("/proc/cpuinfo")) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	if fields := strings.Fields(read("/proc/meminfo")); len(fields) > 1 { // MemTotal comes first
		kib, _ := strconv.Atoi(fields[1])
		m.MemoryGiB = (kib + 1<<19) >> 20
	}
	m.Kernel = strings.TrimSpace(read("/proc/sys/kernel/osrelease"))
	m.LoadBefore = strings.Join(strings.Fields(read("/proc/loadavg"))[:3], " ")
	return m
}

// commit is the working tree's, with a + when something is not committed.
func commit(root string) string {
	cmd := exec.Command("git", "describe", "--always", "--dirty=+", "--abbrev=7")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return "unknown"
	}
	return string(bytes.TrimSpace(out))
}
