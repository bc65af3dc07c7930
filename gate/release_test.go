package gate_test

import (
	"slices"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/gate"
)

// hold stores readings that the open circuit holds, each a second after the one before.
func (r *rig) hold(g *gate.Gate, n int) (ids []string) {
	r.tb.Helper()
	for i := range n {
		id := r.transmission()
		r.admit(g, gate.Request{TransmissionID: id})
		at := r.now().Add(time.Duration(i-n) * time.Second)
		r.exec("UPDATE transmissions SET created_at = $2, updated_at = $2 WHERE id = $1", id, at)
		ids = append(ids, id)
	}
	return ids
}

// fail records a delivery that began so long ago and failed, with a retry to come in an hour.
func (r *rig) fail(id string, ago time.Duration) {
	r.tb.Helper()
	at := r.now()
	retry := at.Add(time.Hour)
	r.must(r.store.StartAttempt(r.tb.Context(), db.StartAttemptParams{TransmissionID: id, Delivery: 1, Number: 1, StartedAt: at.Add(-ago)}))
	r.must(r.store.RecordOutcome(r.tb.Context(), db.RecordOutcomeParams{ID: id, Status: db.StatusFailed, ErrorClass: "retryable", AttemptCount: 1, NextRetryAt: &retry}))
}

func (r *rig) nextTrial(g *gate.Gate) string {
	r.tb.Helper()
	next, found, err := g.NextTrial(r.tb.Context())
	r.must(err)
	if found != (next.TransmissionID != "") {
		r.tb.Fatalf("found %t: %+v", found, next)
	}
	return next.TransmissionID
}

// A reading that eCW cannot handle must not keep the circuit open for the others: each has its turn to be the trial.
func TestTrialsRotate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gates := r.processes(2, 240)
	r.openCircuit(gates[0], time.Minute)
	ids := r.hold(gates[0], 3)
	tried := r.transmission()
	r.fail(tried, 30*time.Second) // in the outage, so that it may be tried too
	r.fail(r.transmission(), time.Hour)
	want := append(slices.Clone(ids), tried)
	for round := range 2 {
		for i, id := range want {
			if got := r.nextTrial(gates[i%2]); got != id {
				t.Errorf("round %d: trial %d is %q, want %q", round, i, got, id)
			}
			row := r.row()
			if row.Circuit != gate.HalfOpen || row.Trial != id || row.NextTrialAt != nil {
				t.Errorf("the circuit is %+v, want it to try %s", row, id)
			}
			if change := r.report(r.store, gates[0], id, gate.Refuses); change.Closed || change.Opened || !change.Unsettled {
				t.Errorf("the trial's failure changed %+v", change)
			}
			if row := r.row(); row.Circuit != gate.Open || row.Trial != "" {
				t.Errorf("the circuit is %+v, want it open again", row)
			}
		}
	}
}

func TestNobodyIsTriedByAClosedCircuit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := gate.New(r.store, practice, 240)
	_, err := g.Circuit(t.Context())
	r.must(err)
	r.fail(r.transmission(), time.Second)
	if id := r.nextTrial(g); id != "" {
		t.Errorf("a closed circuit tries %s", id)
	}
	r.must(g.PlanTrial(t.Context(), time.Minute))
	if row := r.row(); row.Circuit != gate.Closed || row.NextTrialAt != nil {
		t.Errorf("the circuit is %+v", row)
	}
}

func TestThePlannedTrialIsShown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := gate.New(r.store, practice, 240)
	r.openCircuit(g, time.Minute)
	before := r.now()
	r.must(g.PlanTrial(t.Context(), 90*time.Second))
	at := r.row().NextTrialAt
	if at == nil || at.Before(before.Add(90*time.Second)) || at.After(r.now().Add(90*time.Second)) {
		t.Errorf("the next trial is planned for %s", at)
	}
}

// Those that wait are told first in, first out; who was last tried before or after the outage waits for its schedule.
func TestWhoWaitsForTheCircuit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := gate.New(r.store, practice, 240)
	r.openCircuit(g, 10*time.Minute)
	before, during, after := r.transmission(), r.transmission(), r.transmission()
	r.fail(before, 11*time.Minute)
	r.fail(during, 5*time.Minute)
	r.fail(after, 2*time.Minute)
	ended := r.transmission()
	r.fail(ended, 5*time.Minute)
	r.exec("UPDATE transmissions SET next_retry_at = NULL WHERE id = $1", ended) // for good
	due := r.transmission()
	r.fail(due, 5*time.Minute)
	r.exec("UPDATE transmissions SET next_retry_at = now() - interval '1 second' WHERE id = $1", due) // goes by itself
	held := r.hold(g, 3)
	r.exec("UPDATE transmissions SET created_at = now() - interval '1 day' WHERE id = $1", held[1])

	row := r.row()
	want := []string{held[1], during, held[0], held[2]}
	r.exec("UPDATE transmissions SET created_at = now() - interval '1 hour' WHERE id = $1", during)
	until := r.now().Add(-3 * time.Minute)
	waiting, err := g.WaitingSince(t.Context(), *row.FailingSince, until, 100)
	r.must(err)
	var got []string
	for _, w := range waiting {
		got = append(got, w.TransmissionID)
		requests := 1
		if w.TransmissionID == during {
			requests = 2 // it is looked up first
		}
		if w.Requests != requests {
			t.Errorf("the delivery of %s takes %d requests, want %d", w.TransmissionID, w.Requests, requests)
		}
		if row := r.stored(w.TransmissionID); row.ObservationID != w.ObservationID {
			t.Errorf("%s carries %s, want %s", w.TransmissionID, w.ObservationID, row.ObservationID)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("waiting: %v, want %v (before %s, after %s, ended %s, due %s)", got, want, before, after, ended, due)
	}
	if first, err := g.WaitingSince(t.Context(), *row.FailingSince, until, 2); err != nil || len(first) != 2 || first[0].TransmissionID != held[1] {
		t.Errorf("the first two: %+v (%v)", first, err)
	}
}

// Who is released waits for its turn, which would never come if it were released again and got another.
func TestNobodyIsReleasedTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := gate.New(r.store, practice, 240)
	r.openCircuit(g, 10*time.Minute)
	failed, forbidden := r.transmission(), r.transmission()
	r.fail(failed, 5*time.Minute)
	r.fail(forbidden, 5*time.Minute)
	r.exec("UPDATE transmissions SET status = 'pending', error_class = 'permanent_credentials', updated_at = last_attempted_at WHERE id = $1", forbidden)
	want := append(r.hold(g, 1), failed, forbidden)
	since, until := *r.row().FailingSince, r.now()
	waiting, err := g.WaitingSince(t.Context(), since, until, 100)
	r.must(err)
	for _, w := range waiting {
		if !slices.Contains(want, w.TransmissionID) {
			t.Errorf("%s waits, want %v", w.TransmissionID, want)
		}
		r.must(r.store.ReleaseTransmission(t.Context(), db.ReleaseTransmissionParams{ID: w.TransmissionID, TurnComesAt: until.Add(time.Hour), SeenAt: w.SeenAt}))
	}
	again, err := g.WaitingSince(t.Context(), since, until, 100)
	r.must(err)
	if len(waiting) != len(want) || len(again) != 0 {
		t.Errorf("%d wait, want %d; and %d once they are released, want none", len(waiting), len(want), len(again))
	}
}
