package workflows

import (
	"testing"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
)

// BenchmarkJudge is the ruling over a delivery that arrived, as nearly all do, and over one that has to be retried.
func BenchmarkJudge(b *testing.B) {
	for name, failure := range map[string]*activities.Failure{
		"arrived": nil,
		"retried": {Class: ecw.ClassUnknown, Finding: gate.Unavailable},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				judge(second(), failure)
			}
		})
	}
}
