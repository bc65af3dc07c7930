package workflows

import (
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

// TestRetryDelayIsTheSameEveryTime: the jitter is pinned by what it was, because a replay in a later process must wait as
// long as the first run did; two calls in one process would agree on a seed of the process too.
func TestRetryDelayIsTheSameEveryTime(t *testing.T) {
	t.Parallel()
	for id, want := range map[string][]string{
		"01a20e8d-4baf-7113-aeb1-0d8907c16e9e": {"5m21.45s", "16m5.43s", "48m15.21s", "2h8m26.16s", "6h25m9.84s"},
		"01a20eb0-e917-7955-b998-bb877108636a": {"5m10.17s", "15m30.15s", "46m29.37s", "2h3m55.44s", "6h11m37.68s"},
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
