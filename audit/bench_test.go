package audit_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
)

// BenchmarkRecord compares a transaction that writes one row with the same that writes one of the trail as well.
func BenchmarkRecord(b *testing.B) {
	for _, rows := range []int{0, 1} {
		b.Run(map[int]string{0: "without", 1: "with"}[rows], func(b *testing.B) {
			r := newRig(b)
			e := event()
			for b.Loop() {
				r.must(r.store.InTx(b.Context(), func(q *db.Queries) error {
					if err := q.CreateGate(b.Context(), uuid.NewString()); err != nil {
						return err
					}
					if rows == 0 {
						return nil
					}
					return audit.Record(b.Context(), q, e)
				}))
			}
		})
	}
}

// BenchmarkVerify verifies 100,000 rows of 100 writers.
func BenchmarkVerify(b *testing.B) {
	const writers, rows = 100, 1000
	r := newRig(b)
	r.addMonths(2025, 3)
	at := time.Date(2025, 3, 1, 0, 0, 0, 0, time.UTC)
	for range writers {
		times := make([]time.Time, rows)
		for n := range times {
			times[n] = at.Add(time.Duration(n) * time.Second)
		}
		r.insertPast(uuid.New(), times...)
	}
	r.seal(writers * rows)
	for b.Loop() {
		if report := r.verify(r.published()...); len(report.Findings) > 0 || report.Rows != writers*rows {
			b.Fatalf("%+v", report)
		}
	}
	b.ReportMetric(float64(writers*rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
