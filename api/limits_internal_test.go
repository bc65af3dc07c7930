package api

import (
	"strconv"
	"testing"
	"time"
)

// A million addresses do not make the process grow, and do not fill the bucket of somebody who goes on asking.
func TestAMillionAddressesAreForgotten(t *testing.T) {
	t.Parallel()
	b := newBuckets(100, time.Hour)
	const steady = "192.0.2.1/32"
	for i := range 1_000_000 {
		b.of(strconv.Itoa(i)).Allow()
		if i%(mostBuckets/2) == 0 {
			b.of(steady).Allow()
		}
	}

	if n := len(b.recent) + len(b.earlier); n > 2*mostBuckets {
		t.Errorf("%d buckets are kept", n)
	}
	if tokens := b.of(steady).Tokens(); tokens > 1 {
		t.Errorf("%g requests are left after 200 of 100 were asked for", tokens)
	}
}
