package api

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/db"
)

const defaultPageSize = 20

// page is one page of a list; the first is 1.
type page struct{ number, size int }

func (p page) offset() int { return (p.number - 1) * p.size }

// queryPage reads the page; the contract has bounded both numbers.
func queryPage(c echo.Context) page {
	return page{number: queryInt(c, "page", 1), size: queryInt(c, "page_size", defaultPageSize)}
}

// list is a page with what a client needs to walk on. Next and Previous are null at the ends, and on an empty
// page. Otherwise they are URLs, or in the answer to a search by body what to send in it: a cursor, or the
// number of a page.
type list[T any] struct {
	// Count is how many there are on all pages; when CountIsExact is false, there are more.
	Count        int64 `json:"count"`
	CountIsExact bool  `json:"count_is_exact"`
	Next         any   `json:"next"`
	Previous     any   `json:"previous"`
	Results      []T   `json:"results"`
}

// listPage is one page of a list that our database keeps. It begins beside a row, whose sort key is a K, or
// at a page number.
type listPage[K any] struct {
	page
	db.Page[K]
	list string
}

// cursor is what the links of a list carry. It names a row, so the list goes on from there however many rows
// are added or removed before it.
type cursor[K any] struct {
	// List names the list and its order. A cursor is refused by any other list.
	List string `json:"list"`
	Back bool   `json:"back,omitempty"`
	Row  *K     `json:"row"`
}

func (p cursor[K]) encode() (string, error) {
	text, err := json.Marshal(p)
	return base64.RawURLEncoding.EncodeToString(text), err
}

// readCursor decodes a cursor. It refuses every text that encode would not write.
func readCursor[K any](list, text string) (read cursor[K], ok bool) {
	plain, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || json.Unmarshal(plain, &read) != nil || read.List != list || read.Row == nil {
		return read, false
	}
	again, err := read.encode()
	return read, err == nil && again == text
}

// queryListPage reads which page of a list the query asks for.
func queryListPage[K any](c echo.Context, list string) (listPage[K], error) {
	p := listPage[K]{page: queryPage(c), list: list}
	p.Limit = p.size + 1 // one more row shows that the list goes on

	text := parameter(c, "cursor")
	if text == "" {
		if p.number*p.size > db.CountedExactly {
			return p, badRequest("page_too_deep", "page= reaches only the first %d rows: follow next from the first page instead, "+
				"or narrow the list with a filter.", db.CountedExactly)
		}
		p.Offset = p.offset()
		return p, nil
	}

	var b broken
	read, ok := readCursor[K](list, text)
	switch {
	case !ok:
		b.add("cursor", "is not a cursor of this list in this order: take it from next or previous, or start again without it")
	case parameter(c, "page") != "":
		b.add("cursor", "was sent together with page: send only one of them")
	}

	p.After, p.Back = read.Row, read.Back
	return p, b.err()
}

// newList makes the answer from the rows that were found for a page.
func newList[K, R, T any](c echo.Context, p listPage[K], count int64, rows []R, show func(R) T, key func(R) K) (list[T], error) {
	more := len(rows) > p.size
	rows = rows[:min(len(rows), p.size)]
	l := list[T]{Count: min(count, db.CountedExactly), CountIsExact: count <= db.CountedExactly, Results: make([]T, len(rows))}
	if len(rows) == 0 {
		return l, nil
	}

	before, after := p.After != nil || p.number > 1, more
	if p.Back {
		slices.Reverse(rows)
		before, after = more, true
	}

	for i, row := range rows {
		l.Results[i] = show(row)
	}

	var err error
	if after {
		l.Next, err = p.link(c, key(rows[len(rows)-1]), false)
	}
	if before && err == nil {
		l.Previous, err = p.link(c, key(rows[0]), true)
	}
	return l, err
}

// link leads to the page that begins beside the row: this request's URL with a cursor, or the cursor alone.
func (p listPage[K]) link(c echo.Context, row K, back bool) (any, error) {
	text, err := cursor[K]{List: p.list, Back: back, Row: &row}.encode()
	if err != nil {
		return nil, fmt.Errorf("write cursor: %w", err)
	}
	if isByBody(c) {
		return text, nil
	}

	query := c.QueryParams()
	query.Del("page")
	query.Set("cursor", text)
	return listURL(c, query), nil
}

// newNumberedList is a page of a list that another system keeps. That system knows page numbers only, no
// cursors.
func newNumberedList[T any](c echo.Context, p page, count int64, results []T) list[T] {
	l := list[T]{Count: count, CountIsExact: true, Results: results}
	if int64(p.offset()+p.size) < count {
		l.Next = pageLink(c, p.number+1)
	}
	if p.number > 1 {
		l.Previous = pageLink(c, p.number-1)
	}
	return l
}
