package api

import (
	"net/url"
	"strconv"
	"unicode/utf8"

	"github.com/labstack/echo/v4"
)

const (
	defaultPageSize = 20
	maxPageSize     = 100
	maxPage         = 1_000_000
)

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

func (b *broken) page(c echo.Context) page {
	return page{
		number: b.queryInt(c, "page", 1, maxPage),
		size:   b.queryInt(c, "page_size", defaultPageSize, maxPageSize),
	}
}

// checkQuery refuses a query string of which net/url would drop a part: a filter that is lost lists everybody.
func checkQuery(c echo.Context) error {
	if _, err := url.ParseQuery(c.Request().URL.RawQuery); err != nil {
		return badRequest("malformed_query", "The query string cannot be read: percent-encode its values (RFC 3986).")
	}
	return nil
}

// queryText is nil when the query does not name the parameter.
func (b *broken) queryText(c echo.Context, name string) *string {
	value := c.QueryParam(name)
	if !utf8.ValidString(value) {
		b.add(name, "is not valid UTF-8")
	}
	b.text(name, &value, 100, false)
	return nullable(value)
}

func (b *broken) queryInt(c echo.Context, name string, fallback, max int) int {
	text := c.QueryParam(name)
	if text == "" {
		return fallback
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > max {
		b.add(name, "is not a whole number from 1 to %d", max)
	}
	return n
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
	u := url.URL{Scheme: c.Scheme(), Host: c.Request().Host, Path: c.Request().URL.Path + "/", RawQuery: query.Encode()}
	link := u.String()
	return &link
}
