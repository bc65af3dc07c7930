package ecw

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// asking are all calls of a client, by what they ask eCW for.
func asking() map[string]func(*Client) error {
	ctx := context.Background()
	calls := map[string]func(*Client) error{
		OpToken:  func(c *Client) error { return c.Authenticate(ctx) },
		OpCreate: func(c *Client) error { _, err := c.CreateObservation(ctx, testResource, testID); return err },
		OpFind:   func(c *Client) error { _, _, err := c.FindDelivered(ctx, testResource, testID); return err },
		"list":   func(c *Client) error { _, err := c.ReadPatients(ctx, []string{"pat-1", "pat-2"}); return err },
	}
	for op, read := range reads() {
		calls[op] = read
	}
	return calls
}

// answers lets the EHR answer the requests of a call in one way, and grant tokens otherwise.
func (e *ehr) answers(op string, with http.HandlerFunc) {
	if op == OpToken {
		e.token = with
		return
	}
	e.write, e.find = with, with
}

// Whatever an EHR writes into its answer, wherever a name could stand, neither the error nor the log repeats it.
// Codes and statuses are words too.
func TestNoWordOfAnAnswerIsRepeated(t *testing.T) {
	t.Parallel()
	const name = "Jane-Doe" // as a code it has the form of one
	issue := func(member string) string {
		return `{"resourceType":"OperationOutcome","issue":[{` + member + `}]}`
	}
	answers := map[string]string{
		"a code":                 issue(`"severity":"error","code":"` + name + `"`),
		"a code after another":   issue(`"severity":"warning","code":"informational"},{"severity":"error","code":"` + name + `"`),
		"diagnostics":            outcome("error", "processing"),
		"diagnostics of invalid": issue(`"severity":"error","code":"invalid","diagnostics":"` + personal + `","expression":["` + personal + `"]`),
		"a severity":             issue(`"severity":"` + name + `","code":"invalid"`),
		"a number":               numbered(name),
		"details":                issue(`"severity":"fatal","code":"exception","details":{"text":"` + personal + `","coding":[{"system":"` + name + `","code":"` + name + `"}]}`),
		"a resource type":        `{"resourceType":"` + name + `"}`,
		"an id":                  `{"resourceType":"Patient","id":"` + name + `"}`,
		"a status of an entry":   entryAnswer(name, "Observation/"+strings.Repeat(name, 40), ""),
		"an outcome of an entry": entryAnswer("400 Bad Request", "", issue(`"severity":"error","code":"`+name+`"`)),
		"an OAuth error":         `{"error":"` + name + `","error_description":"` + personal + `","error_uri":"https://` + name + `"}`,
		"a token type":           `{"access_token":"tok-1","token_type":"` + name + `"}`,
		"a scope":                `{"access_token":"tok-1","token_type":"Bearer","scope":"` + name + `"}`,
		"a link":                 `{"resourceType":"Bundle","link":[{"relation":"next","url":"https://` + name + `.example/` + name + `"}],"entry":[` + person("p1") + `]}`,
		"plain text":             personal,
	}
	for op, ask := range asking() {
		for what, body := range answers {
			t.Run(op+"/"+what, func(t *testing.T) {
				t.Parallel()
				for _, status := range []int{200, 201, 400, 401, 404, 409, 429, 500} {
					e := newEHR(t)
					e.answers(op, func(w http.ResponseWriter, r *http.Request) {
						header := w.Header()
						for _, field := range []string{"Retry-After", "Location", "ETag", "WWW-Authenticate", "Warning", "Date", "X-Request-Id", "Server"} {
							header.Set(field, name)
						}
						reply(status, "", body)(w, r)
					})
					if err := ask(e.client(t)); err != nil {
						asError(t, err) // fails when it has the name
					}
					e.checkLogs(t)
				}
			})
		}
	}
}

