package api_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/vantrexia/vantrexia/api"
)

func TestTheSameReadingAgain(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	patient := s.patient(kevin)
	reading := bloodPressure(patient)
	id := s.post(reading)
	s.await(id, "transmitted")

	for name, again := range map[string]string{
		"the same":                reading,
		"the moment in a zone":    strings.Replace(reading, "10:30:00Z", "05:30:00-05:00", 1),
		"the unit is said":        strings.Replace(reading, `"heart_rate":78`, `"heart_rate":78,"unit":"mmHg"`, 1),
		"the members in an order": `{"values":{"heart_rate":78, "diastolic":92.0, "systolic":142},` + strings.TrimPrefix(strings.Split(reading, `,"values"`)[0], "{") + "}",
	} {
		t.Run(name, func(t *testing.T) {
			got := s.in(t).do("POST", "/api/v1/observations/", again).want(t, http.StatusOK, "")
			if got.text("id") != id || got.header.Get("Location") != "/api/v1/observations/"+id+"/" ||
				got.text("fhir_status") != "transmitted" {
				t.Errorf("not the first: %s", got.body)
			}
		})
	}

	for name, other := range map[string]string{
		"another value":   strings.Replace(reading, `"systolic":142`, `"systolic":143`, 1),
		"a value less":    strings.Replace(reading, `,"heart_rate":78`, "", 1),
		"a value is null": strings.Replace(reading, `"heart_rate":78`, `"heart_rate":null`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			got := s.in(t).do("POST", "/api/v1/observations/", other).want(t, http.StatusConflict, "conflicting_reading")
			if !strings.Contains(got.text("detail"), id) {
				t.Errorf("the stored reading is not named: %s", got.body)
			}
		})
	}

	if got := s.observation(id); got.get("values", "systolic") != number("142") {
		t.Errorf("the stored reading was changed: %s", got.body)
	}

	if n := s.rows("observations"); n != 1 {
		t.Errorf("%d observations are stored", n)
	}

	if stored, received := s.inChart(id); stored != 1 || received != 1 {
		t.Errorf("the EHR holds it %d times, after %d creates", stored, received)
	}

	for name, another := range map[string]string{
		"of another time":    strings.Replace(reading, "10:30:00Z", "10:30:01Z", 1),
		"of another device":  strings.Replace(reading, "OMRON-7250", "OMRON-7251", 1),
		"of another patient": bloodPressure(s.patient(susan)),
	} {
		t.Run(name, func(t *testing.T) { s.in(t).post(another) })
	}
}

// A gateway that loses answers may send a reading many times at once. It is stored once.
func TestTheSameReadingAtOnce(t *testing.T) {
	t.Parallel()
	const senders = 20
	s := start(t, nothing)
	reading := bloodPressure(s.patient(kevin))
	answers := make([]answer, senders)
	begin := make(chan struct{})
	var senderGroup sync.WaitGroup
	for i := range senders {
		senderGroup.Go(func() {
			<-begin
			answers[i] = s.do("POST", "/api/v1/observations/", reading)
		})
	}

	close(begin)
	senderGroup.Wait()

	created := 0
	id := answers[0].text("id")
	for _, a := range answers {
		switch {
		case a.status == http.StatusCreated:
			created++
		case a.status != http.StatusOK:
			t.Errorf("got %d %s", a.status, a.body)
		}
		if a.text("id") != id {
			t.Errorf("two ids: %s and %s", id, a.text("id"))
		}
	}

	if created != 1 || s.rows("observations") != 1 {
		t.Errorf("%d were created, %d are stored", created, s.rows("observations"))
	}

	s.await(id, "transmitted")
	if runs := s.runs(id); runs != 1 {
		t.Errorf("%d workflows ran, want one", runs)
	}

	if stored, received := s.inChart(id); stored != 1 || received != 1 {
		t.Errorf("the EHR holds it %d times, after %d creates", stored, received)
	}
}

// One database may hold several practices. None sees another's patients.
func TestAnotherPracticeSeesNothing(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient(kevin)
	reading := bloodPressure(patient)
	id := s.post(reading)
	other := serve(t, newAPI(t, api.Config{
		Store:        s.store,
		Temporal:     s.temporal,
		PracticeCode: "OTHER",
		Signer:       testSigner(t),
		Limits:       plenty(),
		Logger:       s.log.logger(),
	}), s.log)

	for _, path := range []string{"/api/v1/observations/" + id, "/api/v1/fhir/observations/" + id, "/api/v1/patients/" + patient} {
		other.do("GET", path, "").want(t, http.StatusNotFound, "not_found")
	}

	for _, action := range []string{"transform", "transmit"} {
		other.do("POST", "/api/v1/fhir/observations/"+id+"/"+action, "").want(t, http.StatusNotFound, "not_found")
	}

	other.do("PATCH", "/api/v1/patients/"+patient, `{"phone":"1"}`).want(t, http.StatusNotFound, "not_found")
	other.do("POST", "/api/v1/observations", reading).want(t, http.StatusBadRequest, "invalid")
	if got := other.do("GET", "/api/v1/patients", "").want(t, http.StatusOK, ""); got.get("count") != number("0") {
		t.Errorf("got %s", got.body)
	}

	mrn := s.do("GET", "/api/v1/patients/"+patient, "").text("mrn")
	other.do("POST", "/api/v1/patients", `{"first_name":"A","last_name":"B","date_of_birth":"1957-03-21","mrn":"`+mrn+`"}`).want(t, http.StatusCreated, "")
}
