package activities

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/fhir"
)

// TestBrokenResourcesStayOutOfTheHistory: what was stored by an older version, or touched by hand, is named by what is wrong
// with it; no literal of it stands in the activity's error, which the history keeps.
func TestBrokenResourcesStayOutOfTheHistory(t *testing.T) {
	t.Parallel()
	for _, resource := range []string{
		`John Smith`,
		`{"resourceType":"Observation","status":John`,
		`{"resourceType":"Observation","id":"1","status":"John Smith"}`,
		`{"resourceType":"Observation","id":"1","effectiveDateTime":"John Smith","status":"final"}`,
		`{"resourceType":"Observation","id":"1","valueQuantity":{"value":"John Smith"}}`,
		`{"resourceType":"Observation","id":"John Smith"}`,
		`{"resourceType":"John Smith","id":"1"}`,
	} {
		_, err := outgoing(db.Observation{Resource: json.RawMessage(resource)}, "pat-1")
		checkPlain(t, resource, err)
	}
	for _, values := range []string{`John Smith`, `{"value":"John Smith"}`, `{"value":1,"John Smith":1}`, `{"value":97,"unit":"John Smith"}`} {
		observation := db.Observation{
			ID:              uuid.New(),
			ObservationType: string(fhir.Weight),
			EffectiveAt:     time.Now(),
			Measured:        json.RawMessage(values),
		}
		_, _, err := transform(observation, db.Patient{}, time.Now())
		if err == nil {
			t.Errorf("%s was taken", values)
			continue
		}
		if got := brokenFields(err); strings.Contains(got, "John") || !strings.Contains(got, "values") {
			t.Errorf("%s: %s", values, got)
		}
	}
}

// checkPlain looks at all that the history would keep of an error.
func checkPlain(t *testing.T, about string, err error) {
	t.Helper()
	var failed *temporal.ApplicationError
	if !errors.As(err, &failed) {
		t.Errorf("%s: got %v", about, err)
		return
	}
	var kept Failure
	if err := failed.Details(&kept); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{failed.Error(), kept.Message, kept.Code} {
		if strings.Contains(text, "John") || strings.Contains(text, "character") || strings.Contains(text, "json:") {
			t.Errorf("%s: %s", about, text)
		}
	}
}
