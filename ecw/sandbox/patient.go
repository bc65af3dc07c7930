package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Systems of a patient's identifiers. Both are made up; a client finds the MRN by its type MR.
const (
	MRNSystem     = "https://sandbox-ehr.example.com/mrn"
	AccountSystem = "https://sandbox-ehr.example.com/account"
)

const patientsUpdated = "2026-01-05T08:00:00Z"

// patients are the practice's patients with their FHIR resources, which are made once.
type patients struct {
	first []*patient // whom the practice has at the start

	mu   sync.RWMutex
	list []*patient // replaced and never changed, because readers keep it
	byID map[string]*patient
}

type patient struct {
	Person
	identifiers []identifier
	born        span
	resource    json.RawMessage
}

func newPatients(people []Person) (*patients, error) {
	ps := &patients{}
	for _, person := range people {
		p, err := newPatient(person)
		if err != nil {
			return nil, err
		}
		ps.first = append(ps.first, p)
	}

	ps.reset()
	return ps, nil
}

func newPatient(person Person) (*patient, error) {
	p := &patient{Person: person}
	var err error
	if p.born, err = parseDate(person.BirthDate); err != nil {
		return nil, fmt.Errorf("patient %s: %w", person.FHIRID, err)
	}

	p.identifiers = []identifier{
		// The MRN is not the first, so that an importer must choose by type, as with a real EHR.
		{
			Use:    "secondary",
			Type:   identifierType("AN", "Account number"),
			System: AccountSystem,
			Value:  "A" + strings.TrimPrefix(person.FHIRID, "ecw-patient-"),
		},
		{
			Use:    "usual",
			Type:   identifierType("MR", "Medical record number"),
			System: MRNSystem,
			Value:  person.MRN,
		},
	}

	if p.resource, err = encode(p.fhir()); err != nil {
		return nil, fmt.Errorf("patient %s: %w", person.FHIRID, err)
	}
	return p, nil
}

// reset forgets those who were put.
func (ps *patients) reset() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.list, ps.byID = ps.first, map[string]*patient{}
	for _, p := range ps.first {
		ps.byID[p.FHIRID] = p
	}
}

// put adds a patient, or replaces the one with this id.
func (ps *patients) put(person Person) error {
	if person.FHIRID == "" || person.MRN == "" || person.LastName == "" {
		return errors.New("fhir_id, mrn and last_name are needed")
	}
	p, err := newPatient(person)
	if err != nil {
		return err
	}

	ps.mu.Lock()
	defer ps.mu.Unlock()
	isThis := func(q *patient) bool { return q.FHIRID == p.FHIRID }
	list := slices.Clone(ps.list)
	if i := slices.IndexFunc(list, isThis); i >= 0 {
		list[i] = p
	} else {
		list = append(list, p)
	}
	ps.list, ps.byID[p.FHIRID] = list, p
	return nil
}

// all returns the patients, which the caller must not change.
func (ps *patients) all() []*patient {
	ps.mu.RLock()
	defer ps.mu.RUnlock()
	return ps.list
}

// get returns nil when nobody has the id.
func (ps *patients) get(id string) *patient {
	ps.mu.RLock()
	defer ps.mu.RUnlock()
	return ps.byID[id]
}

func identifierType(code, display string) *codeableConcept {
	return &codeableConcept{Coding: []coding{{
		System:  "http://terminology.hl7.org/CodeSystem/v2-0203",
		Code:    code,
		Display: display,
	}}, Text: display}
}

type patientResource struct {
	ResourceType string           `json:"resourceType"`
	ID           string           `json:"id"`
	Meta         patientMeta      `json:"meta"`
	Identifier   []identifier     `json:"identifier"`
	Active       bool             `json:"active"`
	Name         []humanName      `json:"name"`
	Telecom      []contactPoint   `json:"telecom,omitempty"`
	Gender       string           `json:"gender"`
	BirthDate    string           `json:"birthDate"`
	Address      []patientAddress `json:"address,omitempty"`
}

type patientMeta struct {
	VersionID   string   `json:"versionId"`
	LastUpdated string   `json:"lastUpdated"`
	Profile     []string `json:"profile"`
}

type humanName struct {
	Use    string   `json:"use"`
	Text   string   `json:"text"`
	Family string   `json:"family"`
	Given  []string `json:"given"`
}

type contactPoint struct {
	System string `json:"system"`
	Value  string `json:"value"`
	Use    string `json:"use,omitempty"`
}

type patientAddress struct {
	Use        string   `json:"use"`
	Line       []string `json:"line"`
	City       string   `json:"city,omitempty"`
	State      string   `json:"state,omitempty"`
	PostalCode string   `json:"postalCode,omitempty"`
	Country    string   `json:"country"`
}

