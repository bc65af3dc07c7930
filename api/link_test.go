package api_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

// readsOfPatients is how often the EHR was asked for a Patient.
func (s *system) readsOfPatients() (n int) {
	s.tb.Helper()
	for _, times := range s.stats().Requests["GET Patient/{id}"] {
		n += times
	}
	return n
}

// wantMismatch fails the test unless an answer refuses to link somebody else: it names the fields and no
// value of theirs.
func (a answer) wantMismatch(t *testing.T, p sandbox.Person, differ ...string) {
	t.Helper()
	a.want(t, http.StatusConflict, "patient_mismatch")
	named, detail := strings.Join(differ, " and "), a.text("detail")
	if !slices.Equal(a.fields(), differ) || !strings.Contains(detail, "confirm_mismatch") || !strings.Contains(detail, named) {
		t.Errorf("got %s, want it to name %v", a.body, differ)
	}
	for _, value := range []string{p.LastName, p.FirstName, p.BirthDate, p.MRN} {
		if strings.Contains(string(a.body), value) {
			t.Errorf("the answer holds %q: %s", value, a.body)
		}
	}
}

// Readings go into the chart whose id is linked: a link to somebody else's is refused unless a person
// confirms it.
func TestLinkToSomebodyElse(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	people, _ := s.people(3)
	p, q := people[0], people[1]

	s.do("POST", "/api/v1/patients/", newPatient(p, q.FHIRID)).wantMismatch(t, q, "last_name", "date_of_birth")
	s.do("POST", "/api/v1/patients/", newPatient(p, p.FHIRID, p.LastName, "Hand")).wantMismatch(t, p, "last_name")
	s.do("POST", "/api/v1/patients/", newPatient(p, p.FHIRID, p.BirthDate, "1957-03-21")).wantMismatch(t, p, "date_of_birth")
	if n := s.rows("patients"); n != 0 {
		t.Errorf("%d patients are stored", n)
	}

	unlinked := s.patientNow(s.created(p, ""))
	path := "/api/v1/patients/" + unlinked.text("id") + "/"
	s.do("PATCH", path, `{"external_id":"`+q.FHIRID+`","phone":"5"}`).wantMismatch(t, q, "last_name", "date_of_birth")
	s.wantUnchanged(unlinked)
	s.do("PATCH", path, `{"external_id":"`+p.FHIRID+`","date_of_birth":"1957-03-21"}`).wantMismatch(t, p, "date_of_birth")
	s.wantUnchanged(unlinked)

	linked := s.do("PATCH", path, `{"external_id":"`+p.FHIRID+`","last_name":"`+strings.ToUpper(p.LastName)+`"}`).want(t, http.StatusOK, "")
	s.do("PATCH", path, `{"external_id":"`+q.FHIRID+`"}`).wantMismatch(t, q, "last_name", "date_of_birth")
	s.wantUnchanged(linked)
	s.do("PATCH", path, `{"last_name":"Hand"}`).wantMismatch(t, p, "last_name") // it could hide a wrong link
	s.do("PATCH", path, `{"date_of_birth":"1957-03-21"}`).wantMismatch(t, p, "date_of_birth")
	s.wantUnchanged(linked)
	if strings.Contains(s.log.text(), "confirmed") {
		t.Error("a confirmation is logged that nobody gave")
	}

	third := people[2]
	id := s.created(third, third.FHIRID, third.LastName, "Hand", "}", `,"confirm_mismatch":true}`)
	got := s.patientNow(id)
	if got.text("last_name") != "Hand" || got.text("external_id") != third.FHIRID || got.get("mismatch_since") != nil {
		t.Errorf("got %s", got.body)
	}

	for _, logged := range []string{"confirmed", id, `"subject":"tests"`, "last_name"} {
		if !strings.Contains(s.log.text(), logged) {
			t.Errorf("the log does not say %s", logged)
		}
	}
}

// eCW is asked about what may make or hide a wrong link, and about nothing else.
func TestPatchesThatDoNotAskECW(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	people, _ := s.people(1)
	p := people[0]
	path := "/api/v1/patients/" + s.created(p, p.FHIRID) + "/"
	asked := s.readsOfPatients()
	if asked != 1 {
		t.Errorf("the EHR was asked %d times when the patient was linked", asked)
	}

	s.fault(`{"kind":"error_503","target":"any","for":"1h"}`)
	for _, patch := range []string{
		`{}`, `{"phone":"5"}`, `{"mrn":"M-7"}`, `{"address":{"city":"Bixby"}}`, `{"active":false}`, `{"first_name":"Bob"}`,
		`{"confirm_mismatch":true}`,
		`{"external_id":"` + p.FHIRID + `"}`, `{"last_name":" ` + strings.ToUpper(p.LastName) + `","date_of_birth":"` + p.BirthDate + `"}`,
		`{"external_id":null}`, `{"last_name":"Hand","date_of_birth":"1957-03-21"}`, `{"confirm_mismatch":true,"phone":"6"}`,
	} {
		s.do("PATCH", path, patch).want(t, http.StatusOK, "")
	}

	s.created(p, "")
	if n := s.readsOfPatients(); n != asked {
		t.Errorf("the EHR was asked %d times", n-asked)
	}
}

