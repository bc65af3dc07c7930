package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

// anotherPerson lets the EHR show somebody else under every id that is read.
const anotherPerson = `{"kind":"other_person","target":"read","for":"1h"}`

// created makes a patient by hand, with the EHR's data of p and the changes given. An empty ecwID leaves the
// patient unlinked.
func (c caller) created(p sandbox.Person, ecwID string, change ...string) (id string) {
	c.tb.Helper()
	return c.do("POST", "/api/v1/patients/", newPatient(p, ecwID, change...)).want(c.tb, http.StatusCreated, "").text("id")
}

// newPatient is the body that creates p; change replaces texts in it.
func newPatient(p sandbox.Person, ecwID string, change ...string) string {
	body := fmt.Sprintf(`{"first_name":%q,"last_name":%q,"date_of_birth":%q,"mrn":%q,"external_id":%q}`,
		p.FirstName, p.LastName, p.BirthDate, p.MRN, ecwID)
	return strings.NewReplacer(change...).Replace(body)
}

func (c caller) patientNow(id string) answer {
	c.tb.Helper()
	return c.do("GET", "/api/v1/patients/"+id+"/", "").want(c.tb, http.StatusOK, "")
}

// wantUnchanged fails the test if anything about a patient has changed.
func (c caller) wantUnchanged(before answer) {
	c.tb.Helper()
	if now := c.patientNow(before.text("id")); string(now.body) != string(before.body) {
		c.tb.Errorf("the patient was %s\nand is %s", before.body, now.body)
	}
}

// A mistyped MRN may be another patient's. An import must not link the other patient's chart to the one who
// was typed in, because readings would then go into the wrong chart.
func TestImportAdoptsNobodyElse(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	people, _ := s.people(6)
	for i, test := range []struct {
		name    string
		change  func(p sandbox.Person) []string
		differs []string // none: the import takes the patient over
	}{
		{"the same", func(sandbox.Person) []string { return nil }, nil},
		{"written otherwise", func(p sandbox.Person) []string {
			return []string{p.LastName, strings.ToUpper(p.LastName[:2]) + "-" + p.LastName[2:] + "."}
		}, nil},
		{"another first name", func(p sandbox.Person) []string { return []string{p.FirstName, "Bob"} }, nil},
		{"another family name", func(p sandbox.Person) []string { return []string{p.LastName, "Hand"} }, []string{"last_name"}},
		{"another birth date", func(p sandbox.Person) []string { return []string{p.BirthDate, "1957-03-21"} }, []string{"date_of_birth"}},
		{"another person", func(p sandbox.Person) []string {
			return []string{p.LastName, "Hand", p.BirthDate, "1957-03-21"}
		}, []string{"last_name", "date_of_birth"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, p := s.in(t), people[i]
			before := s.patientNow(s.created(p, "", append(test.change(p), "}", `,"active":false}`)...))
			got := s.importPatients([]string{p.FHIRID}).want(t, http.StatusOK, "")
			if test.differs == nil {
				now := s.patientNow(before.text("id"))
				linked := now.text("last_name") == p.LastName && now.text("external_id") == p.FHIRID
				if got.get("imported") != number("1") || !linked || now.get("active") != true {
					t.Errorf("not taken over: %s, %s", got.body, now.body)
				}
				return
			}

			s.wantUnchanged(before)
			s.wantReason(got, p, before.text("id"), test.differs)
		})
	}
}

// wantReason fails the test unless an import of one patient names the fields to compare, without their
// values.
func (c caller) wantReason(got answer, p sandbox.Person, patientID string, differs []string) {
	c.tb.Helper()
	reason := got.text("errors", 0, "reason")
	explained := strings.Contains(reason, patientID) && strings.Contains(reason, "confirm_mismatch")
	if got.text("errors", 0, "ecw_fhir_id") != p.FHIRID || !explained {
		c.tb.Errorf("got %s", got.body)
	}

	for _, field := range []string{"last_name", "date_of_birth"} {
		if named, want := strings.Contains(reason, field), strings.Contains(strings.Join(differs, " "), field); named != want {
			c.tb.Errorf("%q names %s: %v", reason, field, named)
		}
	}

	for _, value := range []string{p.LastName, p.FirstName, p.BirthDate, p.MRN, "Hand", "1957"} {
		if strings.Contains(reason, value) {
			c.tb.Errorf("%q holds %q", reason, value)
		}
	}
}

