package ecw

import (
	"bytes"
	"context"
	"net/http"
	"sync"
	"testing"
	"time"
)

// conditional answers a create with a condition by a, and one without by b.
func conditional(a, b http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		_, _ = body.ReadFrom(r.Body)
		if r.Header.Get("If-None-Exist") != "" || bytes.Contains(body.Bytes(), []byte("ifNoneExist")) {
			a(w, r)
			return
		}
		b(w, r)
	}
}

// TestServerWithoutConditionalCreate lists what happens if eCW refuses the condition of a create.
func TestServerWithoutConditionalCreate(t *testing.T) {
	t.Parallel()
	unsupported := outcome("error", "not-supported")
	refuse := reply(400, "", unsupported)
	created := reply(201, "Location: Observation/obs-1", "")
	found := reply(200, "", searchset(stored("obs-9")))
	fresh, existing := Delivered{ID: "obs-1", HTTPStatus: 201}, Delivered{ID: "obs-9", HTTPStatus: 200, Existing: true}

	for _, mode := range []WriteMode{WriteObservation, WriteBundle} {
		runWriteCases(t, mode, []writeCase{
			{name: "400, not there", write: conditional(refuse, created), want: fresh, posts: 2, finds: 1},
			{name: "400, there already", write: conditional(refuse, created), find: found, want: existing, finds: 1},
			{name: "412", write: conditional(reply(412, "", unsupported), created), want: fresh, posts: 2, finds: 1},
			{name: "422", write: conditional(reply(422, "", unsupported), created), want: fresh, posts: 2, finds: 1},
			{name: "501", write: conditional(reply(501, "", unsupported), created), want: fresh, posts: 2, finds: 1},
			{
				name:  "in the entry",
				write: conditional(reply(200, "", entryAnswer("400 Bad Request", "", unsupported)), created),
				want:  fresh,
				posts: 2,
				finds: 1,
			},
			{name: "search fails", write: conditional(refuse, created), find: reply(503, "", ""), class: ClassRetryable, code: "http_503", finds: 1},
			{
				name:  "search throttled",
				write: conditional(refuse, created),
				find:  reply(429, "", ""),
				class: ClassThrottled,
				code:  "throttled",
				finds: 1,
			},
			{
				name:  "the second create is refused",
				write: conditional(refuse, reply(422, "", outcome("error", "invariant"))),
				class: ClassPermanentData,
				code:  "invariant",
				posts: 2,
				finds: 1,
			},
			{name: "something else is not supported", write: refuse, class: ClassPermanentData, code: "not-supported", posts: 2, finds: 1},
			{name: "the second create is lost", write: conditional(refuse, reset), class: ClassUnknown, code: "reset", posts: 2, finds: 1},
			{
				name:  "the second create is late",
				write: conditional(refuse, reply(409, "", "")),
				find:  first(reply(200, "", searchset("")), found),
				want:  existing,
				posts: 2,
				finds: 2,
			},
			{
				name:  "412 because several match",
				write: conditional(reply(412, "", outcome("error", "multiple-matches")), created),
				class: ClassPermanentData,
				code:  "multiple-matches",
			},
			{name: "wrong address", write: conditional(reply(405, "", unsupported), created), class: ClassPermanentData, code: "not-supported"},
		})
	}
}

// TestUnconditionalCreateIsTheSameOtherwise: the second create differs from the first only by the condition.
func TestUnconditionalCreateIsTheSameOtherwise(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	e.write = conditional(reply(400, "", outcome("error", "not-supported")), reply(201, "Location: Observation/obs-1", ""))
	if _, err := e.client(t).CreateObservation(context.Background(), testResource, testID); err != nil {
		t.Fatal(err)
	}

	posts := e.requests("POST")
	posts[0].header.Del("If-None-Exist")
	for _, p := range posts {
		if p.url != "/fhir/r4/FFHEDD/Observation" || string(p.body) != string(testResource) || len(p.header["If-None-Exist"]) != 0 ||
			p.header.Get("Authorization") != "Bearer tok-1" || p.header.Get("Prefer") != "return=representation" {
			t.Errorf("sent %s %s %v", p.url, p.body, p.header)
		}
	}

	e.checkLogs(t)
}

// TestRefusedConditionIsRemembered: for an hour the client leaves out the condition and looks the Observation
// up first.
func TestRefusedConditionIsRemembered(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	created := reply(201, "Location: Observation/obs-1", "")
	e.write = conditional(reply(400, "", outcome("error", "not-supported")), created)
	clk := newClock(time.Now())
	c := e.client(t, withClock(clk))

	deliver := func(when string, posts, finds int) {
		t.Helper()
		postsBefore, findsBefore := len(e.requests("POST")), len(e.requests("GET"))
		if d, err := c.CreateObservation(context.Background(), testResource, testID); err != nil || d.ID == "" {
			t.Errorf("%s: %+v %v", when, d, err)
		}
		if p, f := len(e.requests("POST"))-postsBefore, len(e.requests("GET"))-findsBefore; p != posts || f != finds {
			t.Errorf("%s: %d creates and %d searches, want %d and %d", when, p, f, posts, finds)
		}
	}

	deliver("first", 2, 1)
	deliver("second", 1, 1)
	var all sync.WaitGroup

	for range 8 {
		all.Go(func() {
			if _, err := c.CreateObservation(context.Background(), testResource, testID); err != nil {
				t.Error(err)
			}
		})
	}

	all.Wait()
	if n := len(e.requests("POST")); n != 11 {
		t.Errorf("%d creates, want one for each of 8 at once", n)
	}

	e.find = reply(200, "", searchset(stored("obs-9")))
	deliver("there already", 0, 1)
	clk.advance(rememberFor)
	e.write = created // the server has learned it
	deliver("an hour later", 1, 0)
	deliver("and from then on", 1, 0)
}

// TestRefusalOfSomethingElseIsNotRemembered: only if the create succeeds without the condition was the
// condition the cause.
func TestRefusalOfSomethingElseIsNotRemembered(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	e.write = reply(400, "", outcome("error", "not-supported"))
	c := e.client(t)
	for range 2 {
		if _, err := c.CreateObservation(context.Background(), testResource, testID); err == nil {
			t.Error("created")
		}
	}
	if n := len(e.requests("POST")); n != 4 {
		t.Errorf("%d creates, want 4", n)
	}
}
