package sandbox_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

// TestFaultsOnCreate asks for each kind once, and checks the answer to a create and what was stored.
func TestFaultsOnCreate(t *testing.T) {
	t.Parallel()
	for kind, c := range map[string]struct {
		status int
		stored int
		check  func(a answer) bool
	}{
		"slow":                 {201, 1, nil},
		"slow_after":           {201, 1, nil},
		"ignore_if_none_exist": {201, 1, nil},
		"store_again":          {201, 1, nil},
		"shared_capacity":      {201, 1, nil},
		"reject_if_none_exist": {400, 0, func(a answer) bool { return a.str("issue", 0, "code") == "not-supported" }},
		"reset_before":         {0, 0, func(a answer) bool { return errors.Is(a.err, syscall.ECONNRESET) || errors.Is(a.err, io.EOF) }},
		"reset_after":          {0, 1, func(a answer) bool { return errors.Is(a.err, syscall.ECONNRESET) || errors.Is(a.err, io.EOF) }},
		"unauthorized":         {401, 0, func(a answer) bool { return strings.Contains(a.header.Get("WWW-Authenticate"), "invalid_token") }},
		"forbidden":            {403, 0, func(a answer) bool { return a.str("issue", 0, "code") == "forbidden" }},
		"throttle":             {429, 0, func(a answer) bool { return a.header.Get("Retry-After") == "" }},
		"error_500":            {500, 0, func(a answer) bool { return a.str("issue", 0, "code") == "exception" }},
		"error_502":            {502, 0, func(a answer) bool { return strings.HasPrefix(a.text, "<!DOCTYPE html>") }},
		"error_503":            {503, 0, func(a answer) bool { return a.str("issue", 0, "code") == "transient" }},
		"error_504":            {504, 0, nil},
		"html":                 {200, 0, func(a answer) bool { return strings.HasPrefix(a.header.Get("Content-Type"), "text/html") }},
		"malformed_json":       {201, 1, func(a answer) bool { return a.get() == nil && a.header.Get("Location") == "" }},
		"truncated":            {201, 1, func(a answer) bool { return errors.Is(a.err, io.ErrUnexpectedEOF) }},
		"no_id":                {201, 1, func(a answer) bool { return a.get() != nil && a.str("id") == "" && a.header.Get("Location") == "" }},
		"duplicate":            {200, 1, func(a answer) bool { return a.str("issue", 0, "code") == "duplicate" }},
		"drop_identifier":      {201, 0, func(a answer) bool { return a.str("id") != "" && a.get("identifier") == nil }},
		"large_body":           {201, 1, func(a answer) bool { return len(a.text) > 10<<20 && a.header.Get("Location") == "" }},
		"wrong_type":           {201, 1, func(a answer) bool { return strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") }},
		"ecw_number": {400, 0, func(a answer) bool {
			return a.str("issue", 0, "details", "coding", 0, "code") == "103"
		}},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := start(t)
			token := r.token(allScopes)
			more := ""

			switch kind {
			case "slow", "slow_after":
				more = `, "delay": "1ms"`
			case "shared_capacity":
				more = `, "work": "1ms"`
			case "ecw_number":
				more = `, "number": "103"`
			}

			r.fault(`{"kind": "` + kind + `", "target": "create", "count": 1` + more + `}`)
			if other := r.fhirGet(token, "/Patient"); other.status != 200 {
				t.Errorf("a request that is not the target: got %d", other.status)
			}

			a := r.createOnce(token, weight("w"), "w")
			if a.status != c.status || (c.check != nil && !c.check(a)) {
				t.Errorf("got %d %v %v %s", a.status, a.err, a.header, a.text)
			}

			if n := r.stored("w"); n != c.stored {
				t.Errorf("stored %d, want %d", n, c.stored)
			}
			if kind == "unauthorized" || kind == "throttle" {
				return // these last longer than one request
			}

			after := r.createOnce(token, weight("w"), "w")
			if want := map[int]int{0: 201, 1: 200}[c.stored]; after.status != want {
				t.Errorf("after the fault: got %d, want %d", after.status, want)
			}
		})
	}
}

