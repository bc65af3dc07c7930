package worker_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw/sandbox"
	"github.com/vantrexia/vantrexia/gate"
	"github.com/vantrexia/vantrexia/worker"
	"github.com/vantrexia/vantrexia/workflows"
)

// startImport starts an import of the EHR's first patients.
func (r *rig) startImport(patients int) (importID uuid.UUID, run client.WorkflowRun) {
	r.t.Helper()
	return r.startImportOf(fhirIDs(sandbox.Crowd(patients)))
}

func fhirIDs(people []sandbox.Person) (ids []string) {
	for _, p := range people {
		ids = append(ids, p.FHIRID)
	}
	return ids
}

// startImportOf starts an import of patients by their ids in the EHR.
func (r *rig) startImportOf(ids []string) (importID uuid.UUID, run client.WorkflowRun) {
	r.t.Helper()
	created := must(r.store.CreateImport(r.t.Context(), db.CreateImportParams{PracticeCode: practice}))(r.t)
	if err := r.store.AddImportItems(r.t.Context(), db.AddImportItemsParams{PracticeCode: practice, ImportID: created.ID, ECWFHIRIDs: ids}); err != nil {
		r.t.Fatal(err)
	}
	options := client.StartWorkflowOptions{ID: workflows.ImportPatientsWorkflowID(created.ID), TaskQueue: workflows.TaskQueue(practice)}
	in := workflows.ImportPatientsInput{ImportRef: activities.ImportRef{PracticeCode: practice, ImportID: created.ID}}
	return created.ID, must(r.temporal.ExecuteWorkflow(r.t.Context(), options, workflows.ImportPatients, in))(r.t)
}

func (r *rig) awaitCircuit(state, reason string) {
	r.t.Helper()
	eventually(r.t, "the circuit to be "+state, func() bool {
		c := r.circuit()
		return c.Circuit == state && c.Reason == reason
	})
}

// mustImport waits for the end of an import, and wants every patient imported.
func (r *rig) mustImport(importID uuid.UUID, run client.WorkflowRun, patients int64) {
	r.t.Helper()
	if err := run.Get(r.t.Context(), nil); err != nil {
		r.t.Fatal(err)
	}
	for _, failed := range must(r.store.ListImportErrors(r.t.Context(), importID))(r.t) {
		r.t.Errorf("a patient was not imported: %s", failed.Reason)
	}
	if n := must(r.store.CountImportItems(r.t.Context(), importID))(r.t); n.Imported+n.Skipped != patients {
		r.t.Errorf("imported %+v, want %d", n, patients)
	}
}

// requests is how many requests the EHR answered with the given statuses.
func (r *rig) requests(statuses ...string) (n int) {
	r.t.Helper()
	for _, counts := range r.stats().Requests {
		for _, status := range statuses {
			n += counts[status]
		}
	}
	return n
}

// Only an import runs: it opens the circuit, waits, is the trial itself, and goes on.
func TestAnImportWaitsUntilECWIsBack(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		fault  fault
		reason string
		status string
		most   int // requests that are sent in vain
	}{
		{refuseUs, gate.ReasonCredentials, "401", 5},
		{fault{Kind: "error_503", Target: "any", For: "1h"}, gate.ReasonUnavailable, "503", 15},
	} {
		t.Run(test.fault.Kind+" "+test.fault.Target, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{})
			r.breakEHR(test.fault)
			const patients = 40
			importID, run := r.startImport(patients)
			r.awaitCircuit(gate.Open, test.reason)
			eventually(t, "the import to say that it waits", func() bool {
				return strings.Contains(r.details(run), "Waiting for eCW: 40 patients")
			})
			eventually(t, "the patients to say so", func() bool {
				child := r.temporal.GetWorkflow(t.Context(), run.GetID()+"/1-4", "")
				return strings.Contains(r.details(child), "Waiting for eCW")
			})
			n := must(r.store.CountImportItems(t.Context(), importID))(t)
			if n.Done != 0 {
				t.Errorf("%d patients are done with, while eCW takes nothing", n.Done)
			}

			r.admin(http.MethodDelete, "faults", nil, nil)
			r.mustImport(importID, run, patients)
			r.awaitCircuit(gate.Closed, "")
			vain := r.requests(test.status)
			t.Logf("%d requests in vain, %d tokens", vain, r.stats().Requests["POST token"]["200"])
			if vain == 0 || vain > test.most {
				t.Errorf("%d requests were sent in vain, want a handful", vain)
			}
		})
	}
}

// What an import finds holds the deliveries back, and one of those is the trial.
func TestRefusedImportHoldsDeliveries(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.breakEHR(refuseUs)
	r.startImport(1)
	r.awaitCircuit(gate.Open, gate.ReasonCredentials)
	sent := r.requests("401")
	ids, runs := r.startHeld(3)
	for _, id := range ids {
		if row := r.transmission(id); row.AttemptCount != 0 || len(r.attempts(row.ID)) != 0 {
			t.Errorf("a held reading is recorded as %+v, want no attempt", row)
		}
	}
	if now := r.requests("401"); now != sent {
		t.Errorf("%d requests left for eCW while the circuit was open", now-sent)
	}

	r.admin(http.MethodDelete, "faults", nil, nil)
	r.tryNow()
	for i, run := range runs {
		r.mustDeliver(run)
		r.checkDelivered(ids[i], r.transmission(ids[i]), 1)
	}
}

