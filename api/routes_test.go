package api_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/account"
)

// route is a route of the server and what each role gets from it, for a request that can be repeated without
// effect.
type route struct {
	method, pattern string
	body            string
	status          int
	code            string
	roles           []account.Role // that may use it, in the order of account.Roles; nil: anybody, without a token
}

func routesOf(patient string) []route {
	// Written out once more, so that a change of account's table shows here.
	var (
		everybody = []account.Role{"admin", "clinical_manager", "provider", "nurse", "ma", "data_monitor"}
		posters   = []account.Role{"admin", "clinical_manager", "provider", "nurse", "ma", "service"}
		carers    = []account.Role{"admin", "clinical_manager", "provider", "nurse", "ma"}
		importers = []account.Role{"admin", "clinical_manager", "provider", "nurse"}
		steerers  = []account.Role{"admin", "clinical_manager", "provider", "nurse", "data_monitor"}
		testers   = []account.Role{"admin", "clinical_manager", "provider", "data_monitor"}
		admins    = []account.Role{"admin"}
	)
	return []route{
		{"GET", "/healthz", "", 200, "", nil},
		{"GET", "/readyz", "", 200, "", nil},
		{"GET", "/.well-known/jwks.json", "", 200, "", nil},
		{"GET", "/openapi.yaml", "", 200, "", nil},
		{"GET", "/docs", "", 200, "", nil},
		{"GET", "/docs/:file", "", 200, "", nil},
		{"POST", "/api/v1/auth/login", `{"email":"no e-mail","password":"x"}`, 400, "invalid", nil},
		{"POST", "/api/v1/auth/token/refresh", `{"refresh":"x"}`, 401, "invalid_token", nil},
		{"GET", "/api/v1/auth/oidc", "", 404, "oidc_not_configured", nil},
		{"GET", "/api/v1/auth/oidc/callback", "", 404, "oidc_not_configured", nil},
		// The walk's tokens are of machines, which have no account.
		{"POST", "/api/v1/auth/logout", "", 404, "not_found", everybody},
		{"POST", "/api/v1/auth/logout/everywhere", "", 404, "not_found", everybody},
		{"GET", "/api/v1/auth/me", "", 404, "not_found", everybody},
		{"PATCH", "/api/v1/auth/me", `{"first_name":"A"}`, 404, "not_found", everybody},
		{"POST", "/api/v1/auth/me/password", `{"old_password":"x","new_password":"y"}`, 404, "not_found", everybody},
		{"POST", "/api/v1/auth/me/totp", `{"password":"x"}`, 404, "not_found", everybody},
		{"DELETE", "/api/v1/auth/me/totp", `{"password":"x","code":"123456"}`, 404, "not_found", everybody},
		{"POST", "/api/v1/auth/me/totp/confirm", `{"code":"123456"}`, 404, "not_found", everybody},
		{"GET", "/api/v1/users", "", 200, "", admins},
		{"POST", "/api/v1/users", `{"email":"a b@example.com","first_name":"A","last_name":"B","role":"ma"}`, 400, "invalid", admins},
		{"GET", "/api/v1/users/events", "", 200, "", admins},
		{"GET", "/api/v1/users/:id", "", 404, "not_found", admins},
		{"PATCH", "/api/v1/users/:id", `{}`, 404, "not_found", admins},
		{"POST", "/api/v1/users/:id/reset-password", "", 404, "not_found", admins},
		{"POST", "/api/v1/users/:id/unlock", "", 404, "not_found", admins},
		{"DELETE", "/api/v1/users/:id/totp", "", 404, "not_found", admins},
		{"POST", "/api/v1/observations", bloodPressure(patient), 200, "", posters},
		{"POST", "/api/v1/observations/batch", `{"observations":[` + bloodPressure(patient) + `]}`, 200, "", posters},
		{"GET", "/api/v1/observations/:id", "", 200, "", posters},
		{"POST", "/api/v1/ingestion/blood-pressure", ingested(patient, cuff), 200, "", posters},
		{"POST", "/api/v1/ingestion/weight", "{}", 400, "invalid", posters},
		{"POST", "/api/v1/ingestion/oxygen-saturation", "{}", 400, "invalid", posters},
		{"POST", "/api/v1/ingestion/glucose", "{}", 400, "invalid", posters},
		{"POST", "/api/v1/ingestion/heart-rate", "{}", 400, "invalid", posters},
		{"POST", "/api/v1/ingestion/temperature", "{}", 400, "invalid", posters},
		{"POST", "/api/v1/ingestion/respiratory-rate", "{}", 400, "invalid", posters},
		{"POST", "/api/v1/patients", `{"first_name":"A","last_name":"B","date_of_birth":"1957-03-21","mrn":"taken"}`, 409, "patient_exists", carers},
		{"GET", "/api/v1/patients", "", 200, "", carers},
		{"POST", "/api/v1/patients/search", `{}`, 200, "", carers},
		{"GET", "/api/v1/patients/:id", "", 200, "", carers},
		{"PATCH", "/api/v1/patients/:id", `{}`, 200, "", carers},
		{"POST", "/api/v1/patients/:id/archive", "", 200, "", carers},
		{"POST", "/api/v1/patients/:id/unarchive", "", 200, "", carers},
		{"GET", "/api/v1/patients/:id/sync-status", "", 200, "", carers},
		{"POST", "/api/v1/patients/import_selected_from_ecw", `{"ecw_patient_ids":["unknown"]}`, 200, "", importers},
		{"GET", "/api/v1/patients/imports/:id", "", 404, "not_found", importers},
		{"POST", "/api/v1/ecw/test/jwt", "", 200, "", testers},
		{"POST", "/api/v1/ecw/test/connection", "", 200, "", testers},
		{"GET", "/api/v1/ecw/patients", "", 200, "", importers},
		{"POST", "/api/v1/ecw/patients/search", `{}`, 200, "", importers},
		{"GET", "/api/v1/fhir/observations/:id", "", 200, "", carers},
		{"POST", "/api/v1/fhir/observations/:id/transform", "", 409, "already_transmitted", steerers},
		{"POST", "/api/v1/fhir/observations/:id/transmit", "", 409, "already_transmitted", steerers},
		{"POST", "/api/v1/fhir/observations/:id/cancel", "", 409, "already_transmitted", steerers},
		{"GET", "/api/v1/api-keys", "", 200, "", admins},
		{"POST", "/api/v1/api-keys", `{"name":" "}`, 400, "invalid", admins},
		{"GET", "/api/v1/api-keys/:id", "", 404, "not_found", admins},
		{"DELETE", "/api/v1/api-keys/:id", "", 404, "not_found", admins},
		{"POST", "/api/v1/tokens/revoke", `{"jti":"none","reason":""}`, 400, "invalid", admins},
		{"POST", "/api/v1/fhir/process-pending", "", 200, "", admins},
		{"POST", "/api/v1/temporal/decode", `{"payloads":[]}`, 200, "", admins},
		{"GET", "/api/v1/audit", "", 200, "", admins},
		{"GET", "/api/v1/audit/export", "", 400, "invalid", admins},
		{"GET", "/api/v1/fhir/status", "", 200, "", everybody},
		{"GET", "/api/v1/fhir/transmissions", "", 200, "", everybody},
		{"GET", "/api/v1/fhir/transmissions/:id", "", 404, "not_found", everybody},
	}
}

