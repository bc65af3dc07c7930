package api

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/workflows"
)

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
	return func(c echo.Context) error {
		token, err := bearerToken(c)
		if err != nil {
			return err
		}

		var caller account.Caller
		if account.IsAPIKey(token) {
			caller, err = s.checkKey(c.Request().Context(), token)
		} else {
			caller, err = s.checkToken(c.Request().Context(), token)
		}
		if err != nil {
			c.Set(suspectKey, caller)
			return err
		}

		caller.Address = c.RealIP()
		c.Set(callerKey, caller)
		return next(c)
	}
}

// bearerToken returns the token of the request (RFC 6750 §2.1).
func bearerToken(c echo.Context) (string, error) {
	headers := c.Request().Header.Values(echo.HeaderAuthorization)
	if len(headers) > 1 {
		return "", unauthorized("not_authenticated", "The header Authorization is there twice: send one.")
	}
	if len(headers) == 1 {
		scheme, token, _ := strings.Cut(headers[0], " ")
		if token = strings.TrimSpace(token); strings.EqualFold(scheme, "Bearer") && token != "" {
			return token, nil
		}
	}
	return "", unauthorized("not_authenticated", "Send a token in the header: Authorization: Bearer <token>.")
}

func (s *server) checkKey(ctx context.Context, key string) (account.Caller, error) {
	if err := s.checkMigrated(ctx); err != nil {
		return account.Caller{}, err
	}
	caller, err := s.machines.CheckKey(ctx, key)
	switch {
	case errors.Is(err, account.ErrKeyMistyped):
		return caller, unauthorized("invalid_token", "The API key is mistyped or cut off: copy all of it.")
	case errors.Is(err, account.ErrKeyInvalid):
		return caller, unauthorized("invalid_token", "The API key is unknown here, revoked or expired: use another one.")
	}
	return caller, err
}

// checkToken returns the caller whom a token was made for with an error too, if we have signed the token.
func (s *server) checkToken(ctx context.Context, token string) (account.Caller, error) {
	claims, err := s.Signer.Parse(token)
	caller := account.Caller{
		Subject: claims.Subject,
		Role:    claims.Role,
		TokenID: claims.ID,
		Session: claims.Session,
	}
	if errors.Is(err, account.ErrTokenExpired) {
		return caller, unauthorized("token_expired", "The token has expired: get a new one.")
	}
	if err != nil {
		return account.Caller{}, invalidToken() // whatever it says, nobody of ours has signed it
	}

	if err := s.checkMigrated(ctx); err != nil {
		return caller, err
	}
	denied, err := s.machines.IsDenied(ctx, claims.ID)
	if err != nil {
		return caller, err
	}
	if denied {
		return caller, invalidToken()
	}
	return s.checkSession(ctx, caller)
}

func invalidToken() error {
	return unauthorized("invalid_token", "The token is not valid here: get a new one.")
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
					Detail: "Your role may not do this. Ask somebody with one of these roles: " + account.JoinRoles(account.RolesWith(right)) + ".",
				}
			}
			if callerOf(c).MustChangePassword && right != account.OwnAccount {
				return passwordChangeRequired()
			}
			return next(c)
		})
	}
}

func unauthorized(code, detail string) *Error {
	return &Error{Status: http.StatusUnauthorized, Code: code, Detail: detail}
}
