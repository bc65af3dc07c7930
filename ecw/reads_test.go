package ecw

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// reads are the calls that only read, by their Op.
func reads() map[string]func(*Client) error {
	ctx := context.Background()
	return map[string]func(*Client) error{
		OpCapabilities: func(c *Client) error { _, err := c.Capabilities(ctx); return err },
		OpRead:         func(c *Client) error { _, err := c.ReadPatient(ctx, "pat-1"); return err },
		OpPatients: func(c *Client) error {
			_, err := c.SearchPatients(ctx, PatientQuery{Name: "Jane", Page: 1, PageSize: 20})
			return err
		},
		"count": func(c *Client) error { _, err := c.CountPatients(ctx); return err },
	}
}

// TestReadFailures lists the failures that mean the same for every read.
func TestReadFailures(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		find   http.HandlerFunc
		class  Class
		code   string
		status int
		tokens int // 0 means 1
	}{
		{name: "401 twice", find: reply(401, "", ""), class: ClassPermanentCredentials, code: "unauthorized", status: 401, tokens: 2},
		{name: "403", find: reply(403, "", outcome("error", "forbidden")), class: ClassPermanentCredentials, code: "forbidden", status: 403},
		{
			name:   "404 of a gateway",
			find:   reply(404, "Content-Type: text/html", "<html>"+personal),
			class:  ClassRetryable,
			code:   "http_404",
			status: 404,
		},
		{name: "405", find: reply(405, "", ""), class: ClassPermanentData, code: "http_405", status: 405},
		{name: "408", find: reply(408, "", ""), class: ClassRetryable, code: "http_408", status: 408},
		{name: "429", find: reply(429, "Retry-After: 7", ""), class: ClassThrottled, code: "throttled", status: 429},
		{name: "500", find: reply(500, "", outcome("error", "exception")), class: ClassRetryable, code: "exception", status: 500},
		{name: "503", find: reply(503, "", ""), class: ClassRetryable, code: "http_503", status: 503},
		{name: "refused", find: reply(400, "", outcome("error", "invalid")), class: ClassPermanentData, code: "invalid", status: 400},
		{name: "redirect", find: reply(302, "Location: https://elsewhere.example/", ""), class: ClassRetryable, code: "redirect", status: 302},
		{name: "outcome with 200", find: reply(200, "", outcome("error", "exception")), class: ClassRetryable, code: "exception", status: 200},
		{
			name:   "hint instead of an answer",
			find:   reply(200, "", outcome("information", "informational")),
			class:  ClassRetryable,
			code:   "malformed_response",
			status: 200,
		},
		{name: "another resource", find: reply(200, "", stored("obs-1")), class: ClassRetryable, code: "malformed_response", status: 200},
		{
			name:   "HTML",
			find:   reply(200, "Content-Type: text/html", "<html>"+personal),
			class:  ClassRetryable,
			code:   "malformed_response",
			status: 200,
		},
		{name: "empty", find: reply(200, "", ""), class: ClassRetryable, code: "malformed_response", status: 200},
		{name: "204", find: reply(204, "", ""), class: ClassRetryable, code: "http_204", status: 204},
		{
			name:   "cut short",
			find:   reply(200, "Content-Length: 5000", `{"resourceType":"Bundle"`),
			class:  ClassRetryable,
			code:   "reset",
			status: 200,
		},
		{
			name:   "endless",
			find:   reply(200, "", strings.Repeat(" ", maxReadBody+1)),
			class:  ClassRetryable,
			code:   "response_too_large",
			status: 200,
		},
		{name: "reset", find: reset, class: ClassRetryable, code: "reset"},
		{name: "timeout", find: hang, class: ClassRetryable, code: "timeout"},
	} {
		for op, read := range reads() {
			t.Run(tc.name+"/"+op, func(t *testing.T) {
				t.Parallel()
				e := newEHR(t)
				e.find = tc.find
				c := e.client(t)
				mustAuthenticate(t, c)

				if tc.code == "timeout" {
					c.wire.timeout = 50 * time.Millisecond
				}

				ee := asError(t, read(c))
				if ee.Class != tc.class || ee.Code != tc.code || ee.HTTPStatus != tc.status || ee.Op != op && op != "count" {
					t.Errorf("got %+v, want %s %s", ee, tc.class, tc.code)
				}
				if ee.Class == ClassPermanentData && strings.Contains(ee.Message, "reading") {
					t.Errorf("the message mentions a reading: %s", ee.Message)
				}

				if (ee.Class == ClassThrottled) == ee.RetryAt.IsZero() {
					t.Errorf("retry at %s", ee.RetryAt)
				}
				if n := len(e.requests("token")); n != max(tc.tokens, 1) {
					t.Errorf("%d token requests", n)
				}

				e.checkLogs(t)
			})
		}
	}
}

