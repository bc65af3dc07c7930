package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/api/serviceerror"

	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

// archived archives a patient, or unarchives with false, and returns the answer.
func (c caller) archived(patient string, archive bool) answer {
	c.tb.Helper()
	verb := "unarchive"
	if archive {
		verb = "archive"
	}
	got := c.do("POST", "/api/v1/patients/"+patient+"/"+verb+"/", "").want(c.tb, http.StatusOK, "")
	if got.get("active") != !archive || (got.get("archived_at") != nil) != archive {
		c.tb.Errorf("%s answers %s", verb, got.body)
	}
	return got
}

// wantHeld fails the test unless the status page, the list of archived patients and the patient say how many
// readings wait.
func (c caller) wantHeld(patient string, n int) {
	c.tb.Helper()
	want := number(fmt.Sprint(n))
	if got := c.status(); got.get("queue", "held_for_archived_patients") != want || got.text("status") != "healthy" {
		c.tb.Errorf("%d readings wait: %s", n, got.body)
	}
	listed := c.do("GET", "/api/v1/patients/?active=false", "").want(c.tb, http.StatusOK, "")
	if listed.text("results", 0, "id") != patient || listed.get("results", 0, "held_readings") != want {
		c.tb.Errorf("%d readings wait: %s", n, listed.body)
	}
	if got := c.patientNow(patient); got.get("held_readings") != want {
		c.tb.Errorf("%d readings wait: %s", n, got.body)
	}
}

func TestArchiveIsIdempotent(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient(kevin)
	before := s.patientNow(patient)
	if again := s.archived(patient, false); string(again.body) != string(before.body) {
		t.Errorf("the patient was %s\nand is %s", before.body, again.body)
	}

	archived := s.archived(patient, true)
	if again := s.archived(patient, true); string(again.body) != string(archived.body) {
		t.Errorf("the patient was %s\nand is %s", archived.body, again.body)
	}
	path := "/api/v1/patients/" + patient + "/"
	patched := s.do("PATCH", path, `{"active":false,"phone":"5"}`).want(t, http.StatusOK, "")
	if patched.text("archived_at") != archived.text("archived_at") || patched.get("active") != false {
		t.Errorf("a patch says when the patient was archived: %s", patched.body)
	}
	if other := s.do("PATCH", path, `{"phone":"6"}`).want(t, http.StatusOK, ""); other.get("active") != false {
		t.Errorf("a patch of something else unarchives: %s", other.body)
	}
	if back := s.do("PATCH", path, `{"active":true}`).want(t, http.StatusOK, ""); back.get("archived_at") != nil || back.get("active") != true {
		t.Errorf("not unarchived: %s", back.body)
	}

	const person = `{"first_name":"A","last_name":"B","date_of_birth":"1957-03-21","active":false}`
	if created := s.do("POST", "/api/v1/patients/", person).want(t, http.StatusCreated, ""); created.get("archived_at") == nil {
		t.Errorf("created as %s", created.body)
	}

	const nobody = "/api/v1/patients/d4e5f6a7-b8c9-0123-defa-234567890123"
	s.do("POST", nobody+"/archive/", "").want(t, http.StatusNotFound, "not_found")
	s.do("POST", nobody+"/unarchive/", "").want(t, http.StatusNotFound, "not_found")
	s.do("POST", "/api/v1/patients/7/archive/", "").want(t, http.StatusBadRequest, "invalid")
}