func TestFaultsOnTokens(t *testing.T) {
	t.Parallel()
	for kind, c := range map[string]struct {
		status int
		code   string
	}{
		"reset_before": {0, ""}, "reset_after": {0, ""}, "unauthorized": {401, "invalid_client"}, "forbidden": {403, "access_denied"},
		"throttle": {429, "temporarily_unavailable"}, "error_500": {500, "server_error"}, "error_503": {503, "temporarily_unavailable"},
		"html": {200, ""}, "malformed_json": {200, ""}, "token_down": {503, ""}, "access_denied": {500, "access_denied"},
	} {
		r := start(t)
		r.fault(`{"kind": "` + kind + `", "target": "token"}`)
		a := r.askToken(form(r.assertion(nil), allScopes))
		if a.status != c.status || a.str("error") != c.code || a.str("access_token") != "" {
			t.Errorf("%s: got %d %v %s", kind, a.status, a.err, a.text)
		}
	}

	r := start(t)
	r.fault(`{"kind": "narrow_scope"}`)
	if a := r.askToken(form(r.assertion(nil), allScopes)); a.str("scope") != "system/Patient.read system/Observation.read" ||
		r.create(a.str("access_token"), weight("w")).status != 403 {
		t.Errorf("narrow_scope: %s", a.text)
	}

	r.fault(`{"kind": "no_expires_in"}`)
	if a := r.askToken(form(r.assertion(nil), allScopes)); a.str("access_token") == "" || strings.Contains(a.text, "expires_in") {
		t.Errorf("no_expires_in: %s", a.text)
	}
}

func TestUnauthorizedRevokesTheToken(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	r.fault(`{"kind": "unauthorized", "target": "create"}`)
	for range 2 {
		if a := r.create(token, weight("w")); a.status != 401 {
			t.Fatalf("got %d", a.status)
		}
	}
	if a := r.create(r.token(allScopes), weight("w")); a.status != 201 {
		t.Errorf("with a new token: got %d", a.status)
	}
}

func TestFaultsOnSearch(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	r.create(token, weight("w"))
	r.fault(`{"kind": "empty_search"}`)

	if a := r.fhirGet(token, "/Observation?identifier=w"); a.status != 200 || a.num("total") != 0 {
		t.Errorf("empty_search: got %d %s", a.status, a.text)
	}
	if a := r.fhirGet(token, "/Observation?identifier=w"); a.num("total") != 1 {
		t.Errorf("afterwards: %s", a.text)
	}

	r.fault(`{"kind": "strict_search", "count": 3}`)
	for search, want := range map[string]int{
		"identifier=w":                      400,
		"category=vital-signs&_count=1":     400,
		"identifier=w&category=vital-signs": 200,
	} {
		if a := r.fhirGet(token, "/Observation?"+search); a.status != want {
			t.Errorf("strict_search %s: got %d", search, a.status)
		}
	}
}

func TestStandardStatusInBundle(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	r.fault(`{"kind": "standard_status"}`)
	if a := r.transact(token, bundle(weight("w"), "w")); a.entryStatus() != "201 Created" {
		t.Errorf("got %s", a.text)
	}
	r.fault(`{"kind": "no_id"}`)
	if a := r.transact(token, bundle(weight("w"), "w")); a.entryStatus() != "1" || strings.Contains(a.text, "Observation/") {
		t.Errorf("no_id: got %s", a.text)
	}
}

func TestFaultsComeTogether(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	r.fault(`{"kind": "ignore_if_none_exist", "for": "1m"}`)
	r.fault(`{"kind": "reset_after", "target": "create"}`)
	r.fault(`{"kind": "error_503", "target": "create"}`)

	if a := r.createOnce(token, weight("w"), "w"); a.err == nil {
		t.Errorf("the older fault comes first: got %d", a.status)
	}
	if a := r.createOnce(token, weight("w"), "w"); a.status != 503 {
		t.Errorf("then the younger one: got %d", a.status)
	}
	if a := r.createOnce(token, weight("w"), "w"); a.status != 201 || r.stored("w") != 2 {
		t.Errorf("If-None-Exist is still ignored: got %d", a.status)
	}
}

