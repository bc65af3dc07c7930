package api_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// openapi.yaml keeps the rules below. `make lint` runs them alone: they need neither a database nor Temporal.
// openapi_lint_broken_test.go has a document for each of them that it must refuse.
func TestOpenAPIKeepsTheRules(t *testing.T) {
	t.Parallel()

	d, err := parseDocument(readDocument(t))
	if err != nil {
		t.Fatal(err)
	}

	for _, rule := range lintRules() {
		for _, finding := range rule.find(d) {
			t.Errorf("%s: %s", rule.name, finding)
		}
	}
}

// document is openapi.yaml, or a copy of it that was broken on purpose.
type document struct {
	*openapi3.T
	text string
}

func readDocument(t *testing.T) string {
	t.Helper()

	text, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// parseDocument closes the schemas, so that an example with a member that its schema lacks is a finding.
func parseDocument(text string) (document, error) {
	doc, err := openapi3.NewLoader().LoadFromData([]byte(text))
	if err != nil {
		return document{}, err
	}

	for _, schema := range doc.Components.Schemas {
		closed(schema.Value)
	}
	return document{doc, text}, nil
}

// lintRule is one requirement; find returns where a document breaks it.
type lintRule struct {
	name string
	find func(document) []string
}

func lintRules() []lintRule {
	return []lintRule{
		{"the document and its examples are valid OpenAPI 3.0", invalidOpenAPI},
		{"an example has the format that its schema names", malformedExamples},
		{"the licence has a name and a URL", lacksLicence},
		{"the servers are named", lacksServers},
		{"a token is asked for by default", lacksSecurity},
		{"a tag has a description", undescribedTags},
		{"a component is used", unusedComponents},
		{"no request fits two paths", ambiguousPaths},

		{"a path under /api/ ends with a slash, and no other does", ofEndpoints(hasPlainPath)},
		{"everything under /api/ asks for a token, and nothing else does", ofEndpoints(hasItsSecurity)},
		{"an operationId is in camel case", ofEndpoints(hasOperationID)},
		{"an operation has a summary", ofEndpoints(func(e endpoint) bool { return e.Summary != "" })},
		{"an operation has a description", ofEndpoints(func(e endpoint) bool { return e.Description != "" })},
		{"a description ends with the roles", ofEndpoints(namesItsRoles)},
		{"an operation has one tag", ofEndpoints(func(e endpoint) bool { return len(e.Tags) == 1 })},
		{"a tag is declared", undeclaredTags},
		{"a body is required", ofEndpoints(requiresItsBody)},
		{"an operation can succeed", ofEndpoints(canSucceed)},
		{"an answer that any such operation may give is documented", undocumentedAnswers},

		{"a parameter has a description", undescribedParameters},
		{"a schema and each of its properties has a description", ofSchemas(hasDescription)},
		{"a format is a known one", ofSchemas(hasKnownFormat)},
		{"a choice has the schema's type", ofSchemas(hasChoicesOfItsType)},
		{"a required property is defined", ofSchemas(definesRequired)},
		{"a nullable schema has a type", ofSchemas(func(_ string, s *openapi3.Schema) bool { return !s.Nullable || s.Type != nil })},
		{"only an object has properties, and only an array has items", ofSchemas(hasMembersOfItsType)},
	}
}

// endpoint is an operation and where it stands.
type endpoint struct {
	method string
	path   string
	item   *openapi3.PathItem
	*openapi3.Operation
}

func (e endpoint) String() string { return e.method + " " + e.path }

// takesToken reports whether the operation needs a token, which is the document's default.
func (e endpoint) takesToken() bool { return e.Security == nil }

// endpoints are the operations in the order of their paths.
func (d document) endpoints() (all []endpoint) {
	for _, path := range slices.Sorted(maps.Keys(d.Paths.Map())) {
		item := d.Paths.Value(path)
		operations := item.Operations()
		for _, method := range slices.Sorted(maps.Keys(operations)) {
			all = append(all, endpoint{method, path, item, operations[method]})
		}
	}
	return all
}

// ofEndpoints finds the operations that are not as they should be.
func ofEndpoints(fine func(endpoint) bool) func(document) []string {
	return func(d document) (found []string) {
		for _, e := range d.endpoints() {
			if !fine(e) {
				found = append(found, e.String())
			}
		}
		return found
	}
}

// ofSchemas finds the schemas that are not as they should be. Each is looked at once, by its JSON pointer.
func ofSchemas(fine func(pointer string, schema *openapi3.Schema) bool) func(document) []string {
	return func(d document) (found []string) {
		_ = d.WalkSchemas(func(pointer string, schema *openapi3.SchemaRef) error { // it returns what this function returns
			if !fine(pointer, schema.Value) {
				found = append(found, pointer)
			}
			return nil
		})
		return found
	}
}

func invalidOpenAPI(d document) []string {
	err := d.Validate(context.Background(),
		openapi3.EnableMultiError(),
		openapi3.EnableExamplesValidation(),
		openapi3.EnableSchemaDefaultsValidation(),
		openapi3.EnableSchemaPatternValidation(),
		openapi3.ProhibitExtensionsWithRef(),
	)
	if err != nil {
		return []string{err.Error()}
	}
	return nil
}

func lacksLicence(d document) []string {
	if licence := d.Info.License; licence == nil || licence.Name == "" || licence.URL == "" {
		return []string{"info.license"}
	}
	return nil
}

func lacksServers(d document) []string {
	if len(d.Servers) == 0 {
		return []string{"servers"}
	}
	return nil
}

func lacksSecurity(d document) []string {
	if len(d.Security) == 0 {
		return []string{"security"}
	}
	return nil
}

func undescribedTags(d document) (found []string) {
	for _, tag := range d.Tags {
		if tag.Description == "" {
			found = append(found, tag.Name)
		}
	}
	return found
}

func undeclaredTags(d document) (found []string) {
	for _, e := range d.endpoints() {
		for _, tag := range e.Tags {
			if d.Tags.Get(tag) == nil {
				found = append(found, e.String()+": "+tag)
			}
		}
	}
	return found
}

func unusedComponents(d document) (found []string) {
	names := map[string][]string{
		"schemas":       slices.Collect(maps.Keys(d.Components.Schemas)),
		"parameters":    slices.Collect(maps.Keys(d.Components.Parameters)),
		"headers":       slices.Collect(maps.Keys(d.Components.Headers)),
		"responses":     slices.Collect(maps.Keys(d.Components.Responses)),
		"requestBodies": slices.Collect(maps.Keys(d.Components.RequestBodies)),
		"examples":      slices.Collect(maps.Keys(d.Components.Examples)),
	}
	for kind, list := range names {
		for _, name := range list {
			if reference := "#/components/" + kind + "/" + name; !strings.Contains(d.text, `"`+reference+`"`) {
				found = append(found, reference)
			}
		}
	}

	return found
}

// ambiguousPaths compares paths whatever their methods: a request with a method that a path lacks is answered
// with those that it has. A word in the place of a UUID makes no path ambiguous.
func ambiguousPaths(d document) (found []string) {
	all := d.endpoints()
	for i, e := range all {
		for _, before := range all[:i] {
			if e.path != before.path && e.overlaps(before) {
				found = append(found, before.String()+" and "+e.String())
			}
		}
	}
	return found
}

// overlaps reports whether there is a path that fits both.
func (e endpoint) overlaps(other endpoint) bool {
	own, others := strings.Split(e.path, "/"), strings.Split(other.path, "/")
	if len(own) != len(others) {
		return false
	}

	for i := range own {
		if !e.takes(own[i], others[i]) && !other.takes(others[i], own[i]) {
			return false
		}
	}
	return true
}

// takes reports whether a segment of the path takes what another path has in its place.
func (e endpoint) takes(segment, other string) bool {
	parameter := slices.Concat(e.item.Parameters, e.Parameters).GetByInAndName(openapi3.ParameterInPath, strings.Trim(segment, "{}"))
	switch {
	case segment == other:
		return true
	case !strings.HasPrefix(segment, "{") || parameter == nil:
		return false
	case strings.HasPrefix(other, "{"):
		return true
	}
	return parameter.Schema.Value.VisitJSON(other, openapi3.WithStringFormatValidators(stringFormats())) == nil
}

func hasPlainPath(e endpoint) bool {
	const segments = `(/[a-z._-]+|/\{[a-z_]+\})+`
	if strings.HasPrefix(e.path, "/api/") {
		return regexp.MustCompile(`^/api/v[0-9]+` + segments + `/$`).MatchString(e.path)
	}
	return regexp.MustCompile(`^` + segments + `$`).MatchString(e.path)
}

// hasItsSecurity: a token is needed under /api/, except for what gives one.
func hasItsSecurity(e endpoint) bool {
	givesToken := slices.Contains([]string{
		"/api/v1/auth/login/",
		"/api/v1/auth/token/refresh/",
		"/api/v1/auth/oidc/",
		"/api/v1/auth/oidc/callback/",
	}, e.path)
	return e.takesToken() == (strings.HasPrefix(e.path, "/api/") && !givesToken)
}

// hasOperationID does not check that ids differ: the validation does.
func hasOperationID(e endpoint) bool {
	return regexp.MustCompile(`^[a-z][A-Za-z0-9]*$`).MatchString(e.OperationID)
}

func namesItsRoles(e endpoint) bool {
	return !e.takesToken() || strings.HasSuffix(strings.TrimSpace(e.Description), rolesSentence(e.Operation))
}

func rolesSentence(operation *openapi3.Operation) string {
	named, _ := operation.Extensions["x-roles"].([]any)
	if len(named) == 0 {
		return "Role: admin only."
	}

	text := "Roles: admin"
	for _, role := range named {
		text += fmt.Sprintf(", %s", role)
	}
	return text + "."
}

func requiresItsBody(e endpoint) bool { return e.RequestBody == nil || e.RequestBody.Value.Required }

// canSucceed takes a redirect for a success.
func canSucceed(e endpoint) bool {
	return slices.ContainsFunc(e.Responses.Keys(), func(status string) bool { return strings.HasPrefix(status, "2") || status == "302" })
}

func undocumentedAnswers(d document) (found []string) {
	for _, e := range d.endpoints() {
		for _, status := range e.failures() {
			if e.Responses.Status(status) == nil {
				found = append(found, e.String()+": "+strconv.Itoa(status))
			}
		}
	}
	return found
}

// failures are the statuses that follow from what an operation takes.
func (e endpoint) failures() []int {
	statuses := []int{http.StatusInternalServerError}
	if strings.HasPrefix(e.path, "/api/") {
		statuses = append(statuses, http.StatusTooManyRequests)
	}
	if e.takesToken() {
		statuses = append(statuses, http.StatusUnauthorized, http.StatusForbidden, http.StatusServiceUnavailable)
	}
	if strings.Contains(e.path, "{") {
		statuses = append(statuses, http.StatusNotFound)
	}
	if e.RequestBody != nil {
		statuses = append(statuses, http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	return statuses
}

func undescribedParameters(d document) (found []string) {
	_ = d.WalkParameters(func(pointer string, parameter *openapi3.ParameterRef) error {
		if parameter.Value.Description == "" {
			found = append(found, pointer)
		}
		return nil
	})
	return found
}

// hasDescription does not ask for a description of the schemas of parameters, headers and items, because the
// parameter, the header or the list itself has one.
func hasDescription(pointer string, schema *openapi3.Schema) bool {
	described := regexp.MustCompile(`^/components/schemas/[^/]+$|/properties/[^/]+$`)
	return schema.Description != "" || !described.MatchString(pointer)
}

func hasKnownFormat(_ string, schema *openapi3.Schema) bool {
	return schema.Format == "" || stringFormats()[schema.Format] != nil && schema.Type.Is(openapi3.TypeString)
}

func hasChoicesOfItsType(_ string, schema *openapi3.Schema) bool {
	ofType := openapi3.Schema{Type: schema.Type, Nullable: schema.Nullable}
	return !slices.ContainsFunc(schema.Enum, func(choice any) bool { return ofType.VisitJSON(choice) != nil })
}

func definesRequired(_ string, schema *openapi3.Schema) bool {
	return !slices.ContainsFunc(schema.Required, func(name string) bool { return schema.Properties[name] == nil })
}

func hasMembersOfItsType(_ string, schema *openapi3.Schema) bool {
	if len(schema.Properties) > 0 && !schema.Type.Is(openapi3.TypeObject) {
		return false
	}
	return schema.Items == nil || schema.Type.Is(openapi3.TypeArray)
}
