package gate_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/gate"
)

// hold stores readings that the open circuit holds, each a second after the one before.
func (r *rig) hold(g *gate.Gate, n int) (list []gate.Request) {
	r.tb.Helper()
	for i := range n {
		t := r.transmission()
		r.admit(g, t)
		at := r.now().Add(time.Duration(i-n) * time.Second)
		r.exec("UPDATE transmissions SET created_at = $2, updated_at = $2 WHERE id = $1", t.TransmissionID, at)
		list = append(list, t)
	}
	return list
}

// fail records a delivery that began so long ago and failed, with a retry to come in an hour.
func (r *rig) fail(t gate.Request, ago time.Duration) {
	r.tb.Helper()
	at := r.now()
	retry := at.Add(time.Hour)
	r.must(db.Written(r.store.StartAttempt(r.tb.Context(), db.StartAttemptParams{
		TransmissionID: t.TransmissionID,
		ObservationID:  t.ObservationID,
		Delivery:       1,
		Number:         1,
		StartedAt:      at.Add(-ago),
	})))
	r.must(db.Written(r.store.RecordOutcome(r.tb.Context(), db.RecordOutcomeParams{
		ID:            t.TransmissionID,
		ObservationID: t.ObservationID,
		Status:        db.StatusFailed,
		ErrorClass:    "retryable",
		AttemptCount:  1,
		NextRetryAt:   &retry,
	})))
}

func (r *rig) nextTrial(g *gate.Gate) gate.Request {
	r.tb.Helper()
	next, found, err := g.NextTrial(r.tb.Context())
	r.must(err)
	if found != (next.TransmissionID != uuid.Nil) {
		r.tb.Fatalf("found %t: %+v", found, next)
	}
	return gate.Request{TransmissionID: next.TransmissionID, ObservationID: next.ObservationID}
}

// A reading that eCW cannot handle must not keep the circuit open for the others: each is the trial in its turn.
func TestTrialsRotate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gates := r.processes(2)
	r.openCircuit(gates[0], time.Minute)
	held := r.hold(gates[0], 3)
	tried := r.transmission()
	r.fail(tried, 30*time.Second) // in the outage, so that it may be tried too
	r.fail(r.transmission(), time.Hour)
	want := append(slices.Clone(held), tried)
	for round := range 2 {
		for i, next := range want {
			if got := r.nextTrial(gates[i%2]); got != next {
				t.Errorf("round %d: trial %d is %+v, want %+v", round, i, got, next)
			}
			row := r.row()
			if row.Circuit != gate.HalfOpen || row.Trial == nil || *row.Trial != next.TransmissionID || row.NextTrialAt != nil {
				t.Errorf("the circuit is %+v, want it to try %s", row, next.TransmissionID)
			}
			if a := r.admit(gates[0], next); a != (gate.Admission{Trial: true}) {
				t.Errorf("the trial is told %+v", a)
			}
			if change := r.report(gates[0], next.TransmissionID, gate.Refuses); change.Closed || change.Opened || !change.Unsettled {
				t.Errorf("the trial's failure changed %+v", change)
			}
			if row := r.row(); row.Circuit != gate.Open || row.Trial != nil {
				t.Errorf("the circuit is %+v, want it open again", row)
			}
		}
	}
}

func TestNobodyIsTriedByAClosedCircuit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate()
	_, err := g.State(t.Context())
	r.must(err)
	r.fail(r.transmission(), time.Second)
	if next := r.nextTrial(g); next.TransmissionID != uuid.Nil {
		t.Errorf("a closed circuit tries %+v", next)
	}
	r.must(g.PlanTrial(t.Context(), time.Minute))
	if row := r.row(); row.Circuit != gate.Closed || row.NextTrialAt != nil {
		t.Errorf("the circuit is %+v", row)
	}
}

func TestThePlannedTrialIsShown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate()
	r.openCircuit(g, time.Minute)
	before := r.now()
	r.must(g.PlanTrial(t.Context(), 90*time.Second))
	at := r.row().NextTrialAt
	if at == nil || at.Before(before.Add(90*time.Second)) || at.After(r.now().Add(90*time.Second)) {
		t.Errorf("the next trial is planned for %s", at)
	}
}

// outage is what may have become of readings when an outage of ten minutes ends.
var outage = []struct {
	name  string
	ago   time.Duration // its last delivery began
	state string        // what is different from a failed one
	freed bool
}{
	{"failed in the outage", 5 * time.Minute, "", true},
	{"failed at its start", 9 * time.Minute, "", true},
	{"failed before it", 11 * time.Minute, "", false},
	{"forbidden in the outage", 5 * time.Minute, "status = 'pending', error_class = 'permanent_credentials'", true},
	{"forbidden before it", 11 * time.Minute, "status = 'pending', error_class = 'permanent_credentials'", false},
	{"throttled in the outage", 5 * time.Minute, "status = 'pending', error_class = 'throttled'", false},
	{"failed for good", 5 * time.Minute, "next_retry_at = NULL", false},
	{"due", 5 * time.Minute, "next_retry_at = now() - interval '1 second'", false}, // goes by itself
	{"unknown since a short time", 9 * time.Minute, "error_class = 'unknown', updated_at = now() - interval '4 minutes'", false},
	{"unknown since a long time", 9 * time.Minute, "error_class = 'unknown', updated_at = now() - interval '6 minutes'", true},
	{"under way", 5 * time.Minute, "status = 'processing', next_retry_at = NULL", false},
	{"delivered", 5 * time.Minute, "status = 'transmitted', next_retry_at = NULL, ecw_observation_id = 'obs-1'", false},
}

// openOutage makes all of those.
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

// What failed in the outage need not wait for its retry. What may have arrived gets the schedule's first wait, until eCW's
// searches show it.
func TestWhatAnOutageHeldUpIsBroughtForward(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(places(64))
	names := r.openOutage(g)
	held := r.hold(g, 2)
	since := *r.row().FailingSince
	r.must(g.Release(t.Context(), since)) // the circuit is still open: nobody is called
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

// Without an outage that is over, only what was held is released.
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

// The trial is one of those that would be released, and no other.
func TestWhoMayBeTheTrial(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate()
	names := r.openOutage(g)
	got := map[string]bool{}
	for range len(outage) + 1 {
		next := r.nextTrial(g)
		if name := names[next.TransmissionID]; name == "" || got[name] {
			break
		}
		got[names[next.TransmissionID]] = true
		r.report(g, next.TransmissionID, gate.Refuses)
	}
	for _, o := range outage {
		if got[o.name] != o.freed {
			t.Errorf("%q may be the trial: %t, want %t", o.name, got[o.name], o.freed)
		}
	}
}

// warnings keeps what a gate writes into its log.
type warnings struct{ strings.Builder }

func (w *warnings) logger() *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// Whoever closed the circuit releases, and the circuit breaker does so too, at the same time; each may come to the rows in
// another order, as its plan is.
func TestTwoReleasesDoNotBlockEachOther(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first := r.gate(onStore(r.open("&enable_indexscan=off&enable_bitmapscan=off")))
	second := r.gate(onStore(r.open("&enable_seqscan=off&enable_bitmapscan=off")))
	_, err := first.State(t.Context())
	r.must(err)
	list := r.transmissions(3)
	for i, failed := range list { // the index on when they were opened shows them the other way round than the table
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

// A report frees a place that has expired, while somebody else clears away those that have.
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
