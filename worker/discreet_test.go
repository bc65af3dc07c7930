package worker_test

import (
	"errors"
	"net"
	"strings"
	"testing"

	enums "go.temporal.io/api/enums/v1"
	"google.golang.org/protobuf/proto"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

// Whatever the database does to an activity, neither its address and user nor what it says of the rows reach the history, or
// what the Temporal Web UI shows of an activity that is tried again.
func TestRawErrorsStayOutOfTheHistory(t *testing.T) {
	t.Parallel()
	secrets := []string{"jsmith", "127.0.0.1", "localhost", "John", "42P01", "relation", "dial tcp", "context"}
	plain := []string{"SQLSTATE 42P01"} // the code alone tells nothing of anybody

	t.Run("the database is away", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, setup{idle: true})
		away := must(db.NewStore(t.Context(), "postgres://jsmith:secret@127.0.0.1:"+closedPort(t)+"/john", keyringtest.Shared()))(t)
		t.Cleanup(away.Close)
		there := r.store
		r.store = away
		broken := r.startWorker(r.temporal)
		r.store = there
		id := r.storeReading(fhir.BloodPressure, bloodPressure)
		run := r.start(id)
		shown := r.awaitActivityFailure(run.GetID())
		if !strings.Contains(shown, "the database does not answer") {
			t.Errorf("the Web UI does not show what is wrong: %q", shown)
		}
		broken.Stop()
		r.startWorker(r.temporal)
		r.mustDeliver(run)
		wantPlain(t, shown+r.rawHistory(run), secrets, nil)
	})

	t.Run("it refuses a statement", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, setup{})
		must(r.sql.Exec(t.Context(), "ALTER TABLE transmissions RENAME TO lost"))(t)
		id := r.storeReading(fhir.BloodPressure, bloodPressure)
		run := r.start(id)
		shown := r.awaitActivityFailure(run.GetID())
		must(r.sql.Exec(t.Context(), "ALTER TABLE lost RENAME TO transmissions"))(t)
		r.mustDeliver(run)
		wantPlain(t, shown+r.rawHistory(run), secrets, plain)
	})

	t.Run("in Post", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, setup{})
		r.breakSends()
		id := r.storeReading(fhir.BloodPressure, bloodPressure)
		run := r.start(id)
		eventually(t, "Post to fail", func() bool {
			return strings.Contains(r.rawHistory(run), "mark the delivery as sent")
		})
		if row := r.transmission(id); row.AttemptCount > 1 {
			t.Errorf("the database's fault is recorded as %+v", row)
		}
		r.repairSends()
		r.mustDeliver(run)
		wantPlain(t, r.rawHistory(run), secrets, []string{"SQLSTATE P0001"})
		r.checkDelivered(id, r.transmission(id), 1) // the fault burned no attempt
		if made := r.attempts(r.transmission(id).ID); len(made) != 1 {
			t.Errorf("%d attempts are recorded, want one: of the others nothing was sent", len(made))
		}
	})
}

// breakSends has the database refuse to mark anything as sent, in words that name somebody.
func (r *rig) breakSends() {
	r.t.Helper()
	must(r.sql.Exec(r.t.Context(), `
		CREATE FUNCTION refuse_john() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'John Smith is away'; END $$;
		CREATE TRIGGER refuse_john BEFORE UPDATE OF sent_at ON transmission_attempts FOR EACH ROW EXECUTE FUNCTION refuse_john()`))(r.t)
}

func (r *rig) repairSends() {
	r.t.Helper()
	must(r.sql.Exec(r.t.Context(), "DROP TRIGGER refuse_john ON transmission_attempts"))(r.t)
}

// awaitActivityFailure waits until an activity of the workflow has failed and is to be tried again, and returns all that is
// shown of it.
func (r *rig) awaitActivityFailure(workflowID string) (shown string) {
	r.t.Helper()
	eventually(r.t, "an activity to fail", func() bool {
		described := must(r.temporal.DescribeWorkflowExecution(r.t.Context(), workflowID, ""))(r.t)
		for _, pending := range described.GetPendingActivities() {
			if pending.GetLastFailure() != nil && pending.GetState() != enums.PENDING_ACTIVITY_STATE_UNSPECIFIED {
				r.openAll(pending.GetLastFailure())
				shown = pending.GetLastFailure().String() + string(must(proto.Marshal(pending.GetLastFailure()))(r.t))
			}
		}
		return shown != ""
	})
	return shown
}

func wantPlain(t *testing.T, text string, secrets, allowed []string) {
	t.Helper()
	for _, fine := range allowed {
		text = strings.ReplaceAll(text, fine, "")
	}
	for _, secret := range secrets {
		if at := strings.Index(text, secret); at >= 0 {
			t.Errorf("the history says %q: …%q…", secret, text[max(0, at-80):min(len(text), at+80)])
		}
	}
}

// closedPort is one that nothing listens on.
func closedPort(t *testing.T) string {
	t.Helper()
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err = errors.Join(err, listener.Close()); err != nil {
		t.Fatal(err)
	}
	return port
}
