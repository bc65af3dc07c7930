package sandbox

import (
	"bytes"
	"encoding/json"
)

// The elements of FHIR R4 that the sandbox reads or writes, and no others.

type identifier struct {
	Use    string           `json:"use,omitempty"`
	Type   *codeableConcept `json:"type,omitempty"`
	System string           `json:"system,omitempty"`
	Value  string           `json:"value,omitempty"`
}

// key is the identifier as statistics and If-None-Exist write it.
func (i identifier) key() string { return i.System + "|" + i.Value }

type coding struct {
	System  string `json:"system,omitempty"`
	Code    string `json:"code,omitempty"`
	Display string `json:"display,omitempty"`
}

type codeableConcept struct {
	Coding []coding `json:"coding,omitempty"`
	Text   string   `json:"text,omitempty"`
}

type annotation struct {
	Text string `json:"text"`
}

type reference struct {
	Reference string `json:"reference,omitempty"`
	Display   string `json:"display,omitempty"`
}

// quantity keeps its value as text, because 98.60 and 98.6 differ to a clinician, and because a string must
// be recognised as not being a number.
type quantity struct {
	Value      json.RawMessage `json:"value"`
	Comparator string          `json:"comparator"`
	Unit       string          `json:"unit"`
	System     string          `json:"system"`
	Code       string          `json:"code"`
}

type component struct {
	Code             *codeableConcept `json:"code"`
	ValueQuantity    *quantity        `json:"valueQuantity"`
	DataAbsentReason *codeableConcept `json:"dataAbsentReason"`
}

type meta struct {
	Tag []coding `json:"tag"`
}

// observationBody is a received Observation, decoded for checks and searches. The resource itself is kept as
// text.
type observationBody struct {
	ResourceType      string            `json:"resourceType"`
	ID                *string           `json:"id"`
	Meta              meta              `json:"meta"`
	Identifier        []identifier      `json:"identifier"`
	Status            string            `json:"status"`
	Category          []codeableConcept `json:"category"`
	Code              *codeableConcept  `json:"code"`
	Subject           *reference        `json:"subject"`
	EffectiveDateTime string            `json:"effectiveDateTime"`
	Performer         []reference       `json:"performer"`
	Note              []annotation      `json:"note"`
	ValueQuantity     *quantity         `json:"valueQuantity"`
	DataAbsentReason  *codeableConcept  `json:"dataAbsentReason"`
	Device            *reference        `json:"device"`
	Component         []component       `json:"component"`
}

type outcome struct {
	ResourceType string  `json:"resourceType"`
	Issue        []issue `json:"issue"`
}

type issue struct {
	Severity    string           `json:"severity"`
	Code        string           `json:"code"`
	Details     *codeableConcept `json:"details,omitempty"`
	Diagnostics string           `json:"diagnostics,omitempty"`
	Expression  []string         `json:"expression,omitempty"`
}

type link struct {
	Relation string `json:"relation"`
	URL      string `json:"url"`
}

// searchset is the Bundle that answers a search.
type searchset struct {
	ResourceType string        `json:"resourceType"`
	Type         string        `json:"type"`
	Total        int           `json:"total"`
	Link         []link        `json:"link"`
	Entry        []searchEntry `json:"entry,omitempty"`
}

type searchEntry struct {
	FullURL  string          `json:"fullUrl"`
	Resource json.RawMessage `json:"resource"`
	Search   searchMode      `json:"search"`
}

type searchMode struct {
	Mode string `json:"mode"`
}

// encode writes JSON without escapes for <, > and &, so that an Observation is returned as it was sent.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
