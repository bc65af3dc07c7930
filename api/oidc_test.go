package api_test

import (
	"crypto/rand"
	"crypto/rsa"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/api"
	"github.com/vantrexia/vantrexia/db"
)

// practiceSystem is a system whose API knows an identity provider.
type practiceSystem struct {
	*system
	provider *identityProvider
	cfg      api.Config
}

// startOIDC runs a system without Temporal. change changes the settings of the API.
func startOIDC(t *testing.T, change func(*api.Config)) *practiceSystem {
	t.Helper()
	s := &practiceSystem{provider: startProvider(t)}
	s.system = startWith(t, setup{missing: temporal, change: func(cfg *api.Config) { s.cfg = *cfg }})
	s.secret(oidcSecret, "nora@example.com", "Nora", "Lind", "subject-of-nora")
	s.cfg.OIDC = account.OIDCConfig{
		Issuer:       s.provider.url,
		ClientID:     oidcClient,
		ClientSecret: oidcSecret,
		Scopes:       []string{"openid", "profile", "email"},
		GroupsClaim:  "groups",
		Roles: []account.GroupRole{
			{Group: "vantrexia-admins", Role: account.Admin},
			{Group: "nurses", Role: account.Nurse},
			{Group: "assistants", Role: account.MA},
		},
	}
	if change != nil {
		change(&s.cfg)
	}
	s.caller = s.process(t)
	return s
}

// process starts one more process of the API. All of them are reached at one address in production, so that
// each takes its own as the public one here.
func (s *practiceSystem) process(t *testing.T) caller {
	t.Helper()
	var routes late
	c := serve(t, &routes, s.log)
	cfg := s.cfg
	if cfg.PublicURL == "" {
		cfg.PublicURL = c.base
	}
	handler := newAPI(t, cfg)
	routes.handler.Store(&handler)
	return c
}

// nora are the claims of a nurse.
func nora(change jwt.MapClaims) jwt.MapClaims {
	claims := jwt.MapClaims{
		"sub":            "subject-of-nora",
		"email":          "Nora@Example.com",
		"email_verified": true,
		"given_name":     "Nora",
		"family_name":    "Lind",
		"groups":         []string{"all-staff", "nurses"},
	}
	maps.Copy(claims, change)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	return claims
}

// browser is one with cookies, which does not follow redirects by itself.
func (c caller) browser() caller {
	c.tb.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		c.tb.Fatal(err)
	}
	c.client = &http.Client{
		Jar:           jar,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	c.token = ""
	return c
}