// Where eCW says that an Observation is, nothing is asked. Only an id is taken out of it, and what is none is not
// taken for one.
func TestLocationsThatMislead(t *testing.T) {
	t.Parallel()
	var reached atomic.Int32
	stranger := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	t.Cleanup(stranger.Close)

	for location, id := range map[string]string{
		stranger.URL + "/fhir/r4/FFHEDD/Observation/obs-1":                  "obs-1",
		"http://169.254.169.254/latest/meta-data/Observation/obs-1":         "obs-1",
		"http://somebody:secret@" + stranger.URL[7:] + "/Observation/obs-1": "obs-1",
		"file:///etc/Observation/obs-1":                                     "obs-1",
		"../../Observation/obs-1":                                           "obs-1",
		"Observation/obs-1\r\nX-Evil: 1":                                    "",
		"Observation/obs-1%0d%0aX-Evil:%201":                                "",
		"Observation/obs-1%00":                                              "",
		"Observation/..":                                                    "",
		"Observation/%2e%2e":                                                "",
		"Observation/.":                                                     "",
		"Observation/..%2f..%2fPatient%2fpat-1":                             "",
		"Observation/obs-1/../../Patient/pat-1":                             "",
		"Observation/..%5cobs-1":                                            "",
		"Observation/_history":                                              "",
		"Observation/" + strings.Repeat("9", 129):                           "",
		"Observation/Jane Doe":                                              "",
		"Observation/<script>":                                              "",
		"Observation/';DROP TABLE transmissions;--":                         "",
		"Patient/pat-1":                                                     "",
		"javascript:Observation/obs-1":                                      "",
		"https://[::1/Observation/obs-1":                                    "",
		stranger.URL + "/?Observation/obs-1":                                "",
		stranger.URL + "/#/Observation/obs-1":                               "",
		"data:text/plain,/Observation/obs-1":                                "",
	} {
		for _, mode := range []WriteMode{WriteObservation, WriteBundle} {
			if mode == WriteObservation && strings.ContainsAny(location, "\r\n") {
				continue // no header can say it: see TestAnAnswerThatIsTwo
			}
			t.Run(string(mode)+"/"+location, func(t *testing.T) {
				t.Parallel()
				e := newEHR(t)
				e.write = reply(201, "Location: "+location, "")
				if mode == WriteBundle {
					e.write = reply(200, "", entryAnswer("201 Created", location, ""))
				}
				c := e.client(t, func(cfg *Config) { cfg.WriteMode = mode })
				d, err := c.CreateObservation(context.Background(), testResource, testID)
				switch {
				case id != "" && (err != nil || d.ID != id):
					t.Errorf("got %+v %v, want %s", d, err, id)
				case id == "":
					if ee := asError(t, err); ee.Class != ClassUnknown || ee.Code != "no_id" {
						t.Errorf("got %+v %v, want no id", d, ee)
					}
				}
				if n := len(e.requests("POST")) + len(e.requests("GET")); n != 1 || reached.Load() != 0 {
					t.Errorf("%d requests, and %d elsewhere", n, reached.Load())
				}
			})
		}
	}

	// An id that is none in the resource itself.
	for _, id := range []string{"..", ".", "_history", "a/b", "Jane Doe", `\u0000`, `\r\n`} {
		e := newEHR(t)
		e.write = reply(201, "", strings.Replace(stored("x"), `"id":"x"`, `"id":"`+id+`"`, 1))
		e.find = reply(200, "", searchset(strings.Replace(stored("x"), `"id":"x"`, `"id":"`+id+`"`, 1)))
		c := e.client(t)
		_, err := c.CreateObservation(context.Background(), testResource, testID)
		if ee := asError(t, err); ee.Code != "no_id" {
			t.Errorf("%s: %v", id, ee)
		}
		if d, found, _ := c.FindDelivered(context.Background(), testResource, testID); found {
			t.Errorf("%s is found as %+v", id, d)
		}
	}
}

// on writes bytes to the connection of a request, and closes it.
func on(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(conn, text)
		_ = conn.Close()
	}
}

// A line break in a header makes two headers, or two answers. The second is nobody's: it does not become the answer
// to the next request.
func TestAnAnswerThatIsTwo(t *testing.T) {
	t.Parallel()
	const forged = "HTTP/1.1 201 Created\r\nLocation: Observation/forged\r\nContent-Length: 0\r\n\r\n"
	for name, first := range map[string]string{
		"a header more":     "HTTP/1.1 201 Created\r\nLocation: Observation/obs-1\r\nX-Evil: 1\r\nContent-Length: 0\r\n\r\n",
		"an answer more":    "HTTP/1.1 201 Created\r\nLocation: Observation/obs-1\r\nContent-Length: 0\r\n\r\n" + forged,
		"a bare line feed":  "HTTP/1.1 201 Created\nLocation: Observation/obs-1\nContent-Length: 0\n\n" + forged,
		"a continued line":  "HTTP/1.1 201 Created\r\nLocation: Observation/obs-1\r\n \r\nContent-Length: 0\r\n\r\n",
		"interim answers":   strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 3) + "HTTP/1.1 201 Created\r\nLocation: Observation/obs-1\r\nContent-Length: 0\r\n\r\n",
		"two lengths":       "HTTP/1.1 201 Created\r\nLocation: Observation/obs-1\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n",
		"a length and more": "HTTP/1.1 201 Created\r\nLocation: Observation/obs-1\r\nContent-Length: 2\r\n\r\n{}" + forged,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			e.write = inTurn(on(first), reply(503, "", ""))
			c := e.client(t)
			d, err := c.CreateObservation(context.Background(), testResource, testID)
			if err == nil && d.ID != "obs-1" || err != nil && asError(t, err).Class != ClassUnknown {
				t.Errorf("got %+v %v", d, err)
			}
			time.Sleep(200 * time.Millisecond) // the client reads what came beyond the answer
			d, err = c.CreateObservation(context.Background(), testResource, testID)
			if err == nil || asError(t, err).HTTPStatus != http.StatusServiceUnavailable {
				t.Errorf("the next request got %+v %v", d, err)
			}
		})
	}
}

