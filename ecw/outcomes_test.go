package ecw

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// writeCase is one answer to a create, and what the client must make of it.
type writeCase struct {
	name    string
	only    WriteMode // "": both
	prepare func(*testing.T, *Client)
	write   http.HandlerFunc
	bundle  http.HandlerFunc // in place of write in bundle mode
	find    http.HandlerFunc // nil: nothing is found
	want    Delivered        // when class is ""
	class   Class
	code    string
	posts   int // 0 means 1, -1 none
	finds   int
	tokens  int // 0 means 1
}

// TestWriteOutcomes lists the outcomes of a create in both write modes, with their class and the number of
// requests.
func TestWriteOutcomes(t *testing.T) {
	t.Parallel()
	for _, mode := range []WriteMode{WriteObservation, WriteBundle} {
		for part, cases := range map[string][]writeCase{
			"no answer": lostCases(),
			"status":    statusCases(),
			"body":      bodyCases(),
			"number":    numberCases(),
			"entry":     entryCases(),
			"location":  locationCases(),
		} {
			t.Run(part, func(t *testing.T) {
				t.Parallel()
				runWriteCases(t, mode, cases)
			})
		}
	}
}

func runWriteCases(t *testing.T, mode WriteMode, cases []writeCase) {
	for _, tc := range cases {
		if tc.only != "" && tc.only != mode {
			continue
		}

		t.Run(string(mode)+"/"+tc.name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			e.write = tc.write
			if tc.bundle != nil && mode == WriteBundle {
				e.write = tc.bundle
			}
			if tc.find != nil {
				e.find = tc.find
			}

			c := e.client(t, func(cfg *Config) { cfg.WriteMode = mode })
			if tc.prepare != nil {
				mustAuthenticate(t, c)
				c.wire.http.CloseIdleConnections()
				tc.prepare(t, c)
			}

			got, err := c.CreateObservation(context.Background(), testResource, testID)
			if tc.class == "" {
				if err != nil || got != tc.want {
					t.Fatalf("got %+v, %v; want %+v", got, err, tc.want)
				}
			} else if ee := asError(t, err); ee.Class != tc.class || ee.Code != tc.code {
				t.Fatalf("got class %s code %s (%v), want %s %s", ee.Class, ee.Code, ee, tc.class, tc.code)
			}

			for kind, want := range map[string]int{"POST": orDefault(tc.posts, 1), "GET": tc.finds, "token": orDefault(tc.tokens, 1)} {
				if n := len(e.requests(kind)); n != max(want, 0) {
					t.Errorf("%d %s requests, want %d", n, kind, want)
				}
			}

			e.checkLogs(t)
		})
	}
}

// dialling makes every new connection fail with the error of dial.
func dialling(dial func(context.Context) error) func(*testing.T, *Client) {
	return func(_ *testing.T, c *Client) {
		c.transport().DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return nil, dial(ctx) }
	}
}

// lostCases have no answer. If the request had not left, nothing was stored; afterwards the outcome is
// unknown.
func lostCases() []writeCase {
	failing := func(err error) func(*testing.T, *Client) {
		return dialling(func(context.Context) error { return err })
	}

	return []writeCase{
		{
			name:    "dns",
			prepare: failing(&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "ehr.example", IsNotFound: true}}),
			class:   ClassRetryable,
			code:    "dns",
			posts:   -1,
		},
		{
			name:    "connect",
			prepare: failing(&net.OpError{Op: "dial", Err: errors.New("connection refused")}),
			class:   ClassRetryable,
			code:    "connect",
			posts:   -1,
		},
		{
			name:    "dial timeout",
			prepare: failing(&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}),
			class:   ClassRetryable,
			code:    "timeout",
			posts:   -1,
		},
		{
			name: "slow dial",
			prepare: func(t *testing.T, c *Client) {
				c.wire.timeout = 20 * time.Millisecond
				dialling(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })(t, c)
			},
			class: ClassRetryable,
			code:  "timeout",
			posts: -1,
		},
		{name: "tls", prepare: func(t *testing.T, c *Client) { c.baseURL = untrusted(t).URL }, class: ClassRetryable, code: "tls", posts: -1},
		{
			name:    "timeout after it left",
			prepare: func(_ *testing.T, c *Client) { c.wire.timeout = time.Second },
			write:   hang,
			class:   ClassUnknown,
			code:    "timeout",
		},
		{name: "reset after it left", write: reset, class: ClassUnknown, code: "reset"},
		{name: "closed after it left", write: hangUp, class: ClassUnknown, code: "reset"},
	}
}

