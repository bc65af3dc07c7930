package api_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/api"
)

// route is a route of the server and what each role gets from it, for a request that can be repeated without
// effect.
type route struct {
	method, pattern string
	body            string
	status          int
	code            string
	roles           []string // that may use it; nil: anybody, without a token
}

func routesOf(patient string) []route {
	var (
		providers = []string{api.RoleAdmin, api.RoleProvider}
		services  = []string{api.RoleAdmin, api.RoleProvider, api.RoleService}
	)
	return []route{
		{"GET", "/healthz", "", 200, "", nil},
		{"GET", "/readyz", "", 200, "", nil},
		{"GET", "/.well-known/jwks.json", "", 200, "", nil},
		{"GET", "/openapi.yaml", "", 200, "", nil},
		{"GET", "/docs", "", 200, "", nil},
		{"GET", "/docs/:file", "", 200, "", nil},
		{"POST", "/api/v1/observations", bloodPressure(patient), 200, "", services},
		{"POST", "/api/v1/observations/batch", `{"observations":[` + bloodPressure(patient) + `]}`, 200, "", services},
		{"GET", "/api/v1/observations/:id", "", 200, "", services},
		{"POST", "/api/v1/patients", `{"first_name":"A","last_name":"B","birth_date":"1957-03-21","mrn":"taken"}`, 409, "patient_exists", providers},
		{"GET", "/api/v1/patients", "", 200, "", providers},
		{"GET", "/api/v1/patients/:id", "", 200, "", providers},
		{"PATCH", "/api/v1/patients/:id", `{}`, 200, "", providers},
		{"GET", "/api/v1/patients/:id/sync-status", "", 200, "", providers},
		{"POST", "/api/v1/patients/import_selected_from_ecw", `{"ecw_patient_ids":["unknown"]}`, 200, "", providers},
		{"GET", "/api/v1/patients/imports/:id", "", 404, "not_found", providers},
		{"POST", "/api/v1/ecw/test/jwt", "", 200, "", providers},
		{"POST", "/api/v1/ecw/test/connection", "", 200, "", providers},
		{"GET", "/api/v1/ecw/patients", "", 200, "", providers},
		{"GET", "/api/v1/fhir/observations/:id", "", 200, "", providers},
		{"POST", "/api/v1/fhir/observations/:id/transform", "", 409, "already_transmitted", providers},
		{"POST", "/api/v1/fhir/observations/:id/transmit", "", 409, "already_transmitted", providers},
		{"POST", "/api/v1/fhir/process-pending", "", 200, "", []string{api.RoleAdmin}},
		{"GET", "/api/v1/fhir/status", "", 200, "", providers},
		{"GET", "/api/v1/fhir/transmissions", "", 200, "", providers},
		{"GET", "/api/v1/fhir/transmissions/:id", "", 404, "not_found", providers},
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

	callers := map[string]caller{"nobody": s.with(""), "a stranger": s.with(s.sign(t, claims{"role": "nurse"}))}
	for _, role := range []string{api.RoleAdmin, api.RoleProvider, api.RoleService} {
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
				t.Run(r.method+" "+r.pattern+slash+" as "+role, func(t *testing.T) {
					c.in(t).do(r.method, path+slash, r.body).want(t, status, code)
				})
			}
		}
	}

	if s.rows("observations") != 1 || s.rows("patients") != 1 {
		t.Error("the walk left something behind")
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
		if r.Method != echo.RouteNotFound {
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