// An import sends nothing through the circuit that a delivery has opened. A person who does not want to wait cancels it.
func TestAnImportThatWaitsIsCancelled(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.breakEHR(refuseUs)
	r.startHeld(1)
	sent := r.requests("401")
	importID, run := r.startImport(3)
	eventually(t, "the import to wait", func() bool { return strings.Contains(r.details(run), "Waiting for eCW: 3 patients") })
	if now := r.requests("401"); now != sent {
		t.Errorf("the import sent %d requests through the open circuit", now-sent)
	}

	if err := r.temporal.CancelWorkflow(t.Context(), run.GetID(), ""); err != nil {
		t.Fatal(err)
	}
	var cancelled *temporal.CanceledError
	if err := run.Get(t.Context(), nil); !errors.As(err, &cancelled) {
		t.Errorf("the import ended with %v", err)
	}
	failed := must(r.store.ListImportErrors(t.Context(), importID))(t)
	if len(failed) != 3 || !strings.Contains(failed[0].Reason, "interrupted") {
		t.Errorf("the result is %+v, want all three interrupted", failed)
	}
}

// eCW fails at one patient whenever it is asked for it, and answers everything else: the patient alone is at fault.
func TestAPatientAtWhomECWAloneFails(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true, watch: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if strings.Contains(req.URL.Path, "/Patient/") {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			next.ServeHTTP(w, req)
		})
	}})
	importID, _ := r.startImport(1)
	do := &activities.PatientImport{Store: r.store, EHR: r.ehr, Gate: r.gate, Start: worker.Start(r.temporal), Logger: r.log}
	item := activities.ImportItem{ImportRef: activities.ImportRef{PracticeCode: practice, ImportID: importID}, Ordinal: 1}
	for range 5 {
		if linked, err := do.LinkPatient(t.Context(), item); err == nil || linked.Waits {
			t.Fatalf("got %+v, %v, want a failure that is tried again", linked, err)
		}
	}
	if c := r.circuit(); c.Circuit != gate.Closed || len(c.Failing) != 1 {
		t.Errorf("the circuit is %+v, want it closed, with one that fails", c)
	}
	if answers, err := do.ECWAnswers(t.Context(), item.ImportRef); !answers || err != nil {
		t.Errorf("eCW answers others: %t, %v", answers, err)
	}
	r.breakEHR(fault{Kind: "forbidden", Target: "read"})
	if answers, err := do.ECWAnswers(t.Context(), item.ImportRef); !answers || err != nil {
		t.Errorf("eCW forbids what it is asked, and so answers: %t, %v", answers, err)
	}

	r.breakEHR(fault{Kind: "error_503", Target: "any", For: "1h"})
	if answers, err := do.ECWAnswers(t.Context(), item.ImportRef); answers || err != nil {
		t.Errorf("in an outage eCW answers: %t, %v", answers, err)
	}
}

// eCW forbids every patient of an import, and nothing else is sent: each is the trial in its turn, and ends after a few.
func TestForbiddenPatientsEndTheirImport(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true})
	r.breakEHR(fault{Kind: "forbidden", Target: "read", For: "1h"})
	do := &activities.PatientImport{Store: r.store, EHR: r.ehr, Gate: r.gate, Parallel: 1, Start: worker.Start(r.temporal), Logger: r.log}
	importID, _ := r.startImport(3)
	item := activities.ImportItem{ImportRef: activities.ImportRef{PracticeCode: practice, ImportID: importID}}
	for item.Ordinal = 1; item.Ordinal < 3; item.Ordinal++ {
		if _, err := do.LinkPatient(t.Context(), item); err == nil {
			t.Errorf("item %d was imported", item.Ordinal)
		}
	}
	for ; item.Forbidden < 2; item.Forbidden++ { // the third in a row opens the circuit, and is the trial from then on
		linked, err := do.LinkPatient(t.Context(), item)
		if err != nil || !linked.Waits || !linked.Forbidden {
			t.Fatalf("forbidden %d times before: %+v, %v, want it to wait", item.Forbidden, linked, err)
		}
		r.awaitCircuit(gate.Open, gate.ReasonCredentials)
		if _, found, err := r.gate.NextTrial(t.Context()); found || err != nil {
			t.Fatalf("somebody else is tried: %t, %v", found, err)
		}
	}
	var own *temporal.ApplicationError
	if linked, err := do.LinkPatient(t.Context(), item); !errors.As(err, &own) || !own.NonRetryable() {
		t.Errorf("forbidden for the last time: %+v, %v, want the patient's own error", linked, err)
	}
}
