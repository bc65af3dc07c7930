package ecw

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// personal is contained in every free text that eCW sends in these tests. The client must never show it.
const personal = "Jane Doe born 1950-01-01"

var (
	testID = Identifier{System: "https://vantrexia.com/fhir/sid/observation", Value: "d4e5f6a7-b8c9-0123-defa-234567890123"}

	testResource = json.RawMessage(`{"resourceType":"Observation",` +
		`"identifier":[{"system":"` + testID.System + `","value":"` + testID.Value + `"}],"status":"final",` +
		`"category":[{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/observation-category","code":"vital-signs"}]}],` +
		`"code":{"coding":[{"system":"http://loinc.org","code":"8310-5"}]},` +
		`"subject":{"reference":"Patient/pat-1"},"effectiveDateTime":"2026-02-06T10:30:00Z",` +
		`"device":{"display":"TEMP-1"},"valueQuantity":{"value":98.60,"unit":"degrees F","system":"http://unitsofmeasure.org","code":"[degF]"}}`)

	// testKey is made once: generating keys takes longer than all the rest.
	testKey = sync.OnceValue(func() *Key {
		k, err := GenerateKey("vantrexia-ecw-key-1")
		if err != nil {
			panic(err)
		}
		return k
	})
)

// ehr is an HTTP server whose answers each test sets. It records the requests.
type ehr struct {
	*httptest.Server
	token http.HandlerFunc // POST /token
	write http.HandlerFunc // every other POST
	find  http.HandlerFunc // every GET

	logs *syncBuffer

	mu       sync.Mutex
	received []received
}

type received struct {
	method, url string
	header      http.Header
	body        []byte
}

func newEHR(t *testing.T) *ehr {
	t.Helper()
	e := &ehr{logs: &syncBuffer{}, token: grant(`{"access_token":"tok-1","token_type":"Bearer","expires_in":300}`)}
	e.find = reply(200, "", searchset(""))

	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		e.mu.Lock()
		e.received = append(e.received, received{r.Method, r.URL.String(), r.Header.Clone(), body})
		e.mu.Unlock()

		switch {
		case r.URL.Path == "/token":
			e.token(w, r)
		case r.Method == http.MethodPost:
			e.write(w, r)
		default:
			e.find(w, r)
		}
	}))

	t.Cleanup(e.Close)
	return e
}

func (e *ehr) config() Config {
	return Config{
		ClientID:     "client-1",
		ClientSecret: "the-secret",
		PracticeCode: "FFHEDD",
		Key:          testKey(),
		TokenURL:     e.URL + "/token",
		FHIRBaseURL:  e.URL + "/fhir/r4/{practice_code}",
		Logger:       slog.New(slog.NewJSONHandler(e.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

func (e *ehr) client(t *testing.T, change ...func(*Config)) *Client {
	t.Helper()
	cfg := e.config()
	for _, c := range change {
		c(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.wire.http.CloseIdleConnections)
	return c
}

// requests returns the requests of a kind: "token", "POST" or "GET".
func (e *ehr) requests(kind string) []received {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []received

	for _, r := range e.received {
		k := r.method
		if strings.HasPrefix(r.url, "/token") {
			k = "token"
		}
		if k == kind {
			out = append(out, r)
		}
	}

	return out
}

// grant answers the token endpoint with 200 and body.
func grant(body string) http.HandlerFunc { return reply(200, "", body) }

// reply answers with a status, one header ("Name: value", or "") and a JSON body.
func reply(status int, header, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/fhir+json; charset=utf-8")
		if name, value, ok := strings.Cut(header, ": "); ok {
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// first answers the first request with a and the later ones with b.
func first(a, b http.HandlerFunc) http.HandlerFunc {
	var once sync.Once
	return func(w http.ResponseWriter, r *http.Request) {
		h := b
		once.Do(func() { h = a })
		h(w, r)
	}
}

// hang answers nothing until the client gives up.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// reset ends the connection with a TCP reset.
func reset(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.Close()
}

// hangUp closes the connection instead of answering.
func hangUp(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	_ = conn.Close()
}

// outcome is an OperationOutcome with one issue and personal free text.
func outcome(severity, code string) string {
	return fmt.Sprintf(`{"resourceType":"OperationOutcome","text":{"status":"generated","div":"<div>%[3]s</div>"},`+
		`"issue":[{"severity":%[1]q,"code":%[2]q,"diagnostics":%[3]q,"details":{"text":%[3]q}}]}`,
		severity, code, personal)
}

// numbered is an OperationOutcome that carries one of eCW's numbers.
func numbered(number string) string {
	return fmt.Sprintf(`{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"processing",`+
		`"details":{"coding":[{"code":%q,"display":%q}]}}]}`, number, personal)
}

// entryAnswer is a transaction-response with one entry.
func entryAnswer(status, location, outcome string) string {
	if outcome == "" {
		outcome = "null"
	}
	return fmt.Sprintf(`{"resourceType":"Bundle","type":"transaction-response","identifier":{"value":"x"},`+
		`"entry":[{"response":{"status":%q,"location":%q,"outcome":%s}}]}`,
		status, location, outcome)
}

// stored is an Observation as eCW holds it.
func stored(id string) string {
	return `{"resourceType":"Observation","id":"` + id + `",` + string(testResource[len(`{"resourceType":"Observation",`):])
}

// searchset is a search result with one Observation, or none.
func searchset(resource string) string {
	if resource == "" {
		return `{"resourceType":"Bundle","type":"searchset","total":0}`
	}
	return `{"resourceType":"Bundle","type":"searchset","total":1,"entry":[{"resource":` + resource + `,"search":{"mode":"match"}}]}`
}

// asError fails the test unless err is an *Error without personal text.
func asError(t *testing.T, err error) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error is %T %v, want *Error", err, err)
	}
	if e.Message == "" || e.Code == "" || e.Op == "" {
		t.Errorf("incomplete error: %+v", e)
	}
	if strings.Contains(fmt.Sprintf("%v %+v %s", e, *e, e.LogValue()), "Jane") {
		t.Errorf("the error contains personal text: %v", e)
	}
	return e
}

func (e *ehr) checkLogs(t *testing.T) {
	t.Helper()
	for _, secret := range []string{"Jane", "tok-1", "tok-2", "the-secret", "98.6", "pat-1"} {
		if strings.Contains(e.logs.String(), secret) {
			t.Errorf("the logs contain %q:\n%s", secret, e.logs)
		}
	}
}

// syncBuffer is a bytes.Buffer for concurrent writers.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func mustAuthenticate(t *testing.T, c *Client) {
	t.Helper()
	if err := c.Authenticate(context.Background()); err != nil {
		t.Fatal(err)
	}
}