// begin goes to the identity provider and signs in there. It returns the path with which the browser comes
// back.
func (c caller) begin(query string) string {
	c.tb.Helper()
	begun := c.do("GET", "/api/v1/auth/oidc/"+query, "").want(c.tb, http.StatusFound, "")
	res, err := c.client.Get(begun.header.Get("Location"))
	if err != nil {
		c.tb.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusFound {
		c.tb.Fatalf("the provider answers %s", res.Status)
	}
	path, ours := strings.CutPrefix(res.Header.Get("Location"), c.base)
	if !ours {
		c.tb.Fatalf("the provider sends the browser to %s", res.Header.Get("Location"))
	}
	return path
}

func (c caller) end(path string) answer {
	c.tb.Helper()
	a := c.do("GET", path, "")
	c.secret(a.text("access"), a.text("refresh"))
	return a
}

// oidc signs in from beginning to end.
func (c caller) oidc() answer {
	c.tb.Helper()
	b := c.browser()
	return b.end(b.begin(""))
}

func (s *practiceSystem) wantNobody(t *testing.T) {
	t.Helper()
	if users, sessions := s.rows("users"), s.rows("sessions"); users != 0 || sessions != 0 {
		t.Errorf("there are %d accounts and %d sessions", users, sessions)
	}
}

// A person signs in with the identity provider, from the first redirect to the end of the session.
func TestSignInWithTheIdentityProvider(t *testing.T) {
	t.Parallel()
	s := startOIDC(t, nil)
	s.provider.person(nora(nil))

	b := s.browser()
	begun := b.do("GET", "/api/v1/auth/oidc/?return_to=/patients?page=2", "").want(t, http.StatusFound, "")
	asked, err := url.Parse(begun.header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	query := asked.Query()
	if query.Get("redirect_uri") != s.base+"/api/v1/auth/oidc/callback/" || query.Get("response_type") != "code" ||
		query.Get("code_challenge_method") != "S256" || len(query.Get("code_challenge")) != 43 || len(query.Get("state")) != 43 ||
		len(query.Get("nonce")) != 43 || query.Get("scope") != "openid profile email" || strings.Contains(asked.RawQuery, "secret") {
		t.Errorf("the browser is sent to %s", asked)
	}
	cookie := begun.header.Get("Set-Cookie")
	for _, wanted := range []string{"vantrexia-sign-in=", "; Path=/", "; Max-Age=600", "; HttpOnly", "; SameSite=Lax"} {
		if !strings.Contains(cookie, wanted) {
			t.Errorf("the cookie %q has no %q", cookie, wanted)
		}
	}
	if begun.header.Get("Cache-Control") != "no-store" {
		t.Error("the redirect may be stored")
	}

	in := b.end(b.begin("?return_to=/patients?page=2")).want(t, http.StatusOK, "")
	if !slices.Equal(in.keys(), []string{"access", "refresh", "return_to", "user"}) || in.text("return_to") != "/patients?page=2" ||
		in.text("user", "email") != "nora@example.com" || in.text("user", "role") != "nurse" || in.header.Get("Cache-Control") != "no-store" ||
		!strings.Contains(in.header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("signed in as %s %v", in.body, in.header)
	}
	s.with(in.text("access")).me().want(t, http.StatusOK, "")
	s.with(in.text("access")).do("GET", "/api/v1/patients/", "").want(t, http.StatusOK, "")

	// The same person is the same account, also with another e-mail, and whichever process ends the sign-in.
	s.provider.person(nora(jwt.MapClaims{"email": "nora.lind@example.com"}))
	again := s.oidc().want(t, http.StatusOK, "")
	if again.text("user", "id") != in.text("user", "id") || again.get("return_to") != nil {
		t.Errorf("signed in again as %s", again.body)
	}

	// The session can be refreshed, until the provider has to be asked again.
	next := s.refresh(again.text("refresh")).want(t, http.StatusOK, "")
	s.secret(next.text("access"), next.text("refresh"))
	var hours float64
	const ends = "SELECT max(extract(epoch FROM sign_in_again_at - created_at)) / 3600 FROM sessions"
	if err := s.conn.QueryRow(t.Context(), ends).Scan(&hours); err != nil || hours != 12 {
		t.Errorf("a session may be refreshed for %v hours, %v", hours, err)
	}
	s.exec("UPDATE sessions SET sign_in_again_at = now() - interval '1 second'")
	s.with(next.text("access")).me().want(t, http.StatusUnauthorized, "session_ended")
	s.refresh(next.text("refresh")).want(t, http.StatusUnauthorized, "invalid_token")

	// A local sign-in with that e-mail is as wrong as any other.
	s.signIn("nora@example.com", goodPassword, "").want(t, http.StatusUnauthorized, "authentication_failed")
	events := s.do("GET", "/api/v1/users/events/", "").want(t, http.StatusOK, "")
	if events.text("results", 0, "action") != "added" || events.text("results", 0, "actor") != "oidc" || events.get("results", 1) != nil {
		t.Errorf("the events are %s", events.body)
	}
}

// The browser may come back to another process than the one where it began.
func TestIdentityProviderAndSeveralProcesses(t *testing.T) {
	t.Parallel()
	s := startOIDC(t, nil)
	s.provider.person(nora(nil))
	s.cfg.PublicURL = s.base
	other := s.process(t)

	b := s.browser()
	path := b.begin("")
	b.base = other.base // the same host: cookies do not tell ports apart
	b.end(path).want(t, http.StatusOK, "")
	b.end(path).want(t, http.StatusBadRequest, "oidc_state_invalid")
}

// Two first sign-ins of a person at the same moment make one account.
func TestFirstSignInTwiceAtOnce(t *testing.T) {
	t.Parallel()
	s := startOIDC(t, nil)
	s.provider.person(nora(nil))
	var all sync.WaitGroup
	for range 4 {
		b := s.browser()
		path := b.begin("")
		all.Go(func() {
			if a := b.end(path); a.status != http.StatusOK {
				t.Errorf("answered with %d %s", a.status, a.body)
			}
		})
	}
	all.Wait()
	if users := s.rows("users"); users != 1 {
		t.Errorf("there are %d accounts", users)
	}
}

// Id tokens that are not good: each is refused, and stores nothing.
func TestBadIDTokens(t *testing.T) {
	t.Parallel()
	s := startOIDC(t, nil)
	s.provider.person(nora(nil))
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := s.provider
	claim := func(name string, value any) func(jwt.MapClaims) {
		return func(claims jwt.MapClaims) {
			if claims[name] = value; value == nil {
				delete(claims, name)
			}
		}
	}
	clock := func(by time.Duration) func(jwt.MapClaims) {
		return func(claims jwt.MapClaims) {
			for _, name := range []string{"iat", "exp"} {
				claims[name] = claims[name].(int64) + int64(by.Seconds())
			}
		}
	}

	for name, bad := range map[string]struct {
		alter func(jwt.MapClaims)
		sign  func(jwt.MapClaims) string
	}{
		"no nonce":             {alter: claim("nonce", nil)},
		"another nonce":        {alter: claim("nonce", "another")},
		"another audience":     {alter: claim("aud", "another")},
		"two audiences":        {alter: claim("aud", []string{oidcClient, "another"})},
		"for another client":   {alter: claim("azp", "another")},
		"another issuer":       {alter: claim("iss", "https://id.example.com")},
		"an issuer with slash": {alter: claim("iss", p.url+"/")},
		"no subject":           {alter: claim("sub", nil)},
		"an empty subject":     {alter: claim("sub", "")},
		"a number as subject":  {alter: claim("sub", 17)},
		"no expiry":            {alter: claim("exp", nil)},
		"expired":              {alter: claim("exp", time.Now().Add(-time.Second).Unix())},
		"not yet":              {alter: claim("nbf", time.Now().Add(10*time.Minute).Unix())},
		"a clock 10 min ahead": {alter: clock(10 * time.Minute)},
		"a clock 10 min slow":  {alter: clock(-10 * time.Minute)},
		"another access token": {alter: claim("at_hash", "AAAAAAAAAAAAAAAAAAAAAA")},
		"another key":          {sign: func(c jwt.MapClaims) string { return p.signed(jwt.SigningMethodRS256, stranger, c) }},
		"HS256 with the client's secret": {sign: func(c jwt.MapClaims) string {
			return p.signed(jwt.SigningMethodHS256, []byte(oidcSecret), c)
		}},
		"HS256 with the public key": {sign: func(c jwt.MapClaims) string {
			return p.signed(jwt.SigningMethodHS256, p.key.N.Bytes(), c)
		}},
		"alg none": {sign: func(c jwt.MapClaims) string {
			return p.signed(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, c)
		}},
		"no signature": {sign: func(c jwt.MapClaims) string {
			text := p.signed(jwt.SigningMethodRS256, p.key, c)
			return text[:strings.LastIndex(text, ".")+1]
		}},
		"no id token": {sign: func(jwt.MapClaims) string { return "" }},
		"no token":    {sign: func(jwt.MapClaims) string { return "nothing" }},
	} {
		p.set(func(p *identityProvider) { p.alter, p.sign = bad.alter, bad.sign })
		t.Run(name, func(t *testing.T) {
			s.in(t).oidc().want(t, http.StatusUnauthorized, "oidc_failed")
			s.wantNobody(t)
		})
	}

	// A clock that is off by a little does no harm, and neither do two audiences for us.
	p.set(func(p *identityProvider) { p.alter, p.sign = clock(time.Minute), nil })
	s.oidc().want(t, http.StatusOK, "")
	p.set(func(p *identityProvider) {
		p.alter = func(c jwt.MapClaims) { c["aud"], c["azp"] = []string{oidcClient, "another"}, oidcClient }
	})
	s.oidc().want(t, http.StatusOK, "")
}

// A sign-in belongs to one browser, and ends once.
func TestStateOfASignIn(t *testing.T) {
	t.Parallel()
	s := startOIDC(t, nil)
	s.provider.person(nora(nil))
	victim, thief := s.browser(), s.browser()
	const callback = "/api/v1/auth/oidc/callback/"
	refuse := func(c caller, path string) {
		t.Helper()
		c.end(path).want(t, http.StatusBadRequest, "oidc_state_invalid")
	}

	refuse(victim, callback)
	refuse(victim, callback+"?state=&code=")
	refuse(victim, callback+"?error=access_denied")
	refuse(victim, callback+"?state=unknown&code=x")
	refuse(victim, callback+"?state=%zz&code=x")

	// The thief lets the victim's browser end a sign-in of the thief's, and the other way round.
	path := thief.begin("")
	refuse(victim, path)
	victim.begin("")
	refuse(victim, path)
	refuse(thief.browser(), path)
	refuse(thief, path+"&state=twice")
	s.wantNobody(t)
	thief.end(path).want(t, http.StatusOK, "")
	refuse(thief, path)

	// Another code than the sign-in's own: PKCE and the nonce tie them together.
	stolen, own := codeOf(t, victim.begin("")), thief.begin("")
	thief.end(strings.Replace(own, codeOf(t, own), stolen, 1)).want(t, http.StatusUnauthorized, "oidc_failed")

	// A code that was used.
	path = thief.begin("")
	thief.end(path).want(t, http.StatusOK, "")
	again := thief.begin("")
	thief.end(strings.Replace(again, codeOf(t, again), codeOf(t, path), 1)).want(t, http.StatusUnauthorized, "oidc_failed")
	refuse(thief, again)

	// An answer that is said to be of another issuer, or of none (RFC 9207).
	for _, issuer := range []string{"https://id.example.com", ""} {
		u, err := url.Parse(thief.begin(""))
		if err != nil {
			t.Fatal(err)
		}
		query := u.Query()
		query.Set("iss", issuer)
		thief.end(callback+"?"+query.Encode()).want(t, http.StatusUnauthorized, "oidc_failed")
	}

	late := thief.begin("")
	s.exec("UPDATE oidc_sign_ins SET expires_at = now() - interval '1 second'")
	refuse(thief, late)
	thief.begin("") // takes old ones away
	if left := s.rows("oidc_sign_ins"); left != 1 {
		t.Errorf("%d sign-ins are kept", left)
	}
}

// codeOf is the code that a browser brings back.
func codeOf(t *testing.T, path string) string {
	t.Helper()
	u, err := url.Parse(path)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query().Get("code")
}

// Whose account a person gets.
func TestWhoseAccount(t *testing.T) {
	t.Parallel()
	const email = "nora@example.com"
	signIn := func(t *testing.T, before func(*practiceSystem), claims jwt.MapClaims) (*practiceSystem, answer) {
		s := startOIDC(t, nil)
		if before != nil {
			before(s)
		}
		s.provider.person(nora(claims))
		return s, s.oidc()
	}
	// made by an administrator, who knows the password.
	made := func(role account.Role) func(*practiceSystem) {
		return func(s *practiceSystem) {
			s.person(email, role)
			s.exec("UPDATE users SET password_temporary_until = now() + interval '1 day'")
		}
	}

	for name, refused := range map[string]struct {
		before func(*practiceSystem)
		claims jwt.MapClaims
		status int
		code   string
	}{
		"no e-mail":      {nil, jwt.MapClaims{"email": nil}, 403, "oidc_claims_missing"},
		"no such e-mail": {nil, jwt.MapClaims{"email": "nоra@example.com"}, 403, "oidc_claims_missing"}, // a Cyrillic letter
		"no names":       {nil, jwt.MapClaims{"given_name": nil, "family_name": nil, "name": "Nora"}, 403, "oidc_claims_missing"},
		"blank names":    {nil, jwt.MapClaims{"given_name": " \t", "family_name": "\n"}, 403, "oidc_claims_missing"},
		"an admin's e-mail, unverified": {func(s *practiceSystem) { s.person(email, account.Admin) },
			jwt.MapClaims{"email_verified": false}, 409, "user_exists"},
		"an admin's e-mail, verified":                 {func(s *practiceSystem) { s.person(email, account.Admin) }, nil, 409, "user_exists"},
		"a nurse's e-mail, verified":                  {func(s *practiceSystem) { s.person(email, account.Nurse) }, nil, 409, "user_exists"},
		"a waiting account's e-mail, unverified":      {made(account.Nurse), jwt.MapClaims{"email_verified": false}, 409, "user_exists"},
		"a waiting account's e-mail, not said":        {made(account.Nurse), jwt.MapClaims{"email_verified": nil}, 409, "user_exists"},
		"a waiting account's e-mail, in wide letters": {made(account.Nurse), jwt.MapClaims{"email": "ｎora@example.com"}, 409, "user_exists"},
		"a waiting account with two-factor sign-in": {func(s *practiceSystem) {
			made(account.Nurse)(s)
			s.useTOTP(s.account(email).ID, "x")
		}, nil, 409, "user_exists"},
		"a disabled account": {func(s *practiceSystem) {
			made(account.Nurse)(s)
			s.exec("UPDATE users SET disabled_at = now()")
		}, nil, 403, "account_disabled"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, a := signIn(t, refused.before, refused.claims)
			a.want(t, refused.status, refused.code)
			if s.rows("oidc_identities") != 0 || s.rows("sessions") != 0 {
				t.Error("something was stored")
			}
			if refused.before != nil && s.account(email).PasswordHash == nil {
				t.Error("the password is gone")
			}
		})
	}

	t.Run("a waiting account", func(t *testing.T) {
		t.Parallel()
		var session caller
		s, a := signIn(t, func(s *practiceSystem) {
			made(account.Admin)(s)
			session, _ = s.signedIn(email, goodPassword) // of the administrator, who knows the password
		}, nil)
		a.want(t, http.StatusOK, "")
		if a.text("user", "role") != "nurse" {
			t.Errorf("linked as %s: the groups say nurse", a.body)
		}
		s.with(a.text("access")).do("GET", "/api/v1/patients/", "").want(t, http.StatusOK, "") // needs no other password
		session.me().want(t, http.StatusUnauthorized, "session_ended")
		s.signIn(email, goodPassword, "").want(t, http.StatusUnauthorized, "authentication_failed")

		// Somebody else, to whom the provider has given the address since.
		s.provider.person(nora(jwt.MapClaims{"sub": "another"}))
		s.oidc().want(t, http.StatusConflict, "user_exists")
		if s.rows("users") != 1 {
			t.Error("there is another account")
		}
	})

	t.Run("the whole name only, and an unverified e-mail that nobody has", func(t *testing.T) {
		t.Parallel()
		_, a := signIn(t, nil, jwt.MapClaims{"given_name": nil, "family_name": nil, "name": "Nora van Lind", "email_verified": nil})
		a.want(t, http.StatusOK, "")
		if a.text("user", "first_name") != "Nora van" || a.text("user", "last_name") != "Lind" {
			t.Errorf("signed in as %s", a.body)
		}
	})

	t.Run("disabled later", func(t *testing.T) {
		t.Parallel()
		s, a := signIn(t, nil, nil)
		a.want(t, http.StatusOK, "")
		s.do("PATCH", "/api/v1/users/"+a.text("user", "id")+"/", `{"disabled":true}`).want(t, http.StatusOK, "")
		s.oidc().want(t, http.StatusForbidden, "account_disabled")
	})
}

// The role follows the groups.
func TestRoleFollowsTheGroups(t *testing.T) {
	t.Parallel()
	s := startOIDC(t, nil)
	in := func(groups any) answer {
		t.Helper()
		s.provider.person(nora(jwt.MapClaims{"groups": groups}))
		return s.oidc()
	}

	for _, none := range []any{nil, []string{}, []string{"all-staff", "Nurses", "nurses "}, "nursing", 17, map[string]any{"nurses": true}} {
		in(none).want(t, http.StatusForbidden, "oidc_no_role")
		s.wantNobody(t)
	}

	nurse := in("nurses").want(t, http.StatusOK, "") // one text instead of a list
	id := nurse.text("user", "id")
	admin := in([]string{"assistants", "vantrexia-admins"}).want(t, http.StatusOK, "") // the first of the settings
	if admin.text("user", "role") != "admin" || admin.text("user", "id") != id {
		t.Errorf("signed in as %s", admin.body)
	}
	refused := s.with(nurse.text("access")).me().want(t, http.StatusUnauthorized, "invalid_token")
	if !strings.Contains(refused.text("detail"), "Your role has changed") {
		t.Errorf("the old token is refused with %s", refused.body)
	}
	refreshed := s.refresh(nurse.text("refresh")).want(t, http.StatusOK, "")
	s.secret(refreshed.text("access"), refreshed.text("refresh"))
	s.with(refreshed.text("access")).do("GET", "/api/v1/users/", "").want(t, http.StatusOK, "")

	// Down again, although nobody else is an administrator.
	ma := in([]string{"assistants"}).want(t, http.StatusOK, "")
	s.with(admin.text("access")).do("GET", "/api/v1/users/", "").want(t, http.StatusUnauthorized, "invalid_token")
	s.with(ma.text("access")).do("GET", "/api/v1/users/", "").want(t, http.StatusForbidden, "forbidden")

	// Out of every group: what is open is closed.
	in([]string{"all-staff"}).want(t, http.StatusForbidden, "oidc_no_role")
	s.with(ma.text("access")).me().want(t, http.StatusUnauthorized, "session_ended")
	s.refresh(ma.text("refresh")).want(t, http.StatusUnauthorized, "invalid_token")

	var changes []string
	events := s.do("GET", "/api/v1/users/events/", "").want(t, http.StatusOK, "")
	for i := range events.get("results").([]any) {
		changes = append(changes, events.text("results", i, "detail"))
	}
	if want := []string{"admin to ma", "nurse to admin", "nurse"}; !slices.Equal(changes, want) {
		t.Errorf("the events are %v, want %v", changes, want)
	}
}

// The settings may demand how a person signs in at the provider.
func TestStrongSignInIsDemanded(t *testing.T) {
	t.Parallel()
	s := startOIDC(t, func(cfg *api.Config) {
		cfg.OIDC.RequireAMR = []string{"mfa", "hwk"}
		cfg.OIDC.RequireACR = []string{"gold", "silver"}
	})
	for name, tc := range map[string]struct {
		claims jwt.MapClaims
		taken  bool
	}{
		"neither":         {nil, false},
		"a password only": {jwt.MapClaims{"amr": []string{"pwd"}, "acr": "gold"}, false},
		"no amr":          {jwt.MapClaims{"acr": "gold"}, false},
		"no acr":          {jwt.MapClaims{"amr": []string{"mfa"}}, false},
		"another acr":     {jwt.MapClaims{"amr": []string{"mfa"}, "acr": "0"}, false},
		"both":            {jwt.MapClaims{"amr": []string{"pwd", "hwk"}, "acr": "silver"}, true},
	} {
		s.provider.person(nora(tc.claims))
		if a := s.oidc(); tc.taken {
			a.want(t, http.StatusOK, "")
		} else {
			a.want(t, http.StatusForbidden, "oidc_stronger_sign_in")
		}
		if !tc.taken && name != "both" && s.provider.asked.Get("acr_values") != "gold silver" {
			t.Errorf("the provider is asked for %q", s.provider.asked.Get("acr_values"))
		}
	}
	if users := s.rows("users"); users != 1 {
		t.Errorf("there are %d accounts", users)
	}
}

// The API starts while the provider is away, says so, and goes on when it is there.
func TestIdentityProviderAway(t *testing.T) {
	t.Parallel()
	s := startOIDC(t, nil)
	s.provider.person(nora(nil))
	away := func(away bool) { s.provider.set(func(p *identityProvider) { p.away = away }) }

	away(true)
	s.browser().do("GET", "/api/v1/auth/oidc/", "").want(t, http.StatusServiceUnavailable, "oidc_unavailable")
	if !strings.Contains(s.log.text(), "OIDC_ISSUER") {
		t.Errorf("the log does not say what to check: %s", s.log.text())
	}
	away(false)
	b := s.browser()
	path := b.begin("")
	away(true)
	b.end(path).want(t, http.StatusServiceUnavailable, "oidc_unavailable")
	away(false)
	s.wantNobody(t)
	s.oidc().want(t, http.StatusOK, "")

	for denies, want := range map[string]struct {
		status int
		code   string
	}{
		"access_denied":           {403, "oidc_denied"},
		"invalid_scope":           {403, "oidc_denied"},
		"anything of anybody":     {403, "oidc_denied"},
		"temporarily_unavailable": {503, "oidc_unavailable"},
	} {
		s.provider.set(func(p *identityProvider) { p.denies = denies })
		s.oidc().want(t, want.status, want.code)
	}
	if log := s.log.text(); strings.Contains(log, "anything of anybody") || strings.Contains(log, "goroutine") {
		t.Errorf("the log is %s", log)
	}
}

// Settings that do not fit the provider are found in the log.
func TestIdentityProviderDoesNotKnowUs(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*api.Config)
		path   string // that the browser has come to; empty: it does not get further than the beginning
		logged string
	}{
		"a wrong secret": {func(cfg *api.Config) { cfg.OIDC.ClientSecret = "wrong" }, "callback", "OIDC_CLIENT_SECRET"},
		"a wrong issuer": {func(cfg *api.Config) { cfg.OIDC.Issuer += "/" }, "", "OIDC_ISSUER"},
		"nothing there":  {func(cfg *api.Config) { cfg.OIDC.Issuer = "http://127.0.0.1:1" }, "", "OIDC_ISSUER"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startOIDC(t, tc.change)
			s.provider.person(nora(nil))
			b := s.browser()
			if tc.path == "" {
				b.do("GET", "/api/v1/auth/oidc/", "").want(t, http.StatusServiceUnavailable, "oidc_unavailable")
			} else {
				b.end(b.begin("")).want(t, http.StatusServiceUnavailable, "oidc_unavailable")
			}
			if !strings.Contains(s.log.text(), tc.logged) {
				t.Errorf("the log is %s", s.log.text())
			}
		})
	}
}

