package fhir

import (
	"slices"

	"github.com/fastenhealth/gofhir-models/fhir401"
)

// meal says how a blood glucose relates to a meal, as a meter's marker does.
//
// It becomes the note of the Observation: FHIR R4 has Observation.note (0..*) for comments about a result, US
// Core's laboratory profile leaves it as it is, and a chart shows it to people as the result's comment. It needs
// no code that an EHR might refuse. These other ways were looked at, and not taken:
//
//   - A second Observation of the meal, derived from the glucose: HL7's Personal Health Device guide does that
//     (its example glucose-1.0.0.4, code MDC_CTXT_GLU_MEAL). eCW is known to accept some LOINC codes only, and
//     in a chart the two would stand apart.
//   - A component with a code of SNOMED CT (307165006 Before meal, 24863003 Postprandial) or of ISO 11073. eCW
//     refuses a resource for a coding system that it does not support (its error 102), and the number with it.
//   - LOINC codes for the purpose say another thing than a meter does: 14760-3 is two hours after a meal, and
//     88365-2, before one, names neither capillary blood nor a glucometer. A patient's trend would fall apart.
type meal struct {
	name string // in Reading.Values
	note string // in ASCII, because of eCW's error 108
}

// meals is never changed.
var meals = []meal{
	{"pre", "Measured before a meal."},
	{"post", "Measured after a meal."},
}

// notes are the notes of an Observation: one if the relation to a meal is known.
func (m *meal) notes() []fhir401.Annotation {
	if m == nil {
		return nil
	}
	return []fhir401.Annotation{{Text: m.note}}
}

// isMealNote reports whether notes returns this one.
func isMealNote(note fhir401.Annotation) bool {
	return slices.ContainsFunc(meals, func(m meal) bool { return m.note == note.Text })
}
