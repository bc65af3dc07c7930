package api

import (
	"encoding/json"

	"github.com/labstack/echo/v4"
)

// plainJSON writes answers without the escapes for HTML (\u0026 for &), so that a URL in an answer can be copied
// from a terminal. Answers are never put into a page as they are.
type plainJSON struct{ echo.DefaultJSONSerializer }

// Serialize writes a value as one line of JSON.
func (plainJSON) Serialize(c echo.Context, value any, indent string) error {
	encoder := json.NewEncoder(c.Response())
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", indent)
	return encoder.Encode(value)
}
