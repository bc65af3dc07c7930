package worker_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	commonpb "go.temporal.io/api/common/v1"
	enums "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/fhir"
)

// skipTime lets the server skip the time in which a workflow only waits; the SDK has no option for it.
func skipTime(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if start, ok := req.(*workflowservice.StartWorkflowExecutionRequest); ok {
		start.TimeSkippingConfig = &commonpb.TimeSkippingConfig{Enabled: true}
	}
	return invoke(ctx, method, req, reply, cc, opts...)
}

// trial is a transmission that runs beside others, because the server takes most of a second for each skip.
type trial struct {
	*rig
	id  uuid.UUID
	run client.WorkflowRun
}

func newTrial(t *testing.T, f fault) trial {
	t.Helper()
	r := newRig(t, setup{intercept: skipTime})
	r.breakEHR(f)
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	return trial{r, id, r.start(id)}
}

func TestWholeScheduleOnTheRealServer(t *testing.T) {
	t.Parallel()
	tests := []struct {
		target string // what is down
		class  ecw.Class
		route  string // of the request that fails
	}{
		{"any", ecw.ClassRetryable, "POST token"},
		{"create", ecw.ClassUnknown, "POST Observation"},
	}
	var trials []trial
	for _, test := range tests {
		trials = append(trials, newTrial(t, fault{Kind: "error_503", Target: test.target, For: "1h"}))
	}
	for i, test := range tests {
		t.Run(test.target, func(t *testing.T) {
			trial := trials[i]
			r := trial.on(t)
			r.mustFail(trial.run, string(test.class))
			row := r.transmission(trial.id)
			r.checkFailed(row, string(test.class), "503")
			if row.AttemptCount != 6 || row.MaxAttempts != 6 || value(row.HTTPStatus) != http.StatusServiceUnavailable {
				t.Errorf("the transmission is recorded as %+v, want six attempts, the last with 503", row)
			}
			if sent := r.stats().Requests[test.route]["503"]; sent != 6 {
				t.Errorf("the EHR saw %d of %s, want six", sent, test.route)
			}
			checkWaits(t, r.attempts(row.ID))
			checkTimers(t, r.history(trial.run))
		})
	}
}

// checkWaits compares the time between the attempts with the documented schedule.
func checkWaits(t *testing.T, made []db.ChartAttempt) {
	t.Helper()
	delays := documentedDelays()
	if len(made) != len(delays)+1 {
		t.Fatalf("%d attempts are recorded, want %d", len(made), len(delays)+1)
	}
	for i, delay := range delays {
		before, after := made[i], made[i+1]
		if before.FinishedAt == nil || before.ErrorClass == "" || before.ErrorMessage == "" || int(before.Number) != i+1 || int(before.Delivery) != i+1 {
			t.Fatalf("attempt %d is recorded as %+v", i+1, before)
		}
		// The server may fire a timer a second late, and this machine may be busy.
		within(t, fmt.Sprintf("wait after attempt %d", i+1), after.StartedAt.Sub(*before.FinishedAt), delay, delay+delay/10+10*time.Second)
	}
}

// checkTimers compares the timers in the history with the documented schedule. A timer starts when the failure was
// recorded, which is a little later than the failure that its delay is counted from.
func checkTimers(t *testing.T, history []*historypb.HistoryEvent) {
	t.Helper()
	var timers []time.Duration
	fired := 0
	for _, event := range history {
		switch event.EventType {
		case enums.EVENT_TYPE_TIMER_STARTED:
			timers = append(timers, event.GetTimerStartedEventAttributes().StartToFireTimeout.AsDuration())
		case enums.EVENT_TYPE_TIMER_FIRED:
			fired++
		}
	}
	delays := documentedDelays()
	if len(timers) != len(delays) || fired != len(delays) {
		t.Fatalf("the history has timers of %v, %d fired; want %d", timers, fired, len(delays))
	}
	jittered := false
	for i, delay := range delays {
		within(t, fmt.Sprintf("timer %d", i+1), timers[i], delay-10*time.Second, delay+delay/10)
		jittered = jittered || timers[i] > delay+delay/100
	}
	if !jittered {
		t.Errorf("the timers %v have no jitter: readings that failed together would come back together", timers)
	}
}

func TestEHRComesBackBeforeTheNthAttempt(t *testing.T) {
	t.Parallel()
	var trials []trial
	for n := 2; n <= 6; n++ {
		trials = append(trials, newTrial(t, fault{Kind: "error_503", Target: "create", Count: n - 1}))
	}
	for i, trial := range trials {
		n := i + 2
		t.Run(fmt.Sprintf("attempt %d", n), func(t *testing.T) {
			r := trial.on(t)
			r.mustDeliver(trial.run)
			row := r.transmission(trial.id)
			r.checkDelivered(trial.id, row, n)
			made := r.attempts(row.ID)
			if len(made) != n {
				t.Fatalf("%d attempts are recorded, want %d", len(made), n)
			}
			if last := made[n-1].StartedAt; !row.FirstAttemptedAt.Equal(made[0].StartedAt) || !row.LastAttemptedAt.Equal(last) {
				t.Errorf("first attempted at %s and last at %s, want %s and %s", row.FirstAttemptedAt, row.LastAttemptedAt, made[0].StartedAt, last)
			}
			if sent := r.stats().Requests["POST Observation"]; sent["503"] != n-1 || sent["201"] != 1 {
				t.Errorf("the EHR answered the creates with %v, want %d times 503 and then 201", sent, n-1)
			}
		})
	}
}
