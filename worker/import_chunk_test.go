package worker_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw/sandbox"
	"github.com/vantrexia/vantrexia/gate"
	"github.com/vantrexia/vantrexia/worker"
	"github.com/vantrexia/vantrexia/workflows"
)

// searches and reads are how many requests for Patients the EHR has answered, with whatever status.
func (r *rig) searches() int { return r.answered("GET Patient") }

func (r *rig) reads() int { return r.answered("GET Patient/{id}") }

func (r *rig) answered(route string) (n int) {
	r.t.Helper()
	for _, count := range r.stats().Requests[route] {
		n += count
	}
	return n
}

// checkPatients wants the practice to have as many patients as were imported, each linked once and as eCW shows them.
func (r *rig) checkPatients(want []sandbox.Person) {
	r.t.Helper()
	filter, all := db.PatientFilter{PracticeCode: practice}, db.Page[db.PatientKey]{Limit: 10_000}
	patients, _, err := r.store.ListPatients(r.t.Context(), filter, db.ByLastName, false, all)
	if err != nil {
		r.t.Fatal(err)
	}
	ours := map[string][3]string{}
	for _, p := range patients {
		ours[*p.ExternalID] = [3]string{p.MRN, p.LastName, p.DateOfBirth.Format(time.DateOnly)}
	}
	if len(ours) != len(want) {
		r.t.Errorf("we have %d patients, want %d", len(ours), len(want))
	}
	for _, p := range want {
		if got := ours[p.FHIRID]; got != [3]string{p.MRN, p.LastName, p.BirthDate} {
			r.t.Errorf("%s is stored as %v", p.FHIRID, got)
		}
	}
}

// Two thousand patients are twenty requests, which leave at once below eCW's limit, and small histories.
func TestAnImportReadsAHundredPatientsWithOneRequest(t *testing.T) {
	t.Parallel()
	const patients = 2000
	r := newRig(t, setup{patients: patients, perMinute: 240, parallel: 8})
	began := time.Now()
	importID, run := r.startImport(patients)
	r.mustImport(importID, run, patients)
	t.Logf("%d patients in %s", patients, time.Since(began).Round(100*time.Millisecond))
	r.checkPatients(sandbox.Crowd(patients))
	if searches, reads := r.searches(), r.reads(); searches != 20 || reads != 0 {
		t.Errorf("%d searches and %d single reads, want 20 searches", searches, reads)
	}
	if n := r.requests("429"); n != 0 {
		t.Errorf("%d requests were too many for eCW", n)
	}
	for id, most := range map[string]int{run.GetID(): 150, run.GetID() + "/1-100": 20} {
		if n := len(r.history(r.temporal.GetWorkflow(t.Context(), id, ""))); n > most {
			t.Errorf("the history of %s has %d events, want at most %d", id, n, most)
		}
	}
}

// Whatever an EHR makes of a search for a list of patients, every patient is imported, and those that were asked for only.
func TestAnImportFromAnEHRThatSpoilsLists(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		fault    fault
		searches int
		reads    int
	}{
		{fault{}, 2, 0},
		{fault{Kind: "small_pages"}, 8, 0},
		{fault{Kind: "hide_patients"}, 2, 71},
		{fault{Kind: "empty_search"}, 2, 142},
		{fault{Kind: "refuse_id_list"}, 2, 142},    // once more without _count; the second chunk does not ask
		{fault{Kind: "ignore_id_list"}, 2, 42},     // the first hundred are those of the first chunk
		{fault{Kind: "error_500"}, 4, 142},         // each chunk asks twice
		{fault{Kind: "malformed_json"}, 4, 142},    // as when a proxy fails
		{fault{Kind: "large_body"}, 1, 142},        // is not asked for again
		{fault{Kind: "error_502", Count: 1}, 3, 1}, // the search is repeated after a single read
	} {
		t.Run(test.fault.Kind, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{importParallel: 1})
			if f := test.fault; f.Kind != "" {
				f.Target = "search"
				if f.Count == 0 {
					f.For = "1h"
				}
				r.breakEHR(f)
			}
			people := sandbox.People()
			importID, run := r.startImportOf(fhirIDs(people))
			r.mustImport(importID, run, int64(len(people)))
			r.checkPatients(people)
			if searches, reads := r.searches(), r.reads(); searches != test.searches || reads != test.reads {
				t.Errorf("%d searches and %d single reads, want %d and %d", searches, reads, test.searches, test.reads)
			}
			if c := r.circuit(); c.Circuit != gate.Closed || len(c.Failing) != 0 {
				t.Errorf("the circuit is %+v: what eCW makes of a list is no outage", c)
			}
		})
	}
}

