package account

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"

	"github.com/vantrexia/vantrexia/db"
)

const (
	// OIDCSignInFor is how long a person may take at the identity provider.
	OIDCSignInFor = 10 * time.Minute
	// oidcSessionFor is how long a session may be refreshed before the identity provider is asked again,
	// which is the first moment at which it can say that somebody has left the practice.
	oidcSessionFor = 12 * time.Hour
	// oidcTimeout bounds one request to the identity provider.
	oidcTimeout = 10 * time.Second
	// oidcClockLeeway is how far the provider's clock may be ahead of ours; go-oidc takes nbf with as much.
	oidcClockLeeway = 5 * time.Minute
)

// GroupRole gives the members of a group at the identity provider a role.
type GroupRole struct {
	Group string
	Role  Role
}

// OIDCConfig says how people sign in with the practice's identity provider (OpenID Connect Core 1.0).
type OIDCConfig struct {
	// Issuer is the provider's URL, exactly as the provider writes it.
	Issuer       string
	ClientID     string
	ClientSecret string
	// RedirectURL is where the provider sends the browser back to, exactly as it is registered there.
	RedirectURL string
	Scopes      []string
	// GroupsClaim is the claim of the id token that lists the person's groups.
	GroupsClaim string
	// Roles are tried in their order: a person in several groups gets the first that fits.
	Roles []GroupRole
	// RequireAMR and RequireACR list how a person may have signed in there (RFC 8176): one of them is enough.
	// Empty means that it does not matter.
	RequireAMR []string
	RequireACR []string
}

// The errors of a sign-in with the identity provider.
var (
	// ErrOIDCState means that the sign-in is unknown, used, too old, or began in another browser.
	ErrOIDCState = errors.New("no such sign-in is under way in this browser")
	// ErrOIDCDenied means that the provider did not let the person in.
	ErrOIDCDenied = errors.New("the identity provider refused the sign-in")
	// ErrOIDCFailed means that the provider's code or id token was not good. The log says why.
	ErrOIDCFailed = errors.New("the answer of the identity provider is not valid")
	// ErrOIDCUnavailable means that the provider does not answer, or does not take us. The log says why.
	ErrOIDCUnavailable = errors.New("the identity provider does not answer")
	// ErrOIDCWeak means that the person has not signed in there as the settings demand.
	ErrOIDCWeak = errors.New("the sign-in at the identity provider was not strong enough")
	// ErrOIDCNoRole means that none of the person's groups has a role.
	ErrOIDCNoRole = errors.New("no group of the person has a role")
	// ErrOIDCClaims means that the provider sends no e-mail or no name, which a new account needs.
	ErrOIDCClaims = errors.New("the identity provider sends no e-mail or no name")
	// ErrOIDCAccountExists means that somebody has the person's e-mail here, and that nothing shows that the
	// two are the same.
	ErrOIDCAccountExists = errors.New("another account has this e-mail")
	// ErrDisabled means that an administrator has disabled the account.
	ErrDisabled = errors.New("the account is disabled")
)

// OIDC signs people in with the practice's identity provider.
type OIDC struct {
	OIDCConfig
	people    *People
	client    *http.Client
	found     atomic.Pointer[provider]
	discovery singleflight.Group
}

