package api_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/ecw"
)

// tokens keeps every access token that the EHR was shown.
type tokens struct{ last atomic.Pointer[string] }

func (k *tokens) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
			k.last.Store(&token)
		}
		next.ServeHTTP(w, r)
	})
}

// The tutorial's step 6.
func TestJWTOfTheTutorial(t *testing.T) {
	t.Parallel()
	seen := &tokens{}
	s := startWith(t, setup{missing: temporal, watch: seen.watch})
	before := time.Now().Add(-time.Second)
	got := s.do("POST", "/api/v1/ecw/test/jwt/", "").want(t, http.StatusOK, "")
	if want := []string{"access_token_preview", "expires_in", "issued_at", "message", "scope", "status", "token_endpoint", "token_type"}; !slices.Equal(got.keys(), want) {
		t.Errorf("the members are %v, want %v", got.keys(), want)
	}

	for member, want := range map[string]string{
		"status": "success", "message": "JWT authentication successful", "token_endpoint": s.ehr + "/oauth/oauth2/token",
		"scope": "system/Patient.read system/Observation.write system/Observation.read",
	} {
		if got.text(member) != want {
			t.Errorf("%s is %q, want %q", member, got.text(member), want)
		}
	}

	if !strings.EqualFold(got.text("token_type"), "bearer") || got.get("expires_in") != number("300") {
		t.Errorf("the token: %s", got.body)
	}

	if issued := at(t, got, "issued_at"); issued.Before(before) || issued.After(time.Now()) ||
		!strings.HasSuffix(got.text("issued_at"), "Z") {
		t.Errorf("issued_at is %s", got.text("issued_at"))
	}

	if again := s.stats().Tokens.Issued; again != 1 {
		t.Errorf("%d tokens were issued, want one", again)
	}

	s.do("POST", "/api/v1/ecw/test/jwt/", "").want(t, http.StatusOK, "")
	if again := s.stats().Tokens.Issued; again != 2 {
		t.Errorf("%d tokens were issued: the second test must not be answered from memory", again)
	}

	s.do("POST", "/api/v1/ecw/test/connection/", "").want(t, http.StatusOK, "") // with the token that the last test left
	token := *seen.last.Load()
	got = s.do("POST", "/api/v1/ecw/test/jwt/", "").want(t, http.StatusOK, "")
	preview, cut := strings.CutSuffix(got.text("access_token_preview"), "...truncated")
	if !cut || len(preview) > 20 || len(preview) == 0 || strings.Contains(string(got.body), token) {
		t.Errorf("the preview is %q", got.text("access_token_preview"))
	}
}

// The tutorial's step 7.
func TestConnectionOfTheTutorial(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	got := s.do("POST", "/api/v1/ecw/test/connection/", "").want(t, http.StatusOK, "")
	if want := []string{"capabilities", "connection_latency_ms", "fhir_base_url", "fhir_version", "status", "test_patient_count"}; !slices.Equal(got.keys(), want) {
		t.Errorf("the members are %v, want %v", got.keys(), want)
	}
	s.wantDocumented(got, map[string]any{
		"status": "success", "fhir_base_url": s.ehr + "/fhir/r4/" + practice, "fhir_version": "4.0.1",
		"capabilities":       []any{"Observation.read", "Observation.write", "Patient.read"},
		"test_patient_count": number("142"), "connection_latency_ms": got.get("connection_latency_ms"),
	})
}

