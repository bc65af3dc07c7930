package api

import (
	"errors"
	"net/http"
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/audit"
)

// suspectKey is the key under which stands who a refused credential was made for, and for whom a refused sign-in was.
const suspectKey = "suspect"

// asRefused marks an error as a refusal: somebody has tried what they may not do.
func asRefused(err error, reason string) error {
	var answer *Error
	if !errors.As(err, &answer) {
		return err
	}
	refused := *answer
	refused.refusal = reason
	return &refused
}

// recordRefusal writes a row when an answer refuses something to its caller.
func (s *server) recordRefusal(c echo.Context, answer *Error) {
	known := callerOf(c)
	reason := answer.refusal
	switch {
	case reason != "":
	case answer.Status == http.StatusUnauthorized, answer.Status == http.StatusForbidden, answer.Status == http.StatusLocked,
		answer.Status == http.StatusTooManyRequests && known.Subject != "":
		reason = answer.Code
	default:
		return
	}

	if known.Subject == "" {
		known, _ = c.Get(suspectKey).(account.Caller)
		known.Address = c.RealIP()
	}
	e := s.eventOf(known, refusedAction(c), routeResource, []string{c.Request().Method + " " + c.Path()})
	e.Reason = reason
	s.refusals.Record(c.Request().Context(), e)
}

// refusedAction is what was tried.
func refusedAction(c echo.Context) audit.Action {
	switch {
	case strings.HasPrefix(c.Path(), "/api/v1/auth/token/"):
		return audit.TokenRefresh
	case isSignIn(c):
		return audit.SignIn
	}
	return audit.AccessRefuse
}

// suspect keeps whose account somebody tried to sign in to, if there is one.
func suspect(c echo.Context, user uuid.UUID) {
	if user != uuid.Nil {
		c.Set(suspectKey, account.Caller{Subject: user.String()})
	}
}
