package gate_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
)

func TestFindingOf(t *testing.T) {
	t.Parallel()
	const create, token = ecw.OpCreate, ecw.OpToken
	for name, tc := range map[string]struct {
		err  error
		want gate.Finding
	}{
		"an answer":         {nil, gate.Answers},
		"our own fault":     {errors.New("boom"), gate.Nothing},
		"no connection":     {&ecw.Error{Op: create, Class: ecw.ClassRetryable, Code: "connect"}, gate.Unavailable},
		"an error of eCW's": {&ecw.Error{Op: create, Class: ecw.ClassUnknown, Code: "http_500", HTTPStatus: 500}, gate.Unavailable},
		"a busy record":     {&ecw.Error{Op: create, Class: ecw.ClassRetryable, Code: "http_409", HTTPStatus: http.StatusConflict}, gate.Answers},
		"refused data":      {&ecw.Error{Op: create, Class: ecw.ClassPermanentData, HTTPStatus: http.StatusUnprocessableEntity}, gate.Answers},
		"a limit":           {&ecw.Error{Op: create, Class: ecw.ClassThrottled, HTTPStatus: http.StatusTooManyRequests}, gate.Nothing},
		"our own limit":     {&ecw.Error{Op: token, Class: ecw.ClassThrottled, Code: ecw.CodeRateLimited}, gate.Nothing},
		"no token":          {&ecw.Error{Op: token, Class: ecw.ClassPermanentCredentials, HTTPStatus: http.StatusBadRequest}, gate.Refuses},
		"a refused token":   {&ecw.Error{Op: create, Class: ecw.ClassPermanentCredentials, HTTPStatus: http.StatusUnauthorized}, gate.Refuses},
		"forbidden":         {&ecw.Error{Op: create, Class: ecw.ClassPermanentCredentials, HTTPStatus: http.StatusForbidden}, gate.Forbids},
		"given up by us":    {&ecw.Error{Op: create, Class: ecw.ClassUnknown, Code: "canceled"}, gate.Nothing},
		"wrapped": {
			fmt.Errorf("read: %w", &ecw.Error{Class: ecw.ClassPermanentCredentials, HTTPStatus: http.StatusForbidden}),
			gate.Forbids,
		},
	} {
		if got := gate.FindingOf(tc.err); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func TestAnOpenCircuitHolds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate()
	r.openCircuit(g, time.Minute)
	first, second := r.transmission(), r.transmission()

	if a := r.admit(g, first); a != (gate.Admission{Held: true, Reason: gate.ReasonCredentials}) {
		t.Errorf("told %+v, want it held", a)
	}
	if row := r.stored(first); row.Status != db.StatusPending || row.HeldAt == nil || row.NextRetryAt != nil || row.AttemptCount != 0 {
		t.Errorf("stored as %+v, want it held", row)
	}
	if n := r.taken(); n != 0 {
		t.Error("what is held takes a place")
	}

	if a := r.admit(g, asked(second)); a != (gate.Admission{Trial: true}) {
		t.Errorf("what a person asks for is told %+v, want it to be the trial", a)
	}
	if !r.hasPlace(second.TransmissionID) {
		t.Error("the trial has no place")
	}
	if a := r.admit(g, asked(first)); !a.Held {
		t.Errorf("another one is told %+v while a trial is under way", a)
	}
	if a := r.admit(g, second); a != (gate.Admission{Trial: true}) {
		t.Errorf("the trial is told %+v when it asks again", a)
	}

	r.expectCalls("the circuit is not closed")

	change := r.report(g, second.TransmissionID, gate.Answers)
	if !change.Closed || !change.Unsettled || change.Opened || change.FailingSince.IsZero() {
		t.Errorf("the trial's success changed %+v", change)
	}

	if r.hasPlace(second.TransmissionID) {
		t.Error("the trial is over and keeps its place")
	}

	r.goes(g, first)
}

// If the circuit opens before a called transmission comes, the place that was kept for it becomes free.
func TestWhatWasCalledIsHeldByACircuitThatOpened(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(places(1))
	list := r.transmissions(2)
	r.goes(g, list[0])
	r.waits(g, list[1])
	r.delivered(g, list[0])
	r.expectCalls("a place is free", list[1])
	r.openCircuit(g, time.Minute)
	if a := r.admit(g, list[1]); !a.Held || a.Reason != gate.ReasonCredentials || r.taken() != 0 {
		t.Errorf("told %+v with %d places taken, want it held", a, r.taken())
	}
}

func TestAnAnswerEndsARowOfFailures(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gates := r.processes(2)
	a, b, c, d := uuid.New(), uuid.New(), uuid.New(), uuid.New()

	for i, report := range []struct {
		id      uuid.UUID
		finding gate.Finding
		opens   bool
	}{
		{a, gate.Unavailable, false},
		{b, gate.Unavailable, false},
		{c, gate.Answers, false},
		{a, gate.Unavailable, false},
		{b, gate.Unavailable, false},
		{c, gate.Nothing, false},
		{d, gate.Unavailable, true},
	} {
		change := r.report(gates[i%2], report.id, report.finding)
		if change.Opened != report.opens || change.Closed || change.Unsettled != report.opens {
			t.Errorf("report %d changed %+v, want it to open: %t", i, change, report.opens)
		}
	}

	if row := r.row(); row.Reason != gate.ReasonUnavailable || len(row.Failing) != 3 || row.FailingSince == nil {
		t.Errorf("the circuit is %+v", row)
	}
}

// Concurrent reports of many processes are all counted.
func TestReportsOfManyProcesses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gates := r.processes(3)
	opened := make([]bool, len(gates))
	var group sync.WaitGroup

	for i, g := range gates {
		group.Go(func() {
			change, err := r.take(context.WithoutCancel(t.Context()), g, uuid.New(), gate.Unavailable)
			if err != nil {
				t.Error(err)
			}
			opened[i] = change.Opened
		})
	}

	group.Wait()
	n := 0
	for _, o := range opened {
		if o {
			n++
		}
	}

	if row := r.row(); row.Circuit != gate.Open || n != 1 {
		t.Errorf("the circuit is %+v, opened by %d of the reports, want by one", row, n)
	}
}

