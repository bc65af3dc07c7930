package fhir

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Demographics is what we keep of an EHR's Patient. A text is empty if the EHR has nothing usable; all texts
// are trimmed.
type Demographics struct {
	ID        string // the EHR's FHIR id of the patient, always present
	FirstName string // the first given name
	LastName  string
	// BirthDate is that of the EHR: YYYY-MM-DD, or YYYY-MM or YYYY if only that is known. It is never
	// completed by an invented day.
	BirthDate string
	Gender    string // male, female, other or unknown
	MRN       string
	Phone     string // as written by the EHR, in no particular format
	Email     string // one that [IsEmail]
	Address   Address
	Active    bool // true if the EHR does not say, as FHIR defines it
	// IdentifierSystems are the systems of the identifiers if none of them is the MRN. They are a few
	// well-formed URIs, which name registries and not persons.
	IdentifierSystems []string
}

// Address is a postal address.
type Address struct {
	Lines                   []string
	City, State, PostalCode string
}

// ParsePatient reads a FHIR R4 Patient. If mrnSystem is not empty, only an identifier of that system is the
// MRN; otherwise the identifiers' types decide. The Patient must have an id, and its birth date, if it has
// one, must be a date. Anything else may be missing. The errors name the element and never repeat its
// content.
//
// It reads the elements that we need and ignores the rest. The types of fhir401 would refuse the whole
// resource for one unknown code.
func ParsePatient(raw json.RawMessage, mrnSystem string) (Demographics, error) {
	var p patient
	if err := json.Unmarshal(raw, &p); err != nil {
		return Demographics{}, unreadable(err)
	}
	if p.ResourceType != "Patient" {
		return Demographics{}, errors.New("the resource is not a Patient")
	}
	if !idPattern.MatchString(p.ID) {
		return Demographics{}, errors.New("the Patient's id is missing or is not a FHIR id")
	}

	d := Demographics{
		ID:        p.ID,
		BirthDate: strings.TrimSpace(p.BirthDate),
		MRN:       p.mrn(mrnSystem),
		Phone:     p.contact("phone", isSaid, "mobile", "home", "work"),
		Email:     p.contact("email", IsEmail, "home", "work"),
		Address:   p.address(),
		Active:    p.Active == nil || *p.Active,
	}
	if d.BirthDate != "" && !isDate(d.BirthDate) {
		return Demographics{}, errors.New("Patient.birthDate is not a FHIR date")
	}

	if gender := strings.ToLower(p.Gender); slices.Contains([]string{"male", "female", "other", "unknown"}, gender) {
		d.Gender = gender
	}

	d.FirstName, d.LastName = p.name()
	if d.MRN == "" {
		d.IdentifierSystems = p.systems()
	}

	return d, nil
}

// isDate reports whether s is a FHIR date: a day, a month or a year (R4, 2.24.0.1).
func isDate(s string) bool {
	for _, layout := range []string{time.DateOnly, "2006-01", "2006"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.Year() > 0
		}
	}
	return false
}

// unreadable keeps the name of the element in an error of encoding/json, and drops the content.
func unreadable(err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
		return errors.New("Patient." + wrong.Field + " has the wrong JSON type")
	}
	if errors.Is(err, errTooMany) {
		return errTooMany
	}
	return errors.New("the resource is not a JSON object")
}

// maxElements is more than any list of a Patient has. A list of a million empty elements is within the limit
// of an answer's size, but would take a hundred times that in memory when decoded.
const maxElements = 200

var errTooMany = fmt.Errorf("a list of the Patient has more than %d elements", maxElements)

// short is a list of at most maxElements. A longer one is an error and is not cut, because elements that were
// dropped would be taken for absent.
type short[T any] []T

