package api_test

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/audit"
)

const auditPath = "/api/v1/audit/"

// happened records what the API's own routes do not do in a test.
func (s *system) happened(events ...audit.Event) {
	s.tb.Helper()
	for i := range events {
		events[i].PracticeCode = practice
	}
	if err := audit.RecordNow(s.tb.Context(), s.store, events...); err != nil {
		s.tb.Fatal(err)
	}
}

// each returns a member of every row of a page.
func (a answer) each(member string) (texts []string) {
	rows, _ := a.get("results").([]any)
	for i := range rows {
		texts = append(texts, a.text("results", i, member))
	}
	return texts
}

// Who has seen a patient is one request. Its answer names people and API keys; the asking is a row, too.
func TestWhoHasSeenAPatientIsOneRequest(t *testing.T) {
	t.Parallel()
	s := startWith(t, setup{missing: temporal})
	jane, john := uuid.New(), uuid.New()
	nora := s.person("nora@example.com", account.Nurse)
	key, _ := s.makeKey(`{"name":"gateway 7"}`)
	seen := func(action audit.Action, subject string, patients ...uuid.UUID) audit.Event {
		return audit.Event{Action: action, Subject: subject, Role: "nurse", TokenID: "t-1", Address: "10.0.0.7", Patients: patients}
	}
	s.happened(
		seen(audit.PatientRead, nora.String(), jane),
		seen(audit.PatientRead, nora.String(), john),
		seen(audit.ObservationCreate, "key:"+key, jane),
		seen(audit.PatientSearch, "somebody's token", john, jane),
		audit.Event{Action: audit.ObservationRead, Patients: []uuid.UUID{jane}, Outcome: audit.Refused, Reason: "forbidden"},
	)

	got := s.do("GET", auditPath+"?patient="+jane.String(), "").want(t, http.StatusOK, "")
	want := []string{"observation.read", "patient.search", "observation.create", "patient.read"}
	if !slices.Equal(got.each("action"), want) || got.get("count") != number("4") {
		t.Fatalf("the answer is %s", got.body)
	}
	if names := got.each("subject_name"); !slices.Equal(names, []string{"", "", "gateway 7", "Nora Lind"}) {
		t.Errorf("the names are %q", names)
	}
	last := got.part("results", 3)
	if last.text("subject") != nora.String() || last.text("role") != "nurse" || last.text("token_id") != "t-1" || last.text("address") != "10.0.0.7" ||
		last.text("outcome") != "success" || last.text("patient_ids", 0) != jane.String() || last.text("recorded_at") == "" {
		t.Errorf("the row is %s", last.body)
	}
	if got.text("results", 0, "outcome") != "refused" || got.text("results", 0, "reason") != "forbidden" || got.get("results", 0, "subject_name") != nil {
		t.Errorf("the refusal is %s", got.part("results", 0).body)
	}

	again := s.do("GET", auditPath+"?action=audit.search&patient="+jane.String(), "").want(t, http.StatusOK, "")
	if again.get("count") != number("1") || again.text("results", 0, "subject") != "tests" || again.text("results", 0, "role") != "admin" ||
		again.text("results", 0, "address") != "127.0.0.1" || again.text("results", 0, "token_id") == "" {
		t.Errorf("the search before is %s", again.body)
	}
}

