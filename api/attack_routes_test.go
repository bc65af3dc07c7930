package api_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/api"
)

// A route has one path, with or without a slash at its end. Every other spelling of it is nothing to anybody, so
// that no proxy in front, and no check of ours, sees another route than the router.
func TestNoOtherSpellingOfARoute(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient("")
	callers := s.callersOfEachRole()
	for _, r := range routesOf(patient) {
		path := strings.NewReplacer(":id", patient, ":file", "docs.js").Replace(r.pattern)
		first, rest, _ := strings.Cut(path[1:], "/")
		for i, spelling := range []string{
			path + "//", "/" + first + "//" + rest, capital(path), strings.ToUpper(path),
			"/./" + first + "/" + rest, path + "/.", path + "/..", path + "%2f", path + "%20", path + "%00", path + ";a=b",
			path + "%3f", path + ".json", path + "/index.html", "/x/../" + path[1:], "/%2e/" + path[1:], "/%2f" + path[1:],
			"/" + strings.Replace(path[1:], "/", "%2f", 1), strings.Replace(path, "/v1/", "/V1/", 1), strings.Replace(path, "/v1/", "/v1.0/", 1),
			strings.Replace(path, "/v1/", "/", 1), "/" + percent(path[1:2]) + path[2:],
		} {
			if spelling == path || strings.HasPrefix(spelling, "//") || known(spelling) {
				continue
			}
			for role, token := range callers {
				if i > 3 && role != account.Admin && role != "nobody" {
					continue // the first ones are sent by everybody
				}
				c := *s
				c.token = token
				if got := c.raw(r.method, spelling); got.status < 400 || got.status >= 500 {
					t.Errorf("%s %s as %s: %d %s", r.method, spelling, role, got.status, clip(string(got.body)))
				}
			}
		}
	}
	if s.rows("patients") != 1 || s.rows("observations") != 0 || s.rows("api_keys") != 0 {
		t.Error("something was stored")
	}
}

// callersOfEachRole are tokens, by their role. Nobody has none.
func (s *system) callersOfEachRole() map[account.Role]string {
	s.tb.Helper()
	tokens := map[account.Role]string{"nobody": "", "a stranger": s.sign(s.tb, claims{"role": "patient"})}
	for _, role := range account.Roles() {
		tokens[role] = s.as(role).token
	}
	return tokens
}

// known reports whether a path is one of the routes after all, such as /docs/x.
func known(path string) bool {
	return slices.ContainsFunc(routesOf(""), func(r route) bool { return strings.TrimSuffix(path, "/") == r.pattern })
}

// capital writes the first letter of what follows the version large.
func capital(path string) string {
	at := 1
	if strings.HasPrefix(path, "/api/v1/") {
		at = len("/api/v1/")
	}
	return path[:at] + strings.ToUpper(path[at:at+1]) + path[at+1:]
}

func percent(letter string) string {
	const hex = "0123456789abcdef"
	return "%" + string(hex[letter[0]>>4]) + string(hex[letter[0]&15])
}

// The method is the one in the request line, whatever a header or the query says. So a route that changes
// something is not reached with a GET, which any page may have a browser send.
func TestNoOtherMethodThanTheRequestLine(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient("")
	routes := routesOf(patient)
	methods := map[string][]string{} // of each path
	for _, r := range routes {
		methods[r.pattern] = append(methods[r.pattern], r.method)
	}
	callers := s.callersOfEachRole()
	for _, r := range routes {
		path := strings.NewReplacer(":id", patient, ":file", "docs.js").Replace(r.pattern)
		for _, sent := range []string{"GET", "POST"} {
			if slices.Contains(methods[r.pattern], sent) {
				continue
			}
			for role, token := range callers {
				c := *s
				c.token = token
				plain := c.raw(sent, path)
				if plain.status < 400 || plain.status >= 500 {
					t.Errorf("%s %s as %s: %d", sent, path, role, plain.status)
				}
				for _, header := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Original-Method", "_method"} {
					if got := c.raw(sent, path, header, r.method); got.status != plain.status {
						t.Errorf("%s %s with %s: %s as %s: %d", sent, path, header, r.method, role, got.status)
					}
				}
				if got := c.raw(sent, path+"?_method="+r.method); got.status != plain.status {
					t.Errorf("%s %s?_method=%s as %s: %d", sent, path, r.method, role, got.status)
				}
			}
		}
		for _, odd := range []string{"TRACE", "PROPFIND", "get", "Post", "PUT"} {
			if got := s.raw(odd, path); got.status < 400 || got.status >= 500 || strings.Contains(string(got.body), s.token) {
				t.Errorf("%s %s: %d %s", odd, path, got.status, clip(string(got.body)))
			}
		}
	}
	if s.rows("patients") != 1 || s.rows("observations") != 0 || s.rows("api_keys") != 0 {
		t.Error("something was stored")
	}
}

