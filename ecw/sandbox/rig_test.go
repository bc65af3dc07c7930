package sandbox_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

const (
	clientID  = "app-1"
	keyID     = "key-1"
	practice  = "FFHEDD"
	patientID = "ecw-patient-2004454"
	idSystem  = "https://vantrexia.com/fhir/sid/observation"
	allScopes = "system/Patient.read system/Observation.write system/Observation.read"
	fhirJSON  = "application/fhir+json"
)

// sharedKey is made once, because generating an RSA key takes longer than the rest of a test.
var sharedKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// clock is a clock that stands still until a test moves it.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// rig is a sandbox on one port, and an app that publishes its keys on another.
type rig struct {
	t       *testing.T
	server  *sandbox.Server
	url     string
	clock   *clock
	jwks    atomic.Value // string
	fetched atomic.Int32
	jti     atomic.Int64
	client  *http.Client
}

func start(t *testing.T, adjust ...func(*sandbox.Config)) *rig {
	t.Helper()
	r := &rig{t: t, clock: &clock{at: time.Date(2026, 2, 6, 10, 30, 15, 0, time.UTC)}}
	r.jwks.Store(jwksOf(t, keyID, sharedKey().Public()))

	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		r.fetched.Add(1)
		_, _ = io.WriteString(w, r.jwks.Load().(string))
	}))
	t.Cleanup(app.Close)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	r.url = "http://" + listener.Addr().String()
	cfg := sandbox.Config{
		ClientID:     clientID,
		PracticeCode: practice,
		JWKSURL:      app.URL,
		PublicURL:    r.url,
		Now:          r.clock.Now,
	}

	for _, f := range adjust {
		f(&cfg)
	}

	if r.server, err = sandbox.New(cfg); err != nil {
		t.Fatal(err)
	}

	web := &httptest.Server{Listener: listener, Config: &http.Server{Handler: r.server}}
	web.Start()
	r.client = &http.Client{Transport: &http.Transport{}}

	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		if err := r.server.Close(); err != nil {
			t.Error(err)
		}
		web.Close()
	})

	return r
}

func jwksOf(t *testing.T, kid string, keys ...any) string {
	t.Helper()
	set := jwk.NewSet()
	for _, raw := range keys {
		key, err := jwk.FromRaw(raw)
		if err != nil {
			t.Fatal(err)
		}
		_ = key.Set(jwk.KeyIDKey, kid)
		_ = key.Set(jwk.AlgorithmKey, "RS384")
		_ = set.AddKey(key)
	}

	data, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}

	return string(data)
}

// answer is a response with its body read.
type answer struct {
	status int
	header http.Header
	text   string
	err    error
}

// json decodes the body and follows the path of object keys and list indexes.
func (a answer) get(path ...any) any {
	var v any
	if json.Unmarshal([]byte(a.text), &v) != nil {
		return nil
	}

	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[step]
		case int:
			l, _ := v.([]any)
			if step >= len(l) {
				return nil
			}
			v = l[step]
		}
	}

	return v
}

func (a answer) str(path ...any) string {
	s, _ := a.get(path...).(string)
	return s
}

func (a answer) num(path ...any) int {
	n, _ := a.get(path...).(float64)
	return int(n)
}

// number is eCW's number in an OperationOutcome.
func (a answer) number() string { return a.str("issue", 0, "details", "coding", 0, "code") }

func (r *rig) do(method, target, body string, header ...string) answer {
	r.t.Helper()
	if !strings.HasPrefix(target, "http") {
		target = r.url + target
	}

	req, err := http.NewRequestWithContext(r.t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		r.t.Error(err)
		return answer{}
	}

	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}

	resp, err := r.client.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)

	return answer{
		status: resp.StatusCode,
		header: resp.Header,
		text:   string(text),
		err:    err,
	}
}

// assertion makes a valid assertion, except for what change alters in it.
func (r *rig) assertion(change func(header, claims map[string]any)) string {
	r.t.Helper()
	return r.signed(jwt.SigningMethodRS384, sharedKey(), change)
}

func (r *rig) signed(method jwt.SigningMethod, key any, change func(header, claims map[string]any)) string {
	r.t.Helper()
	claims := jwt.MapClaims{"iss": clientID, "sub": clientID, "aud": r.server.TokenURL(), "jti": fmt.Sprint("jti-", r.jti.Add(1)),
		"exp": r.clock.Now().Add(4 * time.Minute).Unix(), "iat": r.clock.Now().Unix()}
	token := jwt.NewWithClaims(method, claims)
	token.Header["kid"] = keyID

	if change != nil {
		change(token.Header, claims)
	}

	text, err := token.SignedString(key)
	if err != nil {
		r.t.Fatal(err)
	}

	return text
}

