package api_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/api"
)

// injected are texts that mean something in SQL, in patterns, in paths, in templates or in a log.
var injected = []string{
	`' OR '1'='1`,
	`'; DROP TABLE patients; --`,
	`1); SELECT pg_sleep(20); --`,
	`\'; UPDATE users SET role='admin' --`,
	`%`,
	`_____`,
	`$1`,
	`../../../../etc/passwd`,
	`${jndi:ldap://127.0.0.1/a} {{7*7}} <script>alert(1)</script>`,
	"Jane\r\nSet-Cookie: admin=1",
}

// For each parameter of each operation of the contract, and for each text in each body: nothing but what is
// written in it is looked for or stored, nobody is found, and no table suffers.
func TestSQLInEveryParameter(t *testing.T) {
	t.Parallel()
	s := startWithExamples(t)
	k := loadContract(t)
	paths := slices.Sorted(maps.Keys(k.doc.Paths.Map()))
	for _, path := range paths { // first, because the bodies make patients with such names
		item := k.doc.Paths.Value(path)
		for method, operation := range item.Operations() {
			known := slices.Concat(item.Parameters, operation.Parameters)
			for _, text := range injected {
				for _, parameter := range known {
					s.inject(method, path, parameter.Value, text)
				}
			}
		}
	}

	made := 0
	for _, path := range paths {
		for method, operation := range k.doc.Paths.Value(path).Operations() {
			for _, body := range attackedBodies(t, operation) {
				got := s.do(method, strings.Replace(path, "{id}", examplePatient, 1), body)
				if got.status == http.StatusCreated && operation.OperationID == "createPatient" {
					made++
				}
				if got.header.Get("Set-Cookie") != "" {
					t.Errorf("%s %s sets a cookie: %s", method, path, body)
				}
			}
		}
	}
	if n := s.rows("patients"); n != 1+made {
		t.Errorf("%d patients, want 1 and the %d that were made", n, made)
	}
	if made == 0 {
		t.Error("no patient has such a name: the bodies are refused for something else")
	}
	var admins int
	if err := s.conn.QueryRow(t.Context(), "SELECT count(*) FROM users WHERE role = 'admin'").Scan(&admins); err != nil || admins > 0 {
		t.Errorf("%d administrators (%v)", admins, err)
	}
}

// inject sends a text as a parameter. It may be refused, or nobody is found for it.
func (s *system) inject(method, path string, p *openapi3.Parameter, text string) {
	s.tb.Helper()
	began, target := time.Now(), strings.Replace(path, "{id}", examplePatient, 1)
	var header []string
	switch p.In {
	case openapi3.ParameterInPath:
		target = strings.Replace(path, "{"+p.Name+"}", url.PathEscape(text), 1)
	case openapi3.ParameterInQuery:
		target += "?" + url.Values{p.Name: {text}}.Encode()
	case openapi3.ParameterInHeader:
		if strings.ContainsAny(text, "\r\n") {
			return // the client sends no such header
		}
		header = []string{p.Name, text}
	}

	got := s.do(method, target, "{}", header...)
	what := fmt.Sprintf("%s %s with %s %q", method, path, p.Name, text)
	if took := time.Since(began); took > 15*time.Second {
		s.tb.Errorf("%s takes %s", what, took)
	}
	if got.status >= 300 || p.In != openapi3.ParameterInQuery {
		return
	}
	if found, ok := got.get("results").([]any); !ok || len(found) > 0 {
		s.tb.Errorf("%s is answered with %s", what, clip(string(got.body)))
	}
}

// attackedBodies are the example bodies of an operation with one text after the other replaced.
func attackedBodies(t *testing.T, operation *openapi3.Operation) (bodies []string) {
	t.Helper()
	if operation.RequestBody == nil {
		return nil
	}
	media := operation.RequestBody.Value.Content["application/json"]
	examples := []any{media.Example}
	for _, example := range media.Examples {
		examples = append(examples, example.Value.Value)
	}
	for _, example := range examples {
		if example == nil {
			continue
		}
		for _, place := range textsOf(example, nil) {
			for _, text := range slices.Concat(injected[:4], injected[len(injected)-2:]) { // the others mean something in a query only
				body, err := json.Marshal(with(example, place, text))
				if err != nil {
					t.Fatal(err)
				}
				bodies = append(bodies, string(body))
			}
		}
	}
	return bodies
}

// textsOf are the ways to all texts of a JSON value; the first item of a list stands for all.
func textsOf(value any, way []any) (ways [][]any) {
	switch value := value.(type) {
	case string:
		ways = append(ways, slices.Clone(way))
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(value)) {
			ways = append(ways, textsOf(value[name], append(way, name))...)
		}
	case []any:
		if len(value) > 0 {
			ways = append(ways, textsOf(value[0], append(way, 0))...)
		}
	}
	return ways
}