// The EHR shows somebody else under an id that is linked, after a merge of charts or because the link is
// wrong. Our data is not overwritten, and the mismatch is shown until both agree again.
func TestImportOfALinkedIDThatIsAnotherPersonNow(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	people, ids := s.people(2)
	got := s.importPatients(ids).want(t, http.StatusOK, "")
	id, other := got.text("patients", 0, "vantrexia_id"), got.text("patients", 1, "vantrexia_id")
	before := s.patientNow(id)

	s.fault(anotherPerson)
	s.wantReason(s.importPatients(ids[:1]).want(t, http.StatusOK, ""), people[0], id, []string{"last_name", "date_of_birth"})
	held := s.patientNow(id)
	since := at(t, held, "mismatch_since")
	for _, field := range []string{"first_name", "last_name", "date_of_birth", "mrn", "phone", "external_id"} {
		if held.text(field) != before.text(field) {
			t.Errorf("%s was %s and is %s", field, before.text(field), held.text(field))
		}
	}

	if held.text("last_name") != people[0].LastName {
		t.Errorf("the patient was %s\nand is %s", before.body, held.body)
	}

	s.wantListed("mismatch=true", id)
	s.wantListed("mismatch=false", other)
	s.importPatients(ids[:1]).want(t, http.StatusOK, "")
	if again := s.patientNow(id); !at(t, again, "mismatch_since").Equal(since) {
		t.Errorf("since %s now, was %s", again.text("mismatch_since"), since)
	}

	s.fix()
	if got := s.importPatients(ids).want(t, http.StatusOK, ""); got.get("skipped") != number("2") {
		t.Errorf("got %s", got.body)
	}

	if s.patientNow(id).get("mismatch_since") != nil {
		t.Error("the mismatch stays although both agree")
	}

	s.wantListed("mismatch=true")
}

// wantListed fails the test unless a list of patients holds exactly these.
func (c caller) wantListed(query string, ids ...string) {
	c.tb.Helper()
	got := c.do("GET", "/api/v1/patients/?"+query, "").want(c.tb, http.StatusOK, "")
	if got.get("count") != number(fmt.Sprint(len(ids))) {
		c.tb.Errorf("%s lists %s", query, got.body)
	}
	for _, id := range ids {
		if !strings.Contains(string(got.body), id) {
			c.tb.Errorf("%s does not list %s: %s", query, id, got.body)
		}
	}
}

// A name or birth date that eCW does not show is no mismatch: the import fails, as for any incomplete record,
// and no readings are held.
func TestImportOfALinkedIDThatIsNotComplete(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(string) string{
		"no birth date":         func(r string) string { return strings.Replace(r, `"birthDate"`, `"born"`, 1) },
		"the year of the birth": func(r string) string { return strings.Replace(r, `"2007-07-15"`, `"2007"`, 1) },
		"no name":               func(r string) string { return strings.Replace(r, `"name"`, `"names"`, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startWith(t, setup{watch: rewrite(kevin, change)})
			before := s.patientNow(s.patient(kevin))
			s.edit(before.text("id"), func(d *db.Demographics) {
				d.LastName, d.DateOfBirth = "Lee", time.Date(2007, 7, 15, 0, 0, 0, 0, time.UTC)
			})
			got := s.importPatients([]string{kevin}).want(t, http.StatusOK, "")
			if !strings.Contains(got.text("errors", 0, "reason"), "complete") ||
				s.patientNow(before.text("id")).get("mismatch_since") != nil {
				t.Errorf("got %s", got.body)
			}
		})
	}
}

// A person changes a patient while the import reads from eCW. The import compares with the changed values.
func TestImportWhileAPersonChangesThePatient(t *testing.T) {
	t.Parallel()
	answered, goOn := make(chan struct{}, 10), make(chan struct{})
	s := startWith(t, setup{watch: blockedReads(answered, goOn)})
	t.Cleanup(func() { close(goOn) })
	people, ids := s.people(1)
	id := s.created(people[0], "")
	accepted := s.importPatients(ids, "Prefer", "respond-async").want(t, http.StatusAccepted, "")
	awaitRead(t, answered)
	changed := s.do("PATCH", "/api/v1/patients/"+id+"/", `{"last_name":"Hand"}`).want(t, http.StatusOK, "")
	goOn <- struct{}{}
	done := s.awaitImport(accepted.header.Get("Location"))
	s.wantUnchanged(changed)
	s.wantReason(done.part("result"), people[0], id, []string{"last_name"})
}

// The MRN belongs to a patient who is linked to another chart. The import names that patient, and changes
// none.
func TestImportOfAnMRNThatIsTaken(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	people, ids := s.people(2)
	holder := s.patientNow(s.importPatients(ids[1:]).want(t, http.StatusOK, "").text("patients", 0, "vantrexia_id"))
	s.setMRN(holder.text("id"), people[0].MRN)
	holder = s.patientNow(holder.text("id"))
	got := s.importPatients(ids[:1]).want(t, http.StatusOK, "")
	if reason := got.text("errors", 0, "reason"); !strings.Contains(reason, "MRN") || !strings.Contains(reason, holder.text("id")) {
		t.Errorf("got %s", got.body)
	}

	s.wantUnchanged(holder)

	s.setMRN(holder.text("id"), "M-2")
	linked := s.patientNow(s.importPatients(ids[:1]).want(t, http.StatusOK, "").text("patients", 0, "vantrexia_id"))
	s.setMRN(linked.text("id"), "M-1")
	s.setMRN(holder.text("id"), people[0].MRN)
	linked = s.patientNow(linked.text("id"))
	got = s.importPatients(ids[:1]).want(t, http.StatusOK, "") // her MRN in eCW is another patient's now
	if reason := got.text("errors", 0, "reason"); !strings.Contains(reason, "MRN") || !strings.Contains(reason, holder.text("id")) {
		t.Errorf("got %s", got.body)
	}

	s.wantUnchanged(linked)
}
