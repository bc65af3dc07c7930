package api_test

import (
	"net/http"
	"net/netip"
	"strconv"
	"testing"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/api"
)

// door is an API with other limits.
func door(t *testing.T, change func(*api.Config)) caller {
	t.Helper()
	return startWith(t, setup{missing: temporal, change: change}).caller
}

// behindProxy lets the tests' own address say who its client is.
func behindProxy(c *api.Config) { c.TrustedProxies = api.Proxies{netip.MustParsePrefix("127.0.0.0/8")} }

const from = "X-Forwarded-For"

// wantLeft checks what the headers say of the bucket.
func (a answer) wantLeft(t *testing.T, limit, left int) answer {
	t.Helper()
	if got := a.header.Get("X-RateLimit-Limit") + " " + a.header.Get("X-RateLimit-Remaining"); got != strconv.Itoa(limit)+" "+strconv.Itoa(left) {
		t.Errorf("the limit and what is left are %s, want %d %d", got, limit, left)
	}
	return a
}

// wantRefused checks a 429, and that the caller may come again within so many seconds.
func (a answer) wantRefused(t *testing.T, within int) {
	t.Helper()
	a.want(t, http.StatusTooManyRequests, "rate_limited")
	wait, err := strconv.Atoi(a.header.Get("Retry-After"))
	if err != nil || wait < 1 || wait > within {
		t.Errorf("Retry-After is %q, want 1 to %d", a.header.Get("Retry-After"), within)
	}
	if reset, err := strconv.Atoi(a.header.Get("X-RateLimit-Reset")); err != nil || reset < wait {
		t.Errorf("X-RateLimit-Reset is %q, before Retry-After", a.header.Get("X-RateLimit-Reset"))
	}
}

// Whoever has somebody's access token may not try passwords and codes as often as other requests are made: each
// try costs a hash.
func TestTriesOfOnesOwnPasswordAreCountedAsSignIns(t *testing.T) {
	t.Parallel()
	s := startWith(t, setup{missing: temporal, change: func(cfg *api.Config) { cfg.Limits.SignIn = 3 }})
	s.person("nora@example.com", account.Nurse)
	nora, _ := s.signedIn("nora@example.com", goodPassword)

	const wrong = `{"password":"not the password"}`
	nora.do("POST", "/api/v1/auth/me/totp/", wrong).want(t, http.StatusBadRequest, "invalid").wantLeft(t, 3, 2)
	nora.do("POST", "/api/v1/auth/me/totp/confirm/", `{"code":"123456"}`).want(t, http.StatusConflict, "totp_not_set_up").wantLeft(t, 3, 1)
	nora.do("POST", "/api/v1/auth/me/password/", `{"old_password":"not the password","new_password":"gravel pocket lantern ten"}`).
		want(t, http.StatusBadRequest, "invalid").wantLeft(t, 3, 0)
	nora.do("DELETE", "/api/v1/auth/me/totp/", `{"password":"not the password","code":"123456"}`).wantLeft(t, 3, 0).wantRefused(t, 20)

	nora.me().want(t, http.StatusOK, "")
	nora.do("PATCH", "/api/v1/auth/me/", `{"first_name":"Nina"}`).want(t, http.StatusOK, "")
	nora.signIn("nora@example.com", goodPassword, "").want(t, http.StatusOK, "").wantLeft(t, 3, 1) // the address has its own
}

// Without a valid token the address is counted, and never a caller: whoever guesses tokens does not use up the
// requests of those who have one, not even from the same address.
func TestRequestsWithoutATokenAreCountedByAddress(t *testing.T) {
	t.Parallel()
	c := door(t, func(cfg *api.Config) {
		behindProxy(cfg)
		cfg.Limits.Anonymous = 3
	})

	nobody, guesser := c.with(""), c.with(c.sign(t, claims{"exp": 1}))
	nobody.do("GET", "/api/v1/patients/", "", from, "192.0.2.1").want(t, http.StatusUnauthorized, "not_authenticated").wantLeft(t, 3, 2)
	guesser.do("GET", "/api/v1/patients/", "", from, "192.0.2.1").want(t, http.StatusUnauthorized, "token_expired").wantLeft(t, 3, 1)
	nobody.do("GET", "/api/v1/nothing/", "", from, "192.0.2.1").want(t, http.StatusNotFound, "not_found").wantLeft(t, 3, 0)

	for _, c := range []caller{nobody, guesser} {
		c.do("GET", "/api/v1/patients/", "", from, "192.0.2.1").wantLeft(t, 3, 0).wantRefused(t, 1200)
	}
	nobody.do("GET", "/api/v1/patients/", "", from, "192.0.2.2").want(t, http.StatusUnauthorized, "not_authenticated").wantLeft(t, 3, 2)

	limit := plenty().Callers
	c.do("GET", "/api/v1/nothing/", "", from, "192.0.2.1").want(t, http.StatusNotFound, "not_found").wantLeft(t, limit, limit-1)
	for _, path := range []string{"/healthz", "/.well-known/jwks.json", "/docs", "/openapi.yaml"} {
		if got := nobody.do("GET", path, "", from, "192.0.2.1"); got.status != http.StatusOK || got.header.Get("X-RateLimit-Limit") != "" {
			t.Errorf("%s is answered with %d, and counted: %q", path, got.status, got.header.Get("X-RateLimit-Limit"))
		}
	}
}

