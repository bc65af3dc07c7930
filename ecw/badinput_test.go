package ecw_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vantrexia/vantrexia/ecw"
)

// operations are the client's requests to eCW, by the sandbox's names.
var operations = map[string]func(*ecw.Client) error{
	"token": func(c *ecw.Client) error { return c.Authenticate(context.Background()) },
	"create": func(c *ecw.Client) error {
		resource, id := heartRate(patient)
		_, err := c.CreateObservation(context.Background(), resource, id)
		return err
	},
	"search": func(c *ecw.Client) error {
		resource, id := heartRate(patient)
		_, _, err := c.FindDelivered(context.Background(), resource, id)
		return err
	},
	"read": func(c *ecw.Client) error {
		_, err := c.ReadPatient(context.Background(), patient)
		return err
	},
}

// TestMalformedAnswers: after a malformed answer the client returns an error with a class, sends neither the
// token nor the assertion to another host, and works as before.
func TestMalformedAnswers(t *testing.T) {
	t.Parallel()
	codes := map[string]string{"html": "malformed_response", "malformed_json": "malformed_response", "wrong_type": "malformed_response",
		"truncated": "reset", "large_body": "response_too_large", "redirect": "redirect"}

	for kind, code := range codes {
		for target, ask := range operations {
			for _, mode := range []ecw.WriteMode{ecw.WriteObservation, ecw.WriteBundle} {
				t.Run(kind+"/"+target+"/"+string(mode), func(t *testing.T) {
					t.Parallel()
					stranger, reached := recorder(t)
					client, url := start(t, mode)
					more := ""

					if kind == "redirect" {
						more = `,"location":"` + stranger + `/oauth/oauth2/token"`
					}

					breakSandbox(t, url, `{"kind":"`+kind+`","target":"`+target+`","count":1`+more+`}`)
					var e *ecw.Error
					if err := ask(client); !errors.As(err, &e) {
						t.Fatalf("got %v", err)
					}

					want := ecw.Error{Class: ecw.ClassRetryable, Code: code}
					switch {
					case target == "create":
						want.Class = ecw.ClassUnknown
					case target == "token" && kind == "redirect":
						want.Code = "http_307"
					}

					if e.Class != want.Class || e.Code != want.Code {
						t.Errorf("got %v, want %s %s", e, want.Class, want.Code)
					}
					if err := ask(client); err != nil {
						t.Errorf("afterwards: %v", err)
					}
					if n := reached.Load(); n != 0 {
						t.Errorf("another host got %d requests", n)
					}
				})
			}
		}
	}
}

// recorder is another host, which counts the requests that it gets.
func recorder(t *testing.T) (string, *atomic.Int32) {
	t.Helper()
	var reached atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"x","token_type":"bearer"}`)
	}))
	t.Cleanup(s.Close)
	return s.URL, &reached
}

func TestTokenWithoutExpiry(t *testing.T) {
	t.Parallel()
	client, url := start(t, ecw.WriteObservation)
	fault(t, url, "no_expires_in", "token")
	for range 3 {
		if err := operations["create"](client); err != nil {
			t.Error(err)
		}
	}
	if n := statsOf(t, url).Tokens.Issued; n != 1 {
		t.Errorf("%d tokens for three deliveries at once", n)
	}
}

// TestMemoryIsBounded: the memory that an answer takes is bounded by the limit of its size, whatever its size
// and form. The test measures the whole process, so it does not run in parallel.
func TestMemoryIsBounded(t *testing.T) {
	const (
		sent    = 256 << 20
		allowed = 32 << 20
	)

	endless := func(w http.ResponseWriter, start, part string) {
		chunk := []byte(strings.Repeat(part, 64<<10/len(part)))
		_, err := io.WriteString(w, start)
		for n := 0; err == nil && n < sent; n += len(chunk) {
			_, err = w.Write(chunk)
		}
	}

	for name, answer := range map[string]http.HandlerFunc{
		"spaces": func(w http.ResponseWriter, _ *http.Request) { endless(w, "{}", " ") },
		"arrays": func(w http.ResponseWriter, _ *http.Request) { endless(w, "", "[") },
		"entries": func(w http.ResponseWriter, _ *http.Request) {
			endless(w, `{"resourceType":"Bundle","entry":[{}`, ",{}")
		},
		"a long string":   func(w http.ResponseWriter, _ *http.Request) { endless(w, `{"access_token":"`, "x") },
		"entries, closed": closed(`{"resourceType":"Bundle","entry":[{}`, ",{}", `]}`),
		"issues, closed":  closed(`{"resourceType":"OperationOutcome","issue":[{}`, ",{}", `]}`),
		"links, closed":   closed(`{"resourceType":"Bundle","link":[{}`, ",{}", `],"entry":{}}`),
		"parts, closed": closed(`{"resourceType":"Bundle","link":[{"relation":"next"}],`+
			`"entry":[{"resource":{"resourceType":"Observation","id":"a","component":[{}`, ",{}", `]}}]}`),
		"arrays, closed": closed("", "[", ""),
	} {
		for target, ask := range operations {
			if target == "read" {
				continue // bounded by a higher limit
			}

			t.Run(name+"/"+target, func(t *testing.T) {
				client := answering(t, target, answer)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				err := ask(client)
				runtime.ReadMemStats(&after)
				var e *ecw.Error
				if !errors.As(err, &e) || e.Class == "" {
					t.Errorf("got %v", err)
				}

				if cost := after.TotalAlloc - before.TotalAlloc; cost > allowed {
					t.Errorf("allocated %d MB in all, want at most %d", cost>>20, allowed>>20)
				}
			})
		}
	}
}

// closed is an answer just below the limit, in the form that takes the most memory to decode.
func closed(start, part, end string) http.HandlerFunc {
	body := start + strings.Repeat(part, (1<<20-len(start)-len(end))/len(part)) + end
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
}

// answering is a client of a server that gives this answer to requests of the target, and otherwise grants
// tokens.
func answering(t *testing.T, target string, answer http.HandlerFunc) *ecw.Client {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/token" && target != "token" {
			fmt.Fprint(w, `{"access_token":"x","token_type":"bearer","expires_in":300}`)
			return
		}
		answer(w, r)
	}))

	t.Cleanup(s.Close)
	client, err := ecw.New(ecw.Config{
		ClientID:     "client-1",
		PracticeCode: "FFHEDD",
		Key:          sharedKey(),
		TokenURL:     s.URL + "/token",
		FHIRBaseURL:  s.URL,
	})
	if err != nil {
		t.Fatal(err)
	}

	return client
}
