package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// maxAhead is how far in the future a reading may be: more than the error of a local time that is taken for
// UTC.
const maxAhead = 24 * time.Hour

// decodeObservation decodes the resource, and refuses one that does not have the form of an R4 Observation.
func decodeObservation(resource json.RawMessage) (observationBody, *problem) {
	malformed := func(at, detail string) *problem {
		return &problem{
			status: http.StatusBadRequest,
			code:   "structure",
			number: numberGeneric,
			at:     at,
			detail: detail,
		}
	}

	var body observationBody
	var wrongType *json.UnmarshalTypeError
	switch err := json.Unmarshal(resource, &body); {
	case errors.As(err, &wrongType) && wrongType.Field != "":
		return body, malformed("Observation."+wrongType.Field, "a JSON "+wrongType.Value+" does not belong here")
	case err != nil:
		return body, malformed("", "the body is not a JSON object")
	case body.ResourceType != "Observation":
		return body, malformed("resourceType", fmt.Sprintf("%q is not Observation", body.ResourceType))
	case body.ID != nil:
		return body, malformed("Observation.id", "the server assigns the id; leave it out of a create")
	}

	if at := unknownElement(resource, "Observation", "Observation"); at != "" {
		return body, malformed(at, "there is no such element")
	}

	return body, nil
}

// review collects the problems of an Observation.
type review struct {
	problems []problem
}

func (r *review) refuse(code, number, at, format string, args ...any) {
	r.problems = append(r.problems, problem{
		status: http.StatusUnprocessableEntity,
		code:   code,
		number: number,
		at:     at,
		detail: fmt.Sprintf(format, args...),
	})
}

// validate checks an Observation by the rules of US Core and of eCW. It returns all problems. eCW's answer
// has the number of the first.
func (s *Server) validate(resource json.RawMessage, o observationBody) []problem {
	r := &review{}
	r.subject(s, o)
	r.performers(s, o)
	r.status(o)
	if kind, ok := r.code(o, s.cfg.RefuseGlucose); ok {
		r.category(o, kind)
		r.value(resource, o, kind)
	}
	r.effective(resource, o, s.now())
	r.identifiers(o)
	r.notes(o)
	return r.problems
}

func (r *review) subject(s *Server, o observationBody) {
	const at = "Observation.subject"
	if o.Subject == nil || o.Subject.Reference == "" {
		r.refuse("required", numberPatient, at, "missing")
		return
	}

	id := patientID(o.Subject.Reference, s.FHIRBaseURL())
	if id == "" {
		r.refuse("value", numberPatient, at+".reference", "%q is not a reference to a Patient of this practice", o.Subject.Reference)
		return
	}

	if s.patients.get(id) == nil {
		r.refuse("not-found", numberNoPatient, at+".reference", "%q does not exist", o.Subject.Reference)
	}
}

func (r *review) performers(s *Server, o observationBody) {
	for i, performer := range o.Performer {
		if id := patientID(performer.Reference, s.FHIRBaseURL()); performer.Reference != "" && s.patients.get(id) == nil {
			r.refuse("not-found", numberProvider, fmt.Sprintf("Observation.performer[%d].reference", i), "%q does not exist", performer.Reference)
		}
	}
}

func (r *review) status(o observationBody) {
	const at = "Observation.status"
	known := []string{"registered", "preliminary", "final", "amended", "corrected", "cancelled", "entered-in-error", "unknown"}
	switch {
	case o.Status == "":
		r.refuse("required", numberStatus, at, "missing")
	case !slices.Contains(known, o.Status):
		r.refuse("code-invalid", numberStatus, at, "%q is none of %s", o.Status, strings.Join(known, ", "))
	}
}

func (r *review) code(o observationBody, refuseGlucose bool) (vital, bool) {
	const at = "Observation.code"
	if o.Code == nil || len(o.Code.Coding) == 0 {
		r.refuse("required", numberCoding, at, "no coding")
		return vital{}, false
	}

	codes := loincCodes(o.Code)
	if len(codes) == 0 {
		r.refuse("code-invalid", numberSystem, at+".coding.system", "no coding is of the system %s", loinc)
		return vital{}, false
	}

	kinds := kindsOf(o.Code)
	switch {
	case len(kinds) == 0:
		r.refuse("not-supported", numberUnsupported, at, "LOINC %s is not accepted", strings.Join(codes, ", "))
		return vital{}, false
	case len(kinds) > 1:
		r.refuse("code-invalid", numberCoding, at, "LOINC %s are of different measurements", strings.Join(codes, ", "))
		return vital{}, false
	case kinds[0].isGlucose() && refuseGlucose:
		r.refuse("not-supported", numberUnsupported, at, "this practice does not accept glucose")
		return vital{}, false
	}

	for _, code := range kinds[0].codes {
		if !slices.Contains(codes, code) {
			r.refuse("required", numberCoding, at+".coding", "LOINC %s is missing beside %s", code, strings.Join(codes, ", "))
		}
	}

	return kinds[0], true
}

func (r *review) category(o observationBody, kind vital) {
	matches := 0
	for _, category := range o.Category {
		if slices.ContainsFunc(category.Coding, func(c coding) bool { return c.System == categorySystem && c.Code == kind.category }) {
			matches++
		}
	}
	if matches != 1 {
		r.refuse("required", numberCategory, "Observation.category", "%d of %d categories are %s|%s; exactly one must be",
			matches, len(o.Category), categorySystem, kind.category)
	}
}

