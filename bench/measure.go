package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.temporal.io/sdk/client"
)

// plan says what is measured of a contender in one round.
type plan struct {
	Rates     []int         // readings a second, one after the other
	Each      time.Duration // of one rate
	Saturated time.Duration // of as many as it takes, 0 leaves it out
}

// memoryRate is the rate under which memory is looked at.
const memoryRate = 50

// phase is what was measured at one rate.
type phase struct {
	Rate    int     `json:"rate"`    // readings a second that were sent, 0 for as many as it takes
	Seconds float64 `json:"seconds"` // from the first reading sent to the last one stored
	Sent    int     `json:"sent"`
	Refused int     `json:"refused"` // by the intake
	Stored  int     `json:"stored"`  // in the EHR
	// Queues: it carried fewer than were sent, so that every second makes the wait longer. Its times are no property of it.
	Queues    bool      `json:"queues"`
	PerSecond float64   `json:"per_second"` // deliveries, until 95 % of them were stored
	Intake    quantiles `json:"intake_ms"`
	Chart     quantiles `json:"chart_ms"`
	// CPU is in milliseconds a delivery, by part. The EHR's is in it, and is no cost of the contender.
	CPU map[string]float64 `json:"cpu_ms_per_delivery"`
	// Memory is the peak by part, and MemoryAll the peak of all of them together without the EHR, in MiB.
	Memory    map[string]float64 `json:"memory_mib,omitempty"`
	MemoryAll float64            `json:"memory_all_mib,omitempty"`

	intake, chart []time.Duration
}

// round is a contender's turn.
type round struct {
	Phases []phase `json:"phases"`
	// The rest is of all phases together, a delivery. Commits and bytes are of PostgreSQL; bytes stored are also in files of
	// an embedded Temporal.
	Deliveries   int     `json:"deliveries"`
	Commits      float64 `json:"commits"`
	WAL          float64 `json:"wal_bytes"`
	Stored       float64 `json:"stored_bytes"`
	Events       float64 `json:"history_events,omitempty"`
	HistoryBytes float64 `json:"history_bytes,omitempty"`
	Duplicates   int     `json:"duplicates"` // readings more than once in the EHR
}

// Before anything is measured some readings go through it: connections, caches and a token are made.
const (
	warmUpRate = 20
	warmUp     = 1500 * time.Millisecond
)

// takeTurn starts the contender, measures it and stops it.
func takeTurn(ctx context.Context, sys system, s *stack, p plan) (_ round, err error) {
	defer func() { err = errors.Join(err, sys.Stop(), s.stopPostgres()) }()
	if err := startAndWarmUp(ctx, sys, s); err != nil {
		return round{}, err
	}

	before, err := s.figures(ctx)
	if err != nil {
		return round{}, err
	}
	var r round
	for _, rate := range p.Rates {
		measured, err := measurePhase(ctx, sys, s, rate, p.Each)
		if err != nil {
			return r, fmt.Errorf("%d/s: %w", rate, err)
		}
		r.Phases = append(r.Phases, measured)
		if measured.Queues {
			break // a higher rate queues all the more
		}
	}
	if p.Saturated > 0 {
		measured, err := measurePhase(ctx, sys, s, 0, p.Saturated)
		if err != nil {
			return r, fmt.Errorf("saturated: %w", err)
		}
		r.Phases = append(r.Phases, measured)
	}

	if err := s.describeHistories(ctx, &r); err != nil {
		return r, err
	}
	for _, measured := range r.Phases {
		r.Deliveries += measured.Stored
	}
	r.Duplicates = s.ehr.duplicates()
	after, err := s.figures(ctx)
	if err != nil {
		return r, err
	}
	if err := sys.Stop(); err != nil {
		return r, err
	}
	ended, err := s.database.figures(ctx) // with the commits that sessions had not told of
	if err != nil {
		return r, err
	}
	n := max(1, float64(r.Deliveries))
	r.Commits = float64(ended.Commits-before.Commits) / n
	r.WAL = float64(after.WAL-before.WAL) / n
	r.Stored = float64(after.Size-before.Size) / n
	return r, nil
}

// startTimeout is for all of a contender; half a minute is usual.
const startTimeout = 3 * time.Minute

func startAndWarmUp(ctx context.Context, sys system, s *stack) error {
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := sys.Start(starting); err != nil {
		return err
	}
	version, err := s.database.version(ctx)
	if err != nil {
		return err
	}
	s.postgresVersion = version

	if _, err := measurePhase(ctx, sys, s, warmUpRate, warmUp); err != nil {
		return fmt.Errorf("warming up: %w", err)
	}
	return pause(ctx, 500*time.Millisecond) // a session tells of its commits once a second, and settle was the rest of it
}

