package api

import (
	"errors"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/db"
)

// jwksMaxAge is how long eCW may keep our keys; a rotation waits this long before it signs with the new one.
const jwksMaxAge = "max-age=300"

func (s *server) jwks(c echo.Context) error {
	c.Response().Header().Set(echo.HeaderCacheControl, "public, "+jwksMaxAge)
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, s.JWKS)
}

// whenMigrated refuses requests until the schema is as new as this binary: an upgrade's first processes may be faster than
// its migration, and must not write what the old schema cannot hold.
func (s *server) whenMigrated(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if s.migrated.Load() {
			return next(c)
		}
		err := s.Store.CheckMigrated(c.Request().Context())
		if errors.Is(err, db.ErrMigrationsPending) {
			answer := databaseUnavailable()
			answer.Detail = "The database waits for `vantrexia migrate`, and nothing was stored. Send the request again in a moment."
			return answer
		}
		if err != nil {
			return err
		}
		s.migrated.Store(true)
		return next(c)
	}
}