// Every failure of eCW is reported as 502, with the tutorial's advice.
func TestWhatECWMayAnswer(t *testing.T) {
	t.Parallel()
	const jwtTest, connection, patients = "POST /api/v1/ecw/test/jwt/", "POST /api/v1/ecw/test/connection/", "GET /api/v1/ecw/patients/"
	for _, test := range []struct {
		fault string
		of    []string
		code  string
		hint  string
	}{
		{`{"kind":"token_down","count":9}`, []string{jwtTest, connection, patients}, "http_503", "ECW_TOKEN_URL"},
		{`{"kind":"access_denied","count":9}`, []string{jwtTest, connection}, "access_denied", "account representative"},
		{`{"kind":"unauthorized","target":"token","count":9}`, []string{jwtTest, connection}, "invalid_client", "ECW_CLIENT_ID"},
		{`{"kind":"narrow_scope","count":9}`, []string{jwtTest, connection}, "insufficient_scope", "ECW_SCOPE"},
		{`{"kind":"html","target":"token","count":9}`, []string{jwtTest}, "malformed_response", "ECW_TOKEN_URL"},
		{`{"kind":"reset_before","target":"token","count":9}`, []string{jwtTest}, "reset", "ECW_TOKEN_URL"},
		{`{"kind":"slow","target":"token","delay":"2s","count":9}`, []string{jwtTest, connection}, "timeout", "try again"},
		{`{"kind":"throttle","target":"token","retry_after":"9s"}`, []string{jwtTest}, "throttled", "250"},
		{`{"kind":"unauthorized","target":"search","count":9}`, []string{connection, patients}, "unauthorized", "account representative"},
		{`{"kind":"forbidden","target":"search","count":9}`, []string{connection, patients}, "forbidden", "account representative"},
		{`{"kind":"error_503","target":"search","count":9}`, []string{patients}, "transient", "FHIR_BASE_URL"},
		{`{"kind":"malformed_json","target":"search","count":9}`, []string{patients}, "malformed_response", "FHIR_BASE_URL"},
	} {
		t.Run(test.fault, func(t *testing.T) {
			t.Parallel()
			s := startWith(t, setup{missing: temporal, ehr: func(c *ecw.Config) { c.Timeout = 500 * time.Millisecond }})
			s.fault(test.fault)
			for _, request := range test.of {
				method, path, _ := strings.Cut(request, " ")
				got := s.do(method, path, "").want(t, http.StatusBadGateway, test.code)
				if !strings.Contains(got.text("hint"), test.hint) {
					t.Errorf("%s: the hint is %q, want it to speak of %s", path, got.text("hint"), test.hint)
				}
			}
		})
	}
}

func TestECWDoesNotKnowUs(t *testing.T) {
	t.Parallel()
	other, err := ecw.GenerateKey(keyID)
	if err != nil {
		t.Fatal(err)
	}

	for name, change := range map[string]func(*ecw.Config){
		"client id": func(c *ecw.Config) { c.ClientID = "another" },
		"key":       func(c *ecw.Config) { c.Key = other },
	} {
		t.Run("wrong "+name, func(t *testing.T) {
			t.Parallel()
			s := startWith(t, setup{missing: temporal, ehr: change})
			got := s.do("POST", "/api/v1/ecw/test/jwt/", "").want(t, http.StatusBadGateway, "invalid_client")
			said := got.text("ecw_said")
			if said == "" || len(said) > 320 {
				t.Errorf("an admin is not shown what eCW said: %s", got.body)
			}

			if got := s.as(account.Provider).do("POST", "/api/v1/ecw/test/jwt/", ""); strings.Contains(string(got.body), said) ||
				got.get("ecw_said") != nil {
				t.Errorf("a provider is shown what eCW said: %s", got.body)
			}

			if logs := s.log.text(); strings.Contains(logs, said) {
				t.Errorf("it stands in the logs: %s", logs)
			}
		})
	}
}

// The connection test reports a registration that may only read. Otherwise the first reading would show it.
func TestConnectionThatCannotWrite(t *testing.T) {
	t.Parallel()
	s := startWith(t, setup{missing: temporal, ehr: func(c *ecw.Config) { c.Scope = "system/Patient.read system/Observation.read" }})
	got := s.do("POST", "/api/v1/ecw/test/connection/", "").want(t, http.StatusOK, "")
	if note := got.text("note"); !strings.Contains(note, "ECW_SCOPE") || !strings.Contains(note, "Nothing can be delivered") {
		t.Errorf("got %s", got.body)
	}
}

// For an EHR that counts more patients than it lists, count and next are about those that it lists.
func TestListOfPatientsThatIsCut(t *testing.T) {
	t.Parallel()
	s := startWith(t, setup{missing: temporal, watch: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, "/Patient") {
				next.ServeHTTP(w, r)
				return
			}
			size, _ := strconv.Atoi(r.URL.Query().Get("_count"))
			var entries []string
			for n := range size {
				entries = append(entries, fmt.Sprintf(`{"resource":{"resourceType":"Patient","id":"p%d"}}`, n))
			}
			w.Header().Set("Content-Type", "application/fhir+json")
			fmt.Fprintf(w, `{"resourceType":"Bundle","type":"searchset","total":450,"entry":[%s]}`, strings.Join(entries, ","))
		})
	}})
	for page, want := range map[int]struct {
		results int
		next    bool
	}{1: {20, true}, 9: {20, true}, 10: {20, false}, 11: {0, false}, 23: {0, false}} {
		got := s.do("GET", fmt.Sprintf("/api/v1/ecw/patients/?page=%d&page_size=20", page), "").want(t, http.StatusOK, "")
		results, _ := got.get("results").([]any)
		if len(results) != want.results || got.get("count") != number("200") || (got.get("next") != nil) != want.next ||
			!strings.Contains(got.text("note"), "200") {
			t.Errorf("page %d: %s", page, clip(string(got.body)))
		}
	}
}

