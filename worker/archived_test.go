package worker_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/worker"
	"github.com/vantrexia/vantrexia/workflows"
)

// archive archives the patient, or unarchives with false.
func (r *rig) archive(archived bool) {
	r.t.Helper()
	must(r.store.SetArchived(r.t.Context(), db.SetArchivedParams{PracticeCode: practice, ID: r.patient.ID, Archived: archived}))(r.t)
}

// The patient is archived while a delivery is under way that the gate had let begin. Nothing has left for the EHR yet, and
// nothing leaves.
func TestNothingIsSentOncePatientIsArchived(t *testing.T) {
	t.Parallel()
	asked, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r := newRig(t, setup{watch: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if strings.Contains(req.URL.Path, "token") {
				once.Do(func() {
					close(asked)
					<-goOn
				})
			}
			next.ServeHTTP(w, req)
		})
	}})
	r.ensureSchedules()
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(id)
	<-asked
	r.archive(true)
	close(goOn)
	r.awaitHeld(id)
	r.sweep()
	r.transmitNow(id) // by somebody in the Temporal Web UI, who gets past the API
	r.awaitHeld(id)
	if received, _ := r.creates(id); received != 0 {
		t.Errorf("the EHR was sent %d readings of an archived patient", received)
	}

	r.archive(false)
	r.sweep() // calls the queue
	r.mustDeliver(run)
	r.checkDelivered(id, r.transmission(id), 1)
}

// The patient is archived while a reading waits for its retry. The retry finds that, and waits in the queue.
func TestARetryOfAnArchivedPatientIsHeld(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.ensureSchedules()
	r.breakEHR(fault{Kind: "error_503", Target: "token"})
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(id)
	r.awaitRetry(id)
	r.archive(true)
	r.transmitNow(id)
	r.awaitHeld(id)
	if received, _ := r.creates(id); received != 0 {
		t.Errorf("the EHR was sent %d readings of an archived patient", received)
	}

	r.archive(false)
	r.sweep()
	r.mustDeliver(run)
	r.checkDelivered(id, r.transmission(id), 2)
}

// A workflow is started for a reading whose patient was archived a moment before. It ends without a trace, and the sweep
// leaves the reading alone until the patient is active again.
func TestNoTransmissionIsOpenedForAnArchivedPatient(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.ensureSchedules()
	r.archive(true)
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.mustDeliver(r.start(id)) // the workflow has nothing to do, which is no failure
	r.age()
	r.sweep()
	if all := r.transmissions(id); len(all) != 0 {
		t.Errorf("opened %+v", all)
	}
	if received, _ := r.creates(id); received != 0 {
		t.Errorf("the EHR was sent %d readings of an archived patient", received)
	}

	r.archive(false)
	r.sweep()
	r.checkDelivered(id, r.awaitDelivered(id), 1)
}

// The daily refresh has listed a patient who is archived before it reads them. It takes eCW's data over, and the patient stays
// archived. The next refresh leaves such a patient out.
func TestRefreshUnarchivesNobody(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	do := &activities.PatientImport{Store: r.store, EHR: r.ehr, Gate: r.gate, Start: worker.Start(r.temporal), Logger: r.log}
	ref := must(do.OpenRefresh(t.Context(), practice))(t)
	r.archive(true)
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	must(do.LinkPatient(t.Context(), activities.ImportItem{ImportRef: ref, Ordinal: 1}))(t)
	patient := must(r.store.GetPatient(t.Context(), db.GetPatientParams{PracticeCode: practice, ID: r.patient.ID}))(t)
	if patient.ArchivedAt == nil || patient.City == "" {
		t.Errorf("the patient is %+v", patient)
	}

	r.finish("refresh-"+uuid.NewString(), workflows.RefreshPatients, practice)
	if n := r.rows("patient_import_items"); n != 1 {
		t.Errorf("%d patients were refreshed", n-1)
	}
	if all := r.transmissions(id); len(all) != 0 {
		t.Errorf("opened %+v", all)
	}
}
