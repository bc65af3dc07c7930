package api

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"
)

const defaultPageSize = 20

// page is one page of a list; the first is 1.
type page struct{ number, size int }

func (p page) offset() int { return (p.number - 1) * p.size }

// list is a page with what a client needs to walk on. Next and Previous are null at the ends.
type list[T any] struct {
	Count    int64   `json:"count"`
	Next     *string `json:"next"`
	Previous *string `json:"previous"`
	Results  []T     `json:"results"`
}

// queryPage reads the page; the contract has bounded both numbers.
func queryPage(c echo.Context) page {
	return page{number: queryInt(c, "page", 1), size: queryInt(c, "page_size", defaultPageSize)}
}

func queryInt(c echo.Context, name string, fallback int) int {
	n, err := strconv.Atoi(c.QueryParam(name))
	if err != nil { // it is empty
		return fallback
	}
	return n
}

// queryText is nil when the query does not name the parameter, or names it with nothing.
func queryText(c echo.Context, name string) *string {
	return nullable(strings.TrimSpace(c.QueryParam(name)))
}

// queryBool is nil when the query does not name the parameter, or names it with nothing.
func queryBool(c echo.Context, name string) *bool {
	yes, err := strconv.ParseBool(c.QueryParam(name))
	if err != nil { // it is empty
		return nil
	}
	return &yes
}

func newList[T any](c echo.Context, p page, count int64, results []T) list[T] {
	l := list[T]{Count: count, Results: results}
	if int64(p.offset()+p.size) < count {
		l.Next = pageURL(c, p.number+1)
	}
	if p.number > 1 {
		l.Previous = pageURL(c, p.number-1)
	}
	return l
}

// pageURL is this request's URL with another page.
func pageURL(c echo.Context, number int) *string {
	query := c.QueryParams()
	query.Set("page", strconv.Itoa(number))
	u := url.URL{Path: c.Request().URL.Path + "/", RawQuery: query.Encode()}
	link := publicURL(c, u.String())
	return &link
}

const publicURLKey = "public URL"

// keepPublicURL leaves the configured URL where publicURL finds it.
func (s *server) keepPublicURL(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		c.Set(publicURLKey, s.PublicURL)
		return next(c)
	}
}

// publicURL is a path of ours as callers reach it; the path itself when no URL is configured.
func publicURL(c echo.Context, path string) string {
	base, _ := c.Get(publicURLKey).(string)
	return base + path
}

// setLocation names what a request has made.
func setLocation(c echo.Context, path string) {
	c.Response().Header().Set(echo.HeaderLocation, publicURL(c, path))
}
