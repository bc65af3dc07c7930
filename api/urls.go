package api

import (
	"net/url"
	"strconv"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/workflows"
)

const publicURLKey = "public URL"

// keepPublicURL puts the configured URL into the request's context, where publicURL finds it.
func (s *server) keepPublicURL(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		c.Set(publicURLKey, s.PublicURL)
		return next(c)
	}
}

// publicURL returns the URL under which callers reach a path of ours. It is the path itself when no URL is
// configured.
func publicURL(c echo.Context, path string) string {
	base, _ := c.Get(publicURLKey).(string)
	return base + path
}

// setLocation writes the header Location: where the caller finds what the request has made.
func setLocation(c echo.Context, path string) {
	c.Response().Header().Set(echo.HeaderLocation, publicURL(c, path))
}

// pageLink leads to another page: this request's URL with it, or its number alone.
func pageLink(c echo.Context, number int) any {
	if isByBody(c) {
		return number
	}
	query := c.QueryParams()
	query.Set("page", strconv.Itoa(number))
	return listURL(c, query)
}

// listURL is this request's URL with another query.
func listURL(c echo.Context, query url.Values) string {
	u := url.URL{Path: c.Request().URL.Path + "/", RawQuery: query.Encode()}
	return publicURL(c, u.String())
}

// workflowURL leads to the newest run of the observation's workflow.
func (s *server) workflowURL(observationID uuid.UUID) *string {
	if s.TemporalUIURL == "" {
		return nil
	}
	link := s.TemporalUIURL + "/namespaces/" + url.PathEscape(s.TemporalNamespace) +
		"/workflows/" + url.PathEscape(workflows.TransmissionWorkflowID(observationID))
	return &link
}