func TestFaultLifetimes(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	status := func() int { return r.fhirGet(token, "/Patient/"+patientID).status }

	r.fault(`{"kind": "error_500", "target": "read", "count": 2}`)
	if got := [3]int{status(), status(), status()}; got != [3]int{500, 500, 200} {
		t.Errorf("count 2: got %v", got)
	}

	r.fault(`{"kind": "error_500", "target": "any", "for": "30s"}`)
	if list := r.do("GET", "/admin/faults", ""); list.str("faults", 0, "until") != "2026-02-06T10:30:45Z" ||
		list.str("faults", 0, "kind") != "error_500" {
		t.Errorf("list: %s", list.text)
	}
	if status() != 500 || r.askToken(form(r.assertion(nil), allScopes)).status != 500 {
		t.Error("for 30s: any request should fail")
	}

	r.clock.advance(30 * time.Second)
	if got := status(); got != 200 {
		t.Errorf("after 30s: got %d", got)
	}

	r.fault(`{"kind": "error_500", "count": 9}`)
	if a := r.do("DELETE", "/admin/faults", ""); a.status != 204 || status() != 200 {
		t.Error("DELETE did not clear the faults")
	}
	if list := r.do("GET", "/admin/faults", ""); list.text == "" || list.get("faults", 0) != nil || list.str("kinds", 0, "kind") != "slow" {
		t.Errorf("list: %s", list.text)
	}
}

func TestSlowDelaysAndEndsWithTheServer(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	r.fault(`{"kind": "slow", "target": "read", "delay": "40ms"}`)
	begun := time.Now()

	if a := r.fhirGet(token, "/Patient/"+patientID); a.status != 200 || time.Since(begun) < 40*time.Millisecond {
		t.Errorf("got %d after %s", a.status, time.Since(begun))
	}

	r.fault(`{"kind": "slow", "target": "read", "delay": "1h"}`)
	done := make(chan answer)
	go func() { done <- r.fhirGet(token, "/Patient/"+patientID) }()
	for r.do("GET", "/admin/faults", "").get("faults", 0) != nil { // until the fault has affected the request
	}

	if err := r.server.Close(); err != nil {
		t.Fatal(err)
	}
	if a := <-done; a.status != 200 {
		t.Errorf("got %d %v", a.status, a.err)
	}
}

func TestSlowIsHandledAfterTheClientGaveUp(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	r.fault(`{"kind": "slow", "target": "create", "delay": "100ms"}`)
	r.client.Timeout = 20 * time.Millisecond

	if a := r.createOnce(token, weight("w"), "w"); a.err == nil {
		t.Fatalf("got %d", a.status)
	}

	r.client.Timeout = 0
	deadline := time.Now().Add(5 * time.Second)
	for r.stored("w") == 0 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond) // a client that gave up gets no answer, so the store is polled
	}

	if n := r.stored("w"); n != 1 {
		t.Errorf("stored %d", n)
	}
}

func TestThrottleLastsUntilTheTopOfTheMinute(t *testing.T) {
	t.Parallel()
	r := start(t) // at second 15
	token := r.token(allScopes)
	r.fault(`{"kind": "throttle", "target": "create"}`)

	if a := r.create(token, weight("w")); a.status != 429 || a.str("issue", 0, "code") != "throttled" {
		t.Fatalf("got %d %s", a.status, a.text)
	}

	r.clock.advance(44*time.Second + 999*time.Millisecond)
	if r.fhirGet(token, "/Patient").status != 429 || r.askToken(form(r.assertion(nil), allScopes)).status != 429 {
		t.Error("every request is blocked until the minute is over")
	}

	r.clock.advance(time.Millisecond)
	if a := r.create(token, weight("w")); a.status != 201 {
		t.Errorf("in the next minute: got %d", a.status)
	}

	r.fault(`{"kind": "throttle", "retry_after": "7s"}`)
	if a := r.fhirGet(token, "/Patient"); a.status != 429 || a.header.Get("Retry-After") != "7" {
		t.Errorf("retry_after: got %d %v", a.status, a.header)
	}

	r.clock.advance(7 * time.Second)
	if a := r.fhirGet(token, "/Patient"); a.status != 200 {
		t.Errorf("after retry_after: got %d", a.status)
	}
}

