package main

import (
	"math"
	"slices"
	"time"
)

// quantiles of a sample, in milliseconds.
type quantiles struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// quantilesOf sorts the sample. Those of an empty one are 0.
func quantilesOf(sample []time.Duration) quantiles {
	slices.Sort(sample)
	return quantiles{
		P50: milliseconds(quantile(sample, 0.50)),
		P95: milliseconds(quantile(sample, 0.95)),
		P99: milliseconds(quantile(sample, 0.99)),
		Max: milliseconds(quantile(sample, 1)),
	}
}

// quantile is the smallest value of a sorted sample that at least the share q of the sample does not exceed (nearest rank): a
// value that was measured, and never one between two.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q*float64(len(sorted)) - 1e-9)) // 0.95 * 100 is 95.00000000000001 somewhere
	return sorted[min(max(rank, 1), len(sorted))-1]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
