package fhir

import (
	"bytes"
	"encoding/json"
	"slices"
	"sync"
	"testing"

	"github.com/fastenhealth/gofhir-models/fhir401"
	"github.com/google/fhir/go/fhirversion"
	"github.com/google/fhir/go/jsonformat"
)

// judge checks a resource of this package with independent rules: google/fhir's strict R4 reader (unknown
// elements, types, patterns, required elements) and the list of valid UCUM codes. It also runs our own Check.
func judge(t testing.TB, o *fhir401.Observation) json.RawMessage {
	t.Helper()
	raw, err := Marshal(o)
	if err != nil {
		t.Fatalf("Marshal: %v", err)
	}

	if err := Check(o); err != nil {
		t.Errorf("Check: %v\n%s", err, raw)
	}

	strict, err := strictReader()
	if err != nil {
		t.Fatal(err)
	}

	if _, err := strict.Unmarshal(raw); err != nil {
		t.Errorf("google/fhir: %v\n%s", err, raw)
	}

	quantities := []*fhir401.Quantity{o.ValueQuantity}
	for _, c := range o.Component {
		quantities = append(quantities, c.ValueQuantity)
	}

	for _, q := range quantities {
		if q != nil && !slices.Contains(validUCUM, *q.Code) {
			t.Errorf("%q is not a UCUM code", *q.Code)
		}
	}

	var compact bytes.Buffer
	if err := json.Compact(&compact, raw); err != nil || !bytes.Equal(compact.Bytes(), raw) {
		t.Errorf("not compact JSON (%v): %s", err, raw)
	}

	return raw
}

var validUCUM = []string{"/min", "mm[Hg]", "%", "mg/dL", "mmol/L", "Cel", "[degF]", "kg", "g", "[lb_av]", "cm", "[in_i]", "kg/m2"}

var strictReader = sync.OnceValues(func() (*jsonformat.Unmarshaller, error) {
	return jsonformat.NewUnmarshaller("UTC", fhirversion.R4)
})

func TestJudgeRefuses(t *testing.T) {
	strict, err := strictReader()
	if err != nil {
		t.Fatal(err)
	}

	for _, raw := range []string{
		`{"resourceType":"Observation","status":"finished","code":{"text":"x"}}`,
		`{"resourceType":"Observation","status":"final"}`,
		`{"resourceType":"Observation","status":"final","code":{"text":"x"},"colour":"red"}`,
		`{"resourceType":"Observation","status":"final","code":{"text":"x"},"effectiveDateTime":"yesterday"}`,
	} {
		if _, err := strict.Unmarshal([]byte(raw)); err == nil {
			t.Errorf("accepted %s", raw)
		}
	}
}

// tree decodes JSON for a comparison, with numbers as written.
func tree(t testing.TB, raw []byte) any {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	return v
}
