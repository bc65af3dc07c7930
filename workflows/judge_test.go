package workflows

import (
	"net/http"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
)

var judgedAt = time.Date(2026, 2, 6, 15, 35, 0, 0, time.UTC)

// follows is what a case wants of a ruling.
type follows struct {
	status  string
	counts  bool          // it used up an attempt
	retry   time.Duration // after the delivery, without the jitter; 0: none
	held    string        // the circuit's reason
	finding gate.Finding
	unknown bool // something may have been sent
}

// rulings has a group for each row of the README's "What a failure means".
var rulings = map[ecw.Class]map[string]struct {
	failure activities.Failure
	change  func(*delivered) // of a second delivery, begun when it was due
	want    follows
}{
	ecw.ClassRetryable: {
		"eCW is busy": {
			failure: activities.Failure{HTTPStatus: http.StatusConflict, Finding: gate.Answers},
			want:    follows{status: db.StatusFailed, counts: true, retry: 15 * time.Minute, finding: gate.Answers},
		},
		"an outage": {
			failure: activities.Failure{Finding: gate.Unavailable},
			want:    follows{status: db.StatusFailed, counts: true, retry: 15 * time.Minute, finding: gate.Unavailable},
		},
		"an outage, met early": {
			failure: activities.Failure{Finding: gate.Unavailable},
			change:  beganEarly,
			want:    follows{status: db.StatusFailed, retry: 10 * time.Minute, finding: gate.Unavailable},
		},
		"an outage, met by the trial": {
			failure: activities.Failure{Finding: gate.Unavailable},
			change:  asTrial,
			want:    follows{status: db.StatusPending, held: gate.ReasonUnavailable, finding: gate.Unavailable},
		},
		"an outage at the last attempt": {
			failure: activities.Failure{Finding: gate.Unavailable},
			change:  atTheLast,
			want:    follows{status: db.StatusFailed, counts: true, finding: gate.Unavailable},
		},
		"a look-up in an outage": {
			failure: activities.Failure{Finding: gate.Unavailable, LookingUp: true},
			want:    follows{status: db.StatusFailed, retry: 5 * time.Minute, finding: gate.Unavailable},
		},
		"a look-up that fails alone": {
			failure: activities.Failure{Finding: gate.Unavailable, LookingUp: true, Alone: true},
			want:    follows{status: db.StatusFailed, counts: true, retry: 15 * time.Minute, finding: gate.Unavailable},
		},
	},
	ecw.ClassUnknown: {
		"a timeout after the request left": {
			failure: activities.Failure{Code: "timeout", Finding: gate.Unavailable},
			want:    follows{status: db.StatusFailed, counts: true, retry: 15 * time.Minute, finding: gate.Unavailable, unknown: true},
		},
		"met early": {
			failure: activities.Failure{Code: "timeout", Finding: gate.Unavailable},
			change:  beganEarly,
			want:    follows{status: db.StatusFailed, retry: 10 * time.Minute, finding: gate.Unavailable, unknown: true},
		},
		"met by the trial": {
			failure: activities.Failure{Code: "timeout", Finding: gate.Unavailable},
			change:  asTrial,
			want:    follows{status: db.StatusFailed, retry: 5 * time.Minute, finding: gate.Unavailable, unknown: true},
		},
		"the worker is lost": {
			failure: activities.Failure{Code: "worker_lost"},
			want:    follows{status: db.StatusFailed, counts: true, retry: 15 * time.Minute, unknown: true},
		},
		"the worker is lost at the last attempt": {
			failure: activities.Failure{Code: "worker_lost"},
			change:  atTheLast,
			want:    follows{status: db.StatusFailed, counts: true, finding: gate.NotAsked, unknown: true},
		},
		"not visible yet": {
			failure: activities.Failure{
				Code:       activities.CodeNotVisibleYet,
				HTTPStatus: http.StatusOK,
				LookingUp:  true,
				Finding:    gate.Answers,
				RetryAt:    judgedAt.Add(3 * time.Minute),
			},
			want: follows{status: db.StatusFailed, retry: 3 * time.Minute, finding: gate.Answers},
		},
	},
	ecw.ClassThrottled: {
		"until eCW says": {
			failure: activities.Failure{HTTPStatus: http.StatusTooManyRequests, RetryAt: judgedAt.Add(40 * time.Second)},
			want:    follows{status: db.StatusPending, retry: 40 * time.Second},
		},
		"eCW does not say": {
			failure: activities.Failure{HTTPStatus: http.StatusTooManyRequests},
			want:    follows{status: db.StatusPending, retry: throttlePause},
		},
		"at the last attempt, which it does not use up": {
			failure: activities.Failure{HTTPStatus: http.StatusTooManyRequests},
			change:  atTheLast,
			want:    follows{status: db.StatusPending, retry: throttlePause},
		},
	},
	ecw.ClassPermanentData: {
		"eCW refuses the reading": {
			failure: activities.Failure{HTTPStatus: http.StatusUnprocessableEntity, Finding: gate.Answers},
			want:    follows{status: db.StatusFailed, counts: true, finding: gate.Answers},
		},
		"the patient has no chart": {
			failure: activities.Failure{Code: "patient_not_linked"},
			want:    follows{status: db.StatusFailed, counts: true, finding: gate.NotAsked},
		},
	},
	ecw.ClassPermanentCredentials: {
		"eCW gives no token": {
			failure: activities.Failure{HTTPStatus: http.StatusUnauthorized, Finding: gate.Refuses},
			change:  func(d *delivered) { d.authenticated = false },
			want:    follows{status: db.StatusPending, held: gate.ReasonCredentials, finding: gate.Refuses},
		},
		"eCW refuses the token that it gave": {
			failure: activities.Failure{HTTPStatus: http.StatusUnauthorized, Finding: gate.Refuses},
			want:    follows{status: db.StatusPending, held: gate.ReasonCredentials, finding: gate.Refuses},
		},
		"eCW forbids this reading": {
			failure: activities.Failure{HTTPStatus: http.StatusForbidden, Finding: gate.Forbids},
			want:    follows{status: db.StatusPending, retry: 5 * time.Minute, finding: gate.Forbids},
		},
		"eCW forbids the trial": {
			failure: activities.Failure{HTTPStatus: http.StatusForbidden, Finding: gate.Forbids},
			change:  asTrial,
			want:    follows{status: db.StatusPending, held: gate.ReasonCredentials, finding: gate.Forbids},
		},
		"eCW forbids this reading for the last time": {
			failure: activities.Failure{HTTPStatus: http.StatusForbidden, Finding: gate.Forbids},
			change:  func(d *delivered) { d.refusals = maxRefusals - 1 },
			want:    follows{status: db.StatusFailed, counts: true},
		},
	},
}