// fhir makes the US Core Patient.
func (p *patient) fhir() patientResource {
	r := patientResource{
		ResourceType: "Patient",
		ID:           p.FHIRID,
		Meta: patientMeta{VersionID: "1", LastUpdated: patientsUpdated,
			Profile: []string{"http://hl7.org/fhir/us/core/StructureDefinition/us-core-patient"}},
		Identifier: p.identifiers,
		Active:     p.Active,
		Gender:     p.Gender,
		BirthDate:  p.BirthDate,
		Name: []humanName{{
			Use:    "official",
			Text:   p.fullName(),
			Family: p.LastName,
			Given:  []string{p.FirstName},
		}},
	}

	if p.Initial != "" {
		r.Name[0].Given = append(r.Name[0].Given, p.Initial)
	}

	for _, t := range []contactPoint{{"phone", p.Mobile, "mobile"}, {"phone", p.HomePhone, "home"}, {"email", p.Email, ""}} {
		if t.Value != "" {
			r.Telecom = append(r.Telecom, t)
		}
	}

	if p.Street != "" {
		line := []string{p.Street}
		if p.Apartment != "" {
			line = append(line, p.Apartment)
		}

		r.Address = []patientAddress{{
			Use:        "home",
			Line:       line,
			City:       p.City,
			State:      p.State,
			PostalCode: p.PostCode,
			Country:    "US",
		}}
	}

	return r
}

func (p *patient) fullName() string { return p.FirstName + " " + p.LastName }

func (s *Server) readPatient(c *call) reply {
	p := s.patients.get(c.PathValue("id"))
	if p == nil {
		return problem{status: http.StatusNotFound, code: "not-found", detail: "no such Patient"}.outcome()
	}

	rep := reply{
		status:      http.StatusOK,
		contentType: typeFHIR,
		header:      http.Header{},
		body:        s.shownPatient(c, p),
	}

	rep.header.Set("ETag", `W/"1"`)
	return rep
}

// shownPatient is the Patient resource that a request is answered with.
func (s *Server) shownPatient(c *call, p *patient) json.RawMessage {
	if !c.effects.has(kindOtherPerson) {
		return p.resource
	}
	resource, err := encode(s.patients.mixedUp(p).fhir())
	if err != nil { // New has encoded the same demographics, so they can be encoded
		s.log.Error("sandbox patient", "error", err)
	}
	return resource
}

// mixedUp is a patient whose chart was overwritten with another person's demographics; only the id and the
// identifiers are unchanged.
func (ps *patients) mixedUp(p *patient) *patient {
	other := *p
	for _, q := range ps.all() {
		if q.LastName != p.LastName && q.BirthDate != p.BirthDate {
			other.Person = q.Person
			break
		}
	}

	other.FHIRID, other.MRN = p.FHIRID, p.MRN
	return &other
}

func (s *Server) searchPatients(c *call) reply {
	values := c.URL.Query()
	if len(splitOr(values.Get("_id"))) > 1 {
		switch {
		case c.effects.has(kindRefuseIDList):
			return refuseSearch(errors.New("_id takes no list here (a fault asked for)"))
		case c.effects.has(kindIgnoreIDList):
			values.Del("_id")
		}
	}

	q, err := parseQuery(values, patientParams())
	if err != nil {
		return refuseSearch(err)
	}
	if c.effects.has(kindSmallPages) {
		q.count = min(q.count, smallPage)
	}

	var matches []*patient
	for i, p := range s.patients.all() {
		hidden := c.effects.has(kindEmptySearch) || c.effects.has(kindHidePatients) && i%2 == 1
		if !hidden && q.matches(p) {
			matches = append(matches, p)
		}
	}

	return searchReply(s.FHIRBaseURL(), "Patient", values, q, matches,
		func(p *patient) (string, json.RawMessage) { return p.FHIRID, s.shownPatient(c, p) })
}

// smallPage is the size of a page under kindSmallPages.
const smallPage = 20

func patientParams() map[string]matcher[*patient] {
	return map[string]matcher[*patient]{
		"_id": func(v string) (func(*patient) bool, error) {
			return func(p *patient) bool { return p.FHIRID == v }, nil
		},
		"identifier": func(v string) (func(*patient) bool, error) {
			t := parseToken(v)
			return func(p *patient) bool { return t.matchesIdentifier(p.identifiers) }, nil
		},
		"name": startsWith(func(p *patient) []string {
			return []string{p.FirstName, p.Initial, p.LastName, p.fullName()}
		}),
		"family": startsWith(func(p *patient) []string { return []string{p.LastName} }),
		"given":  startsWith(func(p *patient) []string { return []string{p.FirstName, p.Initial} }),
		"gender": func(v string) (func(*patient) bool, error) {
			t := parseToken(v)
			return func(p *patient) bool { return t.code == p.Gender }, nil
		},
		"birthdate": func(v string) (func(*patient) bool, error) {
			test, err := dateTest(v)
			return func(p *patient) bool { return test(p.born) }, err
		},
	}
}

// startsWith is FHIR's search on strings: it matches the start of a field, without regard to case and
// accents.
func startsWith(fields func(*patient) []string) matcher[*patient] {
	return func(v string) (func(*patient) bool, error) {
		want := fold(v)
		return func(p *patient) bool {
			return slices.ContainsFunc(fields(p), func(field string) bool { return strings.HasPrefix(fold(field), want) })
		}, nil
	}
}

// fold lowers the case and removes the accents that occur in the sample's names.
func fold(s string) string {
	accents := strings.NewReplacer("á", "a", "é", "e", "í", "i", "ñ", "n", "ö", "o", "ø", "o", "ú", "u", "ễ", "e", "ë", "e")
	return accents.Replace(strings.ToLower(s))
}