// A device goes on after its patient was archived. Its readings are kept, shown, and sent when the patient is
// active again, whoever does that.
func TestReadingsOfAnArchivedPatient(t *testing.T) {
	t.Parallel()
	for name, unarchive := range map[string]func(s *system, patient string){
		"unarchive": func(s *system, patient string) { s.archived(patient, false) },
		"patch": func(s *system, patient string) {
			s.do("PATCH", "/api/v1/patients/"+patient+"/", `{"active":true}`).want(s.tb, http.StatusOK, "")
		},
		"import": func(s *system, patient string) {
			if got := s.importPatients([]string{kevin}).want(s.tb, http.StatusOK, ""); got.get("skipped") != number("1") {
				s.tb.Errorf("got %s", got.body)
			}
			if now := s.patientNow(patient); now.get("active") != true {
				s.tb.Errorf("an import leaves %s", now.body)
			}
		},
		"sweep": func(s *system, patient string) { // whoever unarchived the patient died before the readings were started
			s.exec("UPDATE patients SET archived_at = NULL")
			s.do("POST", "/api/v1/fhir/process-pending/", "").want(s.tb, http.StatusOK, "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, nothing)
			_, _ = s.people(1)
			patient := s.importPatients([]string{kevin}).want(t, http.StatusOK, "").text("patients", 0, "vantrexia_id")
			before := s.post(weight(patient))
			s.await(before, "transmitted")
			s.archived(patient, true)

			single := weight(patient)
			ids := []string{s.wantStoredAndHeld(single)}
			got := s.do("POST", batchPath, batch([]string{single, weight(patient), other(single), weight(patient)})).want(t, http.StatusOK, "")
			for i, want := range []string{"200", "201", "409", "201"} {
				if fmt.Sprint(got.get("results", i, "status")) != want {
					t.Errorf("item %d: %s", i, got.body)
				}
			}
			ids = append(ids, got.text("results", 1, "id"), got.text("results", 3, "id"))
			s.do("POST", "/api/v1/observations/", other(single)).want(t, http.StatusConflict, "conflicting_reading")

			s.wantNothingSent(patient, ids)
			unarchive(s, patient)
			for _, id := range append(ids, before) {
				s.await(id, "transmitted")
				if stored, received := s.inChart(id); stored != 1 || received != 1 {
					t.Errorf("%s stands %d times in the chart, and was sent %d times", id, stored, received)
				}
				if shown := s.observation(id); shown.get("held_reason") != nil {
					t.Errorf("delivered, and held: %s", shown.body)
				}
			}
			if got := s.status(); got.get("queue", "held_for_archived_patients") != number("0") || got.get("queue", "pending") != number("0") {
				t.Errorf("after all is sent: %s", got.body)
			}
		})
	}
}

// wantStoredAndHeld posts a reading of an archived patient, twice.
func (s *system) wantStoredAndHeld(reading string) (id string) {
	s.tb.Helper()
	got := s.do("POST", "/api/v1/observations/", reading, "Idempotency-Key", "held").want(s.tb, http.StatusCreated, "")
	again := s.do("POST", "/api/v1/observations/", reading, "Idempotency-Key", "held").want(s.tb, http.StatusOK, "")
	for _, shown := range []answer{got, again, s.observation(got.text("id"))} {
		if shown.text("held_reason") != "patient_archived" || shown.get("transmission") != nil || shown.text("id") != got.text("id") {
			s.tb.Errorf("got %s", shown.body)
		}
	}
	return got.text("id")
}

// wantNothingSent tries everything that sends a reading.
func (s *system) wantNothingSent(patient string, ids []string) {
	s.tb.Helper()
	s.wantHeld(patient, len(ids))
	for _, id := range ids {
		for _, verb := range []string{"transmit", "transform"} {
			got := s.do("POST", "/api/v1/fhir/observations/"+id+"/"+verb+"/", "").want(s.tb, http.StatusConflict, "patient_archived")
			if !strings.Contains(got.text("detail"), "Unarchive") || !strings.Contains(got.text("detail"), patient) {
				s.tb.Errorf("got %s", got.body)
			}
		}
	}

	if got := s.do("POST", "/api/v1/fhir/process-pending/", "").want(s.tb, http.StatusOK, ""); got.get("processed") != number("0") {
		s.tb.Errorf("the sweep has processed %s", got.body)
	}
	for _, id := range ids {
		var gone *serviceerror.NotFound
		_, err := s.temporal.DescribeWorkflowExecution(s.tb.Context(), "transmission/"+id, "")
		if _, received := s.inChart(id); received != 0 || !errors.As(err, &gone) {
			s.tb.Errorf("%s was sent %d times; its workflow: %v", id, received, err)
		}
	}
	s.exec("UPDATE observations SET created_at = created_at - interval '1 day'")
	s.wantHeld(patient, len(ids)) // however long they wait, nobody calls them stalled
}

