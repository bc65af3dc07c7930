package fhir

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fastenhealth/gofhir-models/fhir401"
)

// Check checks that an Observation is valid against its profile and could have been made by this package. The
// error names every broken element or rule (the constraints of US Core and R4 by their keys) and repeats no
// value. Check runs before sending, because a resource may have been stored by an older version or changed by
// hand.
func Check(o *fhir401.Observation) error {
	c := checker{}
	c.header(o)
	e := entryOf(o)
	if e == nil {
		c.must(false, "meta.profile and code: no such profile in the catalogue")
		return c.err()
	}

	c.must(countCategory(o, e.category.code) == 1, "category: exactly one "+e.category.code)
	c.must(len(o.Note) == 0 || e.hasMeal && len(o.Note) == 1 && isMealNote(o.Note[0]), "note: not one of a reading's relation to a meal")
	if len(e.components) > 0 {
		// This implies obs-7: without a value, none can repeat a component.
		c.must(o.ValueQuantity == nil, "valueQuantity: none beside components")
		c.panel(o, e)
		return c.err()
	}

	c.must(len(o.Component) == 0, "component: none beside a value (obs-7)")
	c.quantity("Observation", o.ValueQuantity, o.DataAbsentReason, e.units)
	return c.err()
}

// checker collects the rules that are broken.
type checker struct{ broken []string }

func (c *checker) must(ok bool, rule string) {
	if !ok {
		c.broken = append(c.broken, rule)
	}
}

func (c *checker) err() error {
	if len(c.broken) == 0 {
		return nil
	}
	return errors.New("not a valid US Core Observation: " + strings.Join(c.broken, "; "))
}

// header checks what every profile demands.
func (c *checker) header(o *fhir401.Observation) {
	c.must(o.Id == nil || idPattern.MatchString(*o.Id), "id: not a FHIR id")
	c.must(o.Status == fhir401.ObservationStatusFinal, "status: not final")
	patient := ""
	if o.Subject != nil && o.Subject.Reference != nil {
		patient, _ = strings.CutPrefix(*o.Subject.Reference, "Patient/")
	}
	c.must(idPattern.MatchString(patient), "subject: no reference to a Patient")
	_, err := time.Parse(time.RFC3339, str(o.EffectiveDateTime))
	c.must(err == nil, "effectiveDateTime: no date with time and zone")
}

// panel checks that every component occurs as often as it must, and that each has a value or a reason for
// having none.
func (c *checker) panel(o *fhir401.Observation, e *entry) {
	for _, want := range e.components {
		n := 0
		for _, part := range o.Component {
			if hasCode(part.Code, loincSystem, want.code.code) {
				n++
				c.quantity("component "+want.field, part.ValueQuantity, part.DataAbsentReason, []unit{want.unit})
			}
		}
		c.must(n == 1 || n == 0 && want.optional, fmt.Sprintf("component %s: %d times", want.field, n))
	}

	known := func(part fhir401.ObservationComponent) bool {
		return slices.ContainsFunc(e.components, func(want component) bool { return hasCode(part.Code, loincSystem, want.code.code) })
	}

	for _, part := range o.Component {
		c.must(known(part), "component: one that is not in the catalogue")
	}
}

// quantity checks that there is either a quantity or a reason for having none, and checks the quantity's
// elements.
func (c *checker) quantity(where string, q *fhir401.Quantity, absent *fhir401.CodeableConcept, units []unit) {
	c.must(q == nil || absent == nil, where+": a value and a dataAbsentReason (obs-6)")
	c.must(q != nil || absent != nil, where+": neither value nor dataAbsentReason (vs-2, vs-3)")
	if q == nil {
		return
	}
	c.must(q.Value != nil && str(q.Unit) != "" && q.System != nil && q.Code != nil,
		where+": valueQuantity without value, unit, system or code")
	c.must(str(q.System) == ucumSystem, where+": valueQuantity.system is not UCUM")
	i := slices.IndexFunc(units, func(u unit) bool { return u.ucum == str(q.Code) })
	c.must(i >= 0, where+": valueQuantity.code is not a UCUM code of the profile")
}

// entryOf finds the row that the resource was made from: the resource names its profile and has all its
// codes.
func entryOf(o *fhir401.Observation) *entry {
	if o.Meta == nil {
		return nil
	}
	for i := range catalogue {
		e := &catalogue[i]
		missing := func(code coding) bool { return !hasCode(o.Code, loincSystem, code.code) }
		if slices.Contains(o.Meta.Profile, e.profile) && !slices.ContainsFunc(e.codes, missing) {
			return e
		}
	}
	return nil
}

func countCategory(o *fhir401.Observation, code string) int {
	n := 0
	for _, category := range o.Category {
		if hasCode(category, categorySystem, code) {
			n++
		}
	}
	return n
}

func hasCode(c fhir401.CodeableConcept, system, code string) bool {
	return slices.ContainsFunc(c.Coding, func(coding fhir401.Coding) bool {
		return str(coding.System) == system && str(coding.Code) == code
	})
}

// str reads an optional element, "" if absent.
func str(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
