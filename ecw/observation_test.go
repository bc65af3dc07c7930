package ecw

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// writeCase is one answer of eCW to a create and what must come of it.
type writeCase struct {
	name   string
	write  http.HandlerFunc
	find   http.HandlerFunc // nil: nothing is found
	want   Delivered        // when class is ""
	class  Class
	code   string
	posts  int // 0 means 1
	finds  int
	tokens int // 0 means 1
}

func runWriteCases(t *testing.T, mode WriteMode, cases []writeCase) {
	for _, tc := range cases {
		t.Run(string(mode)+"/"+tc.name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			e.write = tc.write
			if tc.find != nil {
				e.find = tc.find
			}
			c := e.client(t, func(cfg *Config) { cfg.WriteMode = mode })
			got, err := c.CreateObservation(context.Background(), testResource, testID)
			if tc.class == "" {
				if err != nil || got != tc.want {
					t.Fatalf("got %+v, %v; want %+v", got, err, tc.want)
				}
			} else if ee := asError(t, err); ee.Class != tc.class || ee.Code != tc.code {
				t.Fatalf("got class %s code %s (%v), want %s %s", ee.Class, ee.Code, ee, tc.class, tc.code)
			}
			for kind, want := range map[string]int{"POST": max(tc.posts, 1), "GET": tc.finds, "token": max(tc.tokens, 1)} {
				if n := len(e.requests(kind)); n != want {
					t.Errorf("%d %s requests, want %d", n, kind, want)
				}
			}
			e.checkLogs(t)
		})
	}
}

func TestCreateByStatus(t *testing.T) {
	t.Parallel()
	for _, mode := range []WriteMode{WriteObservation, WriteBundle} {
		runWriteCases(t, mode, statusCases())
	}
}

