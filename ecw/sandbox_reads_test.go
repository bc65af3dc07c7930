package ecw_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"testing"

	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

// TestReadsAgainstSandbox reads from the sandbox EHR what the connection tests and the import need.
func TestReadsAgainstSandbox(t *testing.T) {
	t.Parallel()
	client, url := start(t, ecw.WriteObservation)
	ctx := context.Background()

	report, err := client.TestAuthentication(ctx)
	if err != nil || report.TokenType == "" || report.ExpiresIn <= 0 || report.Scope != ecw.DefaultScope || report.IssuedAt.IsZero() {
		t.Errorf("report %+v %v", report, err)
	}

	capabilities, err := client.Capabilities(ctx)
	want := []string{"Observation.read", "Observation.write", "Patient.read"}
	if err != nil || capabilities.FHIRVersion != "4.0.1" || !slices.Equal(capabilities.Interactions, want) {
		t.Errorf("capabilities %+v %v", capabilities, err)
	}
	if n, err := client.CountPatients(ctx); n != 142 || err != nil {
		t.Errorf("counted %d %v", n, err)
	}

	raw, err := client.ReadPatient(ctx, patient)
	if err != nil || resourceID(t, raw) != patient {
		t.Errorf("read %s %v", raw, err)
	}

	var e *ecw.Error
	if _, err := client.ReadPatient(ctx, "nobody"); !errors.As(err, &e) || e.Class != ecw.ClassPermanentData || e.Code != "not_found" {
		t.Errorf("nobody: %v", err)
	}

	fault(t, url, "unauthorized", "read")
	if _, err := client.ReadPatient(ctx, patient); err != nil {
		t.Errorf("after the token was revoked: %v", err)
	}
}

// TestPagesAgainstSandbox goes through all pages and must see each patient once, whatever the size of a page.
func TestPagesAgainstSandbox(t *testing.T) {
	t.Parallel()
	client, _ := start(t, ecw.WriteObservation)
	for _, size := range []int{200, 142, 100, 20, 11} {
		seen := map[string]bool{}
		for page, more := 1, true; more; page++ {
			got, err := client.SearchPatients(context.Background(), ecw.PatientQuery{Page: page, PageSize: size})
			if err != nil || got.Total != 142 {
				t.Fatalf("page %d of %d: %d %v", page, size, got.Total, err)
			}

			for _, raw := range got.Patients {
				seen[resourceID(t, raw)] = true
			}

			if want := min(page*size, 142); len(seen) != want {
				t.Fatalf("page %d of %d: %d patients so far, want %d", page, size, len(seen), want)
			}

			more = got.More
		}

		if len(seen) != 142 {
			t.Errorf("pages of %d: %d patients", size, len(seen))
		}
	}
}

// TestPatientListsAgainstSandbox reads a hundred patients with one request, and meets an EHR that spoils that in
// each of its ways: nobody is shown who was not asked for, and every patient is found by a single read.
func TestPatientListsAgainstSandbox(t *testing.T) {
	t.Parallel()
	var ids []string
	for _, p := range sandbox.People()[20:120] {
		ids = append(ids, p.FHIRID)
	}

	for _, tc := range []struct {
		fault string
		found int
		code  string
	}{
		{"", 100, ""},
		{"small_pages", 100, ""},
		{"hide_patients", 50, ""},
		{"empty_search", 0, ""},
		{"ignore_id_list", 0, ecw.CodeNoPatientList},
		{"refuse_id_list", 0, "invalid"},
		{"truncated", 0, "reset"},
	} {
		t.Run(tc.fault, func(t *testing.T) {
			t.Parallel()
			client, url := start(t, ecw.WriteObservation)
			ctx := context.Background()
			if tc.fault != "" {
				breakSandbox(t, url, `{"kind":"`+tc.fault+`","target":"search","for":"1h"}`)
			}

			got, err := client.ReadPatients(ctx, ids)
			var e *ecw.Error
			if errors.As(err, &e) != (tc.code != "") || e != nil && e.Code != tc.code || len(got) != tc.found {
				t.Errorf("%d patients, %v", len(got), err)
			}
			for id, raw := range got {
				if resourceID(t, raw) != id || !slices.Contains(ids, id) {
					t.Errorf("under %s stands %s", id, raw)
				}
			}
			if raw, err := client.ReadPatient(ctx, ids[1]); err != nil || resourceID(t, raw) != ids[1] {
				t.Errorf("a single read: %s %v", raw, err)
			}
		})
	}
}