// No redirect of any kind leads a request of any kind elsewhere, neither to another host nor to another path: it
// would carry the assertion, the access token, or a reading.
func TestNoRequestIsRedirected(t *testing.T) {
	t.Parallel()
	var reached atomic.Int32
	stranger := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	t.Cleanup(stranger.Close)
	for op, ask := range asking() {
		for _, status := range []int{301, 303, 307, 308} {
			for _, to := range []string{stranger.URL + "/", "/elsewhere", "//" + stranger.URL[7:] + "/", ""} {
				t.Run(fmt.Sprintf("%s/%d to %q", op, status, to), func(t *testing.T) {
					t.Parallel()
					e := newEHR(t)
					header := ""
					if to != "" {
						header = "Location: " + to
					}
					e.answers(op, reply(status, header, ""))
					ee := asError(t, ask(e.client(t)))
					if ee.Class != ClassRetryable && (op != OpCreate || ee.Class != ClassUnknown) || ee.HTTPStatus != status {
						t.Errorf("got %v", ee)
					}
					for _, kind := range []string{"token", "POST", "GET"} {
						for _, r := range e.requests(kind) {
							if strings.HasPrefix(r.url, "/elsewhere") {
								t.Errorf("%s %s was asked", r.method, r.url)
							}
						}
					}
					if reached.Load() != 0 {
						t.Error("another host was asked")
					}
				})
			}
		}
	}
}

// bomb is 4 GiB of a text, packed with gzip into 4 MB.
var bomb = sync.OnceValue(func() []byte {
	var member bytes.Buffer
	w, err := gzip.NewWriterLevel(&member, gzip.BestCompression)
	if err != nil {
		panic(err)
	}
	spaces := bytes.Repeat([]byte(" "), 1<<20)
	for range 32 {
		if _, err := w.Write(spaces); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return bytes.Repeat(member.Bytes(), 4<<30/(32<<20)) // gzip files one after the other are one
})

// A small answer that becomes gigabytes takes no more memory than any other. The test measures the whole process, so
// it does not run in parallel.
func TestAGzipBombIsNotUnpacked(t *testing.T) {
	packed := bomb()
	t.Logf("%d bytes become %d", len(packed), 4<<30)
	for op, ask := range asking() {
		for _, status := range []int{200, 500} {
			t.Run(fmt.Sprintf("%s/%d", op, status), func(t *testing.T) {
				e := newEHR(t)
				e.answers(op, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", mediaFHIR)
					w.Header().Set("Content-Encoding", "gzip")
					w.WriteHeader(status)
					_, _ = w.Write(packed)
				})
				c := e.client(t)
				if op != OpToken {
					mustAuthenticate(t, c)
				}

				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				began := time.Now()
				err := ask(c)
				runtime.ReadMemStats(&after)
				if ee := asError(t, err); status == 200 && ee.Code != "response_too_large" && ee.Code != CodeNoPatientList {
					t.Errorf("got %v", ee)
				}
				// Reading what is permitted takes five times its size, and a second request may be made.
				if cost := after.TotalAlloc - before.TotalAlloc; cost > 128<<20 {
					t.Errorf("allocated %d MB in all", cost>>20)
				}
				if took := time.Since(began); took > 20*time.Second {
					t.Errorf("took %s", took)
				}
			})
		}
	}
}