// A search that eCW's limit stops is repeated, and nobody is read singly.
func TestAnImportWhoseSearchIsThrottled(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{importParallel: 1})
	r.breakEHR(fault{Kind: "throttle", Target: "search", RetryAfter: "1s"})
	importID, run := r.startImport(100)
	r.mustImport(importID, run, 100)
	if searches, reads := r.searches(), r.reads(); searches != 2 || reads != 0 {
		t.Errorf("%d searches and %d single reads, want 2 searches", searches, reads)
	}
}

// eCW shows somebody else under every id: each patient is held, and none is changed. Where only its search does so, a single
// read corrects that at once.
func TestRefreshWithASearchThatShowsOtherPeople(t *testing.T) {
	t.Parallel()
	const patients = 30
	r := newRig(t, setup{importParallel: 1})
	importID, run := r.startImport(patients)
	r.mustImport(importID, run, patients)

	for _, phase := range []struct {
		targets  []string
		held     int
		searches int // so far
		reads    int
	}{
		{[]string{"search", "read"}, patients, 2, patients},
		{nil, 0, 3, patients},
		{[]string{"search"}, 0, 4, 2 * patients},
	} {
		r.admin(http.MethodDelete, "faults", nil, nil)
		for _, target := range phase.targets {
			r.breakEHR(fault{Kind: "other_person", Target: target, For: "1h"})
		}
		r.finish("refresh-"+uuid.NewString(), workflows.RefreshPatients, practice)
		r.checkPatients(sandbox.Crowd(patients))
		if n := r.mismatches(); n != phase.held {
			t.Errorf("%v: %d patients are held, want %d", phase.targets, n, phase.held)
		}
		if searches, reads := r.searches(), r.reads(); searches != phase.searches || reads != phase.reads {
			t.Errorf("%v: %d searches and %d single reads so far, want %d and %d", phase.targets, searches, reads, phase.searches, phase.reads)
		}
	}
}

func (r *rig) mismatches() (n int) {
	r.t.Helper()
	if err := r.sql.QueryRow(r.t.Context(), "SELECT count(mismatch_since) FROM patients").Scan(&n); err != nil {
		r.t.Fatal(err)
	}
	return n
}

// idLists keeps how many patients each search asked for.
type idLists struct {
	mu   sync.Mutex
	list []int
}

func (l *idLists) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if ids := req.URL.Query().Get("_id"); ids != "" {
			l.mu.Lock()
			l.list = append(l.list, strings.Count(ids, ",")+1)
			l.mu.Unlock()
		}
		next.ServeHTTP(w, req)
	})
}

func (l *idLists) asked() []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.list)
}

// A worker is lost in the middle of a chunk, and what it began goes on beside the worker that takes over: what is done is not
// asked for again, and nobody is imported twice.
func TestAWorkerIsLostInTheMiddleOfAChunk(t *testing.T) {
	t.Parallel()
	lists := &idLists{}
	r := newRig(t, setup{importParallel: 1, watch: lists.wrap, intercept: impatient})
	people := sandbox.People()[:10]
	slices.Reverse(people[4:]) // the one whom we know already comes in the middle
	people[0], people[5] = people[5], people[0]

	lock := must(r.sql.Begin(t.Context()))(t)
	must(lock.Exec(t.Context(), "SELECT FROM patients WHERE id = $1 FOR UPDATE", r.patient.ID))(t)
	importID, run := r.startImportOf(fhirIDs(people))
	eventually(t, "another worker to take over", func() bool { return len(lists.asked()) == 2 })
	if err := lock.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}

	r.mustImport(importID, run, 10)
	r.checkPatients(people)
	if asked := lists.asked(); asked[0] != 10 || asked[1] != 5 {
		t.Errorf("the searches asked for %v patients, want for those that were not done", asked)
	}
	if n := must(r.store.CountImportItems(t.Context(), importID))(t); n.Imported != 9 || n.Skipped != 1 {
		t.Errorf("the result is %+v, want 9 new patients and one that we knew", n)
	}
}

// spoilt has the EHR show patients with other text than it holds.
func spoilt(replace *strings.Replacer) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if !strings.HasSuffix(req.URL.Path, "/Patient") {
				next.ServeHTTP(w, req)
				return
			}
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, req)
			w.Header().Set("Content-Type", answer.Header().Get("Content-Type"))
			_, _ = bytes.NewBufferString(replace.Replace(answer.Body.String())).WriteTo(w)
		})
	}
}