// Nobody can make a sign-in end on another host.
func TestReturnToIsAPath(t *testing.T) {
	t.Parallel()
	s := startOIDC(t, nil)
	s.provider.person(nora(nil))
	for _, bad := range []string{
		"https://evil.example", "//evil.example", "///evil.example", `/\evil.example`, `\/evil.example`, `\\evil.example`, "evil.example",
		"javascript:alert(1)", "/a//evil.example", "/\t/evil.example", "/\n/evil.example", " //evil.example", "/@evil.example//x", "/a#b",
		"/é", "/" + strings.Repeat("a", 512), "http:/evil.example", "/a?b c", "/%5c\\x",
	} {
		s.browser().do("GET", "/api/v1/auth/oidc/?return_to="+url.QueryEscape(bad), "").want(t, http.StatusBadRequest, "invalid")
	}
	s.browser().do("GET", "/api/v1/auth/oidc/?return_to=/a&return_to=/b", "").want(t, http.StatusBadRequest, "invalid")
	s.browser().do("GET", "/api/v1/auth/oidc/?redirect_uri=https://evil.example", "").want(t, http.StatusBadRequest, "invalid")
	if s.rows("oidc_sign_ins") != 0 {
		t.Error("a sign-in has begun")
	}

	for _, good := range []string{"/", "/patients", "/patients/", "/patients/d290f1ee?tab=readings&from=2026-02-06T10:30:00Z", "/a%2Fb"} {
		b := s.browser()
		in := b.end(b.begin("?return_to="+url.QueryEscape(good))).want(t, http.StatusOK, "")
		if in.text("return_to") != good {
			t.Errorf("%s comes back as %q", good, in.text("return_to"))
		}
	}
}