func TestTheTrailIsFilteredAndWalked(t *testing.T) {
	t.Parallel()
	s := startWith(t, setup{missing: temporal})
	jane, john := uuid.New(), uuid.New()
	for i := range 12 {
		e := audit.Event{Action: audit.PatientRead, Subject: "a caller", Patients: []uuid.UUID{jane}}
		if i%2 == 1 {
			e.Patients = []uuid.UUID{john}
		}
		if i%3 == 0 {
			e.Action, e.Outcome = audit.PatientUpdate, audit.Failure
		}
		s.happened(e)
	}
	s.happened(audit.Event{Action: audit.PatientRead, Subject: "another", Patients: []uuid.UUID{jane}})
	const ofCaller = auditPath + "?subject=a+caller"
	all := s.do("GET", ofCaller, "").want(t, http.StatusOK, "")
	middle := all.text("results", 5, "recorded_at")

	for query, want := range map[string]int{
		"":                             12,
		"&action=patient.update":       4,
		"&outcome=failure":             4,
		"&outcome=refused":             0,
		"&patient=" + jane.String():    6,
		"&patient=" + uuid.NewString(): 0,
		"&outcome=failure&patient=" + john.String(): 2,
		"&from=" + middle:                               6,
		"&to=" + middle:                                 6,
		"&from=" + middle + "&to=" + middle:             0,
		"&from=" + middle + "&patient=" + jane.String(): 3,
		"&from=2020-01-01&to=2020-12-31":                0,
		"&from=2020-01-01&action=&patient=":             12,
	} {
		got := s.do("GET", ofCaller+query, "").want(t, http.StatusOK, "")
		if got.get("count") != number(fmt.Sprint(want)) || len(got.ids()) != want {
			t.Errorf("%q: %v, with %d rows, want %d", query, got.get("count"), len(got.ids()), want)
		}
	}
	if got := s.do("GET", auditPath+"?subject=a", "").want(t, http.StatusOK, ""); got.get("count") != number("0") {
		t.Errorf("of half a subject: %s", got.body)
	}

	// Rows that come meanwhile move nothing.
	first := s.do("GET", ofCaller+"&page_size=5", "").want(t, http.StatusOK, "")
	s.happened(audit.Event{Action: audit.PatientRead, Subject: "a caller", Reason: "late"})
	forth := s.walk(first, "next")
	var walked []string
	for _, page := range forth {
		walked = append(walked, page.ids()...)
	}
	if !slices.Equal(walked, all.ids()) {
		t.Errorf("walked %v\nwant %v", walked, all.ids())
	}
	back := s.walk(forth[2], "previous")
	if len(back) != 4 || !slices.Equal(back[2].ids(), first.ids()) || len(back[3].ids()) != 1 || back[3].text("results", 0, "reason") != "late" {
		t.Errorf("back are %d pages, the last %s", len(back), back[len(back)-1].body)
	}

	s.do("GET", auditPath+"?action=patient.reed", "").want(t, http.StatusBadRequest, "invalid")
	s.do("GET", auditPath+"?patient=jane", "").want(t, http.StatusBadRequest, "invalid")
	s.do("GET", auditPath+"?person=jane", "").want(t, http.StatusBadRequest, "invalid")
	s.do("GET", auditPath+"export/?format=xml", "").want(t, http.StatusBadRequest, "invalid")
}

