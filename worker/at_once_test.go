package worker_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/fhir"
)

// manyPlaces makes the gate as if eCW had answered in good time for a while: it gives passes.
func (r *rig) manyPlaces() {
	r.t.Helper()
	must(r.gate.State(r.t.Context()))(r.t)
	r.exec("UPDATE ecw_gates SET parallel = 100")
}

// onePlace makes the gate as it is at first: it gives no passes.
func (r *rig) onePlace() {
	r.t.Helper()
	must(r.gate.State(r.t.Context()))(r.t)
	r.exec("UPDATE ecw_gates SET parallel = 1")
}

// authenticate gets an access token, as a worker has that has delivered before.
func (r *rig) authenticate() {
	r.t.Helper()
	if err := r.ehr.Authenticate(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) exec(sql string, args ...any) {
	r.t.Helper()
	must(r.sql.Exec(r.t.Context(), sql, args...))(r.t)
}

func TestAFirstDeliveryTakesOneWorkflowTask(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*rig){
		"with a pass":     (*rig).manyPlaces,
		"asking the gate": (*rig).onePlace,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{})
			r.authenticate()
			prepare(r)
			id := r.storeReading(fhir.BloodPressure, bloodPressure)
			run := r.start(id)
			r.mustDeliver(run)

			row := r.transmission(id)
			r.checkDelivered(id, row, 1)
			made := r.attempts(row.ID)
			if len(made) != 1 || made[0].SentAt == nil || made[0].FinishedAt == nil || made[0].ECWPatientID == nil {
				t.Errorf("the attempts are recorded as %+v, want one that was sent and is finished", made)
			}
			if events := r.history(run); len(events) != 7 {
				t.Errorf("the history has %d events, want 7: %v", len(events), events)
			}
			var places int
			if err := r.sql.QueryRow(t.Context(), "SELECT count(*) FROM ecw_places WHERE id = $1", row.ID).Scan(&places); err != nil || places != 0 {
				t.Errorf("%d places are still taken (%v)", places, err)
			}
		})
	}
}

// What keeps the gate shut holds a first delivery too, although its process has passes left.
func TestAFirstDeliveryIsHeld(t *testing.T) {
	t.Parallel()
	for name, shut := range map[string]string{
		"by an open circuit": `UPDATE ecw_gates SET circuit = 'open', reason = 'unavailable', failing_since = now(), opened_at = now(),
			next_trial_at = now() + interval '1 hour'`,
		"by eCW's 429":            "UPDATE ecw_gates SET blocked_until = now() + interval '1 hour'",
		"by a patient's mismatch": "UPDATE patients SET mismatch_since = now()",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{})
			r.ensureSchedules()
			r.authenticate()
			r.manyPlaces()
			for range 2 { // the second leaves one of two
				if _, ok, err := r.gate.Pass(t.Context()); err != nil || !ok {
					t.Fatalf("no pass (%v)", err)
				}
			}
			r.exec(shut)
			id := r.storeReading(fhir.BloodPressure, bloodPressure)
			r.start(id)
			r.awaitHeld(id)
			if received, _ := r.creates(id); received != 0 {
				t.Errorf("it was sent %d times", received)
			}
		})
	}
}

// While eCW has no token for us, or answers slowly, deliveries are activities of their own.
func TestAFirstDeliveryWithoutATokenGoesStepByStep(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(id)
	r.mustDeliver(run)
	r.checkDelivered(id, r.transmission(id), 1)
	var names []string
	for _, event := range r.history(run) {
		if scheduled := event.GetActivityTaskScheduledEventAttributes(); scheduled != nil {
			names = append(names, scheduled.GetActivityType().GetName())
		}
	}
	if got := strings.Join(names, " "); got != "Admit Authenticate Post Record" {
		t.Errorf("its activities are %s", got)
	}
}

// lossy takes workflow tasks for lost after a second, and loses an answer to Temporal: for Temporal, the worker has died. next
// counts down to it: 1 is the next answer.
type lossy struct{ next atomic.Int32 }

func (l *lossy) intercept(
	ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	switch req := req.(type) {
	case *workflowservice.StartWorkflowExecutionRequest:
		req.WorkflowTaskTimeout = durationpb.New(time.Second)
	case *workflowservice.RespondWorkflowTaskCompletedRequest:
		if l.next.Add(-1) == 0 {
			return status.Error(codes.NotFound, "lost by the test")
		}
	}
	return invoke(ctx, method, req, reply, cc, opts...)
}

// afterwards holds up the first create once it is stored, before the answer.
type afterwards struct{ *barrier }

func (s afterwards) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		first := isCreate(req) && s.taken.CompareAndSwap(false, true)
		next.ServeHTTP(w, req)
		if first {
			close(s.reached)
			<-s.opened
		}
	})
}

