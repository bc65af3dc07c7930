package api

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/workflows"
)

const minSecretBytes = 32 // RFC 7518 §3.2: an HS256 key is at least as long as the hash

var errShortSecret = fmt.Errorf("API_TOKEN_SECRET is shorter than %d bytes: make one with `openssl rand -base64 48`", minSecretBytes)

type claims struct {
	Role account.Role `json:"role"`
	jwt.RegisteredClaims
}

// Token describes a bearer token to sign.
type Token struct {
	Role    account.Role
	Subject string
	TTL     time.Duration
	// Issuer and Audience are left out when they are empty.
	Issuer   string
	Audience string
}

// Sign makes a bearer token for the API, valid from now on.
func (t Token) Sign(secret []byte) (string, error) {
	switch {
	case !t.Role.Known():
		return "", fmt.Errorf("role %q is unknown: use %s", t.Role, joinRoles(account.Roles()))
	case t.TTL <= 0:
		return "", fmt.Errorf("ttl %s is not positive: use a duration such as 1h", t.TTL)
	case len(secret) < minSecretBytes:
		return "", errShortSecret
	}

	now := time.Now()
	signed := claims{Role: t.Role, RegisteredClaims: jwt.RegisteredClaims{
		Subject:   t.Subject,
		Issuer:    t.Issuer,
		IssuedAt:  jwt.NewNumericDate(now),
		ExpiresAt: jwt.NewNumericDate(now.Add(t.TTL)),
	}}
	if t.Audience != "" {
		signed.Audience = jwt.ClaimStrings{t.Audience}
	}
	return jwt.NewWithClaims(jwt.SigningMethodHS256, signed).SignedString(secret)
}

// callerKey is the key under which authenticate keeps the caller in the request's context.
const callerKey = "caller"

// callerOf returns who makes the request.
func callerOf(c echo.Context) account.Caller {
	caller, _ := c.Get(callerKey).(account.Caller)
	return caller
}

// requestOf says who makes the request to the workflow that it concerns.
func requestOf(c echo.Context) workflows.Request { return workflows.Request{By: callerOf(c).Subject} }

// authenticate lets a request through that carries a valid bearer token, and keeps who its caller is.
func (s *server) authenticate(next echo.HandlerFunc) echo.HandlerFunc {
	options := []jwt.ParserOption{jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithExpirationRequired()}
	if s.TokenIssuer != "" {
		options = append(options, jwt.WithIssuer(s.TokenIssuer))
	}
	if s.TokenAudience != "" {
		options = append(options, jwt.WithAudience(s.TokenAudience))
	}

	parser := jwt.NewParser(options...)
	return func(c echo.Context) error {
		scheme, token, _ := strings.Cut(c.Request().Header.Get(echo.HeaderAuthorization), " ")
		if !strings.EqualFold(scheme, "Bearer") || token == "" {
			return unauthorized("not_authenticated", "Send a token in the header: Authorization: Bearer <token>.")
		}

		var got claims
		_, err := parser.ParseWithClaims(strings.TrimSpace(token), &got, func(*jwt.Token) (any, error) { return s.TokenSecret, nil })
		switch {
		case errors.Is(err, jwt.ErrTokenExpired):
			return unauthorized("token_expired", "The token has expired: get a new one.")
		case err != nil:
			return unauthorized("invalid_token", "The token is not valid here: get a new one.")
		}

		c.Set(callerKey, account.Caller{
			Subject: got.Subject,
			Role:    got.Role,
			TokenID: got.ID,
			Address: c.RealIP(),
		})
		return next(c)
	}
}

// allow lets a request through whose caller has the right. It is set on each route, not on their group: Echo
// answers 404 instead of 405 to a wrong method in a group with middleware.
func (s *server) allow(right account.Right) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return identified(func(c echo.Context) error {
			if !callerOf(c).Has(right) {
				return &Error{
					Status: http.StatusForbidden,
					Code:   "forbidden",
					Detail: "Your role may not do this. Ask somebody with one of these roles: " + joinRoles(account.RolesWith(right)) + ".",
				}
			}
			return next(c)
		})
	}
}

func joinRoles(roles []account.Role) string {
	names := make([]string, len(roles))
	for i, role := range roles {
		names[i] = string(role)
	}
	return strings.Join(names, ", ")
}

func unauthorized(code, detail string) *Error {
	return &Error{Status: http.StatusUnauthorized, Code: code, Detail: detail}
}
