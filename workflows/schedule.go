package workflows

import (
	"hash/fnv"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// retryDelay is how long to wait after the given attempt (the first is 1) before the next one: the schedule's delay plus
// 0 to 10 % of jitter, never less. The jitter is a hash of its arguments, so that it is the same at every replay, and
// readings that failed together do not come back together. ok is false when no attempt is left.
func retryDelay(delays []time.Duration, transmissionID uuid.UUID, attempt, maxAttempts int) (delay time.Duration, ok bool) {
	if attempt >= maxAttempts || len(delays) == 0 {
		return 0, false
	}
	delay = delays[min(attempt, len(delays))-1]
	hash := fnv.New64a()
	// The attempt first: FNV mixes a byte by those that follow it, and the jitters of a reading would be alike.
	hash.Write([]byte(strconv.Itoa(attempt) + "#" + transmissionID.String()))
	return delay + delay/10*time.Duration(hash.Sum64()%1001)/1000, true
}
