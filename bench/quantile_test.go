package main

import (
	"testing"
	"time"
)

func TestQuantiles(t *testing.T) {
	t.Parallel()
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(100-i) * time.Millisecond // not sorted
	}
	for name, c := range map[string]struct {
		sample []time.Duration
		want   quantiles
	}{
		"none":    {nil, quantiles{}},
		"one":     {[]time.Duration{7 * time.Millisecond}, quantiles{7, 7, 7, 7}},
		"two":     {[]time.Duration{9 * time.Millisecond, 3 * time.Millisecond}, quantiles{3, 9, 9, 9}},
		"hundred": {hundred, quantiles{50, 95, 99, 100}},
	} {
		if got := quantilesOf(c.sample); got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}