func (r *review) effective(resource json.RawMessage, o observationBody, now time.Time) {
	const at = "Observation.effectiveDateTime"
	if others := choices(resource, "effective"); o.EffectiveDateTime == "" || len(others) != 1 {
		r.refuse("required", numberDate, at, "this and no other effective[x] is wanted, found %v", others)
		return
	}

	when, err := parseDate(o.EffectiveDateTime)
	switch {
	case err != nil:
		r.refuse("value", numberDate, at, "%v", err)
	case len(o.EffectiveDateTime) < len(time.DateOnly): // vs-1 of the vital signs profile
		r.refuse("invariant", numberDate, at, "%q is less precise than a day", o.EffectiveDateTime)
	case when.from.After(now.Add(maxAhead)):
		r.refuse("business-rule", numberDate, at, "%q is in the future; check the device's clock", o.EffectiveDateTime)
	}
}

func (r *review) identifiers(o observationBody) {
	for i, id := range o.Identifier {
		if id.Value == "" {
			r.refuse("required", numberGeneric, fmt.Sprintf("Observation.identifier[%d].value", i), "missing")
		}
	}
}

func (r *review) notes(o observationBody) {
	for i, note := range o.Note {
		if note.Text == "" {
			r.refuse("required", numberGeneric, fmt.Sprintf("Observation.note[%d].text", i), "missing")
		}
	}
}

func (r *review) value(resource json.RawMessage, o observationBody, kind vital) {
	values := choices(resource, "value")
	if !kind.isPanel() {
		if slices.ContainsFunc(values, func(name string) bool { return name != "valueQuantity" }) {
			r.refuse("value", numberValue, "Observation.value", "only valueQuantity is accepted, found %v", values)
			return
		}
		r.measured("Observation", o.ValueQuantity, o.DataAbsentReason, kind)
		return
	}

	if len(values) > 0 {
		r.refuse("invariant", numberValue, "Observation."+values[0], "a blood pressure panel has its values in components (US Core, obs-7)")
	}

	r.panel(o)
}

// panel checks the components. There must be one systolic and one diastolic pressure; there may be others.
func (r *review) panel(o observationBody) {
	count := map[string]int{}
	for i, part := range o.Component {
		at := fmt.Sprintf("Observation.component[%d]", i)
		codes := loincCodes(part.Code)

		if part.Code == nil {
			r.refuse("required", numberCoding, at+".code", "missing")
			continue
		}

		for _, code := range codes {
			count[code]++
			if kind, ok := componentVital(code); ok {
				r.measured(at, part.ValueQuantity, part.DataAbsentReason, kind)
			}
		}
	}

	for _, code := range []string{codeSystolic, codeDiastolic} {
		if count[code] != 1 {
			r.refuse("required", numberValue, "Observation.component", "%d components are LOINC %s; exactly one must be", count[code], code)
		}
	}
}

// measured checks that there is either a value or a reason for its absence (obs-6, vs-2).
func (r *review) measured(at string, q *quantity, absent *codeableConcept, kind vital) {
	switch {
	case q == nil && absent == nil:
		r.refuse("invariant", numberValue, at, "neither valueQuantity nor dataAbsentReason (vs-2)")
	case q != nil && absent != nil:
		r.refuse("invariant", numberValue, at+".dataAbsentReason", "there is a value (obs-6)")
	case absent != nil:
		if !slices.ContainsFunc(absent.Coding, func(c coding) bool { return c.System == absentSystem && c.Code != "" }) {
			r.refuse("code-invalid", numberCoding, at+".dataAbsentReason", "no coding of %s", absentSystem)
		}
	default:
		r.quantity(at+".valueQuantity", *q, kind)
	}
}

// quantity checks the four elements that US Core demands of a measured value.
func (r *review) quantity(at string, q quantity, kind vital) {
	var number float64
	value := bytes.TrimSpace(q.Value)
	if len(value) == 0 || value[0] == '"' || json.Unmarshal(value, &number) != nil || string(value) == "null" {
		r.refuse("required", numberValue, at+".value", "a JSON number is missing")
	} else if number < 0 || number > kind.most {
		r.refuse("value", numberValue, at+".value", "%s is not a possible value of LOINC %s", value, kind.codes[0])
	}

	if q.Unit == "" {
		r.refuse("required", numberUnit, at+".unit", "missing")
	}
	if q.System != ucum {
		r.refuse("code-invalid", numberUnit, at+".system", "%q is not %s", q.System, ucum)
	}
	if !slices.Contains(kind.units, q.Code) {
		r.refuse("code-invalid", numberUnit, at+".code", "%q is not a UCUM code for LOINC %s; use %s",
			q.Code, kind.codes[0], strings.Join(kind.units, " or "))
	}
}

// choices returns the elements of a choice, such as value[x], that are present.
func choices(resource json.RawMessage, name string) []string {
	var elements map[string]json.RawMessage
	_ = json.Unmarshal(resource, &elements) // decoded before
	var found []string
	for _, element := range sortedKeys(elements) {
		if strings.HasPrefix(element, name) {
			found = append(found, element)
		}
	}
	return found
}
