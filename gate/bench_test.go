package gate_test

import (
	"testing"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/gate"
)

// BenchmarkDelivery measures the gate's part in a delivery of one request, from Admit to Report. All
// processes compete for the practice's one row.
func BenchmarkDelivery(b *testing.B) {
	r := newRig(b)
	g := r.gate(limit(1<<30), places(1<<20))
	list := make(chan gate.Request, 256)
	for range cap(list) {
		list <- r.transmission()
	}

	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			delivery := <-list
			if a, err := g.Admit(b.Context(), delivery); err != nil || a.Waits() {
				b.Errorf("told %+v (%v)", a, err)
			}

			ctx := gate.Delivering(b.Context(), delivery.TransmissionID)
			end, wait, err := g.Begin(ctx)
			if err != nil || wait > 0 {
				b.Errorf("told to wait %s (%v)", wait, err)
				return
			}

			end(ctx, prompt)
			if _, err := r.take(ctx, g, delivery.TransmissionID, gate.Answers); err != nil {
				b.Error(err)
			}

			g.CallNext(ctx)
			list <- delivery
		}
	})
}

// BenchmarkSingleRequest measures the gate's part in a request that belongs to no delivery.
func BenchmarkSingleRequest(b *testing.B) {
	r := newRig(b)
	g := r.gate(limit(1<<30), places(1<<20))
	b.ResetTimer()

	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			end, wait, err := g.Begin(b.Context())
			if err != nil || wait > 0 {
				b.Errorf("told to wait %s (%v)", wait, err)
				return
			}
			end(b.Context(), prompt)
		}
	})
}

// backlog puts n transmissions into the queue.
func (r *rig) backlog(n int) {
	r.tb.Helper()
	like := r.transmission().ObservationID
	r.exec(`WITH readings AS (
			INSERT INTO observations (id, practice_code, patient_id, observation_type, effective_at, device, measured)
			SELECT gen_random_uuid(), o.practice_code, o.patient_id, o.observation_type, o.effective_at + n * interval '1 second',
			       o.device, o.measured
			FROM observations o, generate_series(1, $2::int) n WHERE o.id = $1
			RETURNING id, practice_code, effective_at
		)
		INSERT INTO transmissions (id, practice_code, observation_id, max_attempts, held_at, created_at)
		SELECT gen_random_uuid(), practice_code, id, 6, now(), effective_at FROM readings`, like, n)

	r.exec("ANALYZE transmissions")
	r.exec("ANALYZE ecw_places")
}

// BenchmarkCallNext measures a call of the next transmission of a long queue when a place is free.
func BenchmarkCallNext(b *testing.B) {
	r := newRig(b)
	g := r.gate()
	r.backlog(10_000)
	g.CallNext(b.Context())
	taken := r.calls.take()
	b.ResetTimer()

	for i := range b.N {
		called, err := r.store.LatestTransmission(b.Context(), db.LatestTransmissionParams{
			PracticeCode:  practice,
			ObservationID: taken[i%parallel].observationID,
		})
		r.must(err)
		_, err = r.store.LeavePlace(b.Context(), called.ID)
		r.must(err)
		g.CallNext(b.Context())

		if n := len(r.calls.take()); n != 1 {
			b.Fatalf("%d were called", n)
		}
	}
}

// BenchmarkNewcomer measures the admission of a newcomer that has to wait behind a long queue.
func BenchmarkNewcomer(b *testing.B) {
	r := newRig(b)
	g := r.gate()
	r.backlog(10_000)
	g.CallNext(b.Context())
	newcomer := r.transmission()
	b.ResetTimer()
	for range b.N {
		r.exec("DELETE FROM ecw_places WHERE id = (SELECT id FROM ecw_places LIMIT 1)")
		if a, err := g.Admit(b.Context(), newcomer); err != nil || !a.Held {
			b.Fatalf("told %+v (%v)", a, err)
		}
	}
}
