package fhir

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// measurement is the content of a valid reading: a row of the catalogue, and its amounts.
type measurement struct {
	entry *entry
	value amount // of an entry with units
	meal  *meal  // nil if not known
	// components are those of a panel, in the order of the entry's; nil means not measured.
	components []*amount
}

// amount is a number with the unit it was measured in.
type amount struct {
	value json.Number
	unit  unit
}

// measure reads the values of a type that exists.
func measure(t Type, values json.RawMessage) (measurement, FieldErrors) {
	f := fields{typ: t}
	if !f.decode(values) {
		return measurement{}, f.errs
	}
	var m measurement
	if rows := entriesOf(t); len(rows[0].components) > 0 {
		m = f.panel(rows[0])
	} else {
		m = f.single(rows)
	}
	return m, f.errs
}

// fields is the object in Reading.Values while it is read; errs collects its mistakes.
type fields struct {
	typ   Type
	names []string // in the order they were sent, so that errors come in that order
	raw   map[string]json.RawMessage
	errs  FieldErrors
}

// decode splits the object into its fields. It does not use json.Unmarshal, which silently takes the last of
// two equal keys: of two systolic pressures neither may be chosen by accident.
func (f *fields) decode(values json.RawMessage) bool {
	switch trimmed := bytes.TrimSpace(values); {
	case len(trimmed) == 0 || string(trimmed) == "null":
		f.errs.add("values", "is required: an object with what was measured")
	case !json.Valid(trimmed):
		f.errs.add("values", "is not valid JSON")
	case trimmed[0] != '{':
		f.errs.add("values", "must be an object, not %s", kind(trimmed))
	default:
		f.split(trimmed)
	}
	return len(f.errs) == 0
}

// split splits an object that is known to be valid JSON.
func (f *fields) split(object []byte) {
	f.raw = make(map[string]json.RawMessage)
	dec := json.NewDecoder(bytes.NewReader(object))
	// The decoder cannot fail on valid JSON; an error would only end the loop.
	_, err := dec.Token() // the opening brace

	for err == nil && dec.More() {
		var key json.Token
		var value json.RawMessage
		if key, err = dec.Token(); err == nil {
			err = dec.Decode(&value)
		}

		name, _ := key.(string)
		if _, twice := f.raw[name]; twice {
			f.errs.add(path(name), "is given twice; send it once")
			continue
		}

		f.raw[name], f.names = value, append(f.names, name)
	}
}

// panel reads the components of e.
func (f *fields) panel(e *entry) measurement {
	known := make([]string, len(e.components), len(e.components)+1)
	m := measurement{entry: e, components: make([]*amount, len(e.components))}
	required := 0

	for i, c := range e.components {
		known[i] = c.field
		if !c.optional && f.has(c.field) {
			required++
		}
		if value, ok := f.number(c.field); ok && f.inRange(c.field, value, c.unit) {
			m.components[i] = &amount{value, c.unit}
		}
	}

	if required == 0 {
		f.errs.add("values", "has neither systolic nor diastolic; send at least one of them")
	}
	if s, d := m.components[0], m.components[1]; s != nil && d != nil && float(s.value) <= float(d.value) {
		f.errs.add(path(e.components[0].field), "%s does not exceed the diastolic %s; check whether the two are swapped", s.value, d.value)
	}

	f.unit([]unit{e.components[0].unit})
	f.refuseOthers(append(known, "unit"))
	return m
}

// single reads value and unit, and finds the row of the type that has the unit.
func (f *fields) single(rows []*entry) measurement {
	known := []string{"value", "unit"}
	if rows[0].method != "" {
		known = append(known, "method")
		rows = f.method(rows)
	}

	var when *meal
	if rows[0].hasMeal {
		known = append(known, "meal")
		when = f.meal()
	}

	var units []unit
	var owners []*entry
	for _, e := range rows {
		for _, u := range e.units {
			units, owners = append(units, u), append(owners, e)
		}
	}

	if !f.has("value") {
		f.errs.add("values.value", "is required: the number that was measured")
	}

	value, okValue := f.number("value")
	i, okUnit := f.unit(units)
	var m measurement
	if okValue && okUnit && f.inRange("value", value, units[i]) {
		m = measurement{entry: owners[i], value: amount{value, units[i]}, meal: when}
	}

	f.refuseOthers(known)
	return m
}