// Behind TLS the cookie is for TLS only, and no other host can set it. The redirect URI is the public one.
func TestCookieBehindTLS(t *testing.T) {
	t.Parallel()
	s := startOIDC(t, func(cfg *api.Config) { cfg.PublicURL = "https://rpm.example/vantrexia" })
	begun := s.browser().do("GET", "/api/v1/auth/oidc/", "", "X-Forwarded-Host", "evil.example").want(t, http.StatusFound, "")
	if cookie := begun.header.Get("Set-Cookie"); !strings.HasPrefix(cookie, "__Host-vantrexia-sign-in=") ||
		!strings.Contains(cookie, "; Secure") || strings.Contains(cookie, "Domain") {
		t.Errorf("the cookie is %q", cookie)
	}
	if to := begun.header.Get("Location"); !strings.Contains(to, url.QueryEscape("https://rpm.example/vantrexia/api/v1/auth/oidc/callback/")) {
		t.Errorf("the browser is sent to %s", to)
	}
}

// account is the account with an e-mail.
func (s *practiceSystem) account(email string) db.User {
	s.tb.Helper()
	user, err := s.store.FindUser(s.tb.Context(), db.FindUserParams{PracticeCode: practice, Email: email})
	if err != nil {
		s.tb.Fatal(err)
	}
	return user
}