func (s *short[T]) UnmarshalJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	switch start, err := d.Token(); {
	case err != nil || start == nil: // null is no list at all
		return err
	case start != json.Delim('['):
		return &json.UnmarshalTypeError{Value: "value", Type: reflect.TypeFor[[]T]()}
	}

	for d.More() {
		if len(*s) == maxElements {
			return errTooMany
		}
		var element T
		if err := d.Decode(&element); err != nil {
			return err
		}
		*s = append(*s, element)
	}

	return nil
}

// patient is the part of a FHIR Patient that the demographics are made of.
type patient struct {
	ResourceType string            `json:"resourceType"`
	ID           string            `json:"id"`
	Active       *bool             `json:"active"`
	BirthDate    string            `json:"birthDate"`
	Gender       string            `json:"gender"`
	Identifier   short[identifier] `json:"identifier"`
	Name         short[humanName]  `json:"name"`
	Telecom      short[telecom]    `json:"telecom"`
	Address      short[address]    `json:"address"`
}

type humanName struct {
	Use    string        `json:"use"`
	Text   string        `json:"text"`
	Family string        `json:"family"`
	Given  short[string] `json:"given"`
}

type telecom struct {
	System string `json:"system"`
	Use    string `json:"use"`
	Value  string `json:"value"`
	Rank   uint   `json:"rank"`
}

type address struct {
	Use        string        `json:"use"`
	Line       short[string] `json:"line"`
	City       string        `json:"city"`
	State      string        `json:"state"`
	PostalCode string        `json:"postalCode"`
}

// name prefers the official name, then the usual one, then one without a use. A former or anonymous name is
// the last choice.
func (p *patient) name() (first, last string) {
	uses := []string{"official", "usual", "", "nickname", "temp", "maiden", "old", "anonymous"}
	best := len(uses)
	for _, n := range p.Name {
		rank := slices.Index(uses, n.Use)
		if rank < 0 || rank >= best {
			continue
		}

		family := strings.TrimSpace(n.Family)
		given := ""
		for _, g := range n.Given { // a null in the array means that only an extension is known
			given = cmp.Or(given, strings.TrimSpace(g))
		}

		if words := strings.Fields(n.Text); given == "" && family == "" && len(words) > 0 {
			family = words[len(words)-1]
			given = strings.Join(words[:len(words)-1], " ")
		}

		if given != "" || family != "" {
			first, last, best = given, family, rank
		}
	}

	return first, last
}

// isSaid reports whether a text is not empty.
func isSaid(text string) bool { return text != "" }

// contact returns the value of the preferred telecom that is usable: that of the lowest rank, and with equal or
// no rank that of the first use.
func (p *patient) contact(system string, usable func(string) bool, uses ...string) string {
	found, bestRank, bestUse := "", uint(0), 0
	for _, t := range p.Telecom {
		v := strings.TrimSpace(t.Value)
		if t.System != system || t.Use == "old" || !usable(v) {
			continue
		}

		use := slices.Index(uses, t.Use)
		if use < 0 {
			use = len(uses)
		}

		rank := t.Rank - 1 // without a rank: the largest number, so last
		if found == "" || cmp.Or(cmp.Compare(rank, bestRank), cmp.Compare(use, bestUse)) < 0 {
			found, bestRank, bestUse = v, rank, use
		}
	}

	return found
}

// address prefers the address where the patient lives to the one for bills, and never returns a former one.
func (p *patient) address() Address {
	uses := []string{"home", "", "temp", "work", "billing"}
	best, found := len(uses), Address{}
	for _, a := range p.Address {
		rank := slices.Index(uses, a.Use)
		if rank < 0 || rank >= best {
			continue
		}

		best = rank
		found = Address{
			City:       strings.TrimSpace(a.City),
			State:      strings.TrimSpace(a.State),
			PostalCode: strings.TrimSpace(a.PostalCode),
		}

		for _, line := range a.Line {
			if line = strings.TrimSpace(line); line != "" {
				found.Lines = append(found.Lines, line)
			}
		}
	}

	return found
}