// statusCases are decided by the HTTP status.
func statusCases() []writeCase {
	found := reply(200, "", searchset(stored("obs-9")))
	confirmed := Delivered{ID: "obs-9", HTTPStatus: 200, Existing: true}
	created := reply(201, "Location: Observation/obs-1", "")

	return []writeCase{
		{name: "401 once", write: first(reply(401, "", ""), created), want: Delivered{ID: "obs-1", HTTPStatus: 201}, posts: 2, tokens: 2},
		{name: "401 twice", write: reply(401, "", ""), class: ClassPermanentCredentials, code: "unauthorized", posts: 2, tokens: 2},
		{name: "403", write: reply(403, "", outcome("error", "forbidden")), class: ClassPermanentCredentials, code: "forbidden"},
		{name: "429", write: reply(429, "", ""), class: ClassThrottled, code: "throttled"},
		{name: "408", write: reply(408, "", ""), class: ClassUnknown, code: "http_408"},
		{name: "500", write: reply(500, "", ""), class: ClassUnknown, code: "http_500"},
		{name: "500 with a data outcome", write: reply(500, "", outcome("error", "invalid")), class: ClassUnknown, code: "invalid"},
		{name: "502", write: reply(502, "", "<html>"), class: ClassUnknown, code: "http_502"},
		{name: "503", write: reply(503, "", ""), class: ClassUnknown, code: "http_503"},
		{name: "503 lock-error", write: reply(503, "", outcome("error", "lock-error")), class: ClassUnknown, code: "lock-error"},
		{name: "504", write: reply(504, "", ""), class: ClassUnknown, code: "http_504"},
		{name: "400", write: reply(400, "", outcome("error", "invariant")), class: ClassPermanentData, code: "invariant"},
		{name: "400 without outcome", write: reply(400, "", ""), class: ClassPermanentData, code: "http_400"},
		{name: "400 with an unreadable code", write: reply(400, "", outcome("error", personal)), class: ClassPermanentData, code: "processing"},
		{name: "400 that may pass", write: reply(400, "", outcome("error", "no-store")), class: ClassRetryable, code: "no-store"},
		{
			name:  "400 with a word that is none of FHIR's",
			write: reply(400, "", outcome("error", "john-smith")),
			class: ClassPermanentData,
			code:  "processing",
		},
		{name: "400 with eCW's generic failure", write: reply(400, "", numbered("2")), class: ClassUnknown, code: "2"},
		{name: "422 with eCW's generic failure", write: reply(422, "", numbered("2")), class: ClassUnknown, code: "2"},
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
		{name: "redirect", write: reply(307, "Location: /elsewhere", ""), class: ClassUnknown, code: "redirect"},
	}
}

// bodyCases are decided by the body of a 2xx.
func bodyCases() []writeCase {
	found := reply(200, "", searchset(stored("obs-9")))
	confirmed := Delivered{ID: "obs-9", HTTPStatus: 200, Existing: true}
	return []writeCase{
		{
			name:  "2xx with an error outcome",
			write: reply(201, "Location: Observation/obs-1", outcome("error", "business-rule")),
			class: ClassPermanentData,
			code:  "business-rule",
		},
		{name: "2xx that may pass", write: reply(200, "", outcome("error", "lock-error")), class: ClassRetryable, code: "lock-error"},
		{name: "2xx with a fault", write: reply(200, "", outcome("fatal", "exception")), class: ClassUnknown, code: "exception"},
		{name: "2xx login", write: reply(200, "", outcome("error", "login")), class: ClassPermanentCredentials, code: "login"},
		{name: "2xx duplicate", write: reply(200, "", outcome("error", "duplicate")), find: found, want: confirmed, finds: 1},
		{
			name:  "2xx hint with location",
			write: reply(201, "Location: /x/Observation/obs-1/_history/2", outcome("information", "informational")),
			want:  Delivered{ID: "obs-1", HTTPStatus: 201},
		},
		{name: "2xx hint without id", write: reply(200, "", outcome("warning", "incomplete")), class: ClassUnknown, code: "no_id"},
		{name: "201 empty without id", write: reply(201, "", ""), class: ClassUnknown, code: "no_id"},
		{name: "204", write: reply(204, "", ""), class: ClassUnknown, code: "no_id"},
		{name: "202 with location", write: reply(202, "Location: Observation/obs-1", ""), want: Delivered{ID: "obs-1", HTTPStatus: 202}},
		{
			name:  "201 of another resource",
			write: reply(201, "Location: Patient/p", `{"resourceType":"Patient","id":"p"}`),
			class: ClassUnknown,
			code:  "no_id",
		},
		{name: "HTML", write: reply(200, "Content-Type: text/html", "<html>"+personal), class: ClassUnknown, code: "malformed_response"},
		{name: "HTML called JSON", write: reply(200, "", "<html>"+personal), class: ClassUnknown, code: "malformed_response"},
		{
			name:  "JSON called text",
			write: reply(201, "Content-Type: text/plain", stored("obs-1")),
			class: ClassUnknown,
			code:  "malformed_response",
		},
		{
			name:  "truncated JSON",
			write: reply(201, "Location: Observation/obs-1", stored("obs-1")[:40]),
			class: ClassUnknown,
			code:  "malformed_response",
		},
		{name: "JSON that is not FHIR", write: reply(200, "", `{"status":"ok"}`), class: ClassUnknown, code: "malformed_response"},
		{name: "body cut short", write: reply(201, "Content-Length: 5000", stored("obs-1")), class: ClassUnknown, code: "reset"},
	}
}

