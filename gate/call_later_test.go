package gate_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/gate"
)

// A delivery is put into the queue between the moment at which RecordDelivered looks at the queue, which is the start of its
// statement, and the moment at which the place that it leaves shows to others, which is the end of its commit.
func TestWhatComesWhileADeliveryIsRecordedIsCalled(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(places(1))
	first, second := r.transmission(), r.transmission()
	r.goes(g, first)
	r.starts(first, 1)
	r.exec("UPDATE ecw_gates SET answered_at = now() + interval '1 minute'") // eCW has answered others in this second
	ecwID, chart, httpStatus := "obs-1", uuid.New(), int32(201)
	var queued bool
	r.must(r.store.InTx(t.Context(), func(q *db.Queries) (err error) {
		queued, err = q.RecordDelivered(t.Context(), db.RecordDeliveredParams{
			PracticeCode:     practice,
			ID:               first.TransmissionID,
			ObservationID:    first.ObservationID,
			HTTPStatus:       &httpStatus,
			ECWObservationID: &ecwID,
			ChartID:          &chart,
			FinishedAt:       time.Now(),
		})
		r.waits(g, second) // and calls, in vain: the place is still taken for everybody else
		return err
	}))
	if queued { // as activities.Transmission.Deliver does
		g.CallNext(t.Context())
	}

	r.awaitCall("the only place is free, and nothing is under way", second)
}

// awaitCall waits until a transmission is called, for much less than the sweep's five minutes.
func (r *rig) awaitCall(why string, want gate.Request) {
	r.tb.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		for _, c := range r.calls.take() {
			if c.observationID == want.ObservationID {
				return
			}
		}
	}
	r.tb.Error(why + ", and who waits is not called")
}

// Passes that nobody uses take all the places that are left when eCW is overloaded. When they lapse, nothing is under way that
// could call who waits.
func TestWhoWaitedForThePlaceOfAPassIsCalledWhenThatLapses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(places(8))
	r.bears(g, 8)
	list := r.transmissions(2)
	r.passes(g, 3) // of four that it takes, or so
	if r.taken() < 3 {
		t.Fatalf("%d places are taken by passes", r.taken())
	}
	r.goes(g, list[0])
	r.exec("UPDATE ecw_gates SET parallel = 1") // halved three times
	r.waits(g, list[1])
	r.delivered(g, list[0])
	r.await("the passes to lapse", func() bool { return r.taken() == 0 })
	r.awaitCall("all places have been free for five seconds", list[1])
}