// A patient is archived and unarchived all the time while readings come in. In the end the patient is active, and
// each reading stands in the chart once, without any sweep but for what the queue holds.
func TestArchiveWhileReadingsComeIn(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	patient := s.patient(kevin)
	const posters, each = 4, 15
	readings := weights(patient, posters*each)
	ids := make([]string, len(readings))

	var posting sync.WaitGroup
	for p := range posters {
		posting.Go(func() {
			for i := p * each; i < (p+1)*each; i++ {
				ids[i] = s.do("POST", "/api/v1/observations/", readings[i]).want(t, http.StatusCreated, "").text("id")
			}
		})
	}
	done := make(chan struct{})
	go func() {
		posting.Wait()
		close(done)
	}()
	for archive := true; ; archive = !archive {
		s.archived(patient, archive)
		select {
		case <-done:
		case <-time.After(20 * time.Millisecond):
			continue
		}
		break
	}

	s.archived(patient, false)
	eventually(t, "every reading begun", func() bool {
		var untouched int
		const ask = "SELECT count(*) FROM observations o WHERE NOT EXISTS (SELECT FROM transmissions t WHERE t.observation_id = o.id)"
		if err := s.conn.QueryRow(t.Context(), ask).Scan(&untouched); err != nil {
			t.Fatal(err)
		}
		return untouched == 0
	})
	eventually(t, "the queue empty", func() bool {
		s.do("POST", "/api/v1/fhir/process-pending/", "").want(t, http.StatusOK, "")
		return s.status().get("queue", "pending") == number("0")
	})
	for _, id := range ids {
		s.await(id, "transmitted")
		if stored, received := s.inChart(id); stored != 1 || received != 1 {
			t.Errorf("%s stands %d times in the chart, and was sent %d times", id, stored, received)
		}
	}
}

// A reading waits for its retry when the patient is archived. A person cannot send it, and it is sent afterwards.
func TestTransmitOfAnArchivedPatient(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	patient := s.patient(kevin)
	s.fault(`{"kind":"error_503","target":"token"}`)
	id := s.post(weight(patient))
	s.await(id, "failed")
	s.archived(patient, true)
	if shown := s.observation(id); shown.text("held_reason") != "patient_archived" || shown.text("fhir_status") != "failed" {
		t.Errorf("got %s", shown.body)
	}
	s.do("POST", "/api/v1/fhir/observations/"+id+"/transmit/", "").want(t, http.StatusConflict, "patient_archived")
	s.archived(patient, false)
	s.transmit(id)
	s.await(id, "transmitted")
}

// madeMRN is an MRN that was made here.
var madeMRN = regexp.MustCompile(`^VTX-[A-Z2-7]{5}-[A-Z2-7]{5}$`)

func TestMadeMRNs(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	const person = `{"first_name":"A","last_name":"B","date_of_birth":"1957-03-21"}`
	made := map[string]bool{}
	var last answer
	for range 20 {
		last = s.do("POST", "/api/v1/patients/", person).want(t, http.StatusCreated, "")
		if mrn := last.text("mrn"); !madeMRN.MatchString(mrn) || made[mrn] {
			t.Errorf("made %q", mrn)
		}
		made[last.text("mrn")] = true
	}

	path, mrn := "/api/v1/patients/"+last.text("id")+"/", last.text("mrn")
	if kept := s.do("PATCH", path, `{"phone":"5","mrn":"`+mrn+`"}`).want(t, http.StatusOK, ""); kept.text("mrn") != mrn {
		t.Errorf("got %s", kept.body)
	}
	for _, chosen := range []string{strings.ToLower(mrn), "VTX-AAAAA-AAAAA", "VTX-"} {
		s.do("PATCH", path, `{"mrn":"`+chosen+`"}`).want(t, http.StatusBadRequest, "invalid")
	}
	s.do("PATCH", path, `{"mrn":"VTX1"}`).want(t, http.StatusOK, "")
	s.do("PATCH", path, `{"mrn":"`+mrn+`"}`).want(t, http.StatusBadRequest, "invalid") // it is not the patient's any more
}