// figures are PostgreSQL's, and the size has the other files too.
func (s *stack) figures(ctx context.Context) (databaseFigures, error) {
	f, err := s.database.figures(ctx)
	if err != nil {
		return f, err
	}
	for _, pattern := range s.files {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return f, err
		}
		for _, file := range files {
			if info, err := os.Stat(file); err == nil {
				f.Size += info.Size()
			}
		}
	}
	return f, nil
}

// sample is one reading that was sent.
type sample struct {
	id              string
	begun, answered time.Time
	err             error
}

// settle is how long the contender has, after the last reading was stored, to write down that it was.
const settle = time.Second

// drainTimeout is how long a backlog may take.
const drainTimeout = 60 * time.Second

// measurePhase sends readings at a rate, or at rate 0 as many as the contender takes, waits until all are stored, and says
// what that took.
func measurePhase(ctx context.Context, sys system, s *stack, rate int, d time.Duration) (phase, error) {
	if _, err := s.ehr.poll(ctx); err != nil { // what an earlier phase has left behind
		return phase{}, err
	}
	before, err := s.cpu()
	if err != nil {
		return phase{}, err
	}
	watch := watchMemory(s, rate)
	defer watch.end()

	begun := time.Now()
	var sent []sample
	var queues bool
	if rate > 0 {
		sent, queues, err = sendAtRate(ctx, sys, s, rate, d)
	} else {
		sent, err = sendSaturated(ctx, sys, s, d)
	}
	if err != nil {
		return phase{}, err
	}
	if err := awaitStored(ctx, s, sent); err != nil {
		return phase{}, err
	}

	p := evaluate(s, sent, begun)
	p.Rate, p.Queues = rate, queues
	if err := pause(ctx, settle); err != nil {
		return p, err
	}
	after, err := s.cpu()
	if err != nil {
		return p, err
	}
	p.CPU = map[string]float64{}
	for name, used := range after {
		p.CPU[name] = milliseconds(used-before[name]) / max(1, float64(p.Stored))
	}
	p.Memory, p.MemoryAll, err = watch.end()
	if err != nil {
		return p, err
	}
	if p.Stored == 0 {
		return p, fmt.Errorf("none of %d readings was stored; the first error: %w", p.Sent, firstError(sent))
	}
	return p, nil
}

// sendAtRate sends readings at their time, whether or not earlier ones are answered. When the contender has fallen a second
// behind it stops, and reports that: waiting for a backlog of any length shows nothing more.
func sendAtRate(ctx context.Context, sys system, s *stack, rate int, d time.Duration) (sent []sample, queues bool, err error) {
	before, err := s.ehr.poll(ctx)
	if err != nil {
		return nil, false, err
	}

	all := make([]sample, int(d.Seconds()*float64(rate)+0.5))
	begun := time.Now()
	polled := begun
	var sending sync.WaitGroup
	for i := range all {
		due := begun.Add(time.Duration(i) * time.Second / time.Duration(rate))
		if err := pause(ctx, time.Until(due)); err != nil {
			return nil, false, err
		}
		sending.Go(func() { all[i] = send(ctx, sys, s) })
		sent = all[:i+1]

		if time.Since(polled) < 100*time.Millisecond {
			continue
		}
		polled = time.Now()
		stored, err := s.ehr.poll(ctx)
		if err != nil {
			return nil, false, err
		}
		if queues = len(sent)-(stored-before) > max(minBacklog, rate); queues {
			break
		}
	}
	sending.Wait()
	return sent, queues, nil
}

// minBacklog is how many readings may be on their way at a low rate.
const minBacklog = 20

func send(ctx context.Context, sys system, s *stack) (one sample) {
	r := s.nextReading(s.patients)
	one.begun = time.Now()
	one.id, one.err = sys.Send(ctx, r)
	one.answered = time.Now()
	return one
}

// window is how many readings are on their way at most when a contender is saturated: a backlog that it always has, and that
// does not grow without bounds where the intake is faster than the deliveries.
const window = 100

// senders post readings at once when a contender is saturated.
const senders = 16

func sendSaturated(ctx context.Context, sys system, s *stack, d time.Duration) ([]sample, error) {
	storedBefore, err := s.ehr.poll(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()

	var sent []sample
	var mu sync.Mutex
	permits := make(chan struct{}, window)
	for range window {
		permits <- struct{}{}
	}
	giveBack := func() {
		select {
		case permits <- struct{}{}:
		default: // what an earlier phase left behind was stored meanwhile
		}
	}

	var sending sync.WaitGroup
	for range senders {
		sending.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-permits:
				}
				if ctx.Err() != nil {
					return
				}
				one := send(context.WithoutCancel(ctx), sys, s)
				mu.Lock()
				sent = append(sent, one)
				mu.Unlock()
				if !one.accepted() { // it will never be stored
					giveBack()
				}
			}
		})
	}

	// Whatever is stored makes room for another one.
	for known := storedBefore; pause(ctx, 10*time.Millisecond) == nil; {
		stored, err := s.ehr.poll(context.WithoutCancel(ctx))
		if err != nil {
			return nil, err
		}
		for ; known < stored; known++ {
			giveBack()
		}
	}
	sending.Wait()
	return sent, nil
}