// statusCases is the table of write outcomes that look the same in both write modes.
func statusCases() []writeCase {
	found := reply(200, "", searchset(stored("obs-9")))
	confirmed := Delivered{ID: "obs-9", HTTPStatus: 200, Existing: true}
	created := reply(201, "Location: Observation/obs-1", "")
	return []writeCase{
		{name: "reset after the request left", write: reset, class: ClassUnknown, code: "reset"},
		{name: "401 once", write: first(reply(401, "", ""), created), want: Delivered{ID: "obs-1", HTTPStatus: 201}, posts: 2, tokens: 2},
		{name: "401 twice", write: reply(401, "", ""), class: ClassPermanentCredentials, code: "unauthorized", posts: 2, tokens: 2},
		{name: "403", write: reply(403, "", outcome("error", "forbidden")), class: ClassPermanentCredentials, code: "forbidden"},
		{name: "429", write: reply(429, "", ""), class: ClassThrottled, code: "throttled"},
		{name: "408", write: reply(408, "", ""), class: ClassUnknown, code: "http_408"},
		{name: "500", write: reply(500, "", ""), class: ClassUnknown, code: "http_500"},
		{name: "500 with a data outcome", write: reply(500, "", outcome("error", "invalid")), class: ClassUnknown, code: "invalid"},
		{name: "502", write: reply(502, "", "<html>"), class: ClassUnknown, code: "http_502"},
		{name: "503 lock-error", write: reply(503, "", outcome("error", "lock-error")), class: ClassUnknown, code: "lock-error"},
		{name: "504", write: reply(504, "", ""), class: ClassUnknown, code: "http_504"},
		{name: "400", write: reply(400, "", outcome("error", "invariant")), class: ClassPermanentData, code: "invariant"},
		{name: "400 without outcome", write: reply(400, "", ""), class: ClassPermanentData, code: "http_400"},
		{name: "400 with an unreadable code", write: reply(400, "", outcome("error", personal)), class: ClassPermanentData, code: "processing"},
		{name: "400 that may pass", write: reply(400, "", outcome("error", "no-store")), class: ClassRetryable, code: "no-store"},
		{name: "400 with eCW number", write: reply(400, "", numbered("308")), class: ClassPermanentCredentials, code: "308"},
		{name: "400 with eCW's generic failure", write: reply(400, "", numbered("2")), class: ClassPermanentData, code: "processing"},
		{name: "400 throttled", write: reply(400, "", outcome("error", "throttled")), class: ClassThrottled, code: "throttled"},
		{name: "404 patient", write: reply(404, "", outcome("error", "not-found")), class: ClassPermanentData, code: "not-found"},
		{name: "404 without outcome", write: reply(404, "", "<html>"), class: ClassRetryable, code: "http_404"},
		{name: "405", write: reply(405, "", ""), class: ClassPermanentData, code: "http_405"},
		{name: "413", write: reply(413, "", ""), class: ClassPermanentData, code: "http_413"},
		{name: "415", write: reply(415, "", ""), class: ClassPermanentData, code: "http_415"},
		{name: "422", write: reply(422, "", outcome("fatal", "code-invalid")), class: ClassPermanentData, code: "code-invalid"},
		{name: "422 duplicate", write: reply(422, "", outcome("error", "duplicate")), find: found, want: confirmed, finds: 1},
		{name: "409 found", write: reply(409, "", ""), find: found, want: confirmed, finds: 1},
		{name: "409 not found", write: reply(409, "", ""), class: ClassUnknown, code: "duplicate", finds: 2},
		{name: "409 search fails", write: reply(409, "", ""), find: reply(503, "", ""), class: ClassUnknown, code: "http_503", finds: 1},
		{name: "409 search forbidden", write: reply(409, "", ""), find: reply(403, "", ""), class: ClassUnknown, code: "forbidden", finds: 1},
		{name: "409 search throttled", write: reply(409, "", ""), find: reply(429, "", ""), class: ClassThrottled, code: "throttled", finds: 1},
		{name: "412", write: reply(412, "", outcome("error", "multiple-matches")), class: ClassPermanentData, code: "multiple-matches"},
		{name: "2xx with an error outcome", write: reply(201, "Location: Observation/obs-1", outcome("error", "business-rule")), class: ClassPermanentData, code: "business-rule"},
		{name: "2xx that may pass", write: reply(200, "", outcome("error", "lock-error")), class: ClassRetryable, code: "lock-error"},
		{name: "2xx with a fault", write: reply(200, "", outcome("fatal", "exception")), class: ClassUnknown, code: "exception"},
		{name: "2xx login", write: reply(200, "", outcome("error", "login")), class: ClassPermanentCredentials, code: "login"},
		{name: "2xx duplicate", write: reply(200, "", outcome("error", "duplicate")), find: found, want: confirmed, finds: 1},
		{name: "2xx eCW 613", write: reply(200, "", numbered("613")), class: ClassPermanentData, code: "613"},
		{name: "2xx eCW 201", write: reply(200, "", numbered("201")), find: found, want: confirmed, finds: 1},
		{name: "2xx hint with location", write: reply(201, "Location: /x/Observation/obs-1/_history/2", outcome("information", "informational")), want: Delivered{ID: "obs-1", HTTPStatus: 201}},
		{name: "2xx hint without id", write: reply(200, "", outcome("warning", "incomplete")), class: ClassUnknown, code: "no_id"},
		{name: "201 empty without id", write: reply(201, "", ""), class: ClassUnknown, code: "no_id"},
		{name: "204", write: reply(204, "", ""), class: ClassUnknown, code: "no_id"},
		{name: "202 with location", write: reply(202, "Location: Observation/obs-1", ""), want: Delivered{ID: "obs-1", HTTPStatus: 202}},
		{name: "201 of another resource", write: reply(201, "Location: Patient/p", `{"resourceType":"Patient","id":"p"}`), class: ClassUnknown, code: "no_id"},
		{name: "HTML", write: reply(200, "Content-Type: text/html", "<html>"+personal), class: ClassUnknown, code: "malformed_response"},
		{name: "HTML called JSON", write: reply(200, "", "<html>"+personal), class: ClassUnknown, code: "malformed_response"},
		{name: "JSON called text", write: reply(201, "Content-Type: text/plain", stored("obs-1")), class: ClassUnknown, code: "malformed_response"},
		{name: "truncated JSON", write: reply(201, "Location: Observation/obs-1", stored("obs-1")[:40]), class: ClassUnknown, code: "malformed_response"},
		{name: "JSON that is not FHIR", write: reply(200, "", `{"status":"ok"}`), class: ClassUnknown, code: "malformed_response"},
		{name: "body cut short", write: reply(201, "Content-Length: 5000", stored("obs-1")), class: ClassUnknown, code: "reset"},
		{name: "redirect", write: reply(307, "Location: /elsewhere", ""), class: ClassUnknown, code: "redirect"},
	}
}

