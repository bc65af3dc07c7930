package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
)

// readObject reads a body that begins as a JSON object. encoding/json alone would accept null as well, and
// would replace bytes that are not UTF-8.
func readObject(c echo.Context) ([]byte, error) {
	media, _, err := mime.ParseMediaType(c.Request().Header.Get(echo.HeaderContentType))
	if err != nil || media != echo.MIMEApplicationJSON {
		return nil, &Error{
			Status: http.StatusUnsupportedMediaType,
			Code:   "unsupported_media_type",
			Detail: "Send the body as Content-Type: application/json.",
		}
	}

	body, err := io.ReadAll(c.Request().Body)
	var tooLarge *echo.HTTPError
	switch {
	case errors.As(err, &tooLarge): // from the body limit
		return nil, err
	case err != nil:
		return nil, malformed("The body was cut off on its way: send it again.")
	case !utf8.Valid(body):
		return nil, malformed("The body is not UTF-8: JSON must be sent in UTF-8.")
	case !isObject(body):
		return nil, malformed("The body is not a JSON object: send one, as in {\"name\": \"value\"}.")
	}

	return body, nil
}

// isObject reports whether the text begins as a JSON object.
func isObject(text []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("{"))
}

// repeated adds the fields that a valid object has twice, at the top or in an object inside it. encoding/json
// silently takes the last one, in upper or lower case, so a request with two patient ids would be stored for
// one of them. Lists are skipped: the items of a batch are checked one by one.
func (b *broken) repeated(object []byte) {
	decoder := json.NewDecoder(bytes.NewReader(object))
	decoder.UseNumber()
	_, err := decoder.Token() // the opening brace
	// The path to the object that is being read, and the fields seen in each object on that path.
	var way []string
	seen := []map[string]bool{{}}
	lists := 0 // depth inside a list, which is skipped
	for err == nil && len(seen) > 0 {
		var token json.Token
		if token, err = decoder.Token(); err != nil {
			return // the end: the decoder cannot fail on a valid object
		}

		switch {
		case token == json.Delim('}') && lists == 0:
			way, seen = way[:max(len(way)-1, 0)], seen[:len(seen)-1]
			continue
		case lists > 0:
			lists += nesting(token)
			continue
		}

		field := strings.ToLower(fmt.Sprint(token))
		if seen[len(seen)-1][field] {
			b.add(strings.Join(append(slices.Clone(way), field), "."), "is given twice: send it once")
		}

		seen[len(seen)-1][field] = true
		switch token, err = decoder.Token(); token {
		case json.Delim('{'):
			way, seen = append(way, field), append(seen, map[string]bool{})
		case json.Delim('['):
			lists = 1
		}
	}
}

// nesting returns by how much a token changes the depth.
func nesting(token json.Token) int {
	switch token {
	case json.Delim('{'), json.Delim('['):
		return 1
	case json.Delim('}'), json.Delim(']'):
		return -1
	}
	return 0
}

func decodeError(err error) error {
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return malformed("The body is not valid JSON: look at byte %d.", syntax.Offset)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return malformed("The body ends in the middle of its JSON: send all of it.")
	}
	return malformed("The body cannot be read as JSON: send one JSON object.")
}

func malformed(format string, args ...any) *Error {
	return badRequest("malformed_json", format, args...)
}

// parseUUID accepts the canonical form only; uuid.Parse alone would accept braces and URNs too.
func parseUUID(s string) (uuid.UUID, bool) {
	id, err := uuid.Parse(s)
	return id, err == nil && len(s) == 36
}

// idParam is the UUID of the path, which the contract has checked.
func idParam(c echo.Context) uuid.UUID {
	id, _ := parseUUID(c.Param("id"))
	return id
}