// eCW shows an MRN that we have made for somebody. Nobody has given it to that patient in eCW, so it says nothing:
// not even when the name and the birth date agree.
func TestImportDoesNotMatchAMadeMRN(t *testing.T) {
	t.Parallel()
	const typed = "VTX-ABCDE-FGHIJ"
	people := sandbox.People()
	s := startWith(t, setup{watch: rewrite(kevin, func(r string) string { return strings.ReplaceAll(r, people[0].MRN, typed) })})
	p := people[0]
	s.secret(p.LastName, p.BirthDate, p.MRN)
	id := s.do("POST", "/api/v1/patients/", fmt.Sprintf(`{"first_name":%q,"last_name":%q,"date_of_birth":%q}`, p.FirstName, p.LastName, p.BirthDate)).
		want(t, http.StatusCreated, "").text("id")

	for _, holder := range []string{"somebody", "nobody"} {
		mrn := typed
		if holder == "nobody" {
			mrn = "VTX-ZZZZZ-ZZZZZ"
		}
		s.setMRN(id, mrn)
		before := s.patientNow(id)
		got := s.importPatients([]string{kevin}).want(t, http.StatusOK, "")
		if reason := got.text("errors", 0, "reason"); !strings.Contains(reason, "VTX-") || strings.Contains(reason, typed) {
			t.Errorf("%s has it: %s", holder, got.body)
		}
		s.wantUnchanged(before)
	}

	// Somebody who is linked has typed our number into eCW. It is this patient's.
	s.setMRN(id, typed)
	s.link(id, kevin)
	if got := s.importPatients([]string{kevin}).want(t, http.StatusOK, ""); got.get("skipped") != number("1") {
		t.Errorf("got %s", got.body)
	}
	if s.rows("patients") != 1 {
		t.Error("the import has added a patient")
	}
}

// A gender or an e-mail of eCW that is not usable fails no patient.
func TestImportTakesGenderAndEmail(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change        func(map[string]any)
		gender, email any
	}{
		"as they are": {func(map[string]any) {}, "male", "kevin.lee@example.com"},
		"neither": {func(r map[string]any) {
			delete(r, "gender")
			delete(r, "telecom")
		}, nil, ""},
		"not usable": {func(r map[string]any) {
			r["gender"] = "M"
			r["telecom"] = []any{map[string]any{"system": "email", "value": "ask his mother"}}
		}, nil, ""},
		"one of two is usable": {func(r map[string]any) {
			r["gender"] = "unknown"
			r["telecom"] = []any{
				map[string]any{"system": "email", "rank": 1, "value": "kevin\u202e@example.com"},
				map[string]any{"system": "email", "use": "old", "value": "old@example.com"},
				map[string]any{"system": "email", "use": "work", "value": " kl@example.org "},
			}
		}, "unknown", "kl@example.org"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startWith(t, setup{watch: rewrite(kevin, func(resource string) string {
				var r map[string]any
				if err := json.Unmarshal([]byte(resource), &r); err != nil {
					return resource
				}
				test.change(r)
				changed, _ := json.Marshal(r)
				return string(changed)
			})})
			s.secret("kevin.lee@example.com", "kl@example.org")
			id := s.importPatients([]string{kevin}).want(t, http.StatusOK, "").text("patients", 0, "vantrexia_id")
			now := s.patientNow(id)
			if now.get("gender") != test.gender || now.get("email") != test.email {
				t.Errorf("got %s", now.body)
			}
			if now.text("address", "line1") != "80 Mill St" || now.text("address", "line2") != "Apt 21" {
				t.Errorf("the address is %s", now.body)
			}
		})
	}
}
