package ecw

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
)

// observation is the part of an Observation by which readings are distinguished. It is decoded from ours
// before it is sent, and from those that eCW's searches return.
type observation struct {
	head
	Status            string           `json:"status"`
	Category          short[concept]   `json:"category"`
	Code              concept          `json:"code"`
	EffectiveDateTime string           `json:"effectiveDateTime"`
	Device            reference        `json:"device"`
	ValueQuantity     *quantity        `json:"valueQuantity"`
	Component         short[component] `json:"component"`
}

// head identifies an Observation and its patient.
type head struct {
	ResourceType string          `json:"resourceType"`
	ID           string          `json:"id"`
	Identifier   json.RawMessage `json:"identifier"`
	Subject      reference       `json:"subject"`
}

type concept struct {
	Coding short[coding] `json:"coding"`
}

type coding struct {
	System string `json:"system"`
	Code   string `json:"code"`
}

type reference struct {
	Reference string `json:"reference"`
	Display   string `json:"display"`
}

type quantity struct {
	Value      json.Number `json:"value"`
	Comparator string      `json:"comparator"`
	Unit       string      `json:"unit"`
	System     string      `json:"system"`
	Code       string      `json:"code"`
}

type component struct {
	Code          concept   `json:"code"`
	ValueQuantity *quantity `json:"valueQuantity"`
}

// carries reports whether an Observation's identifiers, as JSON, include want.
func carries(identifiers json.RawMessage, want Identifier) bool {
	var list short[Identifier]
	return json.Unmarshal(identifiers, &list) == nil && slices.Contains(list, want)
}

// mayCarry reports whether an Observation's identifiers, as JSON, include one of that system. It is true too
// if they cannot be decoded.
func mayCarry(identifiers json.RawMessage, system string) bool {
	var list short[Identifier]
	if len(identifiers) == 0 {
		return false
	}
	return json.Unmarshal(identifiers, &list) != nil || slices.ContainsFunc(list, func(i Identifier) bool { return i.System == system })
}

// patientID is the id in "Patient/{id}", relative or at the end of a URL; "" if the subject is something
// else.
func (h head) patientID() string {
	at := strings.LastIndex("/"+h.Subject.Reference, "/Patient/")
	if at < 0 {
		return ""
	}
	id, _, _ := strings.Cut(h.Subject.Reference[at+len("Patient/"):], "/")
	return id
}

// category is the code of the first category, "" if there is none.
func (o observation) category() string {
	for _, c := range o.Category {
		for _, coding := range c.Coding {
			return coding.Code
		}
	}
	return ""
}

// recognisable reports whether the Observation can be distinguished from others without its identifier.
func (o observation) recognisable() bool {
	_, err := o.effective()
	return err == nil && o.patientID() != "" && len(o.Code.Coding) > 0 && len(o.values()) > 0
}

func (o observation) effective() (time.Time, error) {
	return time.Parse(time.RFC3339, o.EffectiveDateTime)
}

// values are the measured value of the Observation itself and those of its components.
func (o observation) values() []component {
	values := []component{{o.Code, o.ValueQuantity}}
	values = append(values, o.Component...)
	return slices.DeleteFunc(values, func(c component) bool { return c.ValueQuantity == nil })
}

// sameReading reports whether other is this reading without its identifier, as an EHR that drops identifiers
// holds it. Patient, status, code, instant and all values must be equal, other must have no further value,
// and the device must be equal if the EHR shows one. If another reading were taken for this one, this one
// would never be delivered, so anything that is not plainly equal counts as another.
func (o observation) sameReading(other observation) bool {
	ours, err := o.effective()
	theirs, theirErr := other.effective()
	return err == nil && theirErr == nil && ours.Equal(theirs) &&
		o.recognisable() && o.patientID() == other.patientID() && o.Status == other.Status && o.Code.shares(other.Code) &&
		(other.Device.Display == "" || o.Device.Display == other.Device.Display) &&
		sameValues(o.values(), other.values())
}

// sameValues reports whether the two lists have equal values, in any order.
func sameValues(ours, theirs []component) bool {
	left := slices.Clone(theirs)
	for _, our := range ours {
		equal := slices.IndexFunc(left, func(their component) bool {
			return our.Code.shares(their.Code) && our.ValueQuantity.equals(*their.ValueQuantity)
		})
		if equal < 0 {
			return false
		}
		left = slices.Delete(left, equal, equal+1)
	}

	return len(left) == 0
}

// shares reports whether two concepts have a coding in common. One is enough, because an EHR may add codes of
// its own, and may keep only one of the two that US Core wants on a pulse oximetry.
func (c concept) shares(other concept) bool {
	return slices.ContainsFunc(c.Coding, func(mine coding) bool { return mine.Code != "" && slices.Contains(other.Coding, mine) })
}

// equals reports whether two quantities are the same number of the same unit. Units are not converted.
func (q quantity) equals(other quantity) bool {
	sameUnit := q.System == other.System && q.Code == other.Code
	if other.Code == "" {
		sameUnit = other.Unit != "" && (other.Unit == q.Unit || other.Unit == q.Code)
	}
	return sameUnit && q.Comparator == other.Comparator && sameNumber(q.Value, other.Value)
}

// decimal is a number in a form that is the same for equal numbers: digits without zeros at either end, times
// ten to the exponent. Unlike float64 it distinguishes 98.6 from 98.60000000000001, and unlike math/big it
// needs no memory for the zeros of 1e999999999.
type decimal struct {
	negative bool
	digits   string // "" is zero
	exponent int
}

// sameNumber compares two numbers by value: 98.60 equals 98.6.
func sameNumber(a, b json.Number) bool {
	x, okX := parseDecimal(a)
	y, okY := parseDecimal(b)
	return okX && okY && x == y
}

func parseDecimal(n json.Number) (decimal, bool) {
	mantissa, exponent, scientific := strings.Cut(strings.ToLower(n.String()), "e")
	var d decimal
	if scientific {
		var err error
		if d.exponent, err = strconv.Atoi(exponent); err != nil {
			return decimal{}, false
		}
	}

	mantissa, d.negative = strings.CutPrefix(mantissa, "-")
	whole, fraction, _ := strings.Cut(mantissa, ".")
	all := whole + fraction
	if all == "" || strings.Trim(all, "0123456789") != "" {
		return decimal{}, false
	}

	significant := strings.TrimRight(all, "0")
	d.exponent += len(all) - len(significant) - len(fraction)
	if d.digits = strings.TrimLeft(significant, "0"); d.digits == "" {
		return decimal{}, true
	}

	return d, true
}