// with is a copy of a JSON value with another text at the end of a way.
func with(value any, way []any, text string) any {
	if len(way) == 0 {
		return text
	}
	switch step := way[0].(type) {
	case string:
		object := maps.Clone(value.(map[string]any))
		object[step] = with(object[step], way[1:], text)
		return object
	case int:
		list := slices.Clone(value.([]any))
		list[step] = with(list[step], way[1:], text)
		return list
	}
	return value
}

// A name that is SQL is a name: it is stored and shown as it is, found by all of it, and by no pattern in it.
func TestANameThatIsSQL(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	const bobby = `Robert'); DROP TABLE patients;--`
	s.secret(bobby)
	body := asJSON(map[string]any{"first_name": bobby, "last_name": `%_\"$1`, "date_of_birth": "1957-03-21", "mrn": `' OR 1=1 --`})
	id := s.do("POST", "/api/v1/patients/", body).want(t, http.StatusCreated, "").text("id")
	s.patient("")

	if got := s.do("GET", "/api/v1/patients/"+id+"/", ""); got.text("first_name") != bobby || got.text("last_name") != `%_\"$1` || got.text("mrn") != `' OR 1=1 --` {
		t.Errorf("shown as %s", got.body)
	}
	for query, found := range map[string]int{
		"search=" + url.QueryEscape(bobby):      1,
		"search=" + url.QueryEscape(`%_\"$1`):   1,
		"mrn=" + url.QueryEscape(`' OR 1=1 --`): 1,
		"mrn=" + url.QueryEscape(`' OR 1=1`):    0,
		"search=" + url.QueryEscape(`_____`):    0,
		"search=" + url.QueryEscape(`D%e`):      0,
		"search=Doe":                            1,
	} {
		got := s.do("GET", "/api/v1/patients/?"+query, "").want(t, http.StatusOK, "")
		if list, _ := got.get("results").([]any); len(list) != found {
			t.Errorf("%s finds %s, want %d", query, got.body, found)
		}
	}
}

