package api_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/account"
)

// caller is somebody who uses the API over HTTP.
type caller struct {
	tb     testing.TB
	base   string
	client *http.Client
	token  string
	secret func(...string) // notes what must not be logged
	// mayFail allows internal errors, for a test that breaks the API's own parts.
	mayFail bool
}

// as is the same caller in another role.
func (c caller) as(role account.Role) caller {
	c.tb.Helper()
	token, err := testSigner(c.tb).Sign("tests", role, "", time.Hour)
	if err != nil {
		c.tb.Fatal(err)
	}
	return c.with(token)
}

func (c caller) with(token string) caller {
	c.token = token
	c.secret(token)
	return c
}

// in is the same caller in a subtest.
func (c caller) in(tb testing.TB) caller {
	c.tb = tb
	return c
}

// answer is a response with its body read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func textBody(text string) io.Reader { return strings.NewReader(text) }

// do sends one request. header holds names and values in turn; an empty value removes the header.
func (c caller) do(method, path, body string, header ...string) answer {
	c.tb.Helper()
	return c.exchange(method, path, textBody(body), []byte(body), header)
}

// send sends a body without its length.
func (c caller) send(method, path string, body io.Reader, header ...string) answer {
	c.tb.Helper()
	return c.exchange(method, path, body, nil, header)
}

// exchange checks every answer, and every request that was taken, against the contract. known is the body
// once more, if it is known.
func (c caller) exchange(method, path string, body io.Reader, known []byte, header []string) answer {
	c.tb.Helper()
	req, err := http.NewRequestWithContext(c.tb.Context(), method, c.base+path, body)
	if err != nil {
		c.tb.Fatal(err)
	}

	req.Header.Set("Content-Type", "application/json")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}

	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Del(header[i])
		if header[i+1] != "" {
			req.Header.Set(header[i], header[i+1])
		}
	}

	res, err := c.client.Do(req)
	if err != nil {
		c.tb.Fatal(err)
	}
	defer res.Body.Close()

	text, err := io.ReadAll(res.Body)
	if err != nil {
		c.tb.Fatal(err)
	}

	a := answer{status: res.StatusCode, header: res.Header, body: text}
	err = errors.Join(a.wellFormed(), a.guarded(path), loadContract(c.tb).holds(req, known, a))
	if err == nil && a.status == http.StatusInternalServerError && !c.mayFail {
		err = fmt.Errorf("an internal error")
	}
	if err != nil {
		c.tb.Errorf("%s %s: %v: %d %s", method, path, err, a.status, clip(string(text)))
	}
	return a
}

// guarded checks the headers that every answer of the API has.
func (a answer) guarded(path string) error {
	if a.header.Get("X-Content-Type-Options") != "nosniff" {
		return fmt.Errorf("a browser may guess the type of the answer")
	}
	if !strings.HasPrefix(path, "/api/") {
		return nil
	}

	if a.header.Get("Cache-Control") != "no-store" {
		return fmt.Errorf("the answer may be kept in a cache")
	}
	for _, name := range []string{"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"} {
		if _, err := strconv.Atoi(a.header.Get(name)); err != nil {
			return fmt.Errorf("%s is %q", name, a.header.Get(name))
		}
	}
	return nil
}

// wellFormed checks what the contract does not say of every answer: the body is JSON, and errors have one
// form and a text.
func (a answer) wellFormed() error {
	media := a.header.Get("Content-Type")
	if !strings.HasSuffix(media, "json") || strings.HasSuffix(media, "ndjson") { // the contract knows where this may be
		return nil
	}

	if !json.Valid(a.body) {
		return fmt.Errorf("the body is not JSON")
	}

	if challenge := a.header.Get("WWW-Authenticate"); (a.status == http.StatusUnauthorized) != (challenge == "Bearer") {
		return fmt.Errorf("WWW-Authenticate is %q", challenge)
	}

	if a.status < 400 || a.get("database") != nil { // /readyz answers 503 in a shape of its own
		return nil
	}
	if a.status == http.StatusBadGateway { // failures of eCW have the form that the tutorial prescribes
		own := slices.DeleteFunc(a.keys(), func(key string) bool { return key == "ecw_said" })
		if !slices.Equal(own, []string{"code", "hint", "message", "status"}) || a.text("status") != "error" || a.text("message") == "" ||
			a.text("hint") == "" {
			return fmt.Errorf("not a failure of eCW's")
		}
		return nil
	}

	want := []string{"code", "detail"}
	if a.code() == "invalid" || a.code() == "patient_mismatch" {
		want = append(want, "fields")
	}
	if a.code() == "account_locked" {
		want = append(want, "locked_until")
	}

	if got := a.keys(); !slices.Equal(got, want) {
		return fmt.Errorf("the error's members are %v, want %v", got, want)
	}

	if a.text("code") == "" || a.text("detail") == "" {
		return fmt.Errorf("the error does not explain itself")
	}
	return nil
}