// awaitStored returns when all that was accepted is stored, or the time is up.
func awaitStored(ctx context.Context, s *stack, sent []sample) error {
	deadline := time.Now().Add(drainTimeout)
	for next := 0; ; {
		if _, err := s.ehr.poll(ctx); err != nil {
			return err
		}
		for ; next < len(sent); next++ {
			if _, stored := s.ehr.storedAt(sent[next].id); !stored && sent[next].accepted() {
				break
			}
		}
		if next == len(sent) || time.Now().After(deadline) {
			return nil
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

func (one sample) accepted() bool { return one.err == nil && one.id != "" }

func firstError(sent []sample) error {
	for _, one := range sent {
		if one.err != nil {
			return one.err
		}
	}
	return errors.New("they were accepted")
}

// evaluate compares what was sent with what is stored.
func evaluate(s *stack, sent []sample, begun time.Time) phase {
	p := phase{Sent: len(sent)}
	var until []time.Duration // from the first sent to the storing of each
	for _, one := range sent {
		if !one.accepted() {
			p.Refused++
			continue
		}
		p.intake = append(p.intake, one.answered.Sub(one.begun))
		if at, ok := s.ehr.storedAt(one.id); ok {
			p.chart = append(p.chart, at.Sub(one.begun))
			until = append(until, at.Sub(begun))
		}
	}

	p.Stored = len(until)
	p.Intake, p.Chart = quantilesOf(p.intake), quantilesOf(p.chart)
	if p.Stored > 0 {
		slices.Sort(until)
		p.Seconds = until[p.Stored-1].Seconds()
		p.PerSecond = mostOf * float64(p.Stored) / quantile(until, mostOf).Seconds()
	}
	return p
}

// mostOf the readings make the speed, without the last ones: a single straggler is no matter of speed.
const mostOf = 0.95

// cpu is what each part has used since it started.
func (s *stack) cpu() (map[string]time.Duration, error) {
	all, err := readProcesses()
	if err != nil {
		return nil, err
	}
	used := map[string]time.Duration{}
	for _, p := range s.everybody() {
		used[p.name] += all.cpu(p.PID())
	}
	return used, nil
}

// memoryWatch looks at the memory of all parts now and then.
type memoryWatch struct {
	stop chan struct{}
	done chan struct{}
	once sync.Once

	peak map[string]float64
	all  float64
	err  error
}

// watchMemory watches until end, at the rate where it is looked at.
func watchMemory(s *stack, rate int) *memoryWatch {
	w := &memoryWatch{stop: make(chan struct{}), done: make(chan struct{})}
	if rate != memoryRate {
		close(w.done)
		return w
	}

	w.peak = map[string]float64{}
	go func() {
		defer close(w.done)
		for w.err == nil {
			w.err = w.look(s)
			select {
			case <-w.stop:
				return
			case <-time.After(500 * time.Millisecond):
			}
		}
	}()
	return w
}

func (w *memoryWatch) look(s *stack) error {
	all, err := readProcesses()
	if err != nil {
		return err
	}
	now, sum := map[string]float64{}, 0.0
	for _, p := range s.everybody() {
		size, err := all.memory(p.PID())
		if err != nil {
			return err
		}
		now[p.name] += float64(size) / (1 << 20)
	}
	for name, size := range now {
		w.peak[name] = max(w.peak[name], size)
		if name != ehrPart {
			sum += size
		}
	}
	w.all = max(w.all, sum)
	return nil
}

func (w *memoryWatch) end() (map[string]float64, float64, error) {
	w.once.Do(func() { close(w.stop) })
	<-w.done
	return w.peak, w.all, w.err
}

// describedHistories is how many workflows are asked how long their history is.
const describedHistories = 20

// describeHistories asks Temporal for the histories of the readings of the last phases.
func (s *stack) describeHistories(ctx context.Context, r *round) error {
	if s.workflowID == "" {
		return nil
	}
	temporal, err := client.DialContext(ctx, client.Options{HostPort: s.temporal, Namespace: s.namespace, Logger: quiet{}})
	if err != nil {
		return err
	}
	defer temporal.Close()

	ids := s.ehr.some(describedHistories)
	for _, id := range ids {
		found, err := temporal.DescribeWorkflowExecution(ctx, fmt.Sprintf(s.workflowID, id), "")
		if err != nil {
			return fmt.Errorf("describe the workflow of %s: %w", id, err)
		}
		info := found.GetWorkflowExecutionInfo()
		r.Events += float64(info.GetHistoryLength()) / float64(len(ids))
		r.HistoryBytes += float64(info.GetHistorySizeBytes()) / float64(len(ids))
	}
	return nil
}

// quiet is a logger for Temporal's client that says nothing.
type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}