// A worker is lost between two steps of a first delivery, and what it had begun goes on meanwhile, on an EHR that ignores
// conditions: nothing but the attempt's row keeps the second run from sending again.
func TestAFirstDeliveryWhoseWorkerIsLostIsSentOnce(t *testing.T) {
	t.Parallel()
	before, after := newBarrier(), newBarrier()
	for name, test := range map[string]struct {
		*barrier
		wrap func(http.Handler) http.Handler
	}{
		"before the EHR has it":  {before, before.wrap},
		"before the EHR answers": {after, afterwards{after}.wrap},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, run, id := startLossy(t, test.wrap)
			t.Cleanup(test.open)
			row := r.awaitRetry(id)
			if row.ErrorClass != string(ecw.ClassUnknown) || row.AttemptCount != 1 {
				t.Errorf("recorded as %+v, want one attempt with an unknown outcome", row)
			}
			if made := r.attempts(row.ID); len(made) != 1 || made[0].ErrorCode != "worker_lost" {
				t.Errorf("the attempts are %+v, want one whose worker was lost", made)
			}

			test.open()
			eventually(t, "the EHR to store it", func() bool { _, stored := r.creates(id); return stored == 1 })
			r.transmitNow(id)
			r.mustDeliver(run)
			r.wantOnce(id)
			r.checkDelivered(id, r.transmission(id), 2)
		})
	}
}

// startLossy starts a first delivery whose first answer to Temporal is lost.
func startLossy(t *testing.T, watch func(http.Handler) http.Handler) (*rig, client.WorkflowRun, uuid.UUID) {
	t.Helper()
	loses := &lossy{}
	r := newRig(t, setup{ignoreIfNoneExist: true, intercept: loses.intercept, watch: watch})
	r.authenticate()
	r.manyPlaces()
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	loses.next.Store(1)
	return r, r.start(id), id
}

func TestAFirstDeliveryThatIsRecordedIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	r, run, id := startLossy(t, nil)
	r.mustDeliver(run)
	r.wantOnce(id)
	r.checkDelivered(id, r.transmission(id), 1)
}

// The worker is lost before it has marked the delivery as sent, and two runs then do so at once.
func TestAFirstDeliveryThatTwoRunsBeginIsSentOnce(t *testing.T) {
	t.Parallel()
	loses := &lossy{}
	r := newRig(t, setup{ignoreIfNoneExist: true, intercept: loses.intercept, delays: soon()})
	r.authenticate()
	r.manyPlaces()
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.exec("BEGIN")
	r.exec("LOCK TABLE transmission_attempts IN EXCLUSIVE MODE")
	loses.next.Store(1)
	run := r.start(id)
	r.awaitLockWaits(2)
	r.exec("COMMIT")

	eventually(t, "one of them to deliver it, or to know that it may have", func() bool {
		rows := r.transmissions(id)
		return len(rows) == 1 && (rows[0].Status == db.StatusTransmitted || rows[0].NextRetryAt != nil)
	})
	if r.transmission(id).Status != db.StatusTransmitted {
		r.transmitNow(id)
	}
	r.mustDeliver(run)
	r.wantOnce(id)
}

// A reading that had to wait for a place is delivered within one workflow task too, when it is called.
func TestACalledFirstDeliveryTakesOneWorkflowTask(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{parallel: 1})
	r.authenticate()
	end, _, err := r.gate.Begin(t.Context()) // the only place
	if err != nil {
		t.Fatal(err)
	}
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(id)
	r.awaitHeld(id)
	end(t.Context(), ecw.Observed{Answered: true})
	r.mustDeliver(run)
	r.checkDelivered(id, r.transmission(id), 1)
	for _, event := range r.history(run) {
		if name := event.GetActivityTaskScheduledEventAttributes().GetActivityType().GetName(); name != "" {
			t.Errorf("the activity %s was scheduled", name)
		}
	}
}

// It was called, and eCW shows somebody else under the patient's id before the worker comes to it.
func TestACalledFirstDeliveryOfSomebodyElseIsHeld(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{parallel: 1})
	r.ensureSchedules()
	r.authenticate()
	end, _, err := r.gate.Begin(t.Context()) // the only place
	if err != nil {
		t.Fatal(err)
	}
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(id)
	r.awaitHeld(id)
	r.worker.Stop()
	end(t.Context(), ecw.Observed{Answered: true})
	r.setMismatch("now()")
	r.worker = r.startWorker(r.temporal)
	eventually(t, "the call to be met", func() bool { return strings.Contains(r.details(run), "another person") })
	if received, _ := r.creates(id); received != 0 {
		t.Errorf("it was sent %d times", received)
	}
}
