package fhir

import (
	"fmt"
	"testing"
)

// TestBoundsOfEveryUnit: in each unit of each type the lowest and the highest value are accepted, and the
// values just beyond them are refused. Otherwise a height of 170 cm that is sent as inches would be charted
// as 4.3 m. The numbers are repeated here, so that a bound of the catalogue is not changed by accident. The
// test fails if a unit is missing here.
func TestBoundsOfEveryUnit(t *testing.T) {
	t.Parallel()
	bounds := []struct {
		typ                     Type
		values                  string // with the number, or three of them
		below, least, most, far string
	}{
		{BloodPressure, `{"systolic":%s}`, "29.9", "30", "300", "300.1"},
		{BloodPressure, `{"diastolic":%s}`, "9.9", "10", "200", "200.1"},
		{BloodPressure, `{"systolic":120,"heart_rate":%s}`, "19.9", "20", "300", "300.1"},
		{HeartRate, `{"value":%s,"unit":"/min"}`, "19.9", "20", "300", "300.1"},
		{RespiratoryRate, `{"value":%s,"unit":"/min"}`, "2.9", "3", "150", "150.1"},
		{Temperature, `{"value":%s,"unit":"Cel"}`, "19.9", "20", "45", "45.1"},
		{Temperature, `{"value":%s,"unit":"[degF]"}`, "67.9", "68", "113", "113.1"},
		{Weight, `{"value":%s,"unit":"kg"}`, "0.19", "0.2", "650", "650.1"},
		{Weight, `{"value":%s,"unit":"[lb_av]"}`, "0.39", "0.4", "1433", "1433.1"},
		{Weight, `{"value":%s,"unit":"g"}`, "199.9", "200", "650000", "650000.1"},
		{Height, `{"value":%s,"unit":"cm"}`, "19.9", "20", "280", "280.1"},
		{Height, `{"value":%s,"unit":"[in_i]"}`, "7.7", "7.8", "110.3", "110.4"},
		{BMI, `{"value":%s,"unit":"kg/m2"}`, "3.9", "4", "250", "250.1"},
		{OxygenSaturation, `{"value":%s,"unit":"%%"}`, "19.9", "20", "100", "100.1"},
		{BloodGlucose, `{"value":%s,"unit":"mg/dL"}`, "4.9", "5", "2000", "2000.1"},
		{BloodGlucose, `{"value":%s,"unit":"mmol/L"}`, "0.19", "0.2", "111.1", "111.2"},
		{BloodGlucose, `{"value":%s,"unit":"mg/dL","method":"cgm"}`, "4.9", "5", "2000", "2000.1"},
		{BloodGlucose, `{"value":%s,"unit":"mmol/L","method":"cgm"}`, "0.19", "0.2", "111.1", "111.2"},
	}

	for _, b := range bounds {
		for _, number := range []string{b.least, b.most} {
			if err := reading(b.typ, fmt.Sprintf(b.values, number)).Validate(updated); err != nil {
				t.Errorf("%s %s at %s: %v", b.typ, b.values, number, err)
			}
		}

		for _, number := range []string{b.below, b.far, "0", "-" + b.least} {
			if err := reading(b.typ, fmt.Sprintf(b.values, number)).Validate(updated); err == nil {
				t.Errorf("%s %s takes %s", b.typ, b.values, number)
			}
		}
	}

	known := 0
	for _, e := range catalogue {
		known += len(e.units) + len(e.components)
	}

	if known != len(bounds) {
		t.Errorf("the catalogue has %d units, %d are tested", known, len(bounds))
	}
	if reading(Height, `{"value":170,"unit":"in"}`).Validate(updated) == nil {
		t.Error("170 cm sent as inches is taken")
	}
}
