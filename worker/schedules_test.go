package worker_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/worker"
	"github.com/vantrexia/vantrexia/workflows"
)

func (r *rig) ensureSchedules() {
	r.t.Helper()
	if err := worker.EnsureSchedules(r.t.Context(), r.temporal, practice); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) schedule(id string) (client.ScheduleHandle, *client.ScheduleDescription) {
	r.t.Helper()
	handle := r.temporal.ScheduleClient().GetHandle(r.t.Context(), id)
	return handle, must(handle.Describe(r.t.Context()))(r.t)
}

func TestSchedulesAreAsDocumented(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true})
	for range 3 { // every worker that starts does this
		r.ensureSchedules()
	}
	_, sweep := r.schedule("process-pending/" + practice)
	if every := sweep.Schedule.Spec.Intervals; len(every) != 1 || every[0].Every != 5*time.Minute || sweep.Schedule.Spec.Jitter == 0 {
		t.Errorf("the sweep's times are %+v", sweep.Schedule.Spec)
	}
	if policy := sweep.Schedule.Policy; policy.Overlap != enums.SCHEDULE_OVERLAP_POLICY_SKIP || policy.CatchupWindow != 5*time.Minute {
		t.Errorf("the sweep's policy is %+v", policy)
	}
	_, refresh := r.schedule("refresh-patients/" + practice)
	if calendars := refresh.Schedule.Spec.Calendars; len(calendars) != 1 || len(calendars[0].Hour) != 1 || refresh.Schedule.Policy.Overlap != enums.SCHEDULE_OVERLAP_POLICY_SKIP {
		t.Errorf("the refresh is %+v", refresh.Schedule)
	}
	_, prune := r.schedule("prune/" + practice)
	calendars, policy := prune.Schedule.Spec.Calendars, prune.Schedule.Policy
	if len(calendars) != 1 || len(calendars[0].Hour) != 1 || calendars[0].Hour[0].Start != 9 || policy.Overlap != enums.SCHEDULE_OVERLAP_POLICY_SKIP {
		t.Errorf("the prune is %+v", prune.Schedule)
	}
	for _, d := range []*client.ScheduleDescription{sweep, refresh, prune} {
		if d.Schedule.State.Paused || len(d.Info.NextActionTimes) == 0 {
			t.Errorf("a schedule will not run: %+v", d.Schedule.State)
		}
	}
}

