package worker_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/fhir"
)

func TestPermanentFailureStopsAtOnceAndCanBeMended(t *testing.T) {
	t.Parallel()
	nobody := "ecw-patient-9999999"
	for _, test := range []struct {
		name      string
		ecwFHIRID *string // of the patient, while it is wrong
		class     ecw.Class
		code      string
		message   string
		status    int32
		sent      int // creates, before it is fixed
	}{
		{"patient unknown in eCW", &nobody, ecw.ClassPermanentData, "207", "Patient not found in eCW; check the patient's external_id", 422, 1},
		{"patient not linked", nil, ecw.ClassPermanentData, "patient_not_linked", "set the patient's external_id", 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{})
			r.relink(test.ecwFHIRID)
			id := r.storeReading(fhir.BloodPressure, bloodPressure)
			r.mustFail(r.start(id), string(test.class))

			first := r.transmission(id)
			r.checkFailed(first, string(test.class), test.message)
			made := r.attempts(first.ID)
			if len(made) != 1 || first.AttemptCount != 1 {
				t.Fatalf("%d attempts are recorded, attempt_count is %d, want one", len(made), first.AttemptCount)
			}
			a := made[0]
			if a.ErrorClass != string(test.class) || a.ErrorCode != test.code || a.ErrorMessage != first.ErrorMessage || value(a.HTTPStatus) != test.status ||
				value(first.HTTPStatus) != test.status || a.FinishedAt == nil {
				t.Errorf("the attempt is recorded as %+v, want %s %s with HTTP status %d", a, test.class, test.code, test.status)
			}
			if received, stored := r.creates(id); received != test.sent || stored != 0 {
				t.Errorf("the EHR was sent the reading %d times and stored it %d times, want %d and none", received, stored, test.sent)
			}

			r.relink(link())
			r.mustDeliver(r.transmitNow(id))
			both := r.transmissions(id)
			if len(both) != 2 || both[0].ID == both[1].ID {
				t.Fatalf("the transmissions are %+v, want a second one", both)
			}
			if !reflect.DeepEqual(both[0], first) || !reflect.DeepEqual(r.attempts(first.ID), made) {
				t.Errorf("the record of the first transmission changed to %+v", both[0])
			}
			r.checkDelivered(id, both[1], 1)
		})
	}
}

// link is the id in eCW of the rig's patient.
func link() *string {
	id := ecwPatientID()
	return &id
}

// relink changes the patient's link to eCW.
func (r *rig) relink(ecwFHIRID *string) {
	r.t.Helper()
	changed := r.patient.Demographics
	changed.ExternalID = ecwFHIRID
	r.patient = must(r.store.UpdatePatient(r.t.Context(), db.UpdatePatientParams{
		PracticeCode: practice,
		ID:           r.patient.ID,
		Demographics: changed,
		Active:       true,
	}))(r.t)
}

func value(status *int32) int32 {
	if status == nil {
		return 0
	}
	return *status
}

func TestReadingThatBecameInvalidIsRefusedByField(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	impossible := `{"systolic": 90753.25, "diastolic": 80417.75}`
	if _, err := r.sql.Exec(t.Context(), "UPDATE observations SET reading = NULL, device = 'BP-OMRON-7250', measured = $1 WHERE id = $2", impossible, id); err != nil {
		t.Fatal(err)
	}
	run := r.start(id)
	r.mustFail(run, string(ecw.ClassPermanentData))

	row := r.transmission(id)
	r.checkFailed(row, string(ecw.ClassPermanentData), "check the observation's values.systolic, values.diastolic")
	if made := r.attempts(row.ID); row.AttemptCount != 0 || len(made) != 0 {
		t.Errorf("attempts %+v are recorded, want none", made)
	}
	if received, _ := r.creates(id); received != 0 {
		t.Errorf("the EHR was sent the reading %d times", received)
	}
	_, err := r.outcome(run)
	for place, text := range map[string]string{"message": row.ErrorMessage, "workflow's error": err.Error(), "history": r.rawHistory(run)} {
		if strings.Contains(text, "90753") || strings.Contains(text, "80417") {
			t.Errorf("the %s holds a value of the reading: %q", place, text)
		}
	}

	if _, err := r.sql.Exec(t.Context(), "UPDATE observations SET reading = NULL, device = 'BP-OMRON-7250', measured = $1 WHERE id = $2", bloodPressure, id); err != nil {
		t.Fatal(err)
	}
	r.mustDeliver(r.transmitNow(id))
	r.checkDelivered(id, r.transmissions(id)[1], 1)
}