// A provider gives each customer a network of 64 bits, of which they may use any address.
func TestANetworkOfOneCustomerIsOneAddress(t *testing.T) {
	t.Parallel()
	c := door(t, func(cfg *api.Config) {
		behindProxy(cfg)
		cfg.Limits.Anonymous = 2
	}).with("")

	for _, address := range []string{"2001:db8:0:1::1", "[2001:db8:0:1:ffff::2]:50000"} {
		c.do("GET", "/api/v1/patients/", "", from, address).want(t, http.StatusUnauthorized, "not_authenticated")
	}
	c.do("GET", "/api/v1/patients/", "", from, "2001:db8:0:1::3").wantRefused(t, 1800)
	c.do("GET", "/api/v1/patients/", "", from, "2001:db8:0:2::1").want(t, http.StatusUnauthorized, "not_authenticated")
	c.do("GET", "/api/v1/patients/", "", from, "::ffff:192.0.2.1").wantLeft(t, 2, 1)
	c.do("GET", "/api/v1/patients/", "", from, "192.0.2.1").wantLeft(t, 2, 0)
}

// Readings have a bucket of their own, whatever they are posted to. All tokens of a subject share it.
func TestACallersReadingsAreCountedApart(t *testing.T) {
	t.Parallel()
	c := door(t, func(cfg *api.Config) { cfg.Limits.Ingestion, cfg.Limits.Callers = 2, 3 })
	monitor := c.as(account.DataMonitor) // may not post, which is answered before the database is asked

	monitor.do("POST", "/api/v1/observations/", "{}").want(t, http.StatusForbidden, "forbidden").wantLeft(t, 2, 1)
	monitor.do("POST", "/api/v1/observations/batch", "{}").want(t, http.StatusForbidden, "forbidden").wantLeft(t, 2, 0)
	c.as(account.DataMonitor).do("POST", "/api/v1/ingestion/nothing/", "{}").wantLeft(t, 2, 0).wantRefused(t, 1)
	monitor.do("GET", "/api/v1/patients/", "").want(t, http.StatusForbidden, "forbidden").wantLeft(t, 3, 2)

	another := c.with(c.sign(t, claims{"sub": "another", "role": "data_monitor"}))
	another.do("POST", "/api/v1/observations/", "{}").want(t, http.StatusForbidden, "forbidden").wantLeft(t, 2, 1)
	for range 3 {
		another.do("GET", "/api/v1/patients/", "")
	}
	another.do("GET", "/api/v1/patients/", "").wantLeft(t, 3, 0).wantRefused(t, 1200)
}

// Attempts to sign in are counted by themselves, also when a valid token comes with them.
func TestAttemptsToSignInAreCountedByAddress(t *testing.T) {
	t.Parallel()
	c := door(t, func(cfg *api.Config) { cfg.Limits.SignIn = 2 })
	for _, path := range []string{"/api/v1/auth/login/", "/api/v1/auth/token/refresh"} {
		c.do("POST", path, "{}", from, "192.0.2.9") // that nobody is believed
	}
	c.do("POST", "/api/v1/auth/login", "{}", from, "192.0.2.10").wantRefused(t, 30)
	c.do("GET", "/api/v1/auth/me/", "").wantLeft(t, plenty().Callers, plenty().Callers-1)
}

func TestALimitMayBeNone(t *testing.T) {
	t.Parallel()
	c := door(t, func(cfg *api.Config) { cfg.Limits = api.Limits{} })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.base+"/api/v1/patients/", nil)
	if err != nil {
		t.Fatal(err)
	}

	for range 200 {
		res, err := c.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusUnauthorized || res.Header.Get("X-RateLimit-Limit") != "" {
			t.Fatalf("got %s and the limit %q", res.Status, res.Header.Get("X-RateLimit-Limit"))
		}
	}
}
