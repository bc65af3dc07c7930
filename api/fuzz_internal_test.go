package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/vantrexia/vantrexia/fhir"
)

// intake is the part of a request that needs no database: limits, the contract, validation, and the answer to
// a refused request.
type intake struct {
	method, path string
	contract     *contract
}

func newIntake(tb testing.TB, method, path string) intake {
	tb.Helper()
	contract, err := loadContract()
	if err != nil {
		tb.Fatal(err)
	}
	return intake{method, path, contract}
}

// send sends a body to a handler. It fails unless the body is taken, or refused with an answer in the API's
// form.
func (in intake) send(t testing.TB, body []byte, take echo.HandlerFunc) {
	t.Helper()
	s := &server{Config: Config{Logger: slog.New(slog.DiscardHandler)}}
	e := echo.New()
	e.HTTPErrorHandler = s.writeError
	e.Use(middleware.BodyLimit(maxBody))
	e.Add(in.method, in.path, func(c echo.Context) error {
		if err := take(c); err != nil {
			return err
		}
		return c.NoContent(http.StatusNoContent)
	}, in.contract.check)

	req := httptest.NewRequest(in.method, strings.Replace(in.path, ":id", "d4e5f6a7-b8c9-0123-defa-234567890123", 1), bytes.NewReader(body))
	req.Header.Set(echo.HeaderContentType, echo.MIMEApplicationJSON)
	res := httptest.NewRecorder()
	e.ServeHTTP(res, req)
	if res.Code == http.StatusNoContent {
		return
	}

	var answer Error
	err := json.Unmarshal(res.Body.Bytes(), &answer)
	if res.Code < 400 || res.Code > 499 || err != nil || answer.Code == "" || answer.Detail == "" {
		t.Fatalf("%q: %d %s", body, res.Code, res.Body)
	}
	if answer.Code == "invalid" && len(answer.Fields) == 0 {
		t.Fatalf("%q: no field is named: %s", body, res.Body)
	}
}

// goodReading is the body of a request that is taken.
const goodReading = `{"patient_id":"d290f1ee-6c54-4b01-90e6-d701748f0851","observation_type":"blood_pressure","effective_at":"2026-02-06T10:30:00Z",` +
	`"device":"BP-OMRON-7250","values":{"systolic":142,"diastolic":92,"heart_rate":78}}`

// BenchmarkDecodeReading is a request before anything is stored: the body against the contract, and the reading in it.
func BenchmarkDecodeReading(b *testing.B) {
	in := newIntake(b, http.MethodPost, "/api/v1/observations")
	b.ReportAllocs()
	for b.Loop() {
		in.send(b, []byte(goodReading), func(c echo.Context) error {
			var req observationRequest
			if err := bind(c, &req); err != nil {
				return err
			}
			_, err := req.reading(time.Now())
			return err
		})
	}
}

func FuzzCreateObservation(f *testing.F) {
	const good = goodReading
	for _, seed := range []string{
		good, good[:80], good + good, "", "null", "[]", "{}", `""`, "\xff", "\x00", "\ufeff{}", `{"unknown":1}`, `{"patient_id":7}`, `{"device":"\u0000\ud800"}`,
		`{"values":{"systolic":1e400}}`, `{"values":{"a":1,"a":2}}`, `{"effective_at":"0001-01-01T00:00:00Z"}`,
	} {
		f.Add([]byte(seed))
	}

	for _, kind := range fhir.Types() {
		f.Add([]byte(`{"patient_id":"d290f1ee-6c54-4b01-90e6-d701748f0851","observation_type":"` + string(kind) +
			`","effective_at":"2026-02-06T10:30:00.123456789+14:00","device":"D","values":{"value":37.50,"unit":"kg","method":"cgm"}}`))
	}

	in := newIntake(f, http.MethodPost, "/api/v1/observations")
	f.Fuzz(func(t *testing.T, body []byte) {
		in.send(t, body, func(c echo.Context) error {
			var req observationRequest
			if err := bind(c, &req); err != nil {
				return err
			}

			reading, err := req.reading(time.Now())
			if err == nil {
				wantStorable(t, reading)
				reading.ID = req.PatientID.String() // any UUID
				if _, err := fhir.Observation(reading, fhir.Subject{PatientID: reading.ID, Display: "Jane Doe"}, 1, time.Now()); err != nil {
					t.Fatalf("%q was taken and cannot be transformed: %v", body, err)
				}
			}
			return err
		})
	})
}

