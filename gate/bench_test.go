package gate_test

import (
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/gate"
)

// BenchmarkAllow is what every request to eCW costs before it leaves, with all processes at the practice's one row.
func BenchmarkAllow(b *testing.B) {
	r := newRig(b)
	g := gate.New(r.store, practice, 1<<30)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := g.Allow(b.Context()); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkTakeTurn is what a delivery costs that queues.
func BenchmarkTakeTurn(b *testing.B) {
	r := newRig(b)
	g := gate.New(r.store, practice, 240)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := g.TakeTurn(b.Context(), time.Time{}, 1); err != nil {
				b.Error(err)
			}
		}
	})
}