func TestECWCannotBeReached(t *testing.T) {
	t.Parallel()
	for code, open := range map[string]bool{"connect": false, "timeout": true} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			base := "http://" + silentPort(t, open)
			s := startWith(t, setup{missing: temporal, ehr: func(c *ecw.Config) {
				c.TokenURL, c.FHIRBaseURL, c.Timeout = base+"/token", base+"/fhir", 300*time.Millisecond
			}})
			for _, path := range []string{"jwt", "connection"} {
				s.do("POST", "/api/v1/ecw/test/"+path+"/", "").want(t, http.StatusBadGateway, code)
			}
		})
	}
}

// Step 8, first half: browse.
func TestBrowseECWPatients(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	s.patient(kevin)
	seen := map[string]bool{}
	imported := 0
	path := "/api/v1/ecw/patients/?page=1&page_size=20"
	for page := 1; path != ""; page++ {
		got := s.do("GET", path, "").want(t, http.StatusOK, "")
		if want := []string{"count", "count_is_exact", "next", "previous", "results"}; !slices.Equal(got.keys(), want) ||
			got.get("count") != number("142") {
			t.Fatalf("page %d: %s", page, clip(string(got.body)))
		}

		results, _ := got.get("results").([]any)
		for i := range results {
			person := got.part("results", i)
			if want := []string{"date_of_birth", "ecw_fhir_id", "imported", "mrn", "name", "vantrexia_id"}; !slices.Equal(person.keys(), want) {
				t.Fatalf("a patient has the members %v", person.keys())
			}

			id := person.text("ecw_fhir_id")
			if seen[id] || id == "" || person.text("name") == "" || person.text("date_of_birth") == "" || person.text("mrn") == "" {
				t.Errorf("patient %q comes twice or is incomplete: %s", id, person.body)
			}

			seen[id] = true
			if person.get("imported") == true {
				imported++
			}

			if isKevin := id == kevin; isKevin != (person.get("imported") == true) || isKevin != (person.get("vantrexia_id") != nil) {
				t.Errorf("%s: imported is %v", id, person.get("imported"))
			}
		}

		path, _ = strings.CutPrefix(got.text("next"), s.base)
		if (page == 1) != (got.get("previous") == nil) {
			t.Errorf("page %d: previous is %v", page, got.get("previous"))
		}
	}

	if len(seen) != 142 || imported != 1 {
		t.Errorf("%d patients on all pages, %d imported; want 142 and one", len(seen), imported)
	}
}

func TestSearchECWPatients(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	for query, want := range map[string]int{
		"search=Kowalczyk&page_size=100":                         -1,
		"search=kowal&page_size=100":                             -1,
		"search=" + url.QueryEscape("O'Brien") + "&page_size=50": -1,
		"search=nobodyhasthisname":                               0,
		"page=99&page_size=100":                                  142,
	} {
		t.Run(query, func(t *testing.T) {
			got := s.in(t).do("GET", "/api/v1/ecw/patients/?"+query, "").want(t, http.StatusOK, "")
			results, ok := got.get("results").([]any)
			if want >= 0 && (got.get("count") != number(fmt.Sprint(want)) || len(results) != 0 || !ok) {
				t.Errorf("got %s", clip(string(got.body)))
			}
			if want < 0 && (len(results) == 0 || len(results) > 20 || got.get("count") != number(fmt.Sprint(len(results)))) {
				t.Errorf("got %s", clip(string(got.body)))
			}
		})
	}

	for _, query := range []string{"page=0", "page=-1", "page=x", "page=1.5", "page_size=0", "page_size=101", "page=1000000", "page=2000&page_size=100", "page=201&page_size=100", "search=%zz", "search=%ff", "search=%00"} {
		t.Run(query, func(t *testing.T) {
			if got := s.in(t).do("GET", "/api/v1/ecw/patients/?"+query, ""); got.status != http.StatusBadRequest {
				t.Errorf("got %d %s", got.status, got.body)
			}
		})
	}
}