// method returns the rows of the reading's method, by default those of the first row's method.
func (f *fields) method(rows []*entry) []*entry {
	name := rows[0].method
	if f.has("method") {
		sent, ok := f.text("method")
		if ok && slices.ContainsFunc(rows, func(e *entry) bool { return e.method == sent }) {
			name = sent
		} else if ok {
			f.errs.add("values.method", "%s is not a method for %s; use %s or %s", quote(sent), f.typ, methodFingerStick, methodCGM)
		}
	}
	return slices.DeleteFunc(rows, func(e *entry) bool { return e.method != name })
}

// meal returns how the reading relates to a meal, nil if it does not say so.
func (f *fields) meal() *meal {
	if !f.has("meal") {
		return nil
	}

	sent, ok := f.text("meal")
	if !ok {
		return nil
	}

	i := slices.IndexFunc(meals, func(m meal) bool { return m.name == sent })
	if i < 0 {
		f.errs.add("values.meal", "%s is not known; use %s", quote(sent), list(meals, func(m meal) string { return m.name }))
		return nil
	}
	return &meals[i]
}

// unit returns the index of the reading's unit.
func (f *fields) unit(units []unit) (int, bool) {
	if !f.has("unit") {
		if len(units) == 1 {
			return 0, true
		}
		f.errs.add("values.unit", "is required; use %s", list(units, unit.names))
		return 0, false
	}

	sent, ok := f.text("unit")
	if !ok {
		return 0, false
	}

	i := slices.IndexFunc(units, func(u unit) bool { return u.is(strings.TrimSpace(sent)) })
	if i < 0 {
		f.errs.add("values.unit", "%s is not a unit for %s; use %s", quote(sent), f.typ, list(units, unit.names))
	}

	return i, i >= 0
}

// is reports whether the text means this unit. Case is ignored, because no two units of a type differ in case
// only.
func (u unit) is(text string) bool {
	return strings.EqualFold(text, u.ucum) || strings.EqualFold(text, u.display) ||
		slices.ContainsFunc(u.spellings, func(s string) bool { return strings.EqualFold(text, s) })
}

// names returns the unit's UCUM code and all other accepted spellings, for an error message.
func (u unit) names() string {
	var others []string
	if !strings.EqualFold(u.display, u.ucum) {
		others = append(others, u.display)
	}
	if others = append(others, u.spellings...); len(others) == 0 {
		return u.ucum
	}
	return u.ucum + " (or " + strings.Join(others, ", ") + ")"
}

func (f *fields) inRange(field string, value json.Number, u unit) bool {
	if v := float(value); u.min <= v && v <= u.max {
		return true
	}
	limit := func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
	f.errs.add(path(field), "%s is outside %s to %s %s; check the device or the unit", value, limit(u.min), limit(u.max), u.display)
	return false
}

// float is for comparisons only, in which its error of a 10^15th part does not matter. The text is what is
// sent.
func float(n json.Number) float64 {
	v, _ := n.Float64() // cannot fail, because decimal has bounded it
	return v
}

func (f *fields) has(field string) bool {
	raw, ok := f.raw[field]
	return ok && kind(raw) != "null"
}

// number reads a numeric field. It returns false if the field is absent, or if it is not a number that FHIR
// allows; the latter is recorded as an error.
func (f *fields) number(field string) (json.Number, bool) {
	if !f.has(field) {
		return "", false
	}
	if k := kind(f.raw[field]); k != "a number" {
		f.errs.add(path(field), "must be a number, not %s", k)
		return "", false
	}
	n, ok := decimal(string(f.raw[field]))
	if !ok {
		f.errs.add(path(field), "has more than %d digits, which FHIR does not allow; round it to what the device can measure", maxDigits)
	}
	return n, ok
}

// text reads a string field that is present.
func (f *fields) text(field string) (string, bool) {
	var s string
	if k := kind(f.raw[field]); json.Unmarshal(f.raw[field], &s) != nil {
		f.errs.add(path(field), "must be a string, not %s", k)
		return "", false
	}
	return s, true
}

// refuseOthers records an error for each field that the type does not have, because a misspelt field must not
// be ignored.
func (f *fields) refuseOthers(known []string) {
	for _, name := range f.names {
		if !slices.Contains(known, name) {
			f.errs.add(path(name), "is not a field of %s; use %s", f.typ, list(known, func(s string) string { return s }))
		}
	}
}

// kind names the JSON type of a valid value, for error messages.
func kind(raw json.RawMessage) string {
	switch bytes.TrimSpace(raw)[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}

	return "a number"
}
