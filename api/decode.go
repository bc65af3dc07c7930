package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
)

// decode reads the request's one JSON object into dst. Unknown fields are refused: a misspelt one would lose a value
// without a word.
func decode(c echo.Context, dst any) error {
	body, err := readObject(c)
	if err != nil {
		return err
	}
	return decodeObject(body, dst)
}

// readObject reads a body that begins as a JSON object. encoding/json alone would take null for one, and replace bytes
// that are not UTF-8 by another character.
func readObject(c echo.Context) ([]byte, error) {
	media, _, err := mime.ParseMediaType(c.Request().Header.Get(echo.HeaderContentType))
	if err != nil || media != echo.MIMEApplicationJSON {
		return nil, &Error{Status: http.StatusUnsupportedMediaType, Code: "unsupported_media_type", Detail: "Send the body as Content-Type: application/json."}
	}
	body, err := io.ReadAll(c.Request().Body)
	var tooLarge *echo.HTTPError
	switch {
	case errors.As(err, &tooLarge): // from the body limit
		return nil, err
	case err != nil:
		return nil, malformed("The body was cut off on its way: send it again.")
	case !utf8.Valid(body):
		return nil, malformed("The body is not UTF-8, as JSON must be.")
	case !isObject(body):
		return nil, malformed("The body is not a JSON object: send one, as in {\"name\": \"value\"}.")
	}
	return body, nil
}

// isObject tells whether the text begins as a JSON object.
func isObject(text []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("{"))
}

func decodeObject(body []byte, dst any) error {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(dst); err != nil {
		return decodeError(err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return malformed("The body goes on after its JSON object: send one object.")
	}
	var b broken
	b.repeated(body)
	return b.err()
}

// repeated adds the fields that a valid object has twice. encoding/json takes the last one, in whatever case it is
// written, and of two patients one must not be picked by accident.
func (b *broken) repeated(object []byte) {
	decoder := json.NewDecoder(bytes.NewReader(object))
	seen := map[string]bool{}
	_, err := decoder.Token() // the opening brace
	for err == nil && decoder.More() {
		var name json.Token
		var value json.RawMessage
		if name, err = decoder.Token(); err == nil {
			err = decoder.Decode(&value)
		}
		field := strings.ToLower(fmt.Sprint(name))
		if seen[field] {
			b.add(field, "is given twice: send it once")
		}
		seen[field] = true
	}
}

func decodeError(err error) error {
	var wrongType *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	var b broken
	switch {
	case errors.As(err, &wrongType):
		b.add(wrongType.Field, "is a JSON %s, want %s", wrongType.Value, jsonType(wrongType.Type.Kind()))
		return b.err()
	case errors.As(err, &syntax):
		return malformed("The body is not valid JSON (at byte %d).", syntax.Offset)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return malformed("The body ends before its JSON does.")
	}
	if quoted, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		if name, err := strconv.Unquote(quoted); err == nil {
			b.add(name, "is not a field of this request: remove it or check its spelling")
			return b.err()
		}
	}
	return malformed("The body cannot be read as JSON.")
}

func malformed(format string, args ...any) *Error {
	return badRequest("malformed_json", format, args...)
}

// jsonType says in JSON's words what a Go type takes.
func jsonType(kind reflect.Kind) string {
	switch kind {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Struct:
		return "an object"
	default:
		return "a number"
	}
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
