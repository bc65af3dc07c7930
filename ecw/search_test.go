package ecw

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestFindObservation(t *testing.T) {
	t.Parallel()
	theirs := strings.ReplaceAll(stored("obs-7"), testID.Value, "somebody-else")
	for _, tc := range []struct {
		name   string
		find   http.HandlerFunc
		id     string // "" with no class: not found
		class  Class
		code   string
		tokens int
	}{
		{name: "found", find: reply(200, "", searchset(stored("obs-1"))), id: "obs-1", tokens: 1},
		{name: "empty", find: reply(200, "", searchset("")), tokens: 1},
		{name: "the server ignored the identifier", find: bundleOf(false, theirs), class: ClassRetryable, code: "incomplete_search", tokens: 1},
		{name: "ours among others", find: bundleOf(true, theirs, outcome("warning", "informational"), stored("obs-1")), id: "obs-1", tokens: 1},
		{name: "others and more pages", find: bundleOf(true, theirs), class: ClassRetryable, code: "incomplete_search", tokens: 1},
		{name: "an empty page with a next one", find: bundleOf(true), class: ClassRetryable, code: "incomplete_search", tokens: 1},
		{name: "twice in the chart", find: bundleOf(false, stored("obs-1"), stored("obs-2")), id: "obs-1", tokens: 1},
		{name: "401 once", find: first(reply(401, "", ""), reply(200, "", searchset(stored("obs-1")))), id: "obs-1", tokens: 2},
		{name: "401 twice", find: reply(401, "", ""), class: ClassPermanentCredentials, code: "unauthorized", tokens: 2},
		{name: "403", find: reply(403, "", ""), class: ClassPermanentCredentials, code: "forbidden", tokens: 1},
		{name: "429", find: reply(429, "", ""), class: ClassThrottled, code: "throttled", tokens: 1},
		{name: "400", find: reply(400, "", outcome("error", "not-supported")), class: ClassPermanentData, code: "not-supported", tokens: 1},
		{name: "408", find: reply(408, "", ""), class: ClassRetryable, code: "http_408", tokens: 1},
		{name: "503", find: reply(503, "", ""), class: ClassRetryable, code: "http_503", tokens: 1},
		{
			name:   "outcome instead of a Bundle",
			find:   reply(200, "", outcome("error", "exception")),
			class:  ClassRetryable,
			code:   "exception",
			tokens: 1,
		},
		{
			name:   "an Observation instead of a Bundle",
			find:   reply(200, "", stored("obs-1")),
			class:  ClassRetryable,
			code:   "malformed_response",
			tokens: 1,
		},
		{name: "empty body", find: reply(200, "", ""), class: ClassRetryable, code: "malformed_response", tokens: 1},
		{
			name:   "entries that are no list",
			find:   reply(200, "", `{"resourceType":"Bundle","entry":{}}`),
			class:  ClassRetryable,
			code:   "malformed_response",
			tokens: 1,
		},
		{name: "no entries", find: reply(200, "", `{"resourceType":"Bundle","entry":null}`), tokens: 1},
		{
			name:   "more entries than are read",
			find:   bundleOf(false, strings.Split(strings.Repeat(theirs+"\n", 1000)+stored("obs-1"), "\n")...),
			class:  ClassRetryable,
			code:   "malformed_response",
			tokens: 1,
		},
		{name: "HTML", find: reply(200, "Content-Type: text/html", "<html>"), class: ClassRetryable, code: "malformed_response", tokens: 1},
		{name: "truncated", find: reply(200, "", searchset(stored("obs-1"))[:90]), class: ClassRetryable, code: "malformed_response", tokens: 1},
		{name: "reset", find: reset, class: ClassRetryable, code: "reset", tokens: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			e.find = tc.find
			d, found, err := e.client(t).FindObservation(context.Background(), testID, "pat-1")

			switch {
			case tc.class != "":
				if ee := asError(t, err); ee.Class != tc.class || ee.Code != tc.code || found {
					t.Errorf("got %v, want %s %s", ee, tc.class, tc.code)
				}
			case err != nil || found != (tc.id != "") || d.ID != tc.id || d.Existing != found:
				t.Errorf("got %+v %v %v, want id %q", d, found, err, tc.id)
			}

			if n := len(e.requests("token")); n != tc.tokens {
				t.Errorf("%d token requests, want %d", n, tc.tokens)
			}

			e.checkLogs(t)
		})
	}
}

// TestFindObservationWithCategory: without the resource the category is unknown, so a server that demands one
// is asked with each category that we write.
func TestFindObservationWithCategory(t *testing.T) {
	t.Parallel()
	refuse := reply(400, "", outcome("error", "invalid"))
	found, empty := reply(200, "", searchset(stored("obs-1"))), reply(200, "", searchset(""))

	for _, tc := range []struct {
		name    string
		answers map[string]http.HandlerFunc // by category
		asked   string
		id      string // "" with no class: not found
		class   Class
		code    string
	}{
		{name: "not needed", answers: map[string]http.HandlerFunc{"": empty}, asked: "-"},
		{name: "vital sign", answers: map[string]http.HandlerFunc{"": refuse, "vital-signs": found}, asked: "- vital-signs", id: "obs-1"},
		{
			name:    "glucose",
			answers: map[string]http.HandlerFunc{"": refuse, "vital-signs": empty, "laboratory": found},
			asked:   "- vital-signs laboratory",
			id:      "obs-1",
		},
		{
			name:    "absent",
			answers: map[string]http.HandlerFunc{"": refuse, "vital-signs": empty, "laboratory": empty},
			asked:   "- vital-signs laboratory",
		},
		{
			name:    "one category fails",
			answers: map[string]http.HandlerFunc{"": refuse, "vital-signs": empty, "laboratory": reply(503, "", "")},
			asked:   "- vital-signs laboratory",
			class:   ClassRetryable,
			code:    "http_503",
		},
		{
			name:    "refused in all forms",
			answers: map[string]http.HandlerFunc{"": refuse, "vital-signs": refuse},
			asked:   "- vital-signs vital-signs",
			class:   ClassPermanentData,
			code:    "invalid",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			e.find = func(w http.ResponseWriter, r *http.Request) { tc.answers[r.URL.Query().Get("category")](w, r) }
			d, found, err := e.client(t).FindObservation(context.Background(), testID, "pat-1")

			switch {
			case tc.class != "":
				if ee := asError(t, err); ee.Class != tc.class || ee.Code != tc.code || found {
					t.Errorf("got %v, want %s %s", ee, tc.class, tc.code)
				}
			case err != nil || found != (tc.id != "") || d.ID != tc.id:
				t.Errorf("got %+v %v %v, want id %q", d, found, err, tc.id)
			}

			var asked []string
			for _, r := range e.requests("GET") {
				u, err := url.Parse(r.url)
				if err != nil || !strings.HasSuffix(u.Query().Get("identifier"), testID.Value) {
					t.Errorf("asked %s", r.url)
				}
				asked = append(asked, orDefault(u.Query().Get("category"), "-"))
			}

			if got := strings.Join(asked, " "); got != tc.asked {
				t.Errorf("asked for categories %s, want %s", got, tc.asked)
			}
		})
	}
}