func TestAScheduleThatAPersonChanged(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true})
	r.ensureSchedules()
	handle, _ := r.schedule("process-pending/" + practice)
	if err := handle.Pause(t.Context(), client.SchedulePauseOptions{Note: "eCW is moving house"}); err != nil {
		t.Fatal(err)
	}
	err := handle.Update(t.Context(), client.ScheduleUpdateOptions{DoUpdate: func(in client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
		s := in.Description.Schedule
		s.Spec.Intervals[0].Every = time.Hour
		s.Policy.Overlap = enums.SCHEDULE_OVERLAP_POLICY_ALLOW_ALL
		return &client.ScheduleUpdate{Schedule: &s}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	r.ensureSchedules() // as an older release's schedule is brought up to date
	_, now := r.schedule("process-pending/" + practice)
	if !now.Schedule.State.Paused || now.Schedule.State.Note != "eCW is moving house" {
		t.Errorf("the pause is gone: %+v", now.Schedule.State)
	}
	if now.Schedule.Spec.Intervals[0].Every != 5*time.Minute || now.Schedule.Policy.Overlap != enums.SCHEDULE_OVERLAP_POLICY_SKIP {
		t.Errorf("the schedule is not up to date: %+v %+v", now.Schedule.Spec, now.Schedule.Policy)
	}
}

// sweep lets the schedule act now, and waits for the end of that run.
func (r *rig) sweep() {
	r.t.Helper()
	r.trigger("process-pending/" + practice)
}

// trigger lets a schedule act now, waits for the end of that run, and returns it.
func (r *rig) trigger(id string) client.WorkflowRun {
	r.t.Helper()
	handle, before := r.schedule(id)
	if err := handle.Trigger(r.t.Context(), client.ScheduleTriggerOptions{}); err != nil {
		r.t.Fatal(err)
	}
	var made []client.ScheduleActionResult
	eventually(r.t, "the end of "+id, func() bool {
		_, now := r.schedule(id)
		made = now.Info.RecentActions
		return now.Info.NumActions > before.Info.NumActions && len(now.Info.RunningWorkflows) == 0
	})
	started := made[len(made)-1].StartWorkflowResult
	return r.temporal.GetWorkflow(r.t.Context(), started.WorkflowID, started.FirstExecutionRunID)
}

// age makes everything in the database as old as it would be after the sweep's grace, and after the schedule's first wait.
func (r *rig) age() {
	r.t.Helper()
	for _, statement := range []string{
		"UPDATE observations SET created_at = created_at - interval '2 minutes'",
		"UPDATE ecw_places SET expires_at = now() - interval '2 minutes'",
		"UPDATE transmission_attempts SET started_at = started_at - interval '10 minutes', sent_at = sent_at - interval '10 minutes', finished_at = finished_at - interval '10 minutes'",
		"UPDATE transmissions SET updated_at = updated_at - interval '2 minutes', next_retry_at = CASE WHEN next_retry_at IS NOT NULL THEN now() - interval '2 minutes' END",
	} {
		must(r.sql.Exec(r.t.Context(), statement))(r.t)
	}
}

func (r *rig) awaitDelivered(id uuid.UUID) db.Transmission {
	r.t.Helper()
	eventually(r.t, "the delivery", func() bool {
		list := r.transmissions(id)
		return len(list) > 0 && list[len(list)-1].Status == db.StatusTransmitted
	})
	return r.transmission(id)
}

// Whatever the sweep meets: what nobody carries is carried from then on, and the rest is left alone.
func TestSweep(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.ensureSchedules()
	never := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.breakEHR(fault{Kind: "token_down", Target: "token", Count: 2})
	waiting, ended := r.storeReading(fhir.BloodPressure, bloodPressure), r.storeReading(fhir.BloodPressure, bloodPressure)
	waitingRun := r.start(waiting)
	r.awaitRetry(waiting)
	lost := r.start(ended)
	r.awaitRetry(ended)
	if err := r.temporal.TerminateWorkflow(t.Context(), lost.GetID(), lost.GetRunID(), "by hand"); err != nil {
		t.Fatal(err)
	}

	r.sweep() // everything is younger than the grace, or its time has not come
	if list := r.transmissions(never); len(list) != 0 {
		t.Errorf("the sweep took a reading that the API is just starting: %+v", list)
	}
	if row := r.transmission(ended); row.AttemptCount != 1 {
		t.Errorf("the sweep took a transmission before its time: %+v", row)
	}

	r.age()
	must(r.sql.Exec(t.Context(), "UPDATE transmissions SET next_retry_at = now() + interval '1 hour' WHERE observation_id = $1", waiting))(t)
	young := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.sweep()
	r.checkDelivered(never, r.awaitDelivered(never), 1)
	r.checkDelivered(ended, r.awaitDelivered(ended), 2) // the attempt that was made counts
	if row := r.transmission(waiting); row.AttemptCount != 1 || row.Status != db.StatusFailed {
		t.Errorf("the sweep disturbed a transmission that waits: %+v", row)
	}
	if list := r.transmissions(young); len(list) != 0 {
		t.Errorf("the sweep took a reading that the API is just starting: %+v", list)
	}
	r.transmitNow(waiting)
	r.mustDeliver(waitingRun)
}

// A sweep that meets running workflows, although the database shows nothing of them for long, starts nothing twice.
func TestSweepMeetsRunningWorkflows(t *testing.T) {
	t.Parallel()
	r, barrier, id, run := startBarred(t, setup{})
	r.ensureSchedules()
	r.age()
	r.sweep()
	r.age()
	r.sweep()
	barrier.open()
	r.mustDeliver(run)
	r.checkDelivered(id, r.transmission(id), 1)
	if received, _ := r.creates(id); received != 1 {
		t.Errorf("the EHR was sent the reading %d times", received)
	}
}

// The workflow is ended by hand in the middle of a delivery; what it sent arrives, and the sweep finds it there.
func TestSweepAfterATerminatedDelivery(t *testing.T) {
	t.Parallel()
	r, barrier, id, run := startBarred(t, setup{})
	r.ensureSchedules()
	if err := r.temporal.TerminateWorkflow(t.Context(), run.GetID(), run.GetRunID(), "by hand"); err != nil {
		t.Fatal(err)
	}
	barrier.open()
	eventually(t, "the EHR to store it", func() bool { _, stored := r.creates(id); return stored == 1 })
	r.age()
	r.sweep()
	r.checkDelivered(id, r.awaitDelivered(id), 1)
	if received, _ := r.creates(id); received != 1 {
		t.Errorf("the EHR was sent the reading %d times, want it looked up", received)
	}
}

// Temporal's database is lost with every workflow in it: the sweep of the new one takes up what the old one carried.
func TestSweepAfterALostNamespace(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.breakEHR(fault{Kind: "error_503", Target: "create"})
	delivered, waiting, never := r.storeReading(fhir.BloodPressure, bloodPressure), r.storeReading(fhir.BloodPressure, bloodPressure), r.storeReading(fhir.BloodPressure, bloodPressure)
	r.start(waiting)
	r.awaitRetry(waiting)
	r.mustDeliver(r.start(delivered))
	r.worker.Stop()

	r.address, r.namespace = stack.Temporal(t)
	r.temporal = r.dial(nil)
	r.startWorker(r.temporal)
	r.ensureSchedules()
	r.age()
	r.sweep()
	r.checkDelivered(waiting, r.awaitDelivered(waiting), 2)
	r.checkDelivered(never, r.awaitDelivered(never), 1)
	r.checkDelivered(delivered, r.transmission(delivered), 1)
	found := must(r.temporal.CountWorkflow(t.Context(), countQuery("WorkflowType = 'Transmission' AND ObservationId = '"+delivered.String()+"'")))(t)
	if found.GetCount() != 0 {
		t.Error("the sweep started what was delivered already")
	}
}

// The daily refresh reads the demographics of every linked patient again.
func TestRefreshOfThePatients(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.ensureSchedules()
	old := r.patient.Demographics
	old.City = "old"
	must(r.store.UpdatePatient(t.Context(), db.UpdatePatientParams{
		PracticeCode: practice,
		ID:           r.patient.ID,
		Demographics: old,
		Active:       true,
	}))(t)
	handle, _ := r.schedule("refresh-patients/" + practice)
	if err := handle.Trigger(t.Context(), client.ScheduleTriggerOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the refresh", func() bool {
		p, err := r.store.GetPatient(context.WithoutCancel(t.Context()), db.GetPatientParams{PracticeCode: practice, ID: r.patient.ID})
		return err == nil && p.City != "old" && p.City != ""
	})
}

// eCW shows somebody else under a linked id: the refresh leaves the patient alone but for the mark that holds the readings,
// says why in its result, and takes the mark away when eCW shows the patient again.
func TestRefreshThatShowsAnotherPerson(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	patient := func() db.Patient {
		return must(r.store.GetPatient(t.Context(), db.GetPatientParams{PracticeCode: practice, ID: r.patient.ID}))(t)
	}
	before := patient()
	r.breakEHR(fault{Kind: "other_person", For: "1h"})
	for range 2 {
		r.finish("refresh-"+uuid.NewString(), workflows.RefreshPatients, practice)
	}
	after := patient()
	since := after.MismatchSince
	same := after.LastName == before.LastName && after.DateOfBirth.Equal(before.DateOfBirth) && after.City == before.City
	if since == nil || !same {
		t.Errorf("the patient was %+v\nand is %+v", before, after)
	}
	var reason string
	const newest = `SELECT reason FROM patient_import_items i JOIN patient_imports m ON m.id = i.import_id
		WHERE outcome = 'error' ORDER BY m.created_at DESC LIMIT 1`
	if err := r.sql.QueryRow(t.Context(), newest).Scan(&reason); err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"last_name and date_of_birth", r.patient.ID.String(), "confirm_mismatch"} {
		if !strings.Contains(reason, word) {
			t.Errorf("%q does not name %s", reason, word)
		}
	}

	r.admin(http.MethodDelete, "faults", nil, nil)
	r.finish("refresh-"+uuid.NewString(), workflows.RefreshPatients, practice)
	if again := patient(); again.MismatchSince != nil || again.City == "" {
		t.Errorf("the patient is %+v", again)
	}
}