func TestLinkWhileECWIsAway(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]string{
		"down":          `{"kind":"error_503","target":"read","for":"1h"}`,
		"no token":      `{"kind":"token_down","for":"1h"}`,
		"cut off":       `{"kind":"reset_before","target":"any","for":"1h"}`,
		"throttled":     `{"kind":"throttle","target":"read"}`,
		"a page":        `{"kind":"html","target":"read","for":"1h"}`,
		"refuses us":    `{"kind":"forbidden","target":"read","for":"1h"}`,
		"takes forever": `{"kind":"slow","target":"read","delay":"1m","for":"1h"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startWith(t, setup{missing: temporal, ehr: func(c *ecw.Config) {
				if name != "takes forever" { // there only our own limit ends the wait
					c.Timeout = time.Second
				}
			}})

			people, _ := s.people(2)
			p := people[0]
			unlinked := s.patientNow(s.created(people[1], ""))
			s.fault(fault)
			began := time.Now()
			s.do("POST", "/api/v1/patients/", newPatient(p, p.FHIRID)).want(t, http.StatusServiceUnavailable, "ecw_unavailable")
			if took := time.Since(began); took > 25*time.Second {
				t.Errorf("the answer took %s", took)
			}

			if name != "takes forever" {
				link := `{"external_id":"` + people[1].FHIRID + `","phone":"5","confirm_mismatch":true}`
				s.do("PATCH", "/api/v1/patients/"+unlinked.text("id")+"/", link).
					want(t, http.StatusServiceUnavailable, "ecw_unavailable")
			}

			s.wantUnchanged(unlinked)
			if n := s.rows("patients"); n != 1 {
				t.Errorf("%d patients are stored", n)
			}
		})
	}
}

func TestLinkToAnIDThatECWDoesNotHave(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	people, _ := s.people(1)
	unlinked := s.patientNow(s.created(people[0], ""))
	for _, id := range []string{"ecw-patient-nobody", ".", ".."} {
		for method, path := range map[string]string{"POST": "/api/v1/patients/", "PATCH": "/api/v1/patients/" + unlinked.text("id") + "/"} {
			body := `{"external_id":"` + id + `","confirm_mismatch":true,"first_name":"A","last_name":"B","date_of_birth":"1957-03-21","mrn":"M-1"}`
			got := s.do(method, path, body).want(t, http.StatusBadRequest, "invalid")
			if !slices.Equal(got.fields(), []string{"external_id"}) {
				t.Errorf("%s %s names %v", method, id, got.fields())
			}
		}
	}

	s.wantUnchanged(unlinked)
}

// A mismatch ends in each of these ways. A confirmed mismatch is not reported again; a new one is.
func TestAMismatchEnds(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	people, _ := s.people(2)
	p, q := people[0], people[1]
	id := s.importPatients([]string{p.FHIRID}).want(t, http.StatusOK, "").text("patients", 0, "vantrexia_id")
	path := "/api/v1/patients/" + id + "/"
	mismatched := func() {
		t.Helper()
		s.fault(anotherPerson)
		s.importPatients([]string{p.FHIRID})
		if s.patientNow(id).get("mismatch_since") == nil {
			t.Fatal("no mismatch")
		}
	}

	ended := func(patch string) answer {
		t.Helper()
		got := s.do("PATCH", path, patch).want(t, http.StatusOK, "")
		if got.get("mismatch_since") != nil {
			t.Errorf("after %s: %s", patch, got.body)
		}
		return got
	}

	mismatched()
	if held := s.do("PATCH", path, `{"phone":"5","first_name":"Bob"}`).want(t, http.StatusOK, ""); held.get("mismatch_since") == nil {
		t.Error("a change of something else ended it")
	}

	shown := sandbox.People()[0] // whom the EHR shows
	if shown.LastName == p.LastName {
		t.Fatal("the EHR shows the same person")
	}

	s.do("PATCH", path, `{"last_name":"`+shown.LastName+`"}`).want(t, http.StatusConflict, "patient_mismatch") // the birth date still differs
	if s.patientNow(id).get("mismatch_since") == nil {
		t.Error("a change that was refused ended it")
	}

	ended(`{"last_name":"` + shown.LastName + `","date_of_birth":"` + shown.BirthDate + `"}`) // corrected
	s.fix()
	ended(`{"last_name":"` + p.LastName + `","date_of_birth":"` + p.BirthDate + `"}`)

	mismatched()
	s.fix()
	ended(`{"confirm_mismatch":true}`) // both agree by now: nothing is confirmed

	mismatched()
	ended(`{"external_id":null}`) // unlinked
	s.fix()
	ended(`{"external_id":"` + p.FHIRID + `"}`)

	mismatched()
	s.fix()
	ended(`{"external_id":"` + q.FHIRID + `","confirm_mismatch":true}`) // linked to another chart
	ended(`{"external_id":"` + p.FHIRID + `"}`)

	mismatched()
	ended(`{"confirm_mismatch":true}`)
	got := s.importPatients([]string{p.FHIRID}).want(t, http.StatusOK, "")
	now := s.patientNow(id)
	if got.get("skipped") != number("1") || now.get("mismatch_since") != nil || now.text("last_name") != shown.LastName {
		t.Errorf("what was confirmed came up again: %s, %s", got.body, now.body)
	}

	s.fix()
	s.importPatients([]string{p.FHIRID})
	if s.patientNow(id).get("mismatch_since") == nil {
		t.Error("the EHR shows yet another person, and nothing is held")
	}

	s.wantListed("mismatch=true", id)
}

// blockedReads holds the answer to each read of a Patient back, as answered says, until a test sends to goOn.
func blockedReads(answered, goOn chan struct{}) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r)
			if strings.Contains(r.URL.Path, "/Patient/") {
				answered <- struct{}{}
				<-goOn
			}
		})
	}
}

// awaitRead returns when the EHR holds an answer back.
func awaitRead(t *testing.T, answered <-chan struct{}) {
	t.Helper()
	select {
	case <-answered:
	case <-time.After(20 * time.Second):
		t.Fatal("eCW is not asked")
	}
}

// Two people change a patient at once, one of them while eCW is asked. The check is made on the values that
// are stored.
func TestLinkWhileThePatientIsChanged(t *testing.T) {
	t.Parallel()
	answered, goOn := make(chan struct{}, 10), make(chan struct{})
	s := startWith(t, setup{missing: temporal, watch: blockedReads(answered, goOn)})
	t.Cleanup(func() { close(goOn) })
	people, _ := s.people(2)
	p, q := people[0], people[1]
	path := "/api/v1/patients/" + s.created(p, "") + "/"
	patch := func(body string) <-chan answer {
		sent := make(chan answer, 1)
		go func() { sent <- s.do("PATCH", path, body) }()
		awaitRead(t, answered)
		return sent
	}

	linking := patch(`{"external_id":"` + p.FHIRID + `"}`)
	renamed := s.do("PATCH", path, `{"last_name":"Hand"}`).want(t, http.StatusOK, "")
	goOn <- struct{}{}
	(<-linking).wantMismatch(t, p, "last_name")
	s.wantUnchanged(renamed)

	s.do("PATCH", path, `{"last_name":"`+p.LastName+`"}`).want(t, http.StatusOK, "")
	linking = patch(`{"external_id":"` + p.FHIRID + `"}`)
	goOn <- struct{}{}
	(<-linking).want(t, http.StatusOK, "")

	renaming := patch(`{"last_name":"` + q.LastName + `"}`) // eCW shows p
	relinking := patch(`{"external_id":"` + q.FHIRID + `","last_name":"` + q.LastName + `","date_of_birth":"` + q.BirthDate + `"}`)
	goOn <- struct{}{}
	goOn <- struct{}{}
	relinked := (<-relinking).want(t, http.StatusOK, "")
	if got := <-renaming; got.status != http.StatusOK && got.status != http.StatusConflict {
		t.Errorf("got %d %s", got.status, got.body)
	}

	now := s.patientNow(relinked.text("id"))
	if now.text("external_id") != q.FHIRID || now.text("last_name") != q.LastName || now.text("date_of_birth") != q.BirthDate {
		t.Errorf("the patient is %s", now.body)
	}
}

// The link changes while eCW is asked about the former chart. eCW is asked again about the new one.
func TestChangeWhileThePatientIsLinkedElsewhere(t *testing.T) {
	t.Parallel()
	answered, goOn := make(chan struct{}, 10), make(chan struct{})
	s := startWith(t, setup{missing: temporal, watch: blockedReads(answered, goOn)})
	t.Cleanup(func() { close(goOn) })
	people, _ := s.people(2)
	p, q := people[0], people[1]
	id := s.patient(p.FHIRID)
	sent := make(chan answer, 1)
	go func() {
		sent <- s.do("PATCH", "/api/v1/patients/"+id+"/", `{"last_name":"`+p.LastName+`","date_of_birth":"`+p.BirthDate+`"}`)
	}()

	awaitRead(t, answered) // eCW shows p under the id, as the change wants it
	s.link(id, q.FHIRID)
	relinked := s.patientNow(id)
	goOn <- struct{}{}
	awaitRead(t, answered)
	goOn <- struct{}{}
	(<-sent).wantMismatch(t, q, "last_name", "date_of_birth")
	s.wantUnchanged(relinked)
}