// FuzzIngestion: what a door takes is a reading that can be stored and transformed, and is shown in the door's
// form. What it refuses, it names as the door does.
func FuzzIngestion(f *testing.F) {
	const good = `{"patient_id":"d290f1ee-6c54-4b01-90e6-d701748f0851","measured_at":"2026-02-06T10:30:00Z",`
	all := doors()
	for i := range all {
		for _, fields := range []string{
			`"systolic":142,"diastolic":92,"pulse":78,"device_id":"BP-OMRON-7250"}`, `"value":97}`, `"value":81.60,"unit":"kg","device_id":null}`,
			`"value":105,"unit":"mg/dL","meal":"pre","method":"cgm"}`, `"value":1e400,"unit":"F"}`, `"value":-0,"unit":7}`, `"device_id":"\u0000\ud800"}`,
		} {
			f.Add(byte(i), []byte(good+fields))
		}
	}

	f.Fuzz(func(t *testing.T, n byte, body []byte) {
		d := all[int(n)%len(all)]
		newIntake(t, http.MethodPost, "/api/v1/ingestion/"+d.path).send(t, body, func(c echo.Context) error { return d.fuzzed(t, c) })
	})
}

// fuzzed does with a request what ingest does, without a database.
func (d door) fuzzed(t *testing.T, c echo.Context) error {
	raw, err := d.reading(body(c))
	if err != nil {
		t.Fatalf("%q: %v", body(c), err)
	}

	var req observationRequest
	if err := unmarshal(raw, &req); err != nil {
		t.Fatalf("%q became %q: %v", body(c), raw, err)
	}
	reading, err := req.reading(time.Now())
	if err != nil {
		err = d.inItsWords(err)
		if said := err.Error(); strings.Contains(said, "values.") || strings.Contains(said, "effective_at") || strings.Contains(said, "device:") {
			t.Fatalf("%q is refused in other words: %s", body(c), said)
		}
		return err
	}

	wantStorable(t, reading)
	if _, err := d.answer(observation{Values: reading.Values}); err != nil {
		t.Fatalf("%q cannot be shown: %v", body(c), err)
	}
	reading.ID = req.PatientID.String() // any UUID
	if _, err := fhir.Observation(reading, fhir.Subject{PatientID: reading.ID}, 1, time.Now()); err != nil {
		t.Fatalf("%q was taken and cannot be transformed: %v", body(c), err)
	}
	return nil
}

// wantStorable fails for values that PostgreSQL would refuse: NUL in a text or in jsonb, and times outside
// its range.
func wantStorable(t *testing.T, r fhir.Reading) {
	t.Helper()
	if bytes.ContainsRune([]byte(r.Device), 0) || bytes.Contains(r.Values, []byte(`\u0000`)) || !json.Valid(r.Values) {
		t.Fatalf("device %q, values %q", r.Device, r.Values)
	}
	if at := r.EffectiveAt; at.Location() != time.UTC || at.Nanosecond()%1000 != 0 || at.Year() < 1900 || at.Year() > 9999 {
		t.Fatalf("effective_at %v", at)
	}
}

func FuzzPatient(f *testing.F) {
	const good = `{"first_name":"Jane","last_name":"Doe","date_of_birth":"1957-03-21","mrn":"MRN-7","external_id":"ecw-7","phone":"","address":{"line1":"1 Main St"},"active":true}`
	for _, seed := range []string{
		good, good[:50], "null", "{}", `{"address":null}`, `{"address":"x"}`, `{"address":{"city":null,"lane":1}}`, `{"first_name":"\u0000"}`, `{"active":null}`,
		`{"external_id":null}`, `{"date_of_birth":"9999-99-99"}`, "{\"mrn\":\"\xff\"}",
	} {
		f.Add([]byte(seed))
	}

	in := newIntake(f, http.MethodPatch, "/api/v1/patients/:id")
	f.Fuzz(func(t *testing.T, body []byte) {
		in.send(t, body, func(c echo.Context) error {
			fields := patientRequest{patientFields: patientFields{
				FirstName:   "A",
				LastName:    "B",
				DateOfBirth: "1957-03-21",
				MRN:         "M",
				Active:      true,
			}}
			if err := bind(c, &fields); err != nil {
				return err
			}

			_, err := fields.check("M")
			if err == nil && strings.ContainsRune(fmt.Sprint(fields), 0) {
				t.Fatalf("%q was taken, and PostgreSQL stores no NUL", body)
			}
			return err
		})
	})
}
