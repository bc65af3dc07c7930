package api

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
)

// decode reads the request's one JSON object into dst. Unknown fields are refused: a misspelt one would lose a value
// without a word.
func decode(c echo.Context, dst any) error {
	media, _, err := mime.ParseMediaType(c.Request().Header.Get(echo.HeaderContentType))
	if err != nil || media != echo.MIMEApplicationJSON {
		return &Error{Status: http.StatusUnsupportedMediaType, Code: "unsupported_media_type", Detail: "Send the body as Content-Type: application/json."}
	}
	decoder := json.NewDecoder(c.Request().Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(dst); err != nil {
		return decodeError(err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return badRequest("malformed_json", "The body goes on after its JSON object: send one object.")
	}
	return nil
}

func decodeError(err error) error {
	var wrongType *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	var tooLarge *echo.HTTPError
	var b broken
	switch {
	case errors.As(err, &tooLarge): // from the body limit
		return err
	case errors.As(err, &wrongType) && wrongType.Field != "":
		b.add(wrongType.Field, "is a JSON %s, want %s", wrongType.Value, wrongType.Type)
		return b.err()
	case errors.As(err, &wrongType):
		return badRequest("malformed_json", "The body is a JSON %s: send an object.", wrongType.Value)
	case errors.As(err, &syntax):
		return badRequest("malformed_json", "The body is not valid JSON (at byte %d).", syntax.Offset)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return badRequest("malformed_json", "The body is empty or cut off: send a JSON object.")
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		b.add(strings.Trim(field, `"`), "is not a field of this request: remove it or check its spelling")
		return b.err()
	}
	return badRequest("malformed_json", "The body cannot be read as JSON.")
}

// idParam reads the path's UUID.
func idParam(c echo.Context) (uuid.UUID, error) {
	if strings.Contains(c.Param("id"), "/") { // Echo's last parameter takes in the rest of the path
		return uuid.UUID{}, echo.ErrNotFound
	}
	id, ok := parseUUID(c.Param("id"))
	if !ok {
		var b broken
		b.add("id", "the path's id is not a UUID such as d4e5f6a7-b8c9-0123-defa-234567890123")
		return id, b.err()
	}
	return id, nil
}

// parseUUID takes the canonical form only; uuid.Parse alone would take braces and URNs too.
func parseUUID(s string) (uuid.UUID, bool) {
	id, err := uuid.Parse(s)
	return id, err == nil && len(s) == 36
}

// text checks a string that is to be stored: printable, at most max characters, and not blank when it is required.
func (b *broken) text(field string, value *string, max int, required bool) {
	*value = strings.TrimSpace(*value)
	switch {
	case required && *value == "":
		b.add(field, "is required")
	case utf8.RuneCountInString(*value) > max:
		b.add(field, "has more than %d characters", max)
	case strings.ContainsFunc(*value, unicode.IsControl):
		b.add(field, "contains a control character")
	}
}