func form(assertion, scope string) url.Values {
	return url.Values{"grant_type": {"client_credentials"}, "scope": {scope}, "client_assertion": {assertion},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}}
}

func (r *rig) askToken(f url.Values, header ...string) answer {
	r.t.Helper()
	return r.do("POST", "/oauth/oauth2/token", f.Encode(), append([]string{"Content-Type", "application/x-www-form-urlencoded"}, header...)...)
}

func (r *rig) token(scope string) string {
	r.t.Helper()
	a := r.askToken(form(r.assertion(nil), scope))
	if a.status != 200 {
		r.t.Fatalf("token: %d %s", a.status, a.text)
	}
	return a.str("access_token")
}

func base(path string) string { return "/fhir/r4/" + practice + path }

func (r *rig) fhirGet(token, path string) answer {
	r.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = base(path)
	}
	return r.do("GET", path, "", "Authorization", "Bearer "+token, "Accept", fhirJSON)
}

func (r *rig) create(token, body string, header ...string) answer {
	r.t.Helper()
	header = append([]string{"Authorization", "Bearer " + token, "Content-Type", fhirJSON}, header...)
	return r.do("POST", base("/Observation"), body, header...)
}

func (r *rig) createOnce(token, body, id string) answer {
	r.t.Helper()
	return r.create(token, body, "If-None-Exist", "identifier="+idSystem+"|"+id)
}

// fault adds a fault. The test fails if the sandbox refuses it.
func (r *rig) fault(body string) {
	r.t.Helper()
	if a := r.do("POST", "/admin/faults", body); a.status != 201 {
		r.t.Fatalf("fault %s: %d %s", body, a.status, a.text)
	}
}

func (r *rig) stored(id string) int {
	r.t.Helper()
	return r.do("GET", "/admin/stats", "").num("creates", "stored", idSystem+"|"+id)
}

func (r *rig) received(id string) int {
	r.t.Helper()
	return r.do("GET", "/admin/stats", "").num("creates", "received", idSystem+"|"+id)
}

const weightTemplate = `{"resourceType":"Observation",` +
	`"meta":{"profile":["http://hl7.org/fhir/us/core/StructureDefinition/us-core-body-weight"],` +
	`"tag":[{"system":"https://vantrexia.com/fhir/CodeSystem/source","code":"vantrexia-rpm","display":"Vantrexia RPM"}]},` +
	`"identifier":[{"system":"` + idSystem + `","value":"%s"}],"status":"final",` +
	`"category":[{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/observation-category","code":"vital-signs"}]}],` +
	`"code":{"coding":[{"system":"http://loinc.org","code":"29463-7","display":"Body weight"}]},` +
	`"subject":{"reference":"Patient/` + patientID + `"},` +
	`"effectiveDateTime":"2026-02-06T10:30:00Z","device":{"display":"SCALE-<1>"},` +
	`"valueQuantity":{"value":81.60,"unit":"kg","system":"http://unitsofmeasure.org","code":"kg"}}`

const pressureTemplate = `{"resourceType":"Observation","identifier":[{"system":"` + idSystem + `","value":"%s"}],"status":"final",` +
	`"category":[{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/observation-category","code":"vital-signs"}]}],` +
	`"code":{"coding":[{"system":"http://loinc.org","code":"85354-9"}]},"subject":{"reference":"Patient/` + patientID + `"},` +
	`"effectiveDateTime":"2026-02-05T08:00:00Z","component":[` +
	`{"code":{"coding":[{"system":"http://loinc.org","code":"8480-6"}]},` +
	`"valueQuantity":{"value":142,"unit":"mmHg","system":"http://unitsofmeasure.org","code":"mm[Hg]"}},` +
	`{"code":{"coding":[{"system":"http://loinc.org","code":"8462-4"}]},` +
	`"valueQuantity":{"value":92,"unit":"mmHg","system":"http://unitsofmeasure.org","code":"mm[Hg]"}},` +
	`{"code":{"coding":[{"system":"http://loinc.org","code":"8867-4"}]},` +
	`"valueQuantity":{"value":78,"unit":"beats/minute","system":"http://unitsofmeasure.org","code":"/min"}}]}`

func weight(id string) string   { return fmt.Sprintf(weightTemplate, id) }
func pressure(id string) string { return fmt.Sprintf(pressureTemplate, id) }

// with replaces a part of a resource. The test fails if the resource does not have it.
func with(t *testing.T, resource, old, replacement string) string {
	t.Helper()
	if !strings.Contains(resource, old) {
		t.Fatalf("the resource has no %s", old)
	}
	return strings.Replace(resource, old, replacement, 1)
}

func compact(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(text)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