// The bad patients of a chunk stop none of the others: what the search shows of one cannot be used, and what it shows of
// another cannot be stored. Both are left to a single read.
func TestBadPatientsOfAChunk(t *testing.T) {
	t.Parallel()
	people := sandbox.People()[:10]
	r := newRig(t, setup{idle: true, watch: spoilt(strings.NewReplacer(
		`"`+people[3].BirthDate+`"`, `"1950"`, `"`+people[4].MRN+`"`, `"\u0000"`, `"`+people[5].BirthDate+`"`, `"1950"`,
	))})
	importID, _ := r.startImportOf(fhirIDs(people))
	do := &activities.PatientImport{Store: r.store, EHR: r.ehr, Gate: r.gate, Start: worker.Start(r.temporal), Logger: r.log}
	chunk := activities.ImportChunk{
		ImportRef: activities.ImportRef{PracticeCode: practice, ImportID: importID},
		Ordinals:  []int32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10},
	}
	for range 2 { // the second time it finds only these open
		found, err := do.LinkPatients(t.Context(), chunk)
		if err != nil || !slices.Equal(found.Left, []int32{4, 5, 6}) || found.Failed || found.Waits {
			t.Errorf("got %+v, %v, want that the bad ones are left", found, err)
		}
	}
	if n := must(r.store.CountImportItems(t.Context(), importID))(t); n.Imported != 6 || n.Skipped != 1 || n.Done != 7 {
		t.Errorf("the result is %+v", n)
	}

	item := activities.ImportItem{ImportRef: chunk.ImportRef, Ordinal: 4}
	if linked, err := do.LinkPatient(t.Context(), item); err != nil || linked.Waits {
		t.Errorf("the single read shows all of the patient: %+v, %v", linked, err)
	}
}

// Two patients in a row cannot be stored, as when the database is in trouble: the activity fails, and is tried again. What was
// stored before stays done.
func TestAChunkWhileTheDatabaseIsInTrouble(t *testing.T) {
	t.Parallel()
	people := sandbox.People()[:10]
	r := newRig(t, setup{idle: true, watch: spoilt(strings.NewReplacer(
		`"`+people[4].MRN+`"`, `"\u0000"`, `"`+people[5].MRN+`"`, `"\u0000"`,
	))})
	importID, _ := r.startImportOf(fhirIDs(people))
	do := &activities.PatientImport{Store: r.store, EHR: r.ehr, Gate: r.gate, Start: worker.Start(r.temporal), Logger: r.log}
	chunk := activities.ImportChunk{
		ImportRef: activities.ImportRef{PracticeCode: practice, ImportID: importID},
		Ordinals:  []int32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10},
	}
	if found, err := do.LinkPatients(t.Context(), chunk); err == nil {
		t.Errorf("got %+v, want a failure", found)
	}
	if n := must(r.store.CountImportItems(t.Context(), importID))(t); n.Done != 4 || n.Imported != 3 || n.Skipped != 1 {
		t.Errorf("the result is %+v, want four patients done", n)
	}
}

// Nothing is sent through a circuit that is not closed, and a search is no trial: it neither opens the circuit nor closes it.
func TestASearchAndTheCircuit(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true})
	importID, _ := r.startImport(5)
	do := &activities.PatientImport{Store: r.store, EHR: r.ehr, Gate: r.gate, Start: worker.Start(r.temporal), Logger: r.log}
	chunk := activities.ImportChunk{ImportRef: activities.ImportRef{PracticeCode: practice, ImportID: importID}, Ordinals: []int32{1, 2, 3, 4, 5}}
	search := func() activities.Searched {
		t.Helper()
		found := must(do.LinkPatients(t.Context(), chunk))(t)
		if len(found.Left) != 5 {
			t.Errorf("%v are left, want all", found.Left)
		}
		return found
	}

	for _, kind := range []string{"error_503", "unauthorized"} {
		r.breakEHR(fault{Kind: kind, Target: "any", For: "1h"})
		for range 3 {
			if found := search(); !found.Failed {
				t.Errorf("%s: got %+v, want that the search failed", kind, found)
			}
		}
		r.admin(http.MethodDelete, "faults", nil, nil)
	}
	r.awaitCircuit(gate.Closed, "")

	refused := gate.Report{TransmissionID: uuid.New(), Finding: gate.Refuses, Message: "eCW refuses us"}
	if err := r.store.InTx(t.Context(), func(q *db.Queries) error {
		_, err := r.gate.Report(t.Context(), q, refused)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	sent := r.searches()
	if found := search(); !found.Waits || r.searches() != sent {
		t.Errorf("got %+v after %d searches, want that it waits and sends nothing", found, r.searches()-sent)
	}
	r.awaitCircuit(gate.Open, gate.ReasonCredentials)
}