// An export is exactly what is filtered, in each form, and is recorded before its first byte.
func TestTheTrailIsExported(t *testing.T) {
	t.Parallel()
	s := startWith(t, setup{missing: temporal})
	patient := uuid.New()
	nora := s.person("nora@example.com", account.Nurse)
	for i := range 1_100 { // more than one batch
		s.happened(audit.Event{Action: audit.PatientRead, Subject: nora.String(), Role: "nurse", Patients: []uuid.UUID{patient},
			ResourceType: "Patient", ResourceIDs: []string{patient.String()}, Reason: fmt.Sprintf("=%d", i)})
	}
	s.happened(audit.Event{Action: audit.PatientRead, Subject: nora.String(), Patients: []uuid.UUID{uuid.New()}})
	filter := "?action=patient.read&patient=" + patient.String()
	export := func(format string) answer {
		got := s.do("GET", auditPath+"export/"+filter+"&format="+format, "").want(t, http.StatusOK, "")
		if !strings.Contains(got.header.Get("Content-Disposition"), `attachment; filename="audit-20`) {
			t.Errorf("%s: the file is %q", format, got.header.Get("Content-Disposition"))
		}
		return got
	}

	var ids []string
	for _, page := range s.walk(s.do("GET", auditPath+filter+"&page_size=100", "").want(t, http.StatusOK, ""), "next") {
		ids = append(ids, page.ids()...)
	}

	table := export("csv")
	rows, err := csv.NewReader(bytes.NewReader(table.body)).ReadAll()
	if err != nil || len(rows) != 1_101 || table.header.Get("Content-Type") != "text/csv; charset=utf-8" {
		t.Fatalf("CSV: %d rows of %s (%v)", len(rows), table.header.Get("Content-Type"), err)
	}
	for i, row := range rows[1:] {
		if row[12] != ids[i] || row[2] != "Nora Lind" || !strings.HasPrefix(row[6], "'=") {
			t.Fatalf("row %d is %q, want %s", i, row, ids[i])
		}
	}

	for format, media := range map[string]string{"fhir": "application/fhir+ndjson", "jsonl": "application/x-ndjson"} {
		got := export(format)
		var found []string
		for line := range bytes.Lines(got.body) {
			var row struct{ ID, ResourceType string }
			if err := json.Unmarshal(line, &row); err != nil || (row.ResourceType == "AuditEvent") != (format == "fhir") {
				t.Fatalf("%s: %v: %s", format, err, line)
			}
			found = append(found, row.ID)
		}
		if !slices.Equal(found, ids) || got.header.Get("Content-Type") != media {
			t.Errorf("%s: %d rows of %s, want %d", format, len(found), got.header.Get("Content-Type"), len(ids))
		}
	}

	one := s.do("GET", auditPath+filter+"&page_size=1", "").want(t, http.StatusOK, "")
	line, _, _ := bytes.Cut(export("jsonl").body, []byte("\n"))
	var a, b any
	if json.Unmarshal(line, &a) != nil || json.Unmarshal(one.part("results", 0).body, &b) != nil || fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("a line is %s\nthe list has %s", line, one.part("results", 0).body)
	}

	recorded := s.do("GET", auditPath+"?action=audit.export&patient="+patient.String(), "").want(t, http.StatusOK, "")
	if formats := recorded.each("reason"); len(formats) != 4 || formats[0] != "jsonl" || formats[3] != "csv" {
		t.Errorf("the exports are %s", recorded.body)
	}
	if empty := s.do("GET", auditPath+"export/?format=fhir&subject=nobody", "").want(t, http.StatusOK, ""); len(empty.body) != 0 {
		t.Errorf("nothing is exported as %s", empty.body)
	}
}

// An export that nobody reads holds no connection of the database, and one that cannot go on breaks, so that a part is not
// taken for the whole.
func TestAnExportThatCannotGoOnBreaks(t *testing.T) {
	t.Parallel()
	s := startWith(t, setup{missing: temporal})
	s.exec(`
		INSERT INTO audit_events (recorded_at, writer, sequence, practice_code, subject, role, token_id, address, action, resource_type,
		                          resource_ids, patient_ids, outcome, reason, code_before, code, key_id)
		SELECT now() - n * interval '1 microsecond', lpad('', 32, '0')::uuid, n, $1, 'crowd', '', '', '', 'patient.read', '', '{}', '{}',
		       'success', repeat('a reason ', 100), CASE n WHEN 1 THEN '' ELSE sha256('x') END, sha256('x'), 'k'
		FROM generate_series(1, 30000) n`, practice)

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.base+auditPath+"export/?format=csv&subject=crowd", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	res, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	from := bufio.NewReader(res.Body)
	if line, err := from.ReadString('\n'); err != nil || !strings.HasPrefix(line, "recorded_at,") {
		t.Fatalf("the file begins with %q (%v)", line, err)
	}

	eventually(t, "at rest", func() (rests bool) {
		const busy = "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
		return s.conn.QueryRow(t.Context(), busy).Scan(&rests) == nil && rests
	})
	s.exec("ALTER TABLE audit_events RENAME TO elsewhere")
	rest, err := io.ReadAll(from)
	if !errors.Is(err, io.ErrUnexpectedEOF) || len(rest) == 0 {
		t.Errorf("after %d bytes the file ends with %v", len(rest), err)
	}
}

// Nobody sees the trail without leaving a row in it.
func TestATrailThatTakesNoRowShowsNothing(t *testing.T) {
	t.Parallel()
	s := startWith(t, setup{missing: temporal})
	s.happened(audit.Event{Action: audit.PatientRead, Subject: "somebody"})
	s.exec("ALTER TABLE audit_events ADD CHECK (false) NOT VALID")
	for _, path := range []string{auditPath, auditPath + "export/?format=csv", auditPath + "export/?format=fhir"} {
		got := s.do("GET", path, "").want(t, http.StatusServiceUnavailable, "audit_unavailable")
		if strings.Contains(string(got.body), "somebody") || got.header.Get("Content-Disposition") != "" {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
}
