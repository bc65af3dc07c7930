package ecw

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	// renewBefore is how long before its expiry a token is renewed, so that it does not expire on the way. A
	// token that lives less than five times as long is renewed after 80 % of its life.
	renewBefore = 30 * time.Second
	// unstatedLifetime is assumed if the answer has no expires_in, which RFC 6749 §5.1 recommends but does
	// not demand.
	unstatedLifetime = time.Minute
	// maxLifetime bounds a nonsensical expires_in.
	maxLifetime = 24 * time.Hour
	// toleratedDrift is how far our clock may differ from eCW's without a warning. Assertions fail at about four
	// minutes.
	toleratedDrift = time.Minute
)

// token is an access token. It prints as "[access token]" everywhere. The value is behind a pointer, because
// fmt prints an unexported field without calling its String method.
type token struct {
	value    *string
	kind     string // as eCW spells it, such as "Bearer"
	scope    string // granted
	issuedAt time.Time
	lifetime time.Duration
	renewAt  time.Time
}

func (token) String() string               { return "[access token]" }
func (t token) GoString() string           { return t.String() }
func (t token) LogValue() slog.Value       { return slog.StringValue(t.String()) }
func (token) MarshalJSON() ([]byte, error) { return []byte(`"[access token]"`), nil }

// tokenSource holds the one access token, in memory only, and renews it with one request at a time.
type tokenSource struct {
	wire                         *wire
	url, clientID, secret, scope string
	signingKey                   func() *Key
	appType                      AppType
	log                          *slog.Logger
	now                          func() time.Time
	renewal                      singleflight.Group

	mu      sync.Mutex
	current token
}

func newTokenSource(cfg Config, w *wire, logger *slog.Logger) *tokenSource {
	return &tokenSource{
		wire:       w,
		url:        cfg.TokenURL,
		clientID:   cfg.ClientID,
		secret:     cfg.ClientSecret,
		scope:      cfg.Scope,
		signingKey: cfg.SigningKey,
		appType:    cfg.AppType,
		log:        logger,
		now:        cfg.Now,
	}
}

// get returns a token that is valid for a while. Concurrent callers share one request, and each waits no
// longer than its own ctx; the request goes on for the others.
func (s *tokenSource) get(ctx context.Context) (token, error) {
	if t, ok := s.held(); ok {
		return t, nil
	}

	done := s.renewal.DoChan("", func() (any, error) {
		// Another caller may have renewed the token after we looked.
		if t, ok := s.held(); ok {
			return t, nil
		}
		t, _, err := s.renew(context.WithoutCancel(ctx))
		if err == nil {
			s.hold(t)
		}
		return t, err
	})

	select {
	case r := <-done:
		return r.Val.(token), r.Err
	case <-ctx.Done():
		return token{}, &Error{
			Class:   ClassRetryable,
			Op:      OpToken,
			Code:    "canceled",
			Message: "the wait for an access token was cancelled",
			Err:     ctx.Err(),
		}
	}
}

func (s *tokenSource) held() (token, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current, s.current.value != nil && s.now().Before(s.current.renewAt)
}

func (s *tokenSource) hold(t token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = t
}

// drop forgets t after a 401. It keeps a newer token, which another caller has got meanwhile.
func (s *tokenSource) drop(t token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current.value == t.value {
		s.current = token{}
	}
}

// renew asks the token endpoint once. said is the endpoint's own text in a refusal. It is not part of the
// error, which is logged and stored.
func (s *tokenSource) renew(ctx context.Context) (t token, said string, err error) {
	asked := s.now()
	req, err := s.request(asked)
	if err != nil {
		return token{}, "", &Error{
			Class:   ClassPermanentCredentials,
			Op:      OpToken,
			Code:    "key_not_found",
			Message: "the client assertion cannot be signed; check ECW_PRIVATE_KEY",
		}
	}

	res, err := s.wire.send(ctx, req)
	if err != nil {
		return token{}, "", err
	}

	s.warnOfDrift(ctx, res.header)
	if res.status != http.StatusOK {
		return token{}, s.said(res), tokenRefusal(res, s.now())
	}

	t, err = s.accept(ctx, res, asked)
	return t, "", err
}

