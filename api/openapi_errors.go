package api

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
)

// addParameter adds what is wrong with a parameter.
func (b *broken) addParameter(p *openapi3.Parameter, err error) {
	var unparsed *openapi3filter.ParseError
	var refused *openapi3filter.RequestError
	switch {
	case errors.As(err, &unparsed):
		b.add(p.Name, "%s", remedy(p.Schema.Value, "type", ""))
	case errors.As(err, &refused):
		b.addSchema(p.Schema.Value, p.Name, refused.Err)
	default:
		b.add(p.Name, "does not fit the API reference: see /docs")
	}
}

// addSchema adds what is wrong with a value of this schema.
func (b *broken) addSchema(schema *openapi3.Schema, name string, err error) {
	for _, err := range flatten(err) {
		var e *openapi3.SchemaError
		if !errors.As(err, &e) {
			b.add(name, "does not fit the API reference: see /docs")
			continue
		}

		path, message := e.JSONPointer(), remedy(e.Schema, e.SchemaField, e.Value)
		if e.SchemaField == "properties" { // the error is about the object, and means one of its members
			path, message = append(path, strayMember(e)), "is not a field of this request: remove it or check its spelling"
		}
		if !judgedLater(schema, path, e.SchemaField) {
			b.add(fieldName(name, path), "%s", message)
		}
	}
}

// judgedLater reports whether the error is left to a handler, which can say more about the member than its
// schema can. The schema itself always reports a member that is missing or of the wrong type.
func judgedLater(schema *openapi3.Schema, path []string, keyword string) bool {
	if len(path) == 0 || schema.Properties[path[0]] == nil || schema.Properties[path[0]].Value.Extensions["x-judged-by"] == nil {
		return false
	}
	return len(path) > 1 || !slices.Contains([]string{"required", "nullable", "type", "minItems", "maxItems"}, keyword)
}

// strayMember returns the name of the member that is not allowed. The error has it only in its reason.
func strayMember(e *openapi3.SchemaError) string {
	quoted := strings.TrimSuffix(strings.TrimPrefix(e.Reason, "property "), " is unsupported")
	if name, err := strconv.Unquote(quoted); err == nil {
		return strings.ToValidUTF8(name, "?")
	}
	return quoted
}

// fieldName writes a path as people do: address.city, ecw_patient_ids[3].
func fieldName(name string, path []string) string {
	for _, step := range path {
		switch _, err := strconv.Atoi(step); {
		case err == nil:
			name += "[" + step + "]"
		case name == "":
			name = step
		default:
			name += "." + step
		}
	}
	return name
}

// remedy says what is wrong with a value, and what to send instead. It never repeats the value, which may be
// personal.
func remedy(schema *openapi3.Schema, keyword string, value any) string {
	switch keyword {
	case "required":
		return "is required"
	case "nullable":
		return "is null: send a value, or leave the field out"
	case "maxLength":
		return "has more than " + strconv.FormatUint(*schema.MaxLength, 10) + " characters"
	case "minItems", "maxItems":
		items, _ := value.([]any)
		return "holds " + strconv.Itoa(len(items)) + ": send 1 to " + strconv.FormatUint(*schema.MaxItems, 10)
	case "enum":
		var choices []string
		for _, choice := range schema.Enum {
			if text, _ := choice.(string); text != "" {
				choices = append(choices, text)
			}
		}
		return "is not one of " + strings.Join(choices, ", ")
	case "type", "minimum", "maximum":
		if schema.Type.Is(openapi3.TypeInteger) && schema.Max != nil {
			return "is not a whole number from 1 to " + strconv.FormatFloat(*schema.Max, 'f', -1, 64)
		}
		if schema.Type.Is(openapi3.TypeNumber) && isNumber(value) {
			return outside(schema)
		}
		return "is a JSON " + jsonType(value) + ": send a JSON " + strings.Join(*schema.Type, " or ")
	}

	if text, isText := value.(string); keyword == "format" && isText && strings.HasPrefix(schema.Format, "date-") && lacksZone(text) {
		return "has no time zone: end it with Z for UTC or with an offset, as in 2026-02-06T10:30:00Z or 2026-02-06T05:30:00-05:00"
	}

	if text, ok := schema.Extensions["x-remedy"].(string); ok {
		return text
	}
	return "does not fit the API reference: see /docs"
}

// lacksZone reports whether a text is a time without a zone.
func lacksZone(text string) bool {
	layouts := []string{"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04"}
	return slices.ContainsFunc(layouts, func(layout string) bool { return isTime(layout, text) })
}

// isNumber reports whether a value is a number. One that is too large for a float64 is left as it was written.
func isNumber(value any) bool {
	switch value.(type) {
	case float64, json.Number:
		return true
	}
	return false
}

// outside is what is wrong with a number that a schema of numbers does not take.
func outside(schema *openapi3.Schema) string {
	if schema.Min == nil || schema.Max == nil {
		return "is larger than any device can measure; check the device"
	}
	limit := func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
	return "is outside " + limit(*schema.Min) + " to " + limit(*schema.Max) + "; check the device or the unit"
}

func jsonType(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return openapi3.TypeBoolean
	case json.Number:
		return openapi3.TypeNumber
	case string:
		return openapi3.TypeString
	case []any:
		return openapi3.TypeArray
	default:
		return openapi3.TypeObject
	}
}

// flatten lists the errors of a MultiError, which may hold others.
func flatten(err error) []error {
	all, ok := err.(openapi3.MultiError) // errors.As would take the first one inside
	if !ok {
		if err == nil {
			return nil
		}
		return []error{err}
	}

	var flat []error
	for _, one := range all {
		flat = append(flat, flatten(one)...)
	}

	return flat
}
