package sandbox

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	grantType     = "client_credentials"
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

	// maxAssertionLife is from SMART App Launch 2.2.0, "Client Authentication: Asymmetric", claim exp.
	maxAssertionLife = 5 * time.Minute
)

// tokens are the access tokens issued and the assertions seen.
type tokens struct {
	mu     sync.Mutex
	issued map[string]accessToken
	seen   map[string]time.Time // jti of accepted assertions → their exp, after which they are refused in any case
}

type accessToken struct {
	scopes  []string
	expires time.Time
}

func newTokens() *tokens {
	return &tokens{issued: map[string]accessToken{}, seen: map[string]time.Time{}}
}

// useOnce remembers the jti and reports whether it is new.
func (t *tokens) useOnce(jti string, exp, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, until := range t.seen {
		if now.After(until) {
			delete(t.seen, id)
		}
	}

	if _, used := t.seen[jti]; used {
		return false
	}
	t.seen[jti] = exp
	return true
}

// issue makes an opaque token that ends in the given text.
func (t *tokens) issue(text string, scopes []string, expires, now time.Time) string {
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails, according to its documentation
	token := base64.RawURLEncoding.EncodeToString(random) + text

	t.mu.Lock()
	defer t.mu.Unlock()
	for old, a := range t.issued {
		if !now.Before(a.expires) {
			delete(t.issued, old)
		}
	}
	t.issued[token] = accessToken{scopes: scopes, expires: expires}
	return token
}

// find returns the token's grant if the token is valid.
func (t *tokens) find(token string, now time.Time) (accessToken, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, ok := t.issued[token]
	return a, ok && now.Before(a.expires)
}

func (t *tokens) revoke(token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.issued, token)
}

// reset forgets the access tokens. It does not forget the assertions seen, so that none can be used again.
func (t *tokens) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.issued)
}

// oauthFailure is an error response of RFC 6749 §5.2.
type oauthFailure struct{ code, description string }

func (f *oauthFailure) Error() string { return f.code + ": " + f.description }

func invalidRequest(format string, args ...any) error {
	return &oauthFailure{"invalid_request", fmt.Sprintf(format, args...)}
}

// invalidClient is the answer to an assertion that does not prove the client's identity.
func invalidClient(format string, args ...any) error {
	return &oauthFailure{"invalid_client", fmt.Sprintf(format, args...)}
}

// invalidGrant is eCW's answer to an expired or malformed assertion and to a bad scope. SMART demands
// invalid_client and invalid_scope.
func invalidGrant(format string, args ...any) error {
	return &oauthFailure{"invalid_grant", fmt.Sprintf(format, args...)}
}

type tokenResponse struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int    `json:"expires_in,omitempty"`
	Scope       string `json:"scope"`
}

func (s *Server) token(c *call) reply {
	scopes, err := s.checkTokenRequest(c)
	if err != nil {
		var f *oauthFailure
		if !errors.As(err, &f) {
			return oauthError(http.StatusInternalServerError, "server_error", "")
		}
		s.stats.tokenRefused(f.code)
		s.log.Info("sandbox refused a token", "error", f.code, "reason", f.description)
		return f.reply(c.Header.Get("Authorization") != "")
	}

	if c.effects.has(kindNarrowScope) {
		scopes = slices.DeleteFunc(scopes, func(scope string) bool { return permits([]string{scope}, "Observation", 'c') })
	}

	now := s.now()
	token := s.tokens.issue(tokenText(c.effects.text), scopes, now.Add(s.cfg.TokenLifetime), now)
	s.stats.tokenIssued()

	granted := tokenResponse{
		AccessToken: token,
		TokenType:   "bearer",
		ExpiresIn:   int(s.cfg.TokenLifetime.Seconds()),
		Scope:       strings.Join(scopes, " "),
	}

	if c.effects.has(kindNoExpiresIn) {
		granted.ExpiresIn = 0
	}

	rep := jsonReply(http.StatusOK, typeJSON, granted)
	noStore(rep.header)
	return rep
}

func (f *oauthFailure) reply(usedHeader bool) reply {
	status := http.StatusBadRequest
	if f.code == "invalid_client" {
		status = http.StatusUnauthorized
	}
	rep := oauthError(status, f.code, f.description)
	if status == http.StatusUnauthorized && usedHeader { // RFC 6749 §5.2 demands it only in this case
		rep.header.Set("WWW-Authenticate", `Basic realm="sandbox"`)
	}
	return rep
}

func oauthError(status int, code, description string) reply {
	rep := jsonReply(status, typeJSON, struct {
		Error       string `json:"error"`
		Description string `json:"error_description,omitempty"`
	}{code, description})
	noStore(rep.header)
	return rep
}

func noStore(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
}

// checkTokenRequest returns the scopes to grant.
func (s *Server) checkTokenRequest(c *call) ([]string, error) {
	form, err := tokenForm(c)
	if err != nil {
		return nil, err
	}

	if err := oneClientAuthentication(c, form); err != nil {
		return nil, err
	}
	if id := form.Get("client_id"); id != "" && id != s.cfg.ClientID {
		return nil, invalidClient("client_id names no registered app")
	}
	if err := s.checkAssertion(c, form.Get("client_assertion")); err != nil {
		return nil, err
	}

	return s.checkScopes(form.Get("scope"))
}

