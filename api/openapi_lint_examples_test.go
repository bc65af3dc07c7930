package api_test

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"
)

// malformedExamples does what the validation above does not: of the formats, that one knows the dates only.
func malformedExamples(d document) (found []string) {
	options := []openapi3.SchemaValidationOption{openapi3.MultiErrors(), openapi3.WithStringFormatValidators(stringFormats())}
	for _, e := range d.examples() {
		if err := e.schema.VisitJSON(e.value, options...); err != nil {
			found = append(found, e.place+": "+err.Error())
		}
	}
	return found
}

// example is a value that the document shows, with the schema that it is to fit.
type example struct {
	place  string
	schema *openapi3.Schema
	value  any
}

func (d document) examples() (all []example) {
	_ = d.WalkSchemas(func(pointer string, schema *openapi3.SchemaRef) error {
		all = append(all, example{pointer, schema.Value, schema.Value.Example})
		return nil
	})

	_ = d.WalkParameters(func(pointer string, parameter *openapi3.ParameterRef) error {
		all = append(all, example{pointer, parameter.Value.Schema.Value, parameter.Value.Example})
		return nil
	})
	for _, e := range d.endpoints() {
		if e.RequestBody != nil {
			all = append(all, examplesOf(e.String(), e.RequestBody.Value.Content)...)
		}
		for status, response := range e.Responses.Map() {
			all = append(all, examplesOf(e.String()+" "+status, response.Value.Content)...)
		}
	}

	return slices.DeleteFunc(all, func(e example) bool { return e.value == nil })
}

func examplesOf(place string, content openapi3.Content) (all []example) {
	for _, media := range content {
		if media.Schema == nil {
			continue
		}

		all = append(all, example{place, media.Schema.Value, media.Example})
		for name, one := range media.Examples {
			all = append(all, example{place + " " + name, media.Schema.Value, one.Value.Value})
		}
	}
	return all
}

// stringFormats are the formats that the document may name. A format that is not among them, such as a
// misspelt one, would be checked nowhere: neither here nor in a request.
func stringFormats() map[string]openapi3.StringFormatValidator {
	isDate := func(s string) bool { return parses(time.DateOnly, s) }
	isTime := func(s string) bool { return parses(time.RFC3339, s) }
	isText := func(s string) bool { return !strings.ContainsFunc(s, unicode.IsControl) }

	formats := map[string]openapi3.StringFormatValidator{}
	for name, fits := range map[string]func(string) bool{
		"uuid":         func(s string) bool { return uuid.Validate(s) == nil },
		"date":         isDate,
		"date-time":    isTime,
		"date-or-time": func(s string) bool { return isDate(s) || isTime(s) },
		"text":         isText,
		"name":         func(s string) bool { return isText(s) && strings.TrimSpace(s) != "" },
	} {
		formats[name] = openapi3.NewCallbackValidator(func(s string) error {
			if !fits(s) {
				return fmt.Errorf("%q is none", s)
			}
			return nil
		})
	}

	return formats
}

func parses(layout, s string) bool {
	_, err := time.Parse(layout, s)
	return err == nil
}