// A report needs no second connection of the pool. Otherwise a process that has just started, and records
// many outcomes at once, could block itself.
func TestAReportNeedsNoOtherConnection(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	store := r.open("&pool_max_conns=1")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	g := r.gate(onStore(store))
	request := r.transmission()

	err := store.InTx(ctx, func(q *db.Queries) error {
		if _, err := g.HoldBack(ctx, q, request, ""); err != nil {
			return err
		}
		_, err := g.Report(ctx, q, gate.Report{TransmissionID: uuid.New(), StartedAt: time.Now(), Finding: gate.Refuses})
		return err
	})

	r.must(err)
	if row := r.row(); row.Circuit != gate.Open {
		t.Errorf("the circuit is %+v", row)
	}
}

// outage lists the states in which readings may be when an outage of ten minutes ends.
var outage = []struct {
	name  string
	ago   time.Duration // since the beginning of its last delivery
	state string        // the columns in which it differs from a failed one
	freed bool
}{
	{"failed in the outage", 5 * time.Minute, "", true},
	{"failed at its start", 9 * time.Minute, "", true},
	{"failed before it", 11 * time.Minute, "", false},
	{"forbidden in the outage", 5 * time.Minute, "status = 'pending', error_class = 'permanent_credentials'", true},
	{"forbidden before it", 11 * time.Minute, "status = 'pending', error_class = 'permanent_credentials'", false},
	{"throttled in the outage", 5 * time.Minute, "status = 'pending', error_class = 'throttled'", false},
	{"failed for good", 5 * time.Minute, "next_retry_at = NULL", false},
	{"due", 5 * time.Minute, "next_retry_at = now() - interval '1 second'", false}, // its retry is due in any case
	{"unknown since a short time", 9 * time.Minute, "error_class = 'unknown', updated_at = now() - interval '4 minutes'", false},
	{"unknown since a long time", 9 * time.Minute, "error_class = 'unknown', updated_at = now() - interval '6 minutes'", true},
	{"under way", 5 * time.Minute, "status = 'processing', next_retry_at = NULL", false},
	{"delivered", 5 * time.Minute, "status = 'transmitted', next_retry_at = NULL, ecw_observation_id = 'obs-1'", false},
}

// openOutage stores a reading in each of those states.
func (r *rig) openOutage(g *gate.Gate) (names map[uuid.UUID]string) {
	r.tb.Helper()
	r.openCircuit(g, 10*time.Minute)
	names = map[uuid.UUID]string{}
	for _, o := range outage {
		t := r.transmission()
		r.fail(t, o.ago)
		if o.state != "" {
			r.exec("UPDATE transmissions SET "+o.state+" WHERE id = $1", t.TransmissionID)
		}
		names[t.TransmissionID] = o.name
	}
	return names
}

