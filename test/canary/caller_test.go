package canary_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// utterance is an error that somebody was shown.
type utterance struct {
	place  string
	answer string // with its headers
	sent   string // by the caller who was shown it
}

// said keeps them.
type said struct {
	mu  sync.Mutex
	all []utterance
}

func (s *said) add(u utterance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, u)
}

// caller asks the API.
type caller struct {
	t      *testing.T
	system *system
	token  string
}

func (s *system) caller(t *testing.T, token string) caller { return caller{t, s, token} }

// in is the caller in a part of the test.
func (c caller) in(t *testing.T) caller { return caller{t, c.system, c.token} }

// answer is what the API answers.
type answer struct {
	t      *testing.T
	what   string
	status int
	header http.Header
	body   string
}

// do makes a request; headers are names and values in turn. Every refusal is noted.
func (c caller) do(method, path string, body any, headers ...string) answer {
	c.t.Helper()
	text, is := body.(string)
	if !is && body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			c.t.Fatal(err)
		}
		text = string(encoded)
	}

	req, err := http.NewRequestWithContext(c.t.Context(), method, c.system.url("api")+path, strings.NewReader(text))
	if err != nil {
		c.t.Fatal(err)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}

	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}

	route, _, _ := strings.Cut(path, "?")
	if res.StatusCode >= 400 {
		plainPath, _ := url.PathUnescape(path)
		c.system.said.add(utterance{
			place:  fmt.Sprintf("error answer %d of %s %s", res.StatusCode, method, routeOf(route)),
			answer: fmt.Sprint(res.Header, " ", string(got)),
			sent:   fmt.Sprint(path, " ", plainPath, " ", text, " ", headers),
		})
	}
	return answer{c.t, method + " " + path, res.StatusCode, res.Header, string(got)}
}

// routeOf is a path without ids.
func routeOf(path string) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	for i, part := range parts {
		if strings.ContainsAny(part, "0123456789%") && part != "v1" {
			parts[i] = "{id}"
		}
	}
	return "/" + strings.Join(parts, "/") + "/"
}

// want fails the test unless the status is one of these.
func (a answer) want(statuses ...int) answer {
	a.t.Helper()
	for _, status := range statuses {
		if a.status == status {
			return a
		}
	}
	a.t.Fatalf("%s gave %d, want %v: %s", a.what, a.status, statuses, a.body)
	return a
}

// text follows a path of names through the JSON body.
func (a answer) text(path ...string) string {
	a.t.Helper()
	var v any
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		a.t.Fatalf("%s: %v in %s", a.what, err, a.body)
	}
	for _, name := range path {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}