// numberCases are decided by eCW's numbers, which come alone in a Bundle's entry or in an OperationOutcome.
func numberCases() []writeCase {
	alone := func(n string) http.HandlerFunc { return reply(200, "", entryAnswer(n, "", "")) }
	found := reply(200, "", searchset(stored("obs-9")))
	confirmed := Delivered{ID: "obs-9", HTTPStatus: 200, Existing: true}

	cases := []writeCase{
		{name: "2 with 200", write: reply(200, "", numbered("2")), bundle: alone("2"), class: ClassUnknown, code: "2"},
	}

	for n, class := range map[int]Class{
		100: ClassPermanentData, 101: ClassPermanentData, 102: ClassPermanentData, 103: ClassRetryable, 108: ClassPermanentData,
		109: ClassPermanentData, 110: ClassPermanentData, 120: ClassPermanentData, 122: ClassPermanentData, 202: ClassPermanentData,
		204: ClassPermanentData, 207: ClassPermanentData, 308: ClassPermanentCredentials, 611: ClassPermanentData,
		612: ClassPermanentData, 613: ClassPermanentData,
	} {
		number := fmt.Sprint(n)
		for _, status := range []int{200, 400, 422} {
			refused := reply(status, "", numbered(number))
			cases = append(cases, writeCase{
				name:  fmt.Sprintf("%s with %d", number, status),
				write: refused,
				class: class,
				code:  number,
			})
		}

		cases = append(cases, writeCase{
			name:  number + " alone",
			only:  WriteBundle,
			write: alone(number),
			class: class,
			code:  number,
		})
	}

	for _, status := range []int{200, 400, 409, 422} {
		cases = append(cases,
			writeCase{
				name:  fmt.Sprintf("201 with %d, there", status),
				write: reply(status, "", numbered("201")),
				find:  found,
				want:  confirmed,
				finds: 1,
			},
			writeCase{
				name:  fmt.Sprintf("201 with %d, not there", status),
				write: reply(status, "", numbered("201")),
				class: ClassUnknown,
				code:  "duplicate",
				finds: 2,
			})
	}

	return cases
}

