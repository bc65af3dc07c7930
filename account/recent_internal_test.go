package account

import (
	"testing"
	"time"
)

// A key is revoked while the database is asked about it, and answers as before.
func TestARevokedKeyIsNotRemembered(t *testing.T) {
	t.Parallel()
	r := newRecent[bool]()
	asked := time.Now()
	r.forget("key")
	r.put("key", true, asked)
	if _, good := r.get("key"); good {
		t.Error("it is good for five more seconds")
	}

	r.put("key", true, time.Now())
	if _, good := r.get("key"); !good {
		t.Error("nothing is remembered any more")
	}
}
