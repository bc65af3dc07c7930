package worker_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/worker"
)

// unseal makes a reading one that an earlier version stored in clear.
func (r *rig) unseal(id uuid.UUID) {
	r.t.Helper()
	r.exec("UPDATE observations SET reading = NULL, device = 'CANARY-7250', measured = $2 WHERE id = $1", id, bloodPressure)
}

// Readings that an earlier version stored in clear are delivered while the background seals them, and afterwards.
func TestReadingsInClearAreDeliveredAndSealed(t *testing.T) {
	t.Parallel()
	book := &logBook{}
	r := newRig(t, setup{})
	var ids []uuid.UUID
	for range 20 {
		id := r.storeReading(fhir.BloodPressure, bloodPressure)
		r.unseal(id)
		ids = append(ids, id)
	}
	first := r.start(ids[0])
	r.mustDeliver(first) // from clear

	sealed := make(chan struct{})
	go func() {
		defer close(sealed)
		worker.SealClear(t.Context(), r.store, slog.New(slog.NewJSONHandler(book, nil)))
	}()
	for _, id := range ids[1:10] {
		r.mustDeliver(r.start(id))
	}
	<-sealed
	if n, err := r.store.CountClear(t.Context()); err != nil || n != 0 {
		t.Errorf("%d rows are still in clear, %v", n, err)
	}
	for _, id := range ids[10:] {
		r.mustDeliver(r.start(id))
	}

	for _, id := range ids {
		r.checkDelivered(id, r.transmission(id), 1)
		o := must(r.store.GetObservation(t.Context(), db.GetObservationParams{PracticeCode: practice, ID: id}))(t)
		if o.Device != "CANARY-7250" || !strings.Contains(string(o.Resource), `"value":142`) || !strings.Contains(string(o.Resource), o.Device) {
			t.Errorf("it is stored as %+v", o)
		}
	}
	_, text := book.lines(t)
	for _, line := range []string{"are sealed in the background", "old rows are sealed"} {
		if !strings.Contains(text, line) {
			t.Errorf("the log does not say %q: %s", line, text)
		}
	}
	if strings.Contains(text, "CANARY") {
		t.Errorf("the log names a device: %s", text)
	}
}
