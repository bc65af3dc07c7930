package fhir

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
)

type identifier struct {
	Use    string         `json:"use"`
	System string         `json:"system"`
	Value  string         `json:"value"`
	Type   identifierType `json:"type"`
}

type identifierType struct {
	Text   string             `json:"text"`
	Coding short[typedCoding] `json:"coding"`
}

type typedCoding struct {
	System string `json:"system"`
	Code   string `json:"code"`
}

// mrn is the value of the identifier that has the system. If system is "", it prefers the identifier of the
// type medical record number (v2-0203 MR), then one whose type says so in words, then the EHR's internal
// patient number (PI), then the usual identifier if it has no type, then the only identifier. It never
// returns one of another type, because a social security number must not get into an MRN field.
func (p *patient) mrn(system string) string {
	usable := p.usable()
	ranks := []func(identifier) bool{
		func(id identifier) bool { return id.isType("MR") },
		func(id identifier) bool {
			text := strings.ToLower(id.Type.Text)
			return strings.Contains(text, "mrn") || strings.Contains(text, "medical record")
		},
		func(id identifier) bool { return id.isType("PI") },
		func(id identifier) bool { return id.Use == "usual" && id.saysNothing() },
		func(id identifier) bool { return len(usable) == 1 && id.saysNothing() },
	}

	if system != "" {
		ranks = []func(identifier) bool{func(id identifier) bool { return strings.TrimSpace(id.System) == system }}
	}

	for _, fits := range ranks {
		if i := slices.IndexFunc(usable, fits); i >= 0 {
			return strings.TrimSpace(usable[i].Value)
		}
	}

	return ""
}

// usable are the identifiers that have a value and are in use.
func (p *patient) usable() []identifier {
	var list []identifier
	for _, id := range p.Identifier {
		if strings.TrimSpace(id.Value) != "" && id.Use != "old" {
			list = append(list, id)
		}
	}
	return list
}

func (id identifier) isType(code string) bool {
	for _, c := range id.Type.Coding {
		// Before R4 the table's system had another name, but it always ended in the number.
		if c.Code == code && (c.System == "" || strings.HasSuffix(c.System, "0203")) {
			return true
		}
	}
	return false
}

// saysNothing reports whether neither the identifier's type nor its system shows its meaning. FHIR's own
// systems (us-ssn, us-medicare, passport-USA, ...) do, and those of HL7's registry of external ones (social
// security numbers, driver's licences, ...).
func (id identifier) saysNothing() bool {
	return len(id.Type.Coding) == 0 && id.Type.Text == "" &&
		!strings.HasPrefix(id.System, "http://hl7.org/fhir/sid/") && !strings.HasPrefix(id.System, "urn:oid:2.16.840.1.113883.4.")
}

const (
	maxSystems      = 5
	maxSystemLength = 100
)

// systems lists the systems of the identifiers, for the person who configures which of them is the MRN's.
func (p *patient) systems() []string {
	var found []string
	for _, id := range p.usable() {
		system := strings.TrimSpace(id.System)
		if isPlainURI(system) && !slices.Contains(found, system) && len(found) < maxSystems {
			found = append(found, system)
		}
	}
	return found
}

// urnForm is a URN (RFC 8141) in its usual characters.
var urnForm = regexp.MustCompile(`^urn:[A-Za-z0-9][A-Za-z0-9-]{0,31}:[A-Za-z0-9._:/~-]+$`)

// isPlainURI reports whether a text is a short URL or URN without a user, a query or a fragment, which could
// hold personal data.
func isPlainURI(text string) bool {
	if len(text) > maxSystemLength {
		return false
	}
	if urnForm.MatchString(text) {
		return true
	}
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil &&
		!strings.ContainsAny(text, "?#% ")
}