// JSON that is nested deeply costs neither the stack nor time, wherever it stands in an answer.
func TestDeeplyNestedAnswers(t *testing.T) {
	t.Parallel()
	const depth = 250_000
	lists, objects := strings.Repeat("[", depth)+strings.Repeat("]", depth), strings.Repeat(`{"a":`, depth/3)+"1"+strings.Repeat("}", depth/3)
	for op, ask := range asking() {
		for what, body := range map[string]string{
			"lists":                   lists,
			"objects":                 objects,
			"in an entry":             `{"resourceType":"Bundle","entry":[{"resource":` + objects + `}]}`,
			"in an identifier":        searchset(`{"resourceType":"Observation","id":"a","identifier":` + lists + `}`),
			"in an issue":             `{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"invalid","details":` + objects + `}]}`,
			"in what is not read":     `{"resourceType":"Patient","id":"pat-1","contained":` + lists + `}`,
			"in a token":              `{"access_token":` + lists + `,"token_type":"Bearer"}`,
			"as deep as JSON is read": `{"resourceType":"Bundle","entry":[{"resource":` + strings.Repeat(`{"a":`, 9_900) + "1" + strings.Repeat("}", 9_900) + `}]}`,
		} {
			t.Run(op+"/"+what, func(t *testing.T) {
				t.Parallel()
				e := newEHR(t)
				e.answers(op, reply(200, "", body))
				began := time.Now()
				if err := ask(e.client(t)); err != nil {
					asError(t, err)
				}
				if took := time.Since(began); took > 20*time.Second {
					t.Errorf("took %s", took)
				}
			})
		}
	}
}

// dripped writes a text byte by byte, until the client hangs up or five seconds have passed.
func dripped(start, drip string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer func() { _ = conn.Close() }()
		_, err = io.WriteString(conn, start)
		for end := time.Now().Add(5 * time.Second); err == nil && time.Now().Before(end); {
			for i := 0; i < len(drip) && err == nil; i++ {
				_, err = conn.Write([]byte{drip[i]})
				time.Sleep(5 * time.Millisecond)
			}
		}
	}
}

// An EHR that answers without an end, however steadily its bytes come, is given up after the time of a request.
func TestAnEHRThatDrips(t *testing.T) {
	t.Parallel()
	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/fhir+json\r\n"
	all := asking()
	for _, op := range []string{OpToken, OpCreate, OpRead} { // all requests are sent in the same way
		ask := all[op]
		for what, answer := range map[string]http.HandlerFunc{
			"nothing":                 dripped("", ""),
			"a status line":           dripped("HTTP/1.1 200 ", "O"),
			"headers":                 dripped(head, "X-A: b\r\n"),
			"a header":                dripped(head+"X-A: ", "b"),
			"interim answers":         dripped("", "HTTP/1.1 103 Early Hints\r\n\r\n"),
			"a body with a length":    dripped(head+"Content-Length: 1000000\r\n\r\n{", " "),
			"a body without a length": dripped(head+"Connection: close\r\n\r\n{", " "),
			"chunks":                  dripped(head+"Transfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n"),
			"the length of a chunk":   dripped(head+"Transfer-Encoding: chunked\r\n\r\n", "0"),
			"a body of a refusal":     dripped("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 1000000\r\n\r\n", " "),
		} {
			t.Run(op+"/"+what, func(t *testing.T) {
				t.Parallel()
				e := newEHR(t)
				e.answers(op, answer)
				c := e.client(t)
				if op != OpToken {
					mustAuthenticate(t, c)
				}
				c.wire.timeout = 150 * time.Millisecond

				began := time.Now()
				ee := asError(t, ask(c))
				if ee.Class == ClassPermanentData || ee.Class == ClassPermanentCredentials {
					t.Errorf("got %v", ee)
				}
				if took := time.Since(began); took > 4*time.Second { // some calls make several requests
					t.Errorf("took %s: %v", took, ee)
				}
			})
		}
	}
}

// Headers without an end are not read to their end.
func TestEndlessHeaders(t *testing.T) {
	t.Parallel()
	for what, part := range map[string]string{
		"many headers":    "X-A: " + strings.Repeat("b", 1000) + "\r\n",
		"a long header":   strings.Repeat("b", 1000),
		"interim answers": "\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			var sent atomic.Int64
			e.write = func(w http.ResponseWriter, _ *http.Request) {
				conn, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					panic(err)
				}
				defer func() { _ = conn.Close() }()
				_, err = io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nX-A: b")
				if what == "many headers" {
					_, err = io.WriteString(conn, "\r\n")
				}
				for err == nil && sent.Load() < 256<<20 {
					var n int
					n, err = io.WriteString(conn, strings.Repeat(part, 100))
					sent.Add(int64(n))
				}
			}
			_, err := e.client(t).CreateObservation(context.Background(), testResource, testID)
			if ee := asError(t, err); ee.Class != ClassUnknown {
				t.Errorf("got %v", ee)
			}
			if n := sent.Load(); n > 64<<20 { // the buffers of the connection hold some
				t.Errorf("%d MB were taken", n>>20)
			}
		})
	}
}