func tokenForm(c *call) (url.Values, error) {
	if mediaType, _, _ := mime.ParseMediaType(c.Header.Get("Content-Type")); mediaType != "application/x-www-form-urlencoded" {
		return nil, invalidRequest("Content-Type must be application/x-www-form-urlencoded")
	}
	if c.URL.RawQuery != "" {
		return nil, invalidRequest("parameters belong in the body, not in the URL")
	}

	form, err := url.ParseQuery(string(c.body))
	if err != nil {
		return nil, invalidRequest("the body is not form-encoded")
	}

	for name, values := range form {
		if len(values) > 1 {
			return nil, invalidRequest("%s is given more than once", name)
		}
	}

	switch g := form.Get("grant_type"); g {
	case "":
		return nil, invalidRequest("grant_type is missing; use %s", grantType)
	case grantType:
		return form, nil
	default:
		return nil, &oauthFailure{"unsupported_grant_type", "use " + grantType}
	}
}

// oneClientAuthentication checks that the request uses one method of client authentication (RFC 6749 §2.3).
// It must be the assertion, because the sandbox's app is of the type backend_service.
func oneClientAuthentication(c *call, form url.Values) error {
	secret := form.Has("client_secret") || c.Header.Get("Authorization") != ""
	assertion := form.Has("client_assertion") || form.Has("client_assertion_type")
	switch {
	case secret && assertion:
		return invalidRequest("more than one client authentication method; send the assertion without a secret")
	case secret:
		return invalidClient("the app is registered as a backend service; it authenticates with an assertion, not a secret")
	case form.Get("client_assertion_type") == "":
		return invalidRequest("client_assertion_type is missing; use %s", assertionType)
	case form.Get("client_assertion_type") != assertionType:
		return invalidRequest("client_assertion_type must be %s", assertionType)
	case form.Get("client_assertion") == "":
		return invalidRequest("client_assertion is missing")
	}

	return nil
}

// checkAssertion verifies the JWT as SMART Backend Services and RFC 7523 §3 demand.
func (s *Server) checkAssertion(c *call, assertion string) error {
	now := s.now()
	claims := jwt.RegisteredClaims{}
	parser := jwt.NewParser(jwt.WithTimeFunc(func() time.Time { return now }), jwt.WithValidMethods([]string{"RS384"}),
		jwt.WithExpirationRequired(), jwt.WithAudience(s.TokenURL()), jwt.WithIssuedAt())

	_, err := parser.ParseWithClaims(assertion, &claims, func(t *jwt.Token) (any, error) {
		if typ, _ := t.Header["typ"].(string); typ != "JWT" {
			return nil, invalidGrant("assertion header typ must be JWT")
		}
		kid, _ := t.Header["kid"].(string)
		if kid == "" {
			return nil, invalidClient("assertion header kid is missing")
		}
		return s.keys.find(context.WithoutCancel(c.Context()), kid)
	})
	if err != nil {
		return s.assertionFailure(err)
	}

	if claims.Issuer != s.cfg.ClientID || claims.Subject != s.cfg.ClientID {
		return invalidClient("assertion claims iss and sub must both be the client id")
	}
	if ahead := claims.ExpiresAt.Sub(now); ahead > maxAssertionLife {
		return invalidGrant("assertion claim exp is %s ahead; at most %s are allowed", ahead.Round(time.Second), maxAssertionLife)
	}
	if claims.ID == "" {
		return invalidGrant("assertion claim jti is missing")
	}
	if !s.tokens.useOnce(claims.ID, claims.ExpiresAt.Time, now) {
		return invalidClient("assertion claim jti was used before; mint a new assertion for every request")
	}

	return nil
}

func (s *Server) assertionFailure(err error) error {
	var f *oauthFailure
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(err, jwt.ErrTokenMalformed):
		return invalidGrant("the assertion is not a JWT")
	case errors.Is(err, jwt.ErrTokenSignatureInvalid): // also an algorithm outside of the valid methods
		return invalidClient("the assertion's signature does not verify with RS384 and the published key")
	case errors.Is(err, jwt.ErrTokenExpired):
		return invalidGrant("the assertion has expired; check the clock")
	case errors.Is(err, jwt.ErrTokenNotValidYet), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return invalidGrant("the assertion is from the future; check the clock")
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return invalidClient("assertion claim aud must be %s", s.TokenURL())
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return invalidGrant("assertion claim exp or aud is missing")
	default:
		return invalidClient("the assertion cannot be verified")
	}
}

func (s *Server) checkScopes(scope string) ([]string, error) {
	asked := strings.Fields(scope)
	if len(asked) == 0 {
		return nil, invalidRequest("scope is missing")
	}
	for _, one := range asked {
		if !slices.Contains(s.cfg.Scopes, one) {
			return nil, invalidGrant("scope %q is not among those of the app's registration: %s", one, strings.Join(s.cfg.Scopes, " "))
		}
	}
	return asked, nil
}

// authorize finds the bearer token of a FHIR request and checks that it allows the interaction (a letter of
// "cruds").
func (s *Server) authorize(c *call, resource string, interaction rune) (reply, bool) {
	token, given := bearer(c.Request)
	access, ok := s.tokens.find(token, s.now())
	switch {
	case !given:
		return unauthorized("", "the header Authorization: Bearer is missing"), false
	case !ok:
		return unauthorized("invalid_token", "the access token is unknown or has expired"), false
	case !permits(access.scopes, resource, interaction):
		return problem{
			status: http.StatusForbidden,
			code:   "forbidden",
			detail: "the access token's scopes do not allow this",
		}.outcome(), false
	}
	return reply{}, true
}

func bearer(r *http.Request) (string, bool) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.TrimSpace(token), ok && strings.EqualFold(scheme, "Bearer")
}

// unauthorized is the 401 of RFC 6750 §3. A request without a token gets no error code.
func unauthorized(code, detail string) reply {
	rep := problem{status: http.StatusUnauthorized, code: "login", detail: detail}.outcome()
	challenge := `Bearer realm="sandbox"`
	if code != "" {
		challenge += `, error="` + code + `"`
	}
	rep.header.Set("WWW-Authenticate", challenge)
	return rep
}
