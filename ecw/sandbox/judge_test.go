package sandbox_test

import (
	"testing"

	"github.com/google/fhir/go/fhirversion"
	"github.com/google/fhir/go/jsonformat"
)

// TestEveryResourceIsR4 checks what the sandbox sends with an independent reader of FHIR R4: the elements,
// their types, the required codes, the references and the cardinalities.
func TestEveryResourceIsR4(t *testing.T) {
	t.Parallel()
	judge, err := jsonformat.NewUnmarshaller("UTC", fhirversion.R4)
	if err != nil {
		t.Fatal(err)
	}

	r := start(t)
	token := r.token(allScopes)
	for name, a := range map[string]answer{
		"capability statement": r.do("GET", base("/metadata"), ""),
		"all patients":         r.fhirGet(token, "/Patient?_count=200"),
		"created":              r.create(token, weight("w-1")),
		"transaction response": r.transact(token, bundle(pressure("p-1"), "p-1")),
		"refused entry":        r.transact(token, bundle(with(t, weight("a"), patientID, "nobody"), "a")),
		"observations":         r.fhirGet(token, "/Observation?_count=1"),
		"not found":            r.fhirGet(token, "/Observation/none"),
		"refused":              r.create(token, with(t, weight("a"), `"final"`, `"done"`)),
		"unauthorized":         r.do("GET", base("/Patient"), ""),
		"bad search":           r.fhirGet(token, "/Patient?colour=red"),
	} {
		if _, err := judge.Unmarshal([]byte(a.text)); err != nil {
			t.Errorf("%s: %v\n%.600s", name, err, a.text)
		}
	}
}