// Every route × every role × with and without a slash at the end. A route that the table lacks fails the
// test.
func TestEveryRouteAndRole(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	patient := s.patient(kevin)
	s.do("PATCH", "/api/v1/patients/"+patient, `{"mrn":"taken"}`).want(t, http.StatusOK, "")
	observation := s.post(bloodPressure(patient))
	s.await(observation, "transmitted")
	routes := routesOf(patient)
	s.wantNoOtherRoute(routes)

	callers := map[account.Role]caller{"nobody": s.with(""), "a stranger": s.with(s.sign(t, claims{"role": "patient"}))}
	for _, role := range account.Roles() {
		callers[role] = s.as(role)
	}

	for _, r := range routes {
		path := strings.NewReplacer(":id", patient, ":file", "docs.js").Replace(r.pattern)
		if strings.Contains(r.pattern, "observations/:id") {
			path = strings.Replace(r.pattern, ":id", observation, 1)
		}

		for role, c := range callers {
			status, code := r.status, r.code
			switch {
			case r.roles == nil || slices.Contains(r.roles, role):
			case role == "nobody":
				status, code = http.StatusUnauthorized, "not_authenticated"
			default:
				status, code = http.StatusForbidden, "forbidden"
			}

			for _, slash := range []string{"", "/"} {
				t.Run(r.method+" "+r.pattern+slash+" as "+string(role), func(t *testing.T) {
					c.in(t).do(r.method, path+slash, r.body).want(t, status, code)
				})
				t.Run("HEAD and OPTIONS "+r.pattern+slash+" as "+string(role), func(t *testing.T) { c.in(t).wantNothingShown(r.method, path+slash, status) })
			}
		}
	}

	if s.rows("observations") != 1 || s.rows("patients") != 1 {
		t.Error("the walk left something behind")
	}
}