// want fails the test unless the answer has this status and, if it is an error, this code.
func (a answer) want(tb testing.TB, status int, code string) answer {
	tb.Helper()
	if a.status != status || a.code() != code {
		tb.Fatalf("got %d %s, want %d %s", a.status, clip(string(a.body)), status, code)
	}
	return a
}

// get follows a path of member names and list indexes into the body; nil if it leads nowhere. Numbers are
// json.Number.
func (a answer) get(path ...any) any {
	decoder := json.NewDecoder(bytes.NewReader(a.body))
	decoder.UseNumber()
	var value any
	if decoder.Decode(&value) != nil {
		return nil
	}

	for _, step := range path {
		switch step := step.(type) {
		case string:
			object, _ := value.(map[string]any)
			value = object[step]
		case int:
			list, _ := value.([]any)
			if step >= len(list) {
				return nil
			}
			value = list[step]
		}
	}

	return value
}

func (a answer) text(path ...any) string {
	s, _ := a.get(path...).(string)
	return s
}

// part is the value at a path, as if it were an answer of its own.
func (a answer) part(path ...any) answer {
	body, err := json.Marshal(a.get(path...))
	if err != nil {
		panic(err) // it was decoded from JSON
	}
	return answer{body: body}
}

func (a answer) code() string { return a.text("code") }

// keys are the members of the body, sorted.
func (a answer) keys() []string {
	object, _ := a.get().(map[string]any)
	return slices.Sorted(maps.Keys(object))
}

// fields are the broken fields that an error names.
func (a answer) fields() (names []string) {
	list, _ := a.get("fields").([]any)
	for i := range list {
		names = append(names, a.text("fields", i, "field"))
	}
	return names
}

// number is how get returns a number: as it was written.
func number(s string) any { return json.Number(s) }

func clip(s string) string { return s[:min(len(s), 600)] }

// numbers makes readings and patients that no other test has.
var numbers atomic.Int64

// Patients that the EHR knows.
const (
	kevin = "ecw-patient-2004454"
	susan = "ecw-patient-1614502"
)

// bloodPressure is the reading of the API reference's example.
func bloodPressure(patientID string) string {
	return `{"patient_id":"` + patientID + `","observation_type":"blood_pressure","effective_at":"2026-02-06T10:30:00Z",` +
		`"device":"BP-OMRON-7250","values":{"systolic":142,"diastolic":92,"heart_rate":78}}`
}

// weight is a reading at a time that no other reading has.
func weight(patientID string) string {
	at := time.Date(2026, 2, 6, 10, 30, 0, 0, time.UTC).Add(time.Duration(numbers.Add(1)) * time.Second)
	return `{"patient_id":"` + patientID + `","observation_type":"weight","effective_at":"` + at.Format(time.RFC3339) +
		`","device":"SCALE-7","values":{"value":81.60,"unit":"kg"}}`
}

// post stores a reading and returns its id.
func (c caller) post(reading string) (id string) {
	c.tb.Helper()
	return c.do("POST", "/api/v1/observations/", reading).want(c.tb, http.StatusCreated, "").text("id")
}

func (c caller) observation(id string) answer {
	c.tb.Helper()
	return c.do("GET", "/api/v1/observations/"+id+"/", "").want(c.tb, http.StatusOK, "")
}

// await waits until the newest transmission of an observation has the status, and returns the observation.
func (c caller) await(id, status string) (a answer) {
	c.tb.Helper()
	eventually(c.tb, id+" "+status, func() bool {
		a = c.observation(id)
		return a.text("fhir_status") == status
	})
	return a
}

func (c caller) transmit(id string) answer {
	c.tb.Helper()
	return c.do("POST", "/api/v1/fhir/observations/"+id+"/transmit/", "")
}
