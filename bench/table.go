package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// writeTable writes everything for a person.
func writeTable(out io.Writer, r results) error {
	m := r.Machine
	fmt.Fprintf(out, "%s, commit %s, %d × %s, %d GiB, Linux %s, PostgreSQL %s, %s, load before the run %s\n",
		r.Date.Format(time.DateOnly), r.Commit, m.Cores, m.CPU, m.MemoryGiB, m.Kernel, m.PostgreSQL, m.Go, m.LoadBefore)

	if len(r.Systems) == 0 {
		return writeScenarios(out, r)
	}
	for _, rate := range rates(r.Systems) {
		if err := writeTimes(out, r, rate); err != nil {
			return err
		}
	}
	if err := writeCosts(out, r); err != nil {
		return err
	}
	if err := writeParts(out, r); err != nil {
		return err
	}
	return writeScenarios(out, r)
}

// rates are those that were measured, but for the saturation.
func rates(systems []systemResult) (rates []int) {
	for _, s := range systems {
		for _, p := range s.All.Phases {
			if p.Rate > 0 && !slices.Contains(rates, p.Rate) {
				rates = append(rates, p.Rate)
			}
		}
	}
	slices.Sort(rates)
	return rates
}

// queues stands where a contender did not keep up with a rate.
const queues = "queues"

func writeTimes(out io.Writer, r results, rate int) error {
	fmt.Fprintf(out, "\nAt %d readings a second, in milliseconds\n", rate)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\tintake p50\tp95\tp99\tmax\tto the chart p50\tp95\tp99\tmax")
	for _, s := range r.Systems {
		p, measured := s.All.at(rate)
		switch {
		case s.NotMeasured != "":
			fmt.Fprintf(w, "%s\tnot measured: %s\n", s.Title, oneLine(s.NotMeasured))
		case measured && !p.Queues:
			fmt.Fprintf(w, "%s\t%s\t%s\n", s.Title, p.Intake, p.Chart)
		default:
			fmt.Fprintf(w, "%s\t%s\n", s.Title, queues)
		}
		if s.Name == "celery" && s.NotMeasured == "" {
			writeBeat(w, s, rate)
		}
	}
	return w.Flush()
}

// beat is how often the system that Vantrexia replaces looked for readings.
const beat = 5 * time.Minute

func writeBeat(w io.Writer, s systemResult, rate int) {
	const title = "the same, every five minutes (computed)"
	saturated, _ := s.All.at(0)
	p, measured := s.All.at(rate)
	waits, ok := beatTimes(float64(rate), saturated.PerSecond)
	if !measured || p.Queues || !ok {
		fmt.Fprintf(w, "%s\t%s\n", title, queues)
		return
	}
	fmt.Fprintf(w, "%s\t%s\t%s\n", title, p.Intake, waits)
}

// beatTimes are the times to the chart when what came is delivered every five minutes, in the order in which it came. The first
// reading after a beat waits for all of the interval and is the first to go; the last one waits for nothing and goes when the
// rest has gone. Between the two the wait falls evenly. ok is false when a beat's readings take longer than to the next one.
func beatTimes(rate, perSecond float64) (q quantiles, ok bool) {
	if perSecond <= rate {
		return q, false
	}
	longest := milliseconds(beat)
	shortest := longest * rate / perSecond
	at := func(share float64) float64 { return shortest + share*(longest-shortest) }
	return quantiles{P50: at(0.5), P95: at(0.95), P99: at(0.99), Max: longest}, true
}