// NewOIDC returns the sign-in with an identity provider, which is looked for when it is first needed.
func NewOIDC(people *People, cfg OIDCConfig) *OIDC {
	client := &http.Client{
		Timeout: oidcTimeout,
		// A redirect could lead our secret to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &OIDC{OIDCConfig: cfg, people: people, client: client}
}

// provider is what the identity provider says of itself.
type provider struct {
	oauth    oauth2.Config
	verifier *oidc.IDTokenVerifier
	// namesItself means that its answers name the issuer (RFC 9207).
	namesItself bool
}

// provider returns the provider, and looks for it until it was found once. Requests at the same moment wait
// for one look.
func (o *OIDC) provider(ctx context.Context) (*provider, error) {
	if found := o.found.Load(); found != nil {
		return found, nil
	}

	looked := o.discovery.DoChan("", func() (any, error) {
		found, err := o.discover(context.WithoutCancel(ctx))
		if err == nil {
			o.found.Store(found)
		}
		return found, err
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case result := <-looked:
		if result.Err != nil {
			o.people.Logger.WarnContext(ctx, "the identity provider cannot be used: check OIDC_ISSUER, and whether its "+
				"/.well-known/openid-configuration can be reached from here", "reason", clipReason(result.Err))
			return nil, ErrOIDCUnavailable
		}
		return result.Val.(*provider), nil
	}
}

// clipReason keeps an error page of a provider out of the log.
func clipReason(err error) string {
	const most = 300
	text := err.Error()
	return text[:min(len(text), most)]
}

func (o *OIDC) discover(ctx context.Context) (*provider, error) {
	found, err := oidc.NewProvider(oidc.ClientContext(ctx, o.client), o.Issuer)
	if err != nil {
		return nil, err
	}
	var says struct {
		NamesItself bool     `json:"authorization_response_iss_parameter_supported"`
		AuthMethods []string `json:"token_endpoint_auth_methods_supported"`
	}
	if err := found.Claims(&says); err != nil {
		return nil, err
	}

	endpoint := found.Endpoint()
	// The library would try one way after the other, and use the code up with the first. Basic is the default
	// (OpenID Connect Discovery 1.0 §3).
	endpoint.AuthStyle = oauth2.AuthStyleInHeader
	if len(says.AuthMethods) > 0 && !slices.Contains(says.AuthMethods, "client_secret_basic") {
		endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	return &provider{
		oauth: oauth2.Config{
			ClientID:     o.ClientID,
			ClientSecret: o.ClientSecret,
			Endpoint:     endpoint,
			RedirectURL:  o.RedirectURL,
			Scopes:       o.Scopes,
		},
		// Named here, because with HS256 or none whoever knows the client secret, or anybody, could sign.
		verifier: found.Verifier(&oidc.Config{
			ClientID: o.ClientID,
			SupportedSigningAlgs: []string{
				oidc.RS256, oidc.RS384, oidc.RS512,
				oidc.PS256, oidc.PS384, oidc.PS512,
				oidc.ES256, oidc.ES384, oidc.ES512,
				oidc.EdDSA,
			},
		}),
		namesItself: says.NamesItself,
	}, nil
}

// OIDCBegun is a sign-in that begins.
type OIDCBegun struct {
	// URL is where the browser goes.
	URL string
	// Browser is a secret that the browser keeps, and shows when it comes back.
	Browser string
}

// Begin begins a sign-in. returnTo is kept for [OIDC.Finish]. It returns [ErrOIDCUnavailable].
func (o *OIDC) Begin(ctx context.Context, returnTo string) (OIDCBegun, error) {
	p, err := o.provider(ctx)
	if err != nil {
		return OIDCBegun{}, err
	}

	secrets := make([]string, 3)
	for i := range secrets {
		bits := make([]byte, 32)
		if _, err := rand.Read(bits); err != nil {
			return OIDCBegun{}, err
		}
		secrets[i] = base64.RawURLEncoding.EncodeToString(bits)
	}
	state, browser, nonce, verifier := secrets[0], secrets[1], secrets[2], oauth2.GenerateVerifier()

	err = o.people.Store.BeginOIDC(ctx, db.BeginOIDCParams{
		StateHash:    oidcHash(state),
		BrowserHash:  oidcHash(browser),
		PracticeCode: o.people.PracticeCode,
		Nonce:        nonce,
		CodeVerifier: verifier,
		ReturnTo:     returnTo,
		LastsSeconds: OIDCSignInFor.Seconds(),
	})
	if err != nil {
		return OIDCBegun{}, fmt.Errorf("keep a sign-in: %w", err)
	}

	options := []oauth2.AuthCodeOption{oidc.Nonce(nonce), oauth2.S256ChallengeOption(verifier)}
	if len(o.RequireACR) > 0 { // so that the provider asks for more at once
		options = append(options, oauth2.SetAuthURLParam("acr_values", strings.Join(o.RequireACR, " ")))
	}
	return OIDCBegun{URL: p.oauth.AuthCodeURL(state, options...), Browser: browser}, nil
}

func oidcHash(secret string) []byte {
	hash := sha256.Sum256([]byte(secret))
	return hash[:]
}

// OIDCAnswer is what a browser brings back from the identity provider.
type OIDCAnswer struct {
	State  string
	Code   string
	Error  string
	Issuer string
	// Browser is the secret of [OIDCBegun].
	Browser string
	// Address is the browser's.
	Address string
}

// OIDCSignedIn is a new session, and the returnTo with which it began.
type OIDCSignedIn struct {
	SignedIn
	ReturnTo string
}

// Finish ends a sign-in, which is used up whatever comes of it, and begins a session. It returns one of the
// errors above.
func (o *OIDC) Finish(ctx context.Context, answer OIDCAnswer) (OIDCSignedIn, error) {
	begun, err := o.people.Store.UseOIDC(ctx, db.UseOIDCParams{
		StateHash:    oidcHash(answer.State),
		BrowserHash:  oidcHash(answer.Browser),
		PracticeCode: o.people.PracticeCode,
	})
	if db.IsNotFound(err) {
		return OIDCSignedIn{}, ErrOIDCState
	}
	if err != nil {
		return OIDCSignedIn{}, fmt.Errorf("look a sign-in up: %w", err)
	}

	p, err := o.provider(ctx)
	if err != nil {
		return OIDCSignedIn{}, err
	}
	if err := o.checkAnswer(ctx, p, answer); err != nil {
		return OIDCSignedIn{}, err
	}

	token, err := o.exchange(ctx, p, answer.Code, begun.CodeVerifier)
	if err != nil {
		return OIDCSignedIn{}, err
	}
	claims, err := o.verify(ctx, p, token, begun.Nonce)
	if err != nil {
		o.refused(ctx, clipReason(err))
		return OIDCSignedIn{}, ErrOIDCFailed
	}
	if err := o.checkStrength(ctx, claims); err != nil {
		return OIDCSignedIn{}, err
	}

	in, err := o.signIn(ctx, o.personOf(claims), By{Actor: ActorOIDC, Address: answer.Address})
	return OIDCSignedIn{in, begun.ReturnTo}, err
}

// refused logs why a sign-in was refused, for whoever looks after the settings. reason holds nothing of the
// person.
func (o *OIDC) refused(ctx context.Context, reason string) {
	o.people.Logger.WarnContext(ctx, "sign-in with the identity provider refused", "reason", reason)
}

// checkAnswer looks at what the browser has brought, before the code is used.
func (o *OIDC) checkAnswer(ctx context.Context, p *provider, answer OIDCAnswer) error {
	switch {
	case answer.Issuer != "" && answer.Issuer != o.Issuer, answer.Issuer == "" && p.namesItself:
		o.refused(ctx, "the answer is not of the issuer in OIDC_ISSUER (RFC 9207)")
		return ErrOIDCFailed
	case answer.Error == "server_error", answer.Error == "temporarily_unavailable":
		o.refused(ctx, "the provider answers "+answer.Error)
		return ErrOIDCUnavailable
	case answer.Error == "access_denied", answer.Error == "login_required", answer.Error == "interaction_required",
		answer.Error == "consent_required", answer.Error == "unmet_authentication_requirements":
		return ErrOIDCDenied
	case answer.Error != "":
		// Not the error itself: whoever holds the browser may write anything there.
		o.refused(ctx, "the provider does not take our request: check OIDC_CLIENT_ID, OIDC_SCOPES, and the redirect URI that is registered there")
		return ErrOIDCDenied
	case answer.Code == "":
		o.refused(ctx, "the answer has neither a code nor an error")
		return ErrOIDCFailed
	}
	return nil
}

// exchange gets the tokens for the code.
func (o *OIDC) exchange(ctx context.Context, p *provider, code, verifier string) (*oauth2.Token, error) {
	token, err := p.oauth.Exchange(oidc.ClientContext(ctx, o.client), code, oauth2.VerifierOption(verifier))
	if err == nil {
		return token, nil
	}

	// The body of such an answer is not logged: it may name the person.
	var answered *oauth2.RetrieveError
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case !errors.As(err, &answered):
		o.refused(ctx, "no tokens for the code: "+clipReason(err))
		return nil, ErrOIDCUnavailable
	case answered.ErrorCode == "invalid_grant":
		o.refused(ctx, "the provider does not take the code (invalid_grant)")
		return nil, ErrOIDCFailed
	case answered.ErrorCode == "invalid_client", answered.ErrorCode == "unauthorized_client":
		o.refused(ctx, "the provider does not take us ("+answered.ErrorCode+"): check OIDC_CLIENT_ID and OIDC_CLIENT_SECRET")
	default:
		o.refused(ctx, "the provider gives no tokens for the code: "+answered.Response.Status)
	}
	return nil, ErrOIDCUnavailable
}

// verify returns the claims of the id token (OpenID Connect Core 1.0 §3.1.3.7). go-oidc checks signature,
// issuer, audience and expiry.
func (o *OIDC) verify(ctx context.Context, p *provider, token *oauth2.Token, nonce string) (idClaims, error) {
	text, _ := token.Extra("id_token").(string)
	if text == "" {
		return nil, errors.New("there is no id token: OIDC_SCOPES must have openid")
	}
	id, err := p.verifier.Verify(ctx, text)
	if err != nil {
		return nil, err
	}

	claims := idClaims{}
	if err := id.Claims(&claims); err != nil {
		return nil, errors.New("the claims cannot be read")
	}
	switch azp := claims.text("azp"); {
	case id.Nonce != nonce:
		return nil, errors.New("the nonce is another one")
	case id.IssuedAt.After(time.Now().Add(oidcClockLeeway)):
		return nil, errors.New("the id token is of the future: set the clocks of this host and of the provider")
	case len(id.Audience) > 1 && azp == "", azp != "" && azp != o.ClientID:
		return nil, errors.New("the id token was made for another client (azp)")
	case id.Subject == "":
		return nil, errors.New("the id token names no subject")
	}
	if id.AccessTokenHash != "" {
		if err := id.VerifyAccessToken(token.AccessToken); err != nil {
			return nil, errors.New("the access token is not the one of the id token (at_hash)")
		}
	}
	return claims, nil
}

// checkStrength returns [ErrOIDCWeak] for a person who did not sign in as the settings demand.
func (o *OIDC) checkStrength(ctx context.Context, claims idClaims) error {
	hasOne := func(wanted, got []string) bool {
		return len(wanted) == 0 || slices.ContainsFunc(wanted, func(want string) bool { return slices.Contains(got, want) })
	}
	if !hasOne(o.RequireAMR, claims.list("amr")) {
		o.refused(ctx, "the id token has no amr of OIDC_REQUIRE_AMR")
		return ErrOIDCWeak
	}
	if !hasOne(o.RequireACR, claims.list("acr")) {
		o.refused(ctx, "the id token has no acr of OIDC_REQUIRE_ACR")
		return ErrOIDCWeak
	}
	return nil
}

// idClaims are the claims of an id token. One of another type than asked for counts as missing.
type idClaims map[string]any

func (c idClaims) text(name string) string {
	text, _ := c[name].(string)
	return text
}

// list returns the texts of a claim; a single text is a list of one.
func (c idClaims) list(name string) (texts []string) {
	if text := c.text(name); text != "" {
		return []string{text}
	}
	items, _ := c[name].([]any)
	for _, item := range items {
		if text, ok := item.(string); ok {
			texts = append(texts, text)
		}
	}
	return texts
}