// request builds the token request with one way of client authentication, never two (RFC 6749 §2.3).
func (s *tokenSource) request(now time.Time) (request, error) {
	form := url.Values{"grant_type": {"client_credentials"}, "scope": {s.scope}}
	hr := http.Request{Header: http.Header{
		"Accept":       {"application/json"},
		"Content-Type": {"application/x-www-form-urlencoded"},
	}}

	switch s.appType {
	case ConfidentialClient:
		hr.SetBasicAuth(url.QueryEscape(s.clientID), url.QueryEscape(s.secret)) // encoded: RFC 6749 §2.3.1
	default:
		assertion, err := signAssertion(s.signingKey(), s.clientID, s.url, now)
		if err != nil {
			return request{}, err
		}
		form.Set("client_assertion_type", assertionType)
		form.Set("client_assertion", assertion)
	}

	return request{
		op:     OpToken,
		method: http.MethodPost,
		url:    s.url,
		header: hr.Header,
		body:   []byte(form.Encode()),
	}, nil
}

// tokenResponse is that of RFC 6749 §5.1. A json.Number also accepts the quoted numbers that some servers
// send.
type tokenResponse struct {
	AccessToken string      `json:"access_token"`
	TokenType   string      `json:"token_type"`
	ExpiresIn   json.Number `json:"expires_in"`
	Scope       string      `json:"scope"`
}

// accept reads a token response. The token's life is counted from asked, the time of the request.
func (s *tokenSource) accept(ctx context.Context, res *response, asked time.Time) (token, error) {
	if res.bodyErr != nil {
		return token{}, res.bodyErr
	}

	var tr tokenResponse
	if !res.isJSON() || json.Unmarshal(res.body, &tr) != nil || !isBearerValue(tr.AccessToken) {
		return token{}, res.failed(ClassRetryable, OpToken, "malformed_response",
			"the token endpoint's answer is not a token response; check ECW_TOKEN_URL")
	}

	if !strings.EqualFold(tr.TokenType, "bearer") {
		return token{}, res.failed(ClassPermanentCredentials, OpToken, "unsupported_token_type",
			"eCW issued a token that is not a bearer token; ask eCW to check the app's registration")
	}

	// An answer without scope grants what was asked (RFC 6749 §5.1).
	granted := orDefault(tr.Scope, s.scope)
	if missing := missingScopes(s.scope, granted); len(missing) > 0 {
		return token{}, res.failed(ClassPermanentCredentials, OpToken, "insufficient_scope",
			"eCW granted less than was asked: "+strings.Join(missing, " ")+" is missing; "+
				"have it granted in eCW's developer portal")
	}

	life := lifetime(tr.ExpiresIn)
	s.log.InfoContext(ctx, "eCW access token issued", slog.Duration("lifetime", life))
	return token{
		value:    &tr.AccessToken,
		kind:     tr.TokenType,
		scope:    granted,
		issuedAt: asked,
		lifetime: life,
		renewAt:  asked.Add(life - min(renewBefore, life/5)),
	}, nil
}

func lifetime(expiresIn json.Number) time.Duration {
	seconds, err := expiresIn.Float64()
	if err != nil || !(seconds > 0) {
		return unstatedLifetime
	}
	return time.Duration(min(seconds, maxLifetime.Seconds()) * float64(time.Second))
}

// isBearerValue accepts visible ASCII only, so that the value cannot break out of a header.
func isBearerValue(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

func (s *tokenSource) warnOfDrift(ctx context.Context, h http.Header) {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return
	}
	if drift := s.now().Sub(date); drift.Abs() > toleratedDrift {
		s.log.WarnContext(ctx, "our clock differs from eCW's; synchronise it, or client assertions will be refused",
			slog.Duration("ahead", drift.Round(time.Second)))
	}
}