func TestCreateObservationMode(t *testing.T) {
	t.Parallel()
	runWriteCases(t, WriteObservation, []writeCase{
		{name: "absolute location", write: reply(201, "Location: https://ehr.example/fhir/r4/X/Observation/obs-1/_history/1", ""), want: Delivered{ID: "obs-1", HTTPStatus: 201}},
		{name: "relative location", write: reply(201, "Location: Observation/obs-1", stored("obs-2")), want: Delivered{ID: "obs-1", HTTPStatus: 201}},
		{name: "location without id", write: reply(201, "Location: /Observation/", stored("obs-2")), want: Delivered{ID: "obs-2", HTTPStatus: 201}},
		{name: "id in the body", write: reply(201, "", stored("obs-2")), want: Delivered{ID: "obs-2", HTTPStatus: 201}},
		{name: "exists already", write: reply(200, "", stored("obs-2")), want: Delivered{ID: "obs-2", HTTPStatus: 200, Existing: true}},
		{name: "no content type", write: reply(201, "Content-Type: ", stored("obs-2")), want: Delivered{ID: "obs-2", HTTPStatus: 201}},
	})
}

// TestCreateBundleMode is the table of what stands in entry[0].response.
func TestCreateBundleMode(t *testing.T) {
	t.Parallel()
	found := reply(200, "", searchset(stored("obs-9")))
	ok := func(status, location string) http.HandlerFunc {
		return reply(200, "", entryAnswer(status, location, ""))
	}
	cases := []writeCase{
		{name: "1", write: ok("1", "Observation/obs-1"), want: Delivered{ID: "obs-1", HTTPStatus: 200}},
		{name: "1 without id", write: ok("1", ""), class: ClassUnknown, code: "no_id"},
		{name: "1 with an error outcome", write: reply(200, "", entryAnswer("1", "Observation/obs-1", outcome("error", "invalid"))), class: ClassPermanentData, code: "invalid"},
		{name: "201 Created", write: ok("201 Created", "Observation/obs-1/_history/1"), want: Delivered{ID: "obs-1", HTTPStatus: 200}},
		{name: "200 OK", write: ok("200 OK", "Observation/obs-1"), want: Delivered{ID: "obs-1", HTTPStatus: 200, Existing: true}},
		{name: "201 bare found", write: ok("201", "Observation/obs-1"), find: found, want: Delivered{ID: "obs-9", HTTPStatus: 200, Existing: true}, finds: 1},
		{name: "201 bare not found", write: ok("201", "Observation/obs-1"), class: ClassUnknown, code: "duplicate", finds: 2},
		{name: "201 ALREADY_EXIST", write: ok("201 ALREADY_EXIST", ""), find: found, want: Delivered{ID: "obs-9", HTTPStatus: 200, Existing: true}, finds: 1},
		{name: "202 bare", write: ok("202", "Observation/obs-1"), class: ClassPermanentData, code: "202"},
		{name: "202 MULTIPLE_PATIENT", write: ok("202 MULTIPLE_PATIENT", ""), class: ClassPermanentData, code: "202"},
		{name: "2", write: ok("2", ""), class: ClassUnknown, code: "2"},
		{name: "2 with a reason", write: reply(200, "", entryAnswer("2", "", outcome("error", "structure"))), class: ClassPermanentData, code: "structure"},
		{name: "103", write: ok("103", ""), class: ClassRetryable, code: "103"},
		{name: "308", write: ok("308", ""), class: ClassPermanentCredentials, code: "308"},
		{name: "200 bare", write: ok("200", "Observation/obs-1"), class: ClassUnknown, code: "200"},
		{name: "unknown number", write: ok("777", ""), class: ClassUnknown, code: "777"},
		{name: "no number", write: ok(personal, ""), class: ClassUnknown, code: "unknown_status"},
		{name: "empty status", write: ok("", "Observation/obs-1"), class: ClassUnknown, code: "unknown_status"},
		{name: "no entry", write: reply(200, "", `{"resourceType":"Bundle","type":"transaction-response"}`), class: ClassUnknown, code: "no_id"},
		{name: "entry 409 Conflict", write: ok("409 Conflict", ""), find: found, want: Delivered{ID: "obs-9", HTTPStatus: 200, Existing: true}, finds: 1},
		{name: "entry 412", write: ok("412 Precondition Failed", ""), class: ClassPermanentData, code: "http_412"},
		{name: "entry 422", write: reply(200, "", entryAnswer("422 Unprocessable Entity", "", outcome("error", "code-invalid"))), class: ClassPermanentData, code: "code-invalid"},
		{name: "entry 429", write: ok("429", ""), class: ClassThrottled, code: "throttled"},
		{name: "entry 503", write: ok("503", ""), class: ClassUnknown, code: "http_503"},
	}
	for _, n := range strings.Fields("100 101 102 108 109 110 120 122 204 207 611 612 613") {
		cases = append(cases, writeCase{name: n, write: ok(n, ""), class: ClassPermanentData, code: n})
	}
	runWriteCases(t, WriteBundle, cases)
}

