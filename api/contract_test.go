package api_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/api"
)

// contract is openapi.yaml as a client reads it, with a router of its own, so that the server's reading of
// the file is tested too.
type contract struct {
	doc    *openapi3.T
	router routers.Router
}

var theContract = sync.OnceValues(func() (contract, error) {
	doc, err := openapi3.NewLoader().LoadFromFile("openapi.yaml")
	if err != nil {
		return contract{}, err
	}
	doc.Servers = nil // "/" would be cut off each path
	for _, schema := range doc.Components.Schemas {
		closed(schema.Value)
	}
	router, err := legacy.NewRouter(doc) // validates the document, and each example in it
	return contract{doc, router}, err
})

// closed refuses members that the contract does not name. Clients must accept such members, because a later
// version may have them. The tests must not.
func closed(schema *openapi3.Schema) {
	if schema.Type.Is(openapi3.TypeObject) && len(schema.Properties) > 0 {
		schema.AdditionalProperties.Has = new(false)
	}
	for _, property := range schema.Properties {
		closed(property.Value)
	}
}

func loadContract(tb testing.TB) contract {
	tb.Helper()
	k, err := theContract()
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func contractOptions() *openapi3filter.Options {
	return &openapi3filter.Options{
		MultiError:            true,
		IncludeResponseStatus: true,
		SkipSettingDefaults:   true,
		AuthenticationFunc:    openapi3filter.NoopAuthenticationFunc,
		SchemaValidationOptions: []openapi3.SchemaValidationOption{
			openapi3.WithStringFormatValidator("uuid", openapi3.NewCallbackValidator(uuid.Validate)),
		},
	}
}

// holds returns an error if the answer does not fit the contract, or the request does not although it was
// taken. Items of a batch are not checked. known is nil for a body that was sent as a stream.
func (k contract) holds(req *http.Request, body []byte, a answer) error {
	req.URL.Path = req.URL.EscapedPath() // a%2Fb is one segment
	if strings.HasPrefix(req.URL.Path, "/api/") && !strings.HasSuffix(req.URL.Path, "/") {
		req.URL.Path, req.URL.RawPath = req.URL.Path+"/", "" // both are taken, one is documented
	}

	route, path, err := k.router.FindRoute(req)
	if err != nil || strings.Contains(req.URL.Path, "//") {
		if !slices.Contains([]int{http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusTooManyRequests}, a.status) {
			return fmt.Errorf("a path that the contract does not have (%w) was answered", err)
		}
		return nil
	}

	req.Body = io.NopCloser(bytes.NewReader(body))
	asked := &openapi3filter.RequestValidationInput{
		Request:    req,
		PathParams: path,
		Route:      route,
		Options:    contractOptions(),
	}

	var refused error
	if a.status < 300 && body != nil && route.Operation.OperationID != "createObservations" {
		refused = openapi3filter.ValidateRequest(req.Context(), asked)
	}

	given := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: asked,
		Status:                 a.status,
		Header:                 a.header,
		Options:                asked.Options,
	}
	return errors.Join(refused, openapi3filter.ValidateResponse(req.Context(), given.SetBodyBytes(a.body)))
}

// The router, the table of roles and the contract have the same operations and the same roles.
func TestTheContractHasEveryRoute(t *testing.T) {
	t.Parallel()
	var documented, routed, tabled []string
	for path, item := range loadContract(t).doc.Paths.Map() {
		for method, operation := range item.Operations() {
			roles := "anybody"
			if operation.Security == nil {
				named, _ := operation.Extensions["x-roles"].([]any)
				roles = fmt.Sprint(append([]any{account.Admin}, named...))
			}
			pattern := strings.NewReplacer("{", ":", "}", "").Replace(strings.TrimSuffix(path, "/"))
			documented = append(documented, method+" "+pattern+" "+roles)
			routed = append(routed, method+" "+pattern)
		}
	}

	for _, r := range routesOf("") {
		roles := "anybody"
		if r.roles != nil {
			roles = fmt.Sprint(r.roles)
		}
		tabled = append(tabled, r.method+" "+r.pattern+" "+roles)
	}

	slices.Sort(documented)
	slices.Sort(tabled)
	if !slices.Equal(documented, tabled) {
		t.Errorf("the contract has %v\nthe table %v", documented, tabled)
	}

	handler := newAPI(t, api.Config{Signer: testSigner(t)})
	var served []string
	for _, r := range handler.(*echo.Echo).Routes() {
		if r.Method != http.MethodHead { // answered as GET
			served = append(served, r.Method+" "+r.Path)
		}
	}

	slices.Sort(served)
	slices.Sort(routed)
	if !slices.Equal(served, routed) {
		t.Errorf("the server has %v\nthe contract %v", served, routed)
	}
}