// TestNamesAgainstSandbox finds a patient by the name in the chart, and no patient by another name.
func TestNamesAgainstSandbox(t *testing.T) {
	t.Parallel()
	client, _ := start(t, ecw.WriteObservation)
	raw, err := client.ReadPatient(context.Background(), patient)
	if err != nil {
		t.Fatal(err)
	}

	var chart struct{ Name []struct{ Family string } }
	if err := json.Unmarshal(raw, &chart); err != nil {
		t.Fatal(err)
	}

	found, err := client.SearchPatients(context.Background(), ecw.PatientQuery{Name: chart.Name[0].Family, Page: 1, PageSize: 200})
	isPatient := func(p json.RawMessage) bool { return resourceID(t, p) == patient }
	if err != nil || found.Total >= 142 || !slices.ContainsFunc(found.Patients, isPatient) {
		t.Errorf("by name: %d of %d %v", len(found.Patients), found.Total, err)
	}

	// If the comma were taken for an "or", the first name alone would match.
	none, err := client.SearchPatients(context.Background(), ecw.PatientQuery{Name: chart.Name[0].Family + ",A", Page: 1, PageSize: 200})
	if err != nil || len(none.Patients) != 0 || none.Total != 0 || none.More {
		t.Errorf("nobody: %+v %v", none, err)
	}
}

// TestConnectionFailuresAgainstSandbox lists the failures that the connection tests must distinguish.
func TestConnectionFailuresAgainstSandbox(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	calls := map[string]func(*ecw.Client) error{
		"token":  func(c *ecw.Client) error { _, err := c.TestAuthentication(ctx); return err },
		"read":   func(c *ecw.Client) error { _, err := c.Capabilities(ctx); return err },
		"search": func(c *ecw.Client) error { _, err := c.CountPatients(ctx); return err },
	}

	for _, tc := range []struct {
		kind, target string
		class        ecw.Class
		code         string
		status       int
	}{
		{"unauthorized", "token", ecw.ClassPermanentCredentials, "invalid_client", http.StatusUnauthorized},
		{"access_denied", "token", ecw.ClassRetryable, "access_denied", http.StatusInternalServerError},
		{"narrow_scope", "token", ecw.ClassPermanentCredentials, "insufficient_scope", http.StatusOK},
		{"token_down", "token", ecw.ClassRetryable, "http_503", http.StatusServiceUnavailable},
		{"forbidden", "read", ecw.ClassPermanentCredentials, "forbidden", http.StatusForbidden},
		{"html", "read", ecw.ClassRetryable, "malformed_response", http.StatusOK},
		{"throttle", "search", ecw.ClassThrottled, "throttled", http.StatusTooManyRequests},
		{"error_503", "search", ecw.ClassRetryable, "transient", http.StatusServiceUnavailable},
		{"truncated", "search", ecw.ClassRetryable, "reset", http.StatusOK},
	} {
		t.Run(tc.kind, func(t *testing.T) {
			t.Parallel()
			client, url := start(t, ecw.WriteObservation)
			if err := client.Authenticate(ctx); err != nil {
				t.Fatal(err)
			}

			fault(t, url, tc.kind, tc.target)
			var e *ecw.Error
			if err := calls[tc.target](client); !errors.As(err, &e) || e.Class != tc.class || e.Code != tc.code || e.HTTPStatus != tc.status {
				t.Errorf("got %+v, want %s %s %d", err, tc.class, tc.code, tc.status)
			}
		})
	}
}

func resourceID(t *testing.T, raw json.RawMessage) string {
	t.Helper()
	var r struct{ ID string }
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	return r.ID
}
