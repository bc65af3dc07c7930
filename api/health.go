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

// probeTimeout keeps /readyz within the second that an orchestrator's probe waits by default.
const probeTimeout = 900 * time.Millisecond

// ready tells the truth about what requests need. Without the database nothing works: 503. Without Temporal readings are
// still taken and stored, and delivered later, so the answer says so but keeps the process in rotation.
func (s *server) ready(c echo.Context) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), probeTimeout)
	defer cancel()
	temporal := make(chan error, 1)
	go func() { // beside the database: a Temporal that hangs must not use up the database's time
		_, err := s.Temporal.CheckHealth(ctx, &client.CheckHealthRequest{})
		temporal <- err
	}()
	answer := map[string]string{"status": "ready", "database": "ok", "temporal": "ok"}
	status := http.StatusOK
	databaseErr := s.Store.CheckMigrated(ctx)
	if err := <-temporal; err != nil {
		answer["status"], answer["temporal"] = "degraded", "unavailable"
		s.Logger.WarnContext(ctx, "Temporal does not answer", "error", err)
	}
	if databaseErr != nil {
		answer["status"], answer["database"], status = "unavailable", "unavailable", http.StatusServiceUnavailable
		if errors.Is(databaseErr, db.ErrMigrationsPending) {
			answer["database"] = "migrations pending"
		}
		s.Logger.ErrorContext(ctx, "not ready", "error", databaseErr)
	}
	return c.JSON(status, answer)
}
