package api

import (
	"bytes"
	_ "embed" // the contract
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/labstack/echo/v4"
)

//go:embed openapi.yaml
var openapiYAML []byte

// contract is openapi.yaml, which says what a request may look like. Parameters and bodies are checked
// against it. The handlers check what only the database or the catalogue of package fhir knows.
//
// It is OpenAPI 3.0 because kin-openapi reports in detail which part of a request breaks it; for 3.1 it does
// not.
type contract struct {
	doc    *openapi3.T
	routes map[string]*routers.Route // by method and Echo's pattern
}

// loadContract parses the embedded file once, because that takes longer than the rest of a start. The result
// is only read.
var loadContract = sync.OnceValues(func() (*contract, error) {
	doc, err := openapi3.NewLoader().LoadFromData(openapiYAML)
	if err != nil {
		return nil, fmt.Errorf("load openapi.yaml: %w", err)
	}

	k := &contract{doc: doc, routes: map[string]*routers.Route{}}
	for path, item := range doc.Paths.Map() {
		for method, operation := range item.Operations() {
			for _, answered := range methodsOf(method) {
				k.routes[answered+" "+echoPattern(path)] = &routers.Route{
					Spec:      doc,
					Path:      path,
					PathItem:  item,
					Method:    method,
					Operation: operation,
				}
			}
		}
	}

	return k, nil
})

// echoPattern turns a path of the contract into the router's form: /patients/{id}/ becomes /patients/:id.
func echoPattern(path string) string {
	return strings.NewReplacer("{", ":", "}", "").Replace(strings.TrimSuffix(path, "/"))
}

// bodyKey is where check leaves the body that it has read.
const bodyKey = "body"

// check lets a request through that keeps to the contract. It runs after allow, so that a caller without the
// right role learns nothing about the body.
func (k *contract) check(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		route := k.routes[c.Request().Method+" "+c.Path()]
		if err := checkParameters(c, route); err != nil {
			return err
		}

		if wanted := route.Operation.RequestBody; wanted != nil {
			body, err := readObject(c)
			if err != nil {
				return err
			}
			if err := checkObject(wanted.Value.GetMediaType(echo.MIMEApplicationJSON).Schema.Value, body); err != nil {
				return err
			}
			c.Set(bodyKey, body)
		}
		return next(c)
	}
}

// body returns the request's body as check has read it.
func body(c echo.Context) []byte {
	text, _ := c.Get(bodyKey).([]byte)
	return text
}

// bind reads the body into dst.
func bind(c echo.Context, dst any) error { return unmarshal(body(c), dst) }

// unmarshal decodes a text that the contract has accepted, so an error is our fault.
func unmarshal(text []byte, dst any) error {
	if err := json.Unmarshal(text, dst); err != nil {
		return fmt.Errorf("the contract takes a body that the handler does not: %w", err)
	}
	return nil
}

func checkParameters(c echo.Context, route *routers.Route) error {
	query, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return badRequest("malformed_query", "The query string cannot be read: percent-encode its values (RFC 3986).")
	}

	path := map[string]string{}
	for i, name := range c.ParamNames() {
		path[name] = c.ParamValues()[i]
		if strings.Contains(path[name], "/") { // Echo's last parameter takes in the rest of the path
			return echo.ErrNotFound
		}
	}

	input := &openapi3filter.RequestValidationInput{
		Request:     c.Request(),
		PathParams:  path,
		QueryParams: query,
		Route:       route,
		Options:     &openapi3filter.Options{MultiError: true, SkipSettingDefaults: true, SchemaValidationOptions: schemaOptions()},
	}

	known := slices.Concat(route.PathItem.Parameters, route.Operation.Parameters)
	var b broken
	b.strays(query, known)
	for _, parameter := range known {
		p := parameter.Value
		if text := query.Get(p.Name) + c.Request().Header.Get(p.Name); !utf8.ValidString(text) {
			b.add(p.Name, "is not valid UTF-8")
		} else if err := openapi3filter.ValidateParameter(c.Request().Context(), input, p); err != nil {
			b.addParameter(p, err)
		}
	}

	return b.err()
}

// strays adds query parameters that the contract does not know, or that are given twice. If a misspelt filter
// were ignored, the answer would list everybody.
func (b *broken) strays(query url.Values, known openapi3.Parameters) {
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if known.GetByInAndName(openapi3.ParameterInQuery, name) == nil {
			b.add(strings.ToValidUTF8(name, "?"), "is not a parameter of this request: remove it or check its spelling")
		} else if len(query[name]) > 1 {
			b.add(name, "is given twice: send it once")
		}
	}
}

// checkObject checks that a text is one JSON object that fits the schema.
func checkObject(schema *openapi3.Schema, text []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return decodeError(err)
	}

	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return malformed("The body has more text after its JSON object: send one object only.")
	}

	var b broken
	if b.repeated(text); len(b) == 0 {
		b.addSchema(schema, "", schema.VisitJSON(value, append(schemaOptions(), openapi3.MultiErrors(), openapi3.VisitAsRequest())...))
	}
	return b.err()
}

// schemaOptions implements the formats that the contract names.
func schemaOptions() []openapi3.SchemaValidationOption {
	formats := map[string]func(string) bool{
		"uuid":         func(s string) bool { _, ok := parseUUID(s); return ok },
		"date":         func(s string) bool { return isTime(time.DateOnly, s) },
		"date-time":    func(s string) bool { return new(time.Time).UnmarshalText([]byte(s)) == nil },
		"date-or-time": func(s string) bool { return isTime(time.DateOnly, s) || isTime(time.RFC3339, s) },
		"text":         func(s string) bool { return !strings.ContainsFunc(s, unicode.IsControl) },
		"name":         func(s string) bool { return strings.TrimSpace(s) != "" && !strings.ContainsFunc(s, unicode.IsControl) },
	}

	options := []openapi3.SchemaValidationOption{openapi3.EnableFormatValidation()}
	for name, fits := range formats {
		options = append(options, openapi3.WithStringFormatValidator(name, openapi3.NewCallbackValidator(func(s string) error {
			if !fits(s) {
				return errFormat
			}
			return nil
		})))
	}

	return options
}

var errFormat = errors.New("the format does not fit") // callers see x-remedy in its place

func isTime(layout, s string) bool {
	_, err := time.Parse(layout, s)
	return err == nil
}
