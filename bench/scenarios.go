package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"
)

// scenarioKind is something that is measured of ours alone, on a fresh installation.
type scenarioKind struct {
	name    string
	title   string
	prepare func(*ours)
	measure func(context.Context, *ours, options) ([]figure, error)
}

func scenarioKinds() []scenarioKind {
	return []scenarioKind{
		{"drain", "the drain of a backlog under eCW's limit", prepareDrain, measureDrain},
		{"import", "the import of patients", func(o *ours) { o.ehrPatients = crowd }, measureImports},
		{"parked", "with parked transmissions", prepareParked, measureParked},
	}
}

// measureScenarios measures those for which there is time.
func (r *run) measureScenarios(ctx context.Context, o options) (found []scenario) {
	for _, kind := range scenarioKinds() {
		if !o.wants(kind.name) {
			continue
		}
		result := scenario{Name: kind.name, Title: kind.title}
		if missing := temporalMissing(r); missing != "" {
			result.NotMeasured = "install it: " + missing
			found = append(found, result)
			continue
		}
		if deadline, ok := ctx.Deadline(); ok && kind.name == "parked" && time.Until(deadline) < parkingTakes(o.parked) {
			result.NotMeasured = fmt.Sprintf("%d take longer than the time that is left: `make bench BENCH=\"-only parked -limit 1h\"`", o.parked)
			found = append(found, result)
			continue
		}

		began := time.Now()
		var err error
		result.Figures, err = r.measureScenario(ctx, kind, o)
		switch {
		case ctx.Err() != nil:
			result.NotMeasured = fmt.Sprintf("the time was up: run it alone, with -only %s", kind.name)
		case err != nil:
			result.NotMeasured = err.Error()
		}
		say("%s: %s", result.Title, time.Since(began).Round(time.Second))
		found = append(found, result)
	}
	return found
}

func (r *run) measureScenario(ctx context.Context, kind scenarioKind, options options) (figures []figure, err error) {
	s, err := newStack(r, kind.name)
	if err != nil {
		return nil, err
	}
	o := &ours{stack: s}
	kind.prepare(o)
	defer func() { err = errors.Join(err, o.Stop(), s.stopPostgres()) }()
	if err := startAndWarmUp(ctx, o, s); err != nil {
		return nil, err
	}
	return kind.measure(ctx, o, options)
}

// post posts readings as batches, and returns how long the answers took.
func (o *ours) post(ctx context.Context, count int) (time.Duration, error) {
	const most = 1000 // in a batch
	var took time.Duration
	for sent := 0; sent < count; sent += most {
		batch := make([]reading, min(most, count-sent))
		for i := range batch {
			batch[i] = o.nextReading(o.patients)
		}
		var answer struct{ Created int }
		began := time.Now()
		err := call(ctx, http.MethodPost, o.url+intakePath+"batch/", o.token, map[string]any{"observations": batch}, &answer)
		if err != nil {
			return took, err
		}
		took += time.Since(began)
		if answer.Created != len(batch) {
			return took, fmt.Errorf("%d of a batch of %d readings were stored", answer.Created, len(batch))
		}
	}
	return took, nil
}

// status is what /fhir/status/ says of what waits.
type status struct {
	Circuit struct {
		State string
		Held  int
	}
	Queue struct {
		Pending             int
		Processing          int
		FailedAwaitingRetry int `json:"failed_awaiting_retry"`
	}
}

// awaitStatus asks until the status is as it should be.
func (o *ours) awaitStatus(ctx context.Context, enough func(status) bool) (status, error) {
	for {
		var now status
		if err := call(ctx, http.MethodGet, o.url+"/api/v1/fhir/status/", o.token, nil, &now); err != nil {
			return now, err
		}
		if enough(now) {
			return now, nil
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return now, err
		}
	}
}

// The drain is of this many readings, under the limits that a practice of eCW has and that we keep.
const (
	backlog      = 120
	ourLimit     = 240 // requests a minute, our default
	ecwLimit     = 250 // what eCW takes
	burst        = 10  // what may come on top of our limit
	drainSeconds = float64(backlog-burst) / ourLimit * 60
)

func prepareDrain(o *ours) {
	o.ehrPerMinute, o.firstPatients = ecwLimit, 10 // their import keeps to the limit too
	o.settings = []string{fmt.Sprint("ECW_RATE_LIMIT=", ourLimit)}
}

