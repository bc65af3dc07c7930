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

func TestRetryDelayIsTheSameEveryTime(t *testing.T) {
	t.Parallel()
	first, _ := retryDelay(documentedDelays, testTransmission, 3, 6)
	second, _ := retryDelay(documentedDelays, testTransmission, 3, 6)
	if first != second {
		t.Errorf("a replay waits %s, the first run %s", second, first)
	}
}

func TestRetryDelayAfterTheConfigurationChanged(t *testing.T) {
	t.Parallel()
	short := documentedDelays[:2] // the transmission was opened when there were five
	if got, ok := retryDelay(short, testTransmission, 4, 6); !ok || got < short[1] {
		t.Errorf("attempt 4 waits %s (%t), want the last delay that is left", got, ok)
	}
}