// The device of another: a key that is for some devices neither posts for another one nor reads what another has
// posted, about the same patient or any other, and sees no patient at all.
func TestAnotherDevicesPatient(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	mine, theirs := s.patient(kevin), s.patient(susan)
	_, cuffs := s.makeKey(`{"name":"cuffs","role":"service","devices":["BP-OMRON-7250"]}`)
	_, scales := s.makeKey(`{"name":"scales","role":"service","devices":["SCALE-*"]}`)
	ids := map[string]string{
		"of the same patient":    scales.post(weight(mine)),
		"of another patient":     scales.post(weight(theirs)),
		"of a person":            s.post(weight(mine)),
		"that nobody has posted": "d4e5f6a7-b8c9-0123-defa-234567890123",
	}
	cuffs.post(bloodPressure(mine))

	for name, id := range ids {
		if got := cuffs.do("GET", "/api/v1/observations/"+id+"/", ""); got.status != http.StatusNotFound || strings.Contains(string(got.body), "SCALE") {
			t.Errorf("a reading %s: %d %s", name, got.status, got.body)
		}
		for _, path := range []string{"/api/v1/fhir/observations/" + id + "/", "/api/v1/fhir/transmissions/", "/api/v1/fhir/status/"} {
			cuffs.do("GET", path, "").want(t, http.StatusForbidden, "forbidden")
		}
		for _, step := range []string{"transform", "transmit", "cancel"} {
			cuffs.do("POST", "/api/v1/fhir/observations/"+id+"/"+step+"/", "").want(t, http.StatusForbidden, "forbidden")
		}
	}
	for _, patient := range []string{mine, theirs} {
		for _, path := range []string{"/api/v1/patients/", "/api/v1/patients/" + patient + "/", "/api/v1/patients/" + patient + "/sync-status/"} {
			cuffs.do("GET", path, "").want(t, http.StatusForbidden, "forbidden")
		}
		before := s.rows("observations")
		for _, device := range []string{"SCALE-7", "bp-omron-7250", "BP-OMRON-7250 ", "BP-OMRON-72501", "BP-OMRON-7250\u200b", "*", "BP-*", "ＢＰ-OMRON-7250"} {
			reading := replaced(weight(patient), "SCALE-7", device)
			if got := cuffs.do("POST", "/api/v1/observations/", reading); got.status != http.StatusBadRequest && device != "BP-OMRON-7250 " {
				t.Errorf("as %q: %d %s", device, got.status, got.body)
			}
			batch := cuffs.do("POST", "/api/v1/observations/batch/", `{"observations":[`+reading+`]}`)
			if statuses := batch.statuses(); !slices.Equal(statuses, []string{"400"}) && device != "BP-OMRON-7250 " {
				t.Errorf("as %q in a batch: %s", device, batch.body)
			}
		}
		if n := s.rows("observations") - before; n > 1 { // the name with a space at its end is the name
			t.Errorf("%d readings of other devices are stored", n)
		}
	}

	// The same reading as another's, to learn of it: an id, and nothing else.
	reading := weight(mine)
	theirsID := s.post(reading)
	_, anyDevice := s.makeKey(`{"name":"any","role":"service"}`)
	got := anyDevice.do("POST", "/api/v1/observations/", reading).want(t, http.StatusOK, "")
	if got.text("id") != theirsID || got.get("transmission") != nil || got.get("fhir_status") != nil {
		t.Errorf("the second sender is shown %s", got.body)
	}
	anyDevice.do("GET", "/api/v1/observations/"+theirsID+"/", "").want(t, http.StatusNotFound, "not_found")
}

// One token that floods is refused, and whoever else calls from the same address is answered as before.
func TestOneTokenFloodsAndAnotherGoesOn(t *testing.T) {
	t.Parallel()
	s := startWith(t, setup{missing: temporal, change: func(cfg *api.Config) { cfg.Limits.Callers = 50 }})
	patient := s.patient("")
	_, flooder := s.makeKey(`{"name":"flooder","role":"nurse"}`)
	_, gateway := s.makeKey(`{"name":"gateway","role":"service"}`)

	done := make(chan struct{})
	var flood sync.WaitGroup
	var mu sync.Mutex
	counted := map[int]int{}
	for range 16 {
		flood.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				status := flooder.read(flooder.request(t, "/api/v1/patients/")).status
				mu.Lock()
				counted[status]++
				mu.Unlock()
			}
		})
	}
	eventually(t, "the flood to be refused", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return counted[http.StatusTooManyRequests] > 100
	})

	var slowest time.Duration
	for range 20 {
		began := time.Now()
		gateway.do("POST", "/api/v1/observations/", weight(patient)).want(t, http.StatusCreated, "")
		slowest = max(slowest, time.Since(began))
	}
	for range 10 {
		s.do("GET", "/api/v1/patients/", "").want(t, http.StatusOK, "")
	}
	close(done)
	flood.Wait()

	if slowest > 10*time.Second {
		t.Errorf("a reading took %s", slowest)
	}
	if counted[http.StatusOK] > 60 || len(counted) != 2 {
		t.Errorf("the flood was answered with %v", counted)
	}
	flooder.do("GET", "/api/v1/patients/", "").want(t, http.StatusTooManyRequests, "rate_limited")
}

func (c caller) request(t *testing.T, path string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	return req
}
