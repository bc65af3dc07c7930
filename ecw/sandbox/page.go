package sandbox

import (
	"bytes"
	_ "embed"
	"net/http"
	"slices"
	"strings"
	"time"
)

//go:embed page.html
var pageHTML string

// shownRows bounds the flowsheet; the page gives an impression and need not list everything.
const shownRows = 100

type pageView struct {
	Practice string
	Base     string
	Patient  *patient // nil = all patients
	Columns  []string
	Rows     []flowRow
	Total    int
	Shown    int
	Patients []pagePatient
}

// flowRow shows what one patient's devices measured at one moment.
type flowRow struct {
	When    string
	Patient *patient
	Cells   []string // one a column
	Device  string
	Source  string
	IDs     []string
}

type pagePatient struct {
	*patient
	Count int
}

// page shows the flowsheet of the practice, or of one patient with ?patient=id.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	view := pageView{
		Practice: s.cfg.PracticeCode,
		Base:     s.FHIRBaseURL(),
		Columns:  pageColumns(),
	}
	if id := r.URL.Query().Get("patient"); id != "" {
		p := s.patients.get(id)
		if p == nil {
			http.Error(w, "no such patient", http.StatusNotFound)
			return
		}
		view.Patient = p
	}

	all := s.store.all()
	counts := map[string]int{}
	for _, o := range all {
		counts[o.patient]++
	}

	if view.Patient != nil {
		all = slices.DeleteFunc(all, func(o *observation) bool { return o.patient != view.Patient.FHIRID })
	}

	view.Total = len(all)
	view.Rows, view.Shown = s.flowsheet(all, view.Columns)
	for _, p := range s.patients.all() {
		view.Patients = append(view.Patients, pagePatient{p, counts[p.FHIRID]})
	}

	s.sendPage(w, view)
}

func (s *Server) sendPage(w http.ResponseWriter, view pageView) {
	var b bytes.Buffer
	if err := s.pageForm.Execute(&b, view); err != nil {
		s.log.Error("sandbox page", "error", err)
		http.Error(w, "the page cannot be shown", http.StatusInternalServerError)
		return
	}

	h := http.Header{}
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "+
		"frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")

	s.send(w, reply{
		status:      http.StatusOK,
		contentType: typeHTML,
		header:      h,
		body:        b.Bytes(),
	})
}

func pageColumns() []string {
	var columns []string
	for _, v := range vitals() {
		if !slices.Contains(columns, v.column) {
			columns = append(columns, v.column)
		}
	}
	return columns
}

// flowsheet returns a row for each patient and moment, the newest arrivals first, and the number of
// Observations that the rows show.
func (s *Server) flowsheet(all []*observation, columns []string) ([]flowRow, int) {
	var rows []flowRow
	index := map[string]int{}
	shown := 0

	for _, o := range slices.Backward(all) {
		key := o.patient + "|" + o.body.EffectiveDateTime + "|" + source(o)
		i, ok := index[key]
		if !ok {
			if len(rows) == shownRows {
				break
			}

			i = len(rows)
			index[key] = i
			rows = append(rows, flowRow{
				When:    o.when.from.UTC().Format(time.DateTime),
				Patient: s.patients.get(o.patient),
				Cells:   make([]string, len(columns)),
				Source:  source(o),
			})
		}

		rows[i].fill(o, columns)
		shown++
	}

	return rows, shown
}

func (row *flowRow) fill(o *observation, columns []string) {
	row.IDs = append(row.IDs, o.id)
	if d := o.body.Device; d != nil && row.Device == "" {
		row.Device = d.Display
	}

	put := func(column, text string) {
		if i := slices.Index(columns, column); i >= 0 && row.Cells[i] == "" {
			row.Cells[i] = text
		} else if i >= 0 {
			row.Cells[i] += "; " + text // a second Observation of the same moment is a duplicate and must be visible
		}
	}

	for _, kind := range kindsOf(o.body.Code) {
		if kind.isPanel() {
			put(kind.column, componentText(o, codeSystolic)+"/"+componentText(o, codeDiastolic))
		} else {
			put(kind.column, quantityText(o.body.ValueQuantity, true)+notesText(o.body.Note))
		}
	}

	if rate := componentText(o, codeHeartRate); rate != "–" {
		put("Heart rate", rate)
	}
}

func componentText(o *observation, code string) string {
	for _, part := range o.body.Component {
		if slices.Contains(loincCodes(part.Code), code) {
			return quantityText(part.ValueQuantity, false)
		}
	}
	return "–"
}

func quantityText(q *quantity, withUnit bool) string {
	if q == nil {
		return "–"
	}
	if withUnit {
		return string(q.Value) + " " + q.Unit
	}
	return string(q.Value)
}

// notesText is what a chart shows after a result.
func notesText(notes []annotation) string {
	text := ""
	for _, note := range notes {
		text += " (" + note.Text + ")"
	}
	return text
}

// source is the reading's origin, as its tags name it.
func source(o *observation) string {
	var names []string
	for _, tag := range o.body.Meta.Tag {
		if name := strings.TrimSpace(tag.Display); name != "" {
			names = append(names, name)
		} else if tag.Code != "" {
			names = append(names, tag.Code)
		}
	}
	return strings.Join(names, ", ")
}
