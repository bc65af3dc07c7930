package workflows

import (
	"math"
	"testing"
	"time"

	"github.com/google/uuid"
)

var documentedDelays = []time.Duration{5 * time.Minute, 15 * time.Minute, 45 * time.Minute, 2 * time.Hour, 6 * time.Hour}

func TestRetryDelayKeepsTheDocumentedSchedule(t *testing.T) {
	t.Parallel()
	distinct := map[time.Duration]bool{}
	for n := range 2000 {
		id := uuid.NewSHA1(uuid.NameSpaceOID, []byte{byte(n >> 8), byte(n)})
		for i, want := range documentedDelays {
			got, ok := retryDelay(documentedDelays, id, i+1, 6)
			if !ok || got < want || got > want+want/10 {
				t.Fatalf("%s, attempt %d: waits %s (%t), want %s to %s", id, i+1, got, ok, want, want+want/10)
			}
			distinct[got] = true
		}
		if delay, ok := retryDelay(documentedDelays, id, 6, 6); ok {
			t.Fatalf("%s: the sixth attempt is followed by another after %s", id, delay)
		}
	}
	if len(distinct) < 4000 {
		t.Errorf("2,000 transmissions share %d different delays: the jitter does not spread them", len(distinct))
	}
}

// A reading that waits little once does not wait little each time: where it meets others again, they would meet each time.
func TestJitterDiffersBetweenAttempts(t *testing.T) {
	t.Parallel()
	const readings = 2000
	var apart float64 // the mean distance of one attempt's jitter from the next one's, in parts of the longest
	for n := range readings {
		id := uuid.NewSHA1(uuid.NameSpaceOID, []byte{byte(n >> 8), byte(n)})
		var shares []float64
		for i, delay := range documentedDelays {
			got, _ := retryDelay(documentedDelays, id, i+1, 6)
			shares = append(shares, float64(got-delay)/float64(delay/10))
		}
		for i := range shares[1:] {
			apart += math.Abs(shares[i+1]-shares[i]) / float64(len(shares)-1) / readings
		}
	}
	if apart < 0.3 || apart > 0.37 { // a third, where each is independent of the others
		t.Errorf("the jitters of two attempts are %.3f apart in the mean, want a third", apart)
	}
}

// TestRetryDelayIsTheSameEveryTime: the jitter is pinned by what it was, because a replay in a later process must wait as
// long as the first run did; two calls in one process would agree on a seed of the process too.
func TestRetryDelayIsTheSameEveryTime(t *testing.T) {
	t.Parallel()
	for id, want := range map[string][]string{
		"01a20e8d-4baf-7113-aeb1-0d8907c16e9e": {"5m18.69s", "16m5.88s", "49m13.26s", "2h0m22.32s", "6h1m11.28s"},
		"01a20eb0-e917-7955-b998-bb877108636a": {"5m24.21s", "15m20.79s", "46m14.52s", "2h10m20.64s", "6h21m16.56s"},
	} {
		for i, first := range want {
			if got, _ := retryDelay(documentedDelays, uuid.MustParse(id), i+1, 6); got.String() != first {
				t.Errorf("%s, attempt %d: a replay waits %s, the first run %s", id, i+1, got, first)
			}
		}
	}
}

func TestRetryDelayAfterTheConfigurationChanged(t *testing.T) {
	t.Parallel()
	short := documentedDelays[:2] // the transmission was opened when there were five
	if got, ok := retryDelay(short, testTransmission, 4, 6); !ok || got < short[1] {
		t.Errorf("attempt 4 waits %s (%t), want the last delay that is left", got, ok)
	}
}
