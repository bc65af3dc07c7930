package api

import (
	"strings"

	"github.com/labstack/echo/v4"
)

// oneYear is what browsers remember: this host and those below it are reached by TLS only (RFC 6797).
const oneYear = "max-age=31536000; includeSubDomains"

// secureHeaders keeps what the API answers out of caches, and browsers from guessing what it is. Keys and
// documentation may be cached.
func (s *server) secureHeaders(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		header := c.Response().Header()
		header.Set(echo.HeaderXContentTypeOptions, "nosniff")
		if s.TrustedProxies.behindTLS(c.Request()) {
			header.Set(echo.HeaderStrictTransportSecurity, oneYear)
		}
		if isAPI(c) {
			header.Set(echo.HeaderCacheControl, "no-store")
		}
		return next(c)
	}
}

// isAPI reports whether the request is for the API, and not for a probe, our keys or the documentation. Echo
// has removed the slash at the path's end.
func isAPI(c echo.Context) bool { return strings.HasPrefix(c.Request().URL.Path+"/", "/api/") }