func TestCreateSendsConditionalCreate(t *testing.T) {
	t.Parallel()
	const search = "identifier=https%3A%2F%2Fvantrexia.com%2Ffhir%2Fsid%2Fobservation%7Cd4e5f6a7-b8c9-0123-defa-234567890123"
	t.Run("observation", func(t *testing.T) {
		t.Parallel()
		e := newEHR(t)
		e.write = reply(201, "Location: Observation/obs-1", "")
		if _, err := e.client(t).CreateObservation(context.Background(), testResource, testID); err != nil {
			t.Fatal(err)
		}
		r := e.requests("POST")[0]
		if r.url != "/fhir/r4/FFHEDD/Observation" || string(r.body) != string(testResource) {
			t.Errorf("sent %s %s", r.url, r.body)
		}
		for name, want := range map[string]string{"If-None-Exist": search, "Content-Type": "application/fhir+json",
			"Accept": "application/fhir+json", "Authorization": "Bearer tok-1", "Prefer": "return=representation", "User-Agent": "vantrexia"} {
			if got := r.header.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		if q, err := url.ParseQuery(search); err != nil || q.Get("identifier") != testID.System+"|"+testID.Value {
			t.Errorf("If-None-Exist does not parse back: %v %v", q, err)
		}
		if log := e.logs.String(); !strings.Contains(log, `"fhir_observation_id":"obs-1"`) || !strings.Contains(log, `"http_status":201`) || !strings.Contains(log, testID.Value) {
			t.Errorf("the log lacks the ids: %s", log)
		}
	})
	t.Run("bundle", func(t *testing.T) {
		t.Parallel()
		e := newEHR(t)
		e.write = reply(200, "", entryAnswer("1", "Observation/obs-1", ""))
		c := e.client(t, func(cfg *Config) { cfg.WriteMode = WriteBundle })
		if _, err := c.CreateObservation(context.Background(), testResource, testID); err != nil {
			t.Fatal(err)
		}
		r := e.requests("POST")[0]
		var b struct {
			ResourceType, Type string
			Entry              []struct {
				FullURL  string
				Resource json.RawMessage
				Request  struct{ Method, URL, IfNoneExist string }
			}
		}
		if err := json.Unmarshal(r.body, &b); err != nil {
			t.Fatal(err)
		}
		if r.url != "/fhir/r4/FFHEDD" || b.ResourceType != "Bundle" || b.Type != "transaction" || len(b.Entry) != 1 {
			t.Fatalf("sent %s %s", r.url, r.body)
		}
		en := b.Entry[0]
		if !strings.HasPrefix(en.FullURL, "urn:uuid:") || en.Request.Method != "POST" || en.Request.URL != "Observation" ||
			en.Request.IfNoneExist != search || string(en.Resource) != string(testResource) {
			t.Errorf("entry %+v, resource %s", en, en.Resource)
		}
		if r.header.Get("If-None-Exist") != "" {
			t.Error("If-None-Exist header on a transaction")
		}
	})
}

func TestCreateRefusesWhatCouldNotBeLookedUp(t *testing.T) {
	t.Parallel()
	other := Identifier{System: testID.System, Value: "other"}
	for name, resource := range map[string]string{
		"no JSON": `{`, "null": `null`, "a Patient": `{"resourceType":"Patient"}`, "no identifier": `{"resourceType":"Observation"}`,
		"another identifier": string(testResource),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			_, err := e.client(t).CreateObservation(context.Background(), json.RawMessage(resource), other)
			if ee := asError(t, err); ee.Class != ClassPermanentData || ee.Code != "invalid_resource" {
				t.Errorf("got %v", ee)
			}
			if len(e.requests("token"))+len(e.requests("POST")) != 0 {
				t.Error("something was sent")
			}
		})
	}
}

func TestSearchTokenEscapes(t *testing.T) {
	t.Parallel()
	if got, want := searchToken(Identifier{System: `a|b`, Value: `c,d$e\f`}), `a\|b|c\,d\$e\\f`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
