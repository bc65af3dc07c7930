package ecw_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

// mishap is one fault during a create, and the expected outcome.
type mishap struct {
	kind, more string    // the kind of the sandbox's fault, and its further fields in JSON
	class      ecw.Class // "": delivered
	arrived    bool      // the EHR stored it, whatever it answered
	everywhere bool      // also tried with EHRs that lack something
}

func mishaps() []mishap {
	const numbers = ecw.ClassPermanentData
	return []mishap{
		{kind: "none", arrived: true, everywhere: true},
		{kind: "reset_before", class: ecw.ClassUnknown, everywhere: true},
		{kind: "reset_after", class: ecw.ClassUnknown, arrived: true, everywhere: true},
		{kind: "slow_after", more: `"delay":"1h"`, class: ecw.ClassUnknown, arrived: true},
		{kind: "unauthorized", arrived: true}, // renewed and sent once more
		{kind: "forbidden", class: ecw.ClassPermanentCredentials},
		{kind: "throttle", class: ecw.ClassThrottled},
		{kind: "error_500", class: ecw.ClassUnknown},
		{kind: "error_502", class: ecw.ClassUnknown},
		{kind: "error_503", class: ecw.ClassUnknown, everywhere: true},
		{kind: "error_504", class: ecw.ClassUnknown},
		{kind: "redirect", more: `"location":"https://elsewhere.example/"`, class: ecw.ClassUnknown},
		{kind: "html", class: ecw.ClassUnknown},
		{kind: "malformed_json", class: ecw.ClassUnknown, arrived: true},
		{kind: "truncated", class: ecw.ClassUnknown, arrived: true},
		{kind: "large_body", class: ecw.ClassUnknown, arrived: true},
		{kind: "wrong_type", class: ecw.ClassUnknown, arrived: true},
		{kind: "no_id", class: ecw.ClassUnknown, arrived: true, everywhere: true},
		{kind: "duplicate", arrived: true, everywhere: true}, // confirmed by reading it back
		{kind: "standard_status", arrived: true},
		{kind: "ecw_number", more: `"number":"103"`, class: ecw.ClassRetryable},
		{kind: "ecw_number", more: `"number":"308"`, class: ecw.ClassPermanentCredentials},
		{kind: "ecw_number", more: `"number":"202"`, class: numbers},
		{kind: "ecw_number", more: `"number":"613"`, class: numbers},
	}
}

// TestExactlyOneObservation: whatever happens to the first delivery, and whatever the EHR lacks, the look-up
// before the second delivery finds an Observation that arrived, and in the end the EHR holds one.
func TestExactlyOneObservation(t *testing.T) {
	t.Parallel()
	for name, lacks := range map[string][]string{
		"a whole EHR":                       nil,
		"ignores conditions, stores again":  {"store_again"},
		"refuses conditions":                {"reject_if_none_exist"},
		"ignores conditions":                {"ignore_if_none_exist"},
		"strict search":                     {"ignore_if_none_exist", "strict_search"},
		"no condition, strict search":       {"reject_if_none_exist", "strict_search"},
		"refuses identifiers":               {"ignore_if_none_exist", "refuse_identifier"},
		"ignores identifiers":               {"ignore_if_none_exist", "ignore_identifier"},
		"drops identifiers":                 {"drop_identifier"},
		"no condition, refuses identifiers": {"reject_if_none_exist", "refuse_identifier"},
		"no condition, drops identifiers":   {"reject_if_none_exist", "drop_identifier", "strict_search"},
	} {
		for _, mode := range []ecw.WriteMode{ecw.WriteObservation, ecw.WriteBundle} {
			for _, m := range mishaps() {
				if !standard(lacks) && !m.everywhere {
					continue
				}
				t.Run(name+"/"+string(mode)+"/"+m.kind+m.more, func(t *testing.T) {
					t.Parallel()
					oneObservation(t, mode, lacks, m)
				})
			}
		}
	}
}

// standard reports whether every mishap is tried with an EHR that lacks these: one that lacks nothing, and
// one without conditional create, as eCW may be. The latter stores again what it is sent again, so that only
// the look-up by identifier prevents a duplicate.
func standard(lacks []string) bool {
	return len(lacks) == 0 || slices.Equal(lacks, []string{"store_again"})
}

func oneObservation(t *testing.T, mode ecw.WriteMode, lacks []string, m mishap) {
	client, url := start(t, mode, func(c *ecw.Config) {
		if m.kind == "slow_after" {
			c.Timeout = 500 * time.Millisecond
		}
	})

	for _, kind := range lacks {
		breakSandbox(t, url, `{"kind":"`+kind+`","for":"1h"}`)
	}

	// Another reading of the patient must never be taken for this one.
	other, otherID := heartRate(patient)
	if _, err := client.CreateObservation(context.Background(), withValue(other, "79"), otherID); err != nil {
		t.Fatal(err)
	}

	if m.kind != "none" {
		more := ""
		if m.more != "" {
			more = "," + m.more
		}
		// Where conditions are refused, the create that would arrive is the second one.
		breakSandbox(t, url, `{"kind":"`+m.kind+`","target":"create","count":1`+more+`}`)
	}

	resource, id := heartRate(patient)
	_, err := client.CreateObservation(context.Background(), resource, id)
	if class := classOf(t, err); class != m.class {
		t.Fatalf("the first delivery: %v, want class %q", err, m.class)
	}
	if m.kind == "throttle" {
		return // the sandbox stays blocked until the minute is over
	}
	if m.kind == "slow_after" {
		client = join(t, mode, url) // with the usual timeout
	}

	d, found, err := client.FindDelivered(context.Background(), resource, id)
	if err != nil || found != m.arrived {
		t.Fatalf("the look-up: %+v, %t, %v; want %t", d, found, err, m.arrived)
	}

	if !found {
		if d, err = client.CreateObservation(context.Background(), resource, id); err != nil {
			t.Fatalf("the second delivery: %v", err)
		}
	}

	if again, found, err := client.FindDelivered(context.Background(), resource, id); err != nil || !found || again.ID != d.ID {
		t.Errorf("in the end: %+v, %t, %v; want %s", again, found, err, d.ID)
	}
	if stats := statsOf(t, url); stats.Creates.Total != 2 {
		t.Errorf("the EHR holds %d Observations, want this one and the other", stats.Creates.Total)
	}
}

func classOf(t *testing.T, err error) ecw.Class {
	t.Helper()
	var e *ecw.Error
	if err != nil && !errors.As(err, &e) {
		t.Fatalf("error is %T %v", err, err)
	}
	if e == nil {
		return ""
	}
	return e.Class
}

func statsOf(t *testing.T, url string) sandbox.Stats {
	t.Helper()
	res, err := http.Get(url + "/admin/stats")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var stats sandbox.Stats
	if err := json.NewDecoder(res.Body).Decode(&stats); err != nil {
		t.Fatal(err)
	}
	return stats
}