// measureDrain holds readings while the EHR refuses us, and looks how long they take when it does so no more.
func measureDrain(ctx context.Context, o *ours, _ options) ([]figure, error) {
	if err := pause(ctx, 3*time.Second); err != nil { // until the limit lets a burst through again
		return nil, err
	}
	if err := o.ehr.breakIt(ctx, map[string]any{"kind": "unauthorized", "target": "any", "for": "1h"}); err != nil {
		return nil, err
	}
	before, err := o.ehr.poll(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := o.post(ctx, backlog); err != nil {
		return nil, err
	}
	if _, err := o.awaitStatus(ctx, func(now status) bool { return now.Circuit.Held >= backlog-1 }); err != nil {
		return nil, err
	}

	if err := o.ehr.repair(ctx); err != nil {
		return nil, err
	}
	_, refusedBefore, err := o.ehr.requests(ctx)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := call(ctx, http.MethodPost, o.url+"/api/v1/ecw/test/connection/", o.token, nil, nil); err != nil {
		return nil, err
	}
	for stored := before; stored < before+backlog; {
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
		if stored, err = o.ehr.poll(ctx); err != nil {
			return nil, err
		}
	}
	took := time.Since(began).Seconds()
	_, refused, err := o.ehr.requests(ctx)
	return []figure{
		{"readings held, under a limit of 240 a minute", backlog, ""},
		{"until all were in the chart", took, "s"},
		{"what the limit alone takes", drainSeconds, "s"},
		{"requests refused by eCW's limit (HTTP 429)", float64(refused - refusedBefore), ""},
	}, err
}

// crowd is how many patients the sandbox has for the imports.
const crowd = 142 + 2000

// measureImports imports patients whom the installation does not know.
func measureImports(ctx context.Context, o *ours, _ options) ([]figure, error) {
	figures := []figure{
		{"142 patients", o.imported.seconds, "s"},
		{"… requests to the EHR", float64(o.imported.requests), ""},
	}
	large, err := o.timeImport(ctx, crowd)
	if err != nil {
		return figures, err
	}
	return append(figures,
		figure{"2,000 patients", large.seconds, "s"},
		figure{"… requests to the EHR", float64(large.requests), ""},
	), nil
}

// parkingTakes is the least that parking so many and measuring with them takes, at a hundred deliveries a second.
func parkingTakes(parked int) time.Duration {
	return time.Minute + time.Duration(parked)*time.Second/100
}

func prepareParked(o *ours) {
	o.settings = []string{"RETRY_DELAYS=6h,6h,6h,6h,6h"} // none of them goes on while the others are measured
}

// measureParked measures the system while it is empty. Then it lets the EHR refuse one reading after the other in a way that
// is worth a retry, and measures again with those that wait for theirs.
func measureParked(ctx context.Context, o *ours, options options) ([]figure, error) {
	empty, err := o.measureLoad(ctx, options)
	if err != nil {
		return nil, err
	}
	took, err := o.park(ctx, options)
	if err != nil {
		return nil, err
	}
	parked, err := o.measureLoad(ctx, options)
	if err != nil {
		return nil, err
	}

	figures := []figure{
		{"batch intake, 1,000 in a request", float64(options.parked) / took.Seconds(), "readings/s"},
		{"parked", float64(options.parked), ""},
	}
	for _, name := range slices.Sorted(maps.Keys(empty.idle)) {
		figures = append(figures,
			figure{"CPU without readings, of a core, " + name + ", when empty", empty.idle[name], "%"},
			figure{"… with these parked", parked.idle[name], "%"})
	}
	for i, before := range empty.phases {
		after, at := parked.phases[i], fmt.Sprintf(" at %d/s", before.Rate)
		figures = append(figures,
			figure{"CPU a delivery" + at + ", when empty", before.cost(), "ms"},
			figure{"… with these parked", after.cost(), "ms"},
			figure{"intake p95" + at + ", when empty", before.Intake.P95, "ms"},
			figure{"… with these parked", after.Intake.P95, "ms"},
			figure{"to the chart p95" + at + ", when empty", before.Chart.P95, "ms"},
			figure{"… with these parked", after.Chart.P95, "ms"})
	}
	last := parked.phases[len(parked.phases)-1]
	return append(figures,
		figure{"peak memory of " + ourPart + ", with these parked", last.Memory[ourPart], "MiB"},
		figure{"peak memory of " + temporalPart + ", with these parked", last.Memory[temporalPart], "MiB"},
		figure{"peak memory of all, with these parked", last.MemoryAll, "MiB"},
	), nil
}

// load is what the system takes without readings, and at two rates.
type load struct {
	idle   map[string]float64 // percent of a core, by process
	phases []phase
}

// idleFor is long enough for several rounds of whatever looks for work now and then.
const idleFor = 30 * time.Second

func (o *ours) measureLoad(ctx context.Context, options options) (l load, err error) {
	before, err := o.stack.cpu()
	if err != nil {
		return l, err
	}
	if err := pause(ctx, idleFor); err != nil {
		return l, err
	}
	after, err := o.stack.cpu()
	if err != nil {
		return l, err
	}
	l.idle = make(map[string]float64, len(after))
	for name, used := range after {
		if name != ehrPart {
			l.idle[name] = 100 * (used - before[name]).Seconds() / idleFor.Seconds()
		}
	}

	for _, rate := range []int{5, memoryRate} {
		p, err := measurePhase(ctx, o, o.stack, rate, options.each)
		if err != nil {
			return l, err
		}
		l.phases = append(l.phases, p)
	}
	return l, nil
}

// park stores readings that eCW refuses until they all wait for a retry. It returns how long their intake took.
func (o *ours) park(ctx context.Context, options options) (took time.Duration, err error) {
	fault := map[string]any{"kind": "ecw_number", "target": "create", "number": "103", "for": "24h"}
	if err := o.ehr.breakIt(ctx, fault); err != nil {
		return 0, err
	}
	if took, err = o.post(ctx, options.parked); err != nil {
		return 0, err
	}

	began := time.Now()
	parked, err := o.awaitStatus(ctx, func(now status) bool {
		return now.Queue.FailedAwaitingRetry >= options.parked || time.Since(began) > options.parking
	})
	if err != nil {
		return 0, err
	}
	if waiting := parked.Queue.FailedAwaitingRetry; waiting < options.parked {
		return 0, fmt.Errorf("%d of %d readings were parked after %s: give it more time with -parking",
			waiting, options.parked, options.parking)
	}
	if err := o.ehr.repair(ctx); err != nil {
		return 0, err
	}
	return took, pause(ctx, idleFor) // caches and garbage settle
}
