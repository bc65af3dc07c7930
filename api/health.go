package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/db"
)

// jwksMaxAge is how long eCW may keep our keys; a rotation waits this long before it signs with the new one.
const jwksMaxAge = "max-age=300"

func (s *server) jwks(c echo.Context) error {
	c.Response().Header().Set(echo.HeaderCacheControl, "public, "+jwksMaxAge)
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, s.JWKS)
}

// health says that the process answers, and nothing else: a restart mends nothing that is wrong elsewhere.
func (s *server) health(c echo.Context) error {
	return c.JSON(http.StatusOK, map[string]string{"status": "ok"})
}

// ready tells the truth about what requests need. Without the database nothing works: 503. Without Temporal readings are
// still taken and stored, and delivered later, so the answer says so but keeps the process in rotation.
func (s *server) ready(c echo.Context) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), 2*time.Second)
	defer cancel()
	answer := map[string]string{"status": "ready", "database": "ok", "temporal": "ok"}
	status := http.StatusOK
	if _, err := s.Temporal.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
		answer["status"], answer["temporal"] = "degraded", "unavailable"
		s.Logger.WarnContext(ctx, "Temporal does not answer", "error", err)
	}
	if err := s.Store.CheckMigrated(ctx); err != nil {
		answer["status"], answer["database"], status = "unavailable", "unavailable", http.StatusServiceUnavailable
		if errors.Is(err, db.ErrMigrationsPending) {
			answer["database"] = "migrations pending"
		}
		s.Logger.ErrorContext(ctx, "not ready", "error", err)
	}
	return c.JSON(status, answer)
}
