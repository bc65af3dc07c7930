package ecw

import "encoding/json"

// patientWalk fills one page of ours while it goes through eCW's pages.
type patientWalk struct {
	size    int
	page    PatientPage
	start   int      // the offset at which our page begins
	at      int      // the offset at which eCW's next page begins
	linked  bool     // eCW has given a link to a next page
	surplus bool     // eCW's latest page has patients beyond ours
	seen    []string // ids of the patients on eCW's pages
}

func newPatientWalk(q PatientQuery) *patientWalk {
	return &patientWalk{
		size:  q.PageSize,
		page:  PatientPage{Patients: []json.RawMessage{}, Total: -1},
		start: (q.Page - 1) * q.PageSize,
	}
}

// take adds to our page the patients of eCW's page that belong on it.
func (w *patientWalk) take(b patientBundle) {
	found, ids := b.patients()
	skipped := min(max(w.start+len(w.page.Patients)-w.at, 0), len(found))
	found = found[skipped:]
	taken := min(w.missing(), len(found))

	w.page.Patients = append(w.page.Patients, found[:taken]...)
	w.page.Total = max(w.page.Total, b.total())
	w.surplus = taken < len(found)
	w.seen = append(w.seen, ids...)
	w.at += len(ids)
}

// missing is how many patients our page lacks.
func (w *patientWalk) missing() int { return w.size - len(w.page.Patients) }

// needsNoOffset reports whether eCW's links lead to all patients, or eCW has shown as many as it counts.
func (w *patientWalk) needsNoOffset() bool { return w.linked || w.page.Total <= w.at }

// beyondTheEnd reports whether our page begins after the last patient that eCW counts.
func (w *patientWalk) beyondTheEnd() bool { return w.start >= w.page.Total }

// nextOffset moves on to our page, unless that lies beyond the end, and returns the offset to ask for.
func (w *patientWalk) nextOffset() int {
	if !w.beyondTheEnd() {
		w.at = max(w.at, w.start)
	}
	return w.at
}

// cut ends the list where eCW, which honours no offset, ends it.
func (w *patientWalk) cut() PatientPage {
	w.page.Total, w.page.Cut, w.page.More = w.at, true, w.surplus
	return w.page
}