func writeCosts(out io.Writer, r results) error {
	fmt.Fprintf(out, "\nWhat a delivery takes\n")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\tdeliveries/s\tCPU ms at %d/s\t× floor\tCPU ms saturated\t× floor", memoryRate)
	fmt.Fprintf(w, "\tcommits\tWAL KiB\tstored KiB\tevents\tmemory MiB at %d/s\n", memoryRate)
	var floor round
	for _, s := range r.Systems {
		if s.Name == "floor" {
			floor = s.All
		}
	}
	for _, s := range r.Systems {
		if s.NotMeasured != "" {
			fmt.Fprintf(w, "%s\tnot measured: %s\n", s.Title, oneLine(s.NotMeasured))
			continue
		}
		steady, _ := s.All.at(memoryRate)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s", s.Title, speeds(s), costs(s.All, floor, memoryRate), costs(s.All, floor, 0))
		fmt.Fprintf(w, "\t%.1f\t%.1f\t%.1f\t%s\t%s\n",
			s.All.Commits, s.All.WAL/1024, s.All.Stored/1024, orNone(s.All.Events), orNone(steady.MemoryAll))
	}
	return w.Flush()
}

// speeds are the deliveries a second of a saturated contender, from the slowest to the fastest round.
func speeds(s systemResult) string {
	var all []float64
	for _, r := range s.Rounds {
		if p, ok := r.at(0); ok {
			all = append(all, p.PerSecond)
		}
	}
	if all == nil {
		return "–"
	}
	if least, most := slices.Min(all), slices.Max(all); math.Round(least) < math.Round(most) {
		return fmt.Sprintf("%.0f–%.0f", least, most)
	}
	return fmt.Sprintf("%.0f", all[0])
}

// costs are two cells: the CPU time, and how many times the floor's it is.
func costs(r, floor round, rate int) string {
	p, ok := r.at(rate)
	if !ok {
		return "–\t–"
	}
	least, ok := floor.at(rate)
	if !ok || least.cost() == 0 {
		return fmt.Sprintf("%.2f\t–", p.cost())
	}
	return fmt.Sprintf("%.2f\t%.1f", p.cost(), p.cost()/least.cost())
}

// writeParts writes CPU and memory by process.
func writeParts(out io.Writer, r results) error {
	fmt.Fprintf(out, "\nBy process, at %d/s\n", memoryRate)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\tCPU ms a delivery\tpeak memory MiB")
	for _, s := range r.Systems {
		p, ok := s.All.at(memoryRate)
		if !ok {
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", s.Title, list(p.CPU, "%.2f"), list(p.Memory, "%.0f"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, "EHR is the sandbox's own, which is in no other figure.")
	return err
}

func list(of map[string]float64, format string) string {
	var cells []string
	for _, name := range slices.Sorted(maps.Keys(of)) {
		cells = append(cells, fmt.Sprintf("%s "+format, name, of[name]))
	}
	return strings.Join(cells, ", ")
}

func writeScenarios(out io.Writer, r results) error {
	if len(r.Scenarios) == 0 {
		return nil
	}
	fmt.Fprintln(out, "\nOurs otherwise, Temporal on PostgreSQL")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, s := range r.Scenarios {
		if s.NotMeasured != "" {
			fmt.Fprintf(w, "%s\tnot measured: %s\n", s.Title, oneLine(s.NotMeasured))
		}
		title := s.Title
		for _, f := range s.Figures {
			fmt.Fprintf(w, "%s\t%s\t%s %s\n", title, f.Name, number(f.Value), f.Unit)
			title = ""
		}
	}
	return w.Flush()
}

// String has four cells, of milliseconds unless they say otherwise.
func (q quantiles) String() string {
	var cells []string
	for _, ms := range []float64{q.P50, q.P95, q.P99, q.Max} {
		cell := number(ms)
		if ms >= 10_000 {
			cell = number(math.Round(ms/1000)) + " s"
		}
		cells = append(cells, cell)
	}
	return strings.Join(cells, "\t")
}

// number has three digits at least, as far as they mean something.
func number(f float64) string {
	switch {
	case f == math.Trunc(f) || math.Abs(f) >= 100:
		return fmt.Sprintf("%.0f", f)
	case math.Abs(f) >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

func orNone(f float64) string {
	if f == 0 {
		return "–"
	}
	return number(f)
}

// oneLine keeps an error's log out of a table.
func oneLine(text string) string {
	first, _, _ := strings.Cut(text, "\n")
	return first
}