// wantNothingShown sends HEAD and OPTIONS where a route of the method is. HEAD has the status of a GET, and
// neither shows anything. They are sent past the contract, which does not name them.
func (c caller) wantNothingShown(method, path string, status int) {
	c.tb.Helper()
	for _, asked := range []string{http.MethodHead, http.MethodOptions} {
		req, err := http.NewRequestWithContext(c.tb.Context(), asked, c.base+path, nil)
		if err != nil {
			c.tb.Fatal(err)
		}
		if c.token != "" {
			req.Header.Set("Authorization", "Bearer "+c.token)
		}

		res, err := c.client.Do(req)
		if err != nil {
			c.tb.Fatal(err)
		}
		shown, err := io.ReadAll(res.Body)
		if err != nil || res.Body.Close() != nil {
			c.tb.Fatal(err)
		}

		want := http.StatusNoContent
		if asked == http.MethodHead {
			want = status
		}
		// Where the route has no GET, another one of this path may have it.
		if len(shown) > 0 || res.StatusCode != want && (asked == http.MethodOptions || method == http.MethodGet) {
			c.tb.Errorf("%s %s is answered with %d and %q, want %d and nothing", asked, path, res.StatusCode, shown, want)
		}
	}
}

// wantNoOtherRoute fails the test if the router has a route that the table lacks, so that every new route
// gets its roles tested.
func (s *system) wantNoOtherRoute(routes []route) {
	s.tb.Helper()
	router, ok := s.handler.(interface{ Routes() []*echo.Route })
	if !ok {
		s.tb.Fatal("the handler does not list its routes")
	}

	var got, want []string
	for _, r := range router.Routes() {
		if r.Method != echo.RouteNotFound && r.Method != http.MethodHead { // the walk sends HEAD wherever GET is
			got = append(got, r.Method+" "+r.Path)
		}
	}

	for _, r := range routes {
		want = append(want, r.method+" "+r.pattern)
	}

	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		s.tb.Fatalf("the server has %v\nthe table %v", got, want)
	}
}

func TestNoSuchPathOrMethod(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	const id = "d4e5f6a7-b8c9-0123-defa-234567890123"
	for _, test := range []struct {
		method, path string
		status       int
		code         string
	}{
		{"GET", "/", 404, "not_found"},
		{"GET", "/nothing", 404, "not_found"},
		{"GET", "/api/v1", 404, "not_found"},
		{"GET", "/api/v1/", 404, "not_found"},
		{"GET", "/api/v1/nothing/", 404, "not_found"},
		{"POST", "/api/v2/observations/", 404, "not_found"},
		{"GET", "/api/v1/patients//", 404, "not_found"},
		{"GET", "/api/v1/patients/" + id + "/visits/", 404, "not_found"},
		{"GET", "/api/v1/observations/" + id + "/", 404, "not_found"},
		{"GET", "/api/v1/patients/" + id + "/", 404, "not_found"},
		{"PATCH", "/api/v1/patients/" + id + "/", 404, "not_found"},
		{"GET", "/api/v1/fhir/observations/" + id + "/", 404, "not_found"},
		{"POST", "/api/v1/fhir/observations/" + id + "/transform/", 404, "not_found"},
		{"POST", "/api/v1/fhir/observations/" + id + "/transmit/", 404, "not_found"},
		{"PUT", "/api/v1/observations/", 405, "method_not_allowed"},
		{"DELETE", "/api/v1/observations/" + id, 405, "method_not_allowed"},
		{"PUT", "/api/v1/patients/" + id + "/", 405, "method_not_allowed"},
		{"GET", "/api/v1/fhir/observations/" + id + "/transmit/", 405, "method_not_allowed"},
		{"POST", "/healthz", 405, "method_not_allowed"},
		{"POST", "/.well-known/jwks.json", 405, "method_not_allowed"},
	} {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			got := s.in(t).do(test.method, test.path, "{}").want(t, test.status, test.code)
			if allow := got.header.Get("Allow"); (allow != "") != (test.status == http.StatusMethodNotAllowed) {
				t.Errorf("Allow is %q (RFC 9110 §15.5.6)", allow)
			}
		})
	}
}