func beganEarly(d *delivered) { d.early, d.due = true, judgedAt.Add(10*time.Minute) }

func asTrial(d *delivered) { d.trial = true }

func atTheLast(d *delivered) { d.attempts = d.maxAttempts - 1 }

// second is a delivery after one that failed, begun when it was due.
func second() delivered {
	return delivered{
		transmissionID: testTransmission,
		retryDelays:    documentedDelays,
		maxAttempts:    6,
		attempts:       1,
		due:            judgedAt.Add(-time.Minute),
		authenticated:  true,
		finishedAt:     judgedAt,
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for class, cases := range rulings {
		for name, tc := range cases {
			d, f := second(), tc.failure
			f.Class = class
			if tc.change != nil {
				tc.change(&d)
			}
			tc.want.check(t, string(class)+", "+name, d, judge(d, &f))
		}
	}

	got := judge(second(), nil)
	follows{status: db.StatusTransmitted, counts: true, finding: gate.Answers}.check(t, "delivered", second(), got)
}

func (want follows) check(t *testing.T, name string, d delivered, got ruling) {
	t.Helper()
	if got.Status != want.status || got.Finding != want.finding || got.HeldFor != want.held || got.Held != (want.held != "") {
		t.Errorf("%s: %+v, want %+v", name, got.Verdict, want)
	}
	if counts := got.AttemptCount == d.attempts+1; counts != want.counts || !counts && got.AttemptCount != d.attempts {
		t.Errorf("%s: %d attempts after %d, want it to count: %t", name, got.AttemptCount, d.attempts, want.counts)
	}
	if got.unknown != want.unknown {
		t.Errorf("%s: something may have been sent: %t, want %t", name, got.unknown, want.unknown)
	}
	switch {
	case want.retry == 0:
		if got.NextRetryAt != nil {
			t.Errorf("%s: it comes again at %s, want never", name, got.NextRetryAt)
		}
	case got.NextRetryAt == nil:
		t.Errorf("%s: it never comes again, want it after %s", name, want.retry)
	default:
		if after := got.NextRetryAt.Sub(judgedAt); after < want.retry || after > want.retry*11/10 {
			t.Errorf("%s: it comes again after %s, want %s", name, after, want.retry)
		}
		if got.due.Before(*got.NextRetryAt) {
			t.Errorf("%s: it is due at %s, before it comes again", name, got.due)
		}
	}
}

// The README explains every class, and no other.
func TestReadmeExplainsEveryClass(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	table := regexp.MustCompile(`(?s)## What a failure means\n\n(.*?)\n\n`).FindSubmatch(readme)
	if table == nil {
		t.Fatal("the README has no table of what a failure means")
	}
	var explained []ecw.Class
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllSubmatch(table[1], -1) {
		explained = append(explained, ecw.Class(row[1]))
	}
	for class := range rulings {
		if !slices.Contains(explained, class) {
			t.Errorf("the README does not explain %s", class)
		}
	}
	if len(explained) != len(rulings) {
		t.Errorf("the README explains %v", explained)
	}
}