// TestReadsWithoutAToken: without a token the error is that of the token request, and nothing else is sent.
func TestReadsWithoutAToken(t *testing.T) {
	t.Parallel()
	for op, read := range reads() {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			e.token = reply(401, "", `{"error":"invalid_client"}`)
			if ee := asError(t, read(e.client(t))); ee.Op != OpToken || ee.Code != "invalid_client" {
				t.Errorf("got %v", ee)
			}
			if len(e.requests("GET")) != 0 {
				t.Error("asked without a token")
			}
		})
	}
}

func TestCapabilities(t *testing.T) {
	t.Parallel()
	statement := func(rest string) string {
		return `{"resourceType":"CapabilityStatement","fhirVersion":"4.0.1","rest":[` + rest + `]}`
	}

	for _, tc := range []struct {
		name, rest string
		want       []string
	}{
		{"as documented", `{"mode":"server","resource":[
			{"type":"Patient","interaction":[{"code":"search-type"},{"code":"read"}]},
			{"type":"Observation","interaction":[{"code":"create"},{"code":"read"},{"code":"vread"},{"code":"search-type"}]}]}`,
			[]string{"Observation.read", "Observation.write", "Patient.read"}},
		{"search only", `{"mode":"server","resource":[{"type":"Patient","interaction":[{"code":"search-type"}]}]}`, []string{"Patient.read"}},
		{"update is no create", `{"mode":"server","resource":[{"type":"Patient","interaction":[{"code":"update"},{"code":"delete"}]}]}`, nil},
		{"as a client", `{"mode":"client","resource":[{"type":"Patient","interaction":[{"code":"read"}]}]}`, nil},
		{"nothing", ``, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			e.find = reply(200, "", statement(tc.rest))
			got, err := e.client(t).Capabilities(context.Background())
			if err != nil || got.FHIRBaseURL != e.URL+"/fhir/r4/FFHEDD" || got.FHIRVersion != "4.0.1" || !slices.Equal(got.Interactions, tc.want) {
				t.Errorf("got %+v %v, want %v", got, err, tc.want)
			}

			r := e.requests("GET")[0]
			if r.url != "/fhir/r4/FFHEDD/metadata" || r.header.Get("Accept") != mediaFHIR {
				t.Errorf("asked %s %v", r.url, r.header)
			}
		})
	}
}

func TestReadPatient(t *testing.T) {
	t.Parallel()
	resource := `{"resourceType":"Patient","id":"pat-1",` +
		`"link":[{"other":{"reference":"Patient/x"},"type":"seealso"}],"birthDate":"1950-01-01"}`
	for _, tc := range []struct {
		name  string
		find  http.HandlerFunc
		class Class // "": resource is the answer
		code  string
	}{
		{name: "found", find: reply(200, "", resource)},
		{name: "401 once", find: first(reply(401, "", ""), reply(200, "", resource))},
		{name: "404", find: reply(404, "", outcome("error", "not-found")), class: ClassPermanentData, code: "not_found"},
		{name: "404 empty", find: reply(404, "Content-Type: ", ""), class: ClassPermanentData, code: "not_found"},
		{name: "410", find: reply(410, "Content-Type: text/html", ""), class: ClassPermanentData, code: "not_found"},
		{
			name:  "another patient",
			find:  reply(200, "", strings.Replace(resource, "pat-1", "pat-2", 1)),
			class: ClassPermanentData,
			code:  "other_patient",
		},
		{name: "no id", find: reply(200, "", `{"resourceType":"Patient"}`), class: ClassPermanentData, code: "other_patient"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			e.find = tc.find
			got, err := e.client(t).ReadPatient(context.Background(), "pat-1")

			if tc.class != "" {
				if ee := asError(t, err); ee.Class != tc.class || ee.Code != tc.code || ee.Op != OpRead || got != nil {
					t.Errorf("got %s %v, want %s %s", got, ee, tc.class, tc.code)
				}
			} else if err != nil || string(got) != resource {
				t.Errorf("got %s %v", got, err)
			}

			if url := e.requests("GET")[0].url; url != "/fhir/r4/FFHEDD/Patient/pat-1" {
				t.Errorf("asked %s", url)
			}

			e.checkLogs(t)
		})
	}
}

// TestReadPatientChecksTheID: a text that is not a FHIR id never becomes part of a URL.
func TestReadPatientChecksTheID(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	c := e.client(t)

	for _, id := range []string{
		"", ".", "..", "_history", "_search", "$everything", "a/b", "../Observation", "a b", "a?b", "a%2fb", "ä",
		strings.Repeat("a", 129),
	} {
		_, err := c.ReadPatient(context.Background(), id)
		if ee := asError(t, err); ee.Class != ClassPermanentData || ee.Code != "invalid_id" {
			t.Errorf("%q: %v", id, ee)
		}
	}

	if len(e.requests("token"))+len(e.requests("GET")) != 0 {
		t.Error("something was sent")
	}

	for _, id := range []string{"a", "ecw-patient-2004454", "Lt2IFR6yjd.s2BvQWYZQ0IMk7JiNQ7sYwEGZL7TvWLY", strings.Repeat("a", 128)} {
		e.find = reply(200, "", `{"resourceType":"Patient","id":"`+id+`"}`)
		if _, err := c.ReadPatient(context.Background(), id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
}
