package api

import (
	"net/http"

	"github.com/labstack/echo/v4"
)

// jwksMaxAge is how long eCW may keep our keys; a rotation waits this long before it signs with the new one.
const jwksMaxAge = "max-age=300"

func (s *server) jwks(c echo.Context) error {
	c.Response().Header().Set(echo.HeaderCacheControl, "public, "+jwksMaxAge)
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, s.JWKS())
}
