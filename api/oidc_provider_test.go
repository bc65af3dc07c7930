package api_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// identityProvider is an OpenID Connect provider on a real port. It checks what a provider checks: the client,
// the exact redirect URI, PKCE, and that a code is used once. What it signs can be changed. It shares no code
// with the library that checks it.
type identityProvider struct {
	tb  testing.TB
	web *httptest.Server
	url string
	key *rsa.PrivateKey

	mu     sync.Mutex
	claims jwt.MapClaims // of the person who signs in next
	alter  func(jwt.MapClaims)
	sign   func(jwt.MapClaims) string
	denies string // the error with which it sends the browser back
	away   bool
	codes  map[string]granted
	asked  url.Values // the newest authorization request
}

// granted is what a code is good for.
type granted struct {
	claims      jwt.MapClaims
	challenge   string
	redirectURI string
}

const (
	oidcClient = "vantrexia"
	oidcSecret = "the client secret of the tests at the identity provider"
	oidcKeyID  = "provider-key-1"
)

// providerKey is made once, because an RSA key takes long.
var providerKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func startProvider(tb testing.TB) *identityProvider {
	tb.Helper()
	p := &identityProvider{tb: tb, key: providerKey(), codes: map[string]granted{}}
	routes := http.NewServeMux()
	routes.HandleFunc("GET /.well-known/openid-configuration", p.discovery)
	routes.HandleFunc("GET /keys", p.keys)
	routes.HandleFunc("GET /authorize", p.authorize)
	routes.HandleFunc("POST /token", p.token)
	p.web = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.away {
			http.Error(w, "down for maintenance", http.StatusServiceUnavailable)
			return
		}
		routes.ServeHTTP(w, r)
	}))
	tb.Cleanup(p.web.Close)
	p.url = p.web.URL
	return p
}

// set changes the provider between two sign-ins.
func (p *identityProvider) set(change func(*identityProvider)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

// person signs in next.
func (p *identityProvider) person(claims jwt.MapClaims) {
	p.set(func(p *identityProvider) { p.claims = claims })
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}

func (p *identityProvider) discovery(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer":                                p.url,
		"authorization_endpoint":                p.url + "/authorize",
		"token_endpoint":                        p.url + "/token",
		"jwks_uri":                              p.url + "/keys",
		"response_types_supported":              []string{"code"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256", "HS256", "none"},
		"authorization_response_iss_parameter_supported": true,
	})
}

func (p *identityProvider) keys(w http.ResponseWriter, _ *http.Request) {
	raw := base64.RawURLEncoding.EncodeToString
	writeJSON(w, http.StatusOK, map[string]any{"keys": []any{map[string]string{
		"kty": "RSA",
		"use": "sig",
		"alg": "RS256",
		"kid": oidcKeyID,
		"n":   raw(p.key.N.Bytes()),
		"e":   raw(big.NewInt(int64(p.key.E)).Bytes()),
	}}})
}

func (p *identityProvider) authorize(w http.ResponseWriter, r *http.Request) {
	p.asked = r.URL.Query()
	if p.asked.Get("client_id") != oidcClient || p.asked.Get("response_type") != "code" || p.asked.Get("code_challenge_method") != "S256" ||
		!slices.Contains(strings.Fields(p.asked.Get("scope")), "openid") {
		http.Error(w, "the authorization request is not good", http.StatusBadRequest)
		return
	}

	back := url.Values{"state": {p.asked.Get("state")}, "iss": {p.url}, "session_state": {"ignored"}}
	if p.denies != "" {
		back.Set("error", p.denies)
		back.Set("error_description", "Nora Lind is not allowed")
	} else {
		code := rand.Text()
		back.Set("code", code)
		claims := jwt.MapClaims{
			"iss":   p.url,
			"aud":   oidcClient,
			"iat":   time.Now().Unix(),
			"exp":   time.Now().Add(5 * time.Minute).Unix(),
			"nonce": p.asked.Get("nonce"),
		}
		maps.Copy(claims, p.claims)
		p.codes[code] = granted{claims, p.asked.Get("code_challenge"), p.asked.Get("redirect_uri")}
	}
	http.Redirect(w, r, p.asked.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
}

func (p *identityProvider) token(w http.ResponseWriter, r *http.Request) {
	id, secret, _ := r.BasicAuth()
	if unescaped, err := url.QueryUnescape(secret); err != nil || id != oidcClient || unescaped != oidcSecret {
		writeJSON(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client"})
		return
	}

	code := r.PostFormValue("code")
	grant, known := p.codes[code]
	delete(p.codes, code)
	challenge := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if !known || r.PostFormValue("grant_type") != "authorization_code" || grant.redirectURI != r.PostFormValue("redirect_uri") ||
		grant.challenge != base64.RawURLEncoding.EncodeToString(challenge[:]) {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": "invalid_grant", "error_description": "Nora Lind's code"})
		return
	}

	access := rand.Text()
	hash := sha256.Sum256([]byte(access))
	grant.claims["at_hash"] = base64.RawURLEncoding.EncodeToString(hash[:16])
	if p.alter != nil {
		p.alter(grant.claims)
	}
	sign := p.sign
	if sign == nil {
		sign = func(claims jwt.MapClaims) string { return p.signed(jwt.SigningMethodRS256, p.key, claims) }
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": access,
		"token_type":   "Bearer",
		"expires_in":   300,
		"id_token":     sign(grant.claims),
	})
}

func (p *identityProvider) signed(method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
	token := jwt.NewWithClaims(method, claims)
	token.Header["kid"] = oidcKeyID
	text, err := token.SignedString(key)
	if err != nil {
		p.tb.Error(err)
	}
	return text
}