// No path leads out of what is served: neither to a file, nor to another route's handler.
func TestPathsLeadNowhereElse(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	climbs := []string{
		"../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%252f", "..%5c", `..\`, "....//", "..;/", "%c0%ae%c0%ae/", "..%00/", "./", "//", "%2f", "%2f%2f",
	}
	targets := []string{"etc/passwd", "openapi.yaml", "docs.go", "embed.go", "index.html", "docs.js", "go.mod", "..", "."}
	for _, climb := range climbs {
		for _, target := range targets {
			for _, times := range []int{1, 3, 12} {
				way := strings.Repeat(climb, times) + target
				for _, base := range []string{"/docs/", "/docs/docs/"} {
					s.wantNoFile(base + way)
				}
			}
		}
	}

	for _, r := range routesOf("") {
		for _, climb := range climbs {
			for _, path := range []string{
				strings.Replace(r.pattern, "/api/v1/", "/api/v1/x/"+climb, 1),
				strings.Replace(r.pattern, ":id", climb+"users", 1),
				strings.Replace(r.pattern, ":id", examplePatient+"/"+climb+climb+"users", 1),
				"/docs/" + climb + strings.TrimPrefix(r.pattern, "/"),
			} {
				if path == r.pattern {
					continue
				}
				if got := s.raw(r.method, path); got.status < 400 || got.status >= 500 {
					t.Errorf("%s %s: %d %s", r.method, path, got.status, clip(string(got.body)))
				}
			}
		}
	}
}

// raw sends a path as it is written, as no client of ours would.
func (s *system) raw(method, path string, header ...string) answer {
	s.tb.Helper()
	req, err := http.NewRequestWithContext(s.tb.Context(), method, s.base+"/", strings.NewReader("{}"))
	if err != nil {
		s.tb.Fatal(err)
	}
	req.URL.Opaque = path
	req.Header.Set("Authorization", "Bearer "+s.token)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	return s.caller.read(req)
}

// read sends a request and checks nothing of the answer.
func (c caller) read(req *http.Request) answer {
	c.tb.Helper()
	client := *c.client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Do(req)
	if err != nil {
		c.tb.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		c.tb.Fatal(err)
	}
	return answer{status: res.StatusCode, header: res.Header, body: body}
}

// wantNoFile fails the test when a path shows anything but that nothing is there.
func (s *system) wantNoFile(path string) {
	s.tb.Helper()
	got := s.raw(http.MethodGet, path)
	if got.status != http.StatusNotFound && got.status != http.StatusBadRequest || got.header.Get("Location") != "" {
		s.tb.Errorf("%s: %d %s", path, got.status, clip(string(got.body)))
	}
}

// What a caller writes into Host, Forwarded and X-Forwarded-* is in no answer: no link, no Location, no address
// that is counted or recorded, and no claim that TLS was used.
func TestAStrangersHeadersChangeNothing(t *testing.T) {
	t.Parallel()
	const evil, public = "evil.example", "https://vantrexia.example.com"
	for name, configured := range map[string]string{"with a public URL": public, "without": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startWith(t, setup{missing: temporal, change: func(cfg *api.Config) {
				cfg.PublicURL, cfg.Limits.Anonymous, cfg.Limits.SignIn = configured, 5, 30
			}})
			id := s.person("nora@example.com", account.Nurse)
			for range 3 {
				s.patient("")
			}
			lies := []string{
				"Host", evil, "X-Forwarded-Host", evil, "X-Forwarded-Proto", "https", "X-Forwarded-Scheme", "https", "X-Forwarded-Port", "444",
				"X-Forwarded-For", "203.0.113.66", "X-Real-Ip", "203.0.113.66", "True-Client-Ip", "203.0.113.66", "Cf-Connecting-Ip", "203.0.113.66",
				"Forwarded", "for=203.0.113.66;host=" + evil + ";proto=https", "X-Forwarded-Prefix", "/" + evil, "X-Original-Url", "/api/v1/users/",
				"X-Rewrite-Url", "/api/v1/users/", "X-Original-Host", evil, "Referer", "https://" + evil + "/", "Origin", "https://" + evil,
			}

			for method, path := range map[string]string{
				"GET":  "/api/v1/patients/?page_size=1",
				"HEAD": "/api/v1/patients/?page_size=1",
				"POST": "/api/v1/users/" + id.String() + "/unlock/",
			} {
				got := s.raw(method, path, lies...)
				if got.status != http.StatusOK {
					t.Errorf("%s %s: %d %s", method, path, got.status, clip(string(got.body)))
				}
				s.wantNoTrace(got, evil)
			}
			next := s.raw("GET", "/api/v1/patients/?page_size=1", lies...).text("next")
			if !strings.HasPrefix(next, configured+"/api/v1/patients/?") {
				t.Errorf("the next page is at %q", next)
			}
			plain := s.do("GET", "/api/v1/patients/?page_size=1", "").text("next")
			if next != plain {
				t.Errorf("the next page is at %q, and at %q for others", next, plain)
			}
			for _, path := range []string{"/docs", "/openapi.yaml", "/.well-known/jwks.json", "/api/v1/nothing/", "/api/v1/auth/oidc/", "/"} {
				s.wantNoTrace(s.raw("GET", path, lies...), evil)
			}

			// The bucket of the address that it came from, whatever it says.
			nobody := s.with("")
			for i := range 7 {
				got := nobody.do("GET", "/api/v1/patients/", "", "X-Forwarded-For", fmt.Sprintf("203.0.113.%d", i), "Forwarded", fmt.Sprintf("for=203.0.113.%d", i),
					"X-Real-Ip", fmt.Sprintf("203.0.113.%d", i))
				if want := i >= 5; (got.status == http.StatusTooManyRequests) != want {
					t.Errorf("request %d of an address: %d", i, got.status)
				}
			}

			// The address that is kept with what was done.
			for range account.MostFailures {
				s.with("").do("POST", "/api/v1/auth/login/", `{"email":"nora@example.com","password":"wrong"}`, "X-Forwarded-For", "203.0.113.66", "X-Real-Ip", "203.0.113.66")
			}
			var addresses []string
			rows, err := s.conn.Query(t.Context(), "SELECT DISTINCT address FROM account_events WHERE action = 'locked'")
			if err != nil {
				t.Fatal(err)
			}
			for rows.Next() {
				var address string
				if err := rows.Scan(&address); err != nil {
					t.Fatal(err)
				}
				addresses = append(addresses, address)
			}
			if !slices.Equal(addresses, []string{"127.0.0.1"}) {
				t.Errorf("the lockout is said to come from %q", addresses)
			}
		})
	}
}

// wantNoTrace fails the test when an answer repeats a text of the request, or says that TLS was used.
func (s *system) wantNoTrace(got answer, text string) {
	s.tb.Helper()
	var said strings.Builder
	if err := got.header.Write(&said); err != nil {
		s.tb.Fatal(err)
	}
	if strings.Contains(said.String()+string(got.body), text) {
		s.tb.Errorf("the answer has %q: %d %s %s", text, got.status, said.String(), clip(string(got.body)))
	}
	if got.header.Get("Strict-Transport-Security") != "" {
		s.tb.Error("the answer says that TLS was used")
	}
}