// A reading that failed during the outage is delivered at once and does not wait for its retry. One that may
// have arrived waits for the first interval of the schedule, until eCW's searches show it.
func TestWhatAnOutageHeldUpIsBroughtForward(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(places(64))
	names := r.openOutage(g)
	held := r.hold(g, 2)
	since := *r.row().FailingSince
	r.must(g.Release(t.Context(), since)) // the circuit is still open, so no transmission is called
	r.expectCalls("the circuit is open")

	r.exec("UPDATE ecw_gates SET circuit = 'closed', reason = '', opened_at = NULL")
	r.must(g.Release(t.Context(), since))
	got := map[string]bool{}

	for _, c := range r.calls.take() {
		row, err := r.store.LatestTransmission(t.Context(), db.LatestTransmissionParams{PracticeCode: practice, ObservationID: c.observationID})
		r.must(err)
		got[names[row.ID]] = true
		if row.HeldAt == nil && !row.BroughtForward {
			t.Errorf("%q is called, and not in the queue", names[row.ID])
		}
	}

	if !got[""] {
		t.Errorf("those that were held are not called: %v", held)
	}

	for _, o := range outage {
		if got[o.name] != o.freed {
			t.Errorf("%q is brought forward: %t, want %t", o.name, got[o.name], o.freed)
		}
	}

	r.must(g.Release(t.Context(), since))
	r.expectCalls("released again, all of them are called already")
}

// If no outage has ended, only transmissions that were held are released.
func TestOnlyWhatWasHeldIsReleased(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate()
	failed := r.transmission()
	r.fail(failed, time.Minute)
	r.openCircuit(g, time.Hour)
	held := r.hold(g, 2)
	r.exec("UPDATE ecw_gates SET circuit = 'closed', reason = '', opened_at = NULL")
	r.must(g.Release(t.Context(), time.Time{}))
	r.expectCalls("the held ones", held...)

	if row := r.stored(failed); row.BroughtForward {
		t.Error("what waits for its retry is brought forward")
	}
}

// warnings keeps the log of a gate.
type warnings struct{ strings.Builder }

func (w *warnings) logger() *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// The delivery that closed the circuit and the circuit breaker may both release at the same time. PostgreSQL
// may choose a different plan for each, so that they lock the rows in different orders.
func TestTwoReleasesDoNotBlockEachOther(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first := r.gate(onStore(r.open("&enable_indexscan=off&enable_bitmapscan=off")))
	second := r.gate(onStore(r.open("&enable_seqscan=off&enable_bitmapscan=off")))
	_, err := first.State(t.Context())
	r.must(err)
	list := r.transmissions(3)

	for i, failed := range list { // the index by creation time has them in the opposite order of the table
		r.fail(failed, time.Minute)
		r.exec("UPDATE transmissions SET created_at = now() + $2 * interval '1 day' WHERE id = $1", failed.TransmissionID, i)
	}

	since := r.now().Add(-time.Hour)

	tx, err := r.sql.Begin(t.Context())
	r.must(err)
	_, err = tx.Exec(t.Context(), "SELECT FROM transmissions WHERE id = $1 FOR UPDATE", list[1].TransmissionID)
	r.must(err)
	group, ctx := errgroup.WithContext(t.Context())
	group.Go(func() error { return first.Release(ctx, since) })
	watch := &rig{tb: t, url: r.url, sql: r.connect()}
	watch.awaitLock(1)
	group.Go(func() error { return second.Release(ctx, since) })
	watch.awaitLock(2)
	r.must(tx.Commit(t.Context()))
	r.must(group.Wait())

	for _, released := range list {
		if !r.stored(released).BroughtForward {
			t.Errorf("%s is not brought forward", released.TransmissionID)
		}
	}
}

// A report frees a place that has expired, while another transaction removes expired places.
func TestAReportAndACallDoNotBlockEachOther(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var log warnings
	g := r.gate(places(1), func(cfg *gate.Config) { cfg.Logger = log.logger() })
	running, waiting := r.fill(g, 1)[0], r.transmission()
	r.waits(g, waiting)
	r.expire()

	tx, err := r.sql.Begin(t.Context())
	r.must(err)
	_, err = tx.Exec(t.Context(), "SELECT FROM ecw_gates FOR UPDATE")
	r.must(err)
	group, ctx := errgroup.WithContext(t.Context())
	group.Go(func() error { g.CallNext(ctx); return nil })
	watch := &rig{tb: t, url: r.url, sql: r.connect()}
	watch.awaitLock(1)

	group.Go(func() error {
		_, err := r.take(context.WithoutCancel(ctx), g, running.TransmissionID, gate.Unavailable)
		return err
	})

	watch.awaitLock(2)
	r.must(tx.Commit(t.Context()))
	r.must(group.Wait())
	if log.Len() > 0 {
		t.Errorf("the call was not made: %s", log.String())
	}

	r.expectCalls("a place is free", waiting)
}