func TestRatePerMinute(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *sandbox.Config) { c.RatePerMinute = 5 })
	token := r.token(allScopes) // counts too

	for i := range 4 {
		if a := r.fhirGet(token, "/Patient/"+patientID); a.status != 200 {
			t.Fatalf("request %d: got %d", i, a.status)
		}
	}

	for range 2 {
		if a := r.fhirGet(token, "/Patient/"+patientID); a.status != http.StatusTooManyRequests {
			t.Errorf("above the limit: got %d", a.status)
		}
	}

	if a := r.do("GET", "/admin/stats", ""); a.status != 200 {
		t.Errorf("administration is not limited: got %d", a.status)
	}

	r.clock.advance(44 * time.Second)
	if a := r.askToken(form(r.assertion(nil), allScopes)); a.status != http.StatusTooManyRequests {
		t.Errorf("before the top of the minute: got %d", a.status)
	}

	r.clock.advance(time.Second)
	if a := r.fhirGet(token, "/Patient/"+patientID); a.status != 200 {
		t.Errorf("at the top of the minute: got %d", a.status)
	}

	r.fault(`{"kind": "throttle"}`)
	for range 2 {
		r.fhirGet(token, "/Patient/"+patientID)
	}

	if stats := r.do("GET", "/admin/stats", ""); stats.num("limit", "exceeded") != 1 || stats.num("limit", "busiest_minute") != 5 {
		t.Errorf("want one minute with too many requests, and five in the busiest: %s", stats.text)
	}
}

func TestFaultRequestsAreChecked(t *testing.T) {
	t.Parallel()
	r := start(t)
	for body, field := range map[string]string{
		`x`:                                        "",
		`[]`:                                       "",
		`{}`:                                       "kind",
		`{"kind": "earthquake"}`:                   "kind",
		`{"kind": 7}`:                              "kind",
		`{"kind": "slow", "target": "moon"}`:       "target",
		`{"kind": "no_id", "target": "token"}`:     "target",
		`{"kind": "slow", "count": 0}`:             "count",
		`{"kind": "slow", "count": "two"}`:         "count",
		`{"kind": "slow", "count": null}`:          "count",
		`{"kind": "slow", "for": "soon"}`:          "for",
		`{"kind": "slow", "for": 30}`:              "for",
		`{"kind": "slow", "for": "-1s"}`:           "for",
		`{"kind": "slow", "count": 1, "for":"1s"}`: "for",
		`{"kind": "html", "delay": "1s"}`:          "delay",
		`{"kind": "slow", "retry_after": "1s"}`:    "retry_after",
		`{"kind": "slow", "seconds": 3}`:           "seconds",
		`{"kind": "slow", "work": "1s"}`:           "work",
		`{"kind": "shared_capacity"}`:              "work",
		`{"kind": "slow_start", "delay": "1s"}`:    "for",
		`{"kind": "slow_start", "count": 1}`:       "for",
		`{"kind": "redirect"}`:                     "location",
		`{"kind": "redirect", "location": "/x"}`:   "location",
		`{"kind": "html", "location": "http://x"}`: "location",
		`{"kind": "ecw_number"}`:                   "number",
		`{"kind": "ecw_number", "number": "1"}`:    "number",
		`{"kind": "ecw_number", "number": 613}`:    "number",
		`{"kind": "html", "number": "613"}`:        "number",
	} {
		a := r.do("POST", "/admin/faults", body)
		if a.status != 400 || a.str("field") != field || a.str("detail") == "" {
			t.Errorf("%s: got %d %s", body, a.status, a.text)
		}
	}

	if list := r.do("GET", "/admin/faults", ""); list.get("faults", 0) != nil {
		t.Errorf("a refused fault is in force: %s", list.text)
	}
}