// entryCases are decided by entry[0].response of a Bundle.
func entryCases() []writeCase {
	found := reply(200, "", searchset(stored("obs-9")))
	ok := func(status, location string) http.HandlerFunc {
		return reply(200, "", entryAnswer(status, location, ""))
	}

	numeric := func(status, location string) http.HandlerFunc {
		return reply(200, "", strings.Replace(entryAnswer("?", location, ""), `"?"`, status, 1))
	}

	return onlyIn(WriteBundle, []writeCase{
		{name: "1", write: ok("1", "Observation/obs-1"), want: Delivered{ID: "obs-1", HTTPStatus: 200}},
		{name: "1 without id", write: ok("1", ""), class: ClassUnknown, code: "no_id"},
		{
			name:  "1 with an error outcome",
			write: reply(200, "", entryAnswer("1", "Observation/obs-1", outcome("error", "invalid"))),
			class: ClassPermanentData,
			code:  "invalid",
		},
		{name: "201 Created", write: ok("201 Created", "Observation/obs-1/_history/1"), want: Delivered{ID: "obs-1", HTTPStatus: 200}},
		{name: "200 OK", write: ok("200 OK", "Observation/obs-1"), want: Delivered{ID: "obs-1", HTTPStatus: 200, Existing: true}},
		{
			name:  "201 bare found",
			write: ok("201", "Observation/obs-1"),
			find:  found,
			want:  Delivered{ID: "obs-9", HTTPStatus: 200, Existing: true},
			finds: 1,
		},
		{name: "201 bare not found", write: ok("201", "Observation/obs-1"), class: ClassUnknown, code: "duplicate", finds: 2},
		{
			name:  "201 ALREADY_EXIST",
			write: ok("201 ALREADY_EXIST", ""),
			find:  found,
			want:  Delivered{ID: "obs-9", HTTPStatus: 200, Existing: true},
			finds: 1,
		},
		{name: "202 MULTIPLE_PATIENT", write: ok("202 MULTIPLE_PATIENT", ""), class: ClassPermanentData, code: "202"},
		{
			name:  "201 Created with an error outcome",
			write: reply(200, "", entryAnswer("201 Created", "Observation/obs-1", outcome("error", "business-rule"))),
			class: ClassPermanentData,
			code:  "business-rule",
		},
		{name: "2 without a reason", write: reply(200, "", entryAnswer("2", "", outcome("error", "processing"))), class: ClassUnknown, code: "2"},
		{
			name:  "2 with a word that is none of FHIR's",
			write: reply(200, "", entryAnswer("2", "", outcome("error", "john-smith"))),
			class: ClassUnknown,
			code:  "2",
		},
		{name: "2 with another number", write: reply(200, "", entryAnswer("2", "", numbered("613"))), class: ClassPermanentData, code: "613"},
		{
			name:  "2 with a reason",
			write: reply(200, "", entryAnswer("2", "", outcome("error", "structure"))),
			class: ClassPermanentData,
			code:  "structure",
		},
		{name: "200 bare", write: ok("200", "Observation/obs-1"), class: ClassUnknown, code: "200"},
		{name: "unknown number", write: ok("777", ""), class: ClassUnknown, code: "777"},
		{name: "a number that could be anybody's", write: ok("5550102", ""), class: ClassUnknown, code: "unknown_status"},
		{name: "1 as a number", write: numeric("1", "Observation/obs-1"), want: Delivered{ID: "obs-1", HTTPStatus: 200}},
		{name: "2 as a number", write: numeric("2", ""), class: ClassUnknown, code: "2"},
		{
			name:  "201 as a number",
			write: numeric("201", "Observation/obs-1"),
			find:  found,
			want:  Delivered{ID: "obs-9", HTTPStatus: 200, Existing: true},
			finds: 1,
		},
		{name: "613 as a number", write: numeric("613", ""), class: ClassPermanentData, code: "613"},
		{name: "no number at all", write: numeric("null", ""), class: ClassUnknown, code: "unknown_status"},
		{name: "neither text nor number", write: numeric("true", ""), class: ClassUnknown, code: "malformed_response"},
		{name: "no number", write: ok(personal, ""), class: ClassUnknown, code: "unknown_status"},
		{name: "empty status", write: ok("", "Observation/obs-1"), class: ClassUnknown, code: "unknown_status"},
		{name: "no entry", write: reply(200, "", `{"resourceType":"Bundle","type":"transaction-response"}`), class: ClassUnknown, code: "no_id"},
		{
			name:  "entry 409 Conflict",
			write: ok("409 Conflict", ""),
			find:  found,
			want:  Delivered{ID: "obs-9", HTTPStatus: 200, Existing: true},
			finds: 1,
		},
		{name: "entry 412", write: ok("412 Precondition Failed", ""), class: ClassPermanentData, code: "http_412"},
		{
			name:  "entry 422",
			write: reply(200, "", entryAnswer("422 Unprocessable Entity", "", outcome("error", "code-invalid"))),
			class: ClassPermanentData,
			code:  "code-invalid",
		},
		{name: "entry 429", write: ok("429", ""), class: ClassThrottled, code: "throttled"},
		{name: "entry 503", write: ok("503", ""), class: ClassUnknown, code: "http_503"},
	})
}

// locationCases are the places of the id.
func locationCases() []writeCase {
	return onlyIn(WriteObservation, []writeCase{
		{
			name:  "absolute location",
			write: reply(201, "Location: https://ehr.example/fhir/r4/X/Observation/obs-1/_history/1", ""),
			want:  Delivered{ID: "obs-1", HTTPStatus: 201},
		},
		{
			name:  "relative location",
			write: reply(201, "Location: Observation/obs-1", stored("obs-2")),
			want:  Delivered{ID: "obs-1", HTTPStatus: 201},
		},
		{
			name:  "location without id",
			write: reply(201, "Location: /Observation/", stored("obs-2")),
			want:  Delivered{ID: "obs-2", HTTPStatus: 201},
		},
		{name: "id in the body", write: reply(201, "", stored("obs-2")), want: Delivered{ID: "obs-2", HTTPStatus: 201}},
		{name: "exists already", write: reply(200, "", stored("obs-2")), want: Delivered{ID: "obs-2", HTTPStatus: 200, Existing: true}},
		{name: "no content type", write: reply(201, "Content-Type: ", stored("obs-2")), want: Delivered{ID: "obs-2", HTTPStatus: 201}},
	})
}

func onlyIn(mode WriteMode, cases []writeCase) []writeCase {
	for i := range cases {
		cases[i].only = mode
	}
	return cases
}
