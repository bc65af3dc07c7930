package worker_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/fhir"
)

func identifier(id uuid.UUID) ecw.Identifier {
	return ecw.Identifier{System: fhir.IdentifierSystem, Value: id.String()}
}

func TestEveryTypeOfReadingIsDeliveredOnce(t *testing.T) {
	t.Parallel()
	readings := []struct {
		typ    fhir.Type
		values string
	}{
		{fhir.BloodPressure, bloodPressure},
		{fhir.BloodPressure, `{"systolic": 118}`},
		{fhir.HeartRate, `{"value": 72, "unit": "bpm"}`},
		{fhir.RespiratoryRate, `{"value": 16, "unit": "breaths/min"}`},
		{fhir.Temperature, `{"value": 98.60, "unit": "F"}`},
		{fhir.Temperature, `{"value": 37.0, "unit": "Cel"}`},
		{fhir.Weight, `{"value": 81.6, "unit": "kg"}`},
		{fhir.Weight, `{"value": 180, "unit": "lbs"}`},
		{fhir.Height, `{"value": 175, "unit": "cm"}`},
		{fhir.BMI, `{"value": 26.6, "unit": "kg/m2"}`},
		{fhir.OxygenSaturation, `{"value": 97, "unit": "%"}`},
		{fhir.BloodGlucose, `{"value": 104, "unit": "mg/dL", "method": "finger_stick"}`},
		{fhir.BloodGlucose, `{"value": 5.8, "unit": "mmol/L", "method": "finger_stick"}`},
		{fhir.BloodGlucose, `{"value": 104, "unit": "mg/dL", "method": "cgm"}`},
		{fhir.BloodGlucose, `{"value": 5.8, "unit": "mmol/L", "method": "cgm"}`},
	}
	missing := map[fhir.Type]bool{}
	for _, typ := range fhir.Types() {
		missing[typ] = true
	}
	r := newRig(t, setup{})
	began := time.Now()
	ids, runs := make([]uuid.UUID, len(readings)), make([]client.WorkflowRun, len(readings))
	for i, reading := range readings {
		delete(missing, reading.typ)
		ids[i] = r.storeReading(reading.typ, reading.values)
		runs[i] = r.start(ids[i])
	}
	if len(missing) > 0 {
		t.Errorf("the test has no reading of %v", missing)
	}
	for i, reading := range readings {
		if _, err := r.outcome(runs[i]); err != nil {
			t.Errorf("%s %s: %v", reading.typ, reading.values, err)
			continue
		}
		row := r.transmission(ids[i])
		r.checkDelivered(ids[i], row, 1)
		r.checkFirstAttempt(row, began)
	}
	creates := r.stats().Creates
	if creates.Total != len(readings) || len(creates.Received) != len(readings) {
		t.Errorf("the EHR holds %d Observations after creates for %d readings, want %d", creates.Total, len(creates.Received), len(readings))
	}
	for key, received := range creates.Received {
		if received != 1 {
			t.Errorf("%s was sent %d times, want once", key, received)
		}
	}
}

// checkFirstAttempt checks everything that is recorded of a reading that was delivered at once.
func (r *rig) checkFirstAttempt(row db.Transmission, began time.Time) {
	r.t.Helper()
	made := r.attempts(row.ID)
	if len(made) != 1 {
		r.t.Fatalf("%d attempts are recorded, want one", len(made))
	}
	a := made[0]
	if a.Delivery != 1 || a.Number != 1 || a.HTTPStatus == nil || *a.HTTPStatus != http.StatusCreated || a.ErrorCode != "" || a.ErrorMessage != "" {
		r.t.Errorf("the attempt is recorded as %+v, want 201 at the first", a)
	}
	if row.MaxAttempts != 6 || *row.HTTPStatus != http.StatusCreated {
		r.t.Errorf("the transmission is recorded as %+v", row)
	}
	if !row.FirstAttemptedAt.Equal(a.StartedAt) || !row.LastAttemptedAt.Equal(a.StartedAt) {
		r.t.Errorf("first attempted at %s and last at %s, want %s", row.FirstAttemptedAt, row.LastAttemptedAt, a.StartedAt)
	}
	for _, order := range [][2]time.Time{{began.Add(-time.Millisecond), row.CreatedAt}, {row.CreatedAt, a.StartedAt}, {a.StartedAt, *a.FinishedAt},
		{*a.FinishedAt, row.UpdatedAt}, {row.UpdatedAt, time.Now()}} {
		if order[1].Before(order[0]) {
			r.t.Errorf("times are out of order: %s comes before %s in %+v, %+v", order[1], order[0], row, a)
		}
	}
}

func TestOneReadingStartedManyTimesIsDeliveredOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true})
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	first := r.start(id)
	if again := r.start(id); again.GetRunID() != first.GetRunID() {
		t.Errorf("a second start makes run %s beside %s", again.GetRunID(), first.GetRunID())
	}
	r.startWorker(r.temporal)
	r.mustDeliver(first)

	// The sweep, or a gateway that repeats itself, may start one that was delivered.
	late := r.start(id)
	if late.GetRunID() == first.GetRunID() {
		t.Fatal("a finished workflow was not started again")
	}
	r.mustDeliver(late)
	row := r.transmission(id)
	r.checkDelivered(id, row, 1)
	if received, _ := r.creates(id); received != 1 || len(r.attempts(row.ID)) != 1 {
		t.Errorf("%d creates and %d attempts, want one each", received, len(r.attempts(row.ID)))
	}
}
