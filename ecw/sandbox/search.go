package sandbox

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	defaultPage = 50
	maxPage     = 200
)

// query is a parsed FHIR search for things of type T. All repeated parameters must match; of the
// comma-separated values of a parameter one must match (FHIR R4 §3.1.1.5).
type query[T any] struct {
	filters []func(T) bool
	count   int
	offset  int

	// identifier is set if the search names one by system and value, so that a store can use its index.
	identifier *identifier
}

func (q query[T]) matches(item T) bool {
	return !slices.ContainsFunc(q.filters, func(match func(T) bool) bool { return !match(item) })
}

// matcher makes the test for one value of a search parameter.
type matcher[T any] func(value string) (func(T) bool, error)

// parseQuery reads search parameters. It refuses an unknown parameter. FHIR lets a server ignore it, but then
// the search would find too much.
func parseQuery[T any](values url.Values, known map[string]matcher[T]) (query[T], error) {
	q := query[T]{count: defaultPage}
	for _, name := range sortedKeys(values) {
		for _, value := range values[name] {
			if err := q.add(name, value, known); err != nil {
				return query[T]{}, err
			}
		}
	}
	return q, nil
}

func (q *query[T]) add(name, value string, known map[string]matcher[T]) error {
	switch name {
	case "_count":
		return intParam(name, value, &q.count, maxPage)
	case "_offset":
		return intParam(name, value, &q.offset, 0)
	case "_format":
		if !strings.Contains(value, "json") {
			return fmt.Errorf("_format: only JSON is served")
		}
		return nil
	}

	match, ok := known[name]
	if !ok {
		return fmt.Errorf("the search parameter %q is not supported; use one of %s", name, strings.Join(sortedKeys(known), ", "))
	}

	var tests []func(T) bool
	for _, one := range splitOr(value) {
		if one == "" {
			return fmt.Errorf("the search parameter %q has an empty value", name)
		}
		test, err := match(one)
		if err != nil {
			return fmt.Errorf("the search parameter %q: %w", name, err)
		}
		tests = append(tests, test)
	}

	if system, code, ok := strings.Cut(value, "|"); name == "identifier" && ok && system != "" && code != "" && len(tests) == 1 {
		q.identifier = &identifier{System: system, Value: code}
	}

	q.filters = append(q.filters, func(item T) bool {
		return slices.ContainsFunc(tests, func(test func(T) bool) bool { return test(item) })
	})
	return nil
}

// intParam reads a number of 0 or more. A number above the limit becomes the limit (0 = no limit).
func intParam(name, value string, into *int, limit int) error {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		return fmt.Errorf("%s must be a number, 0 or more", name)
	}
	if limit > 0 {
		n = min(n, limit)
	}
	*into = n
	return nil
}

// splitOr splits at commas that are not escaped.
func splitOr(value string) []string {
	parts := []string{""}
	for i := 0; i < len(value); i++ {
		last := len(parts) - 1
		switch {
		case value[i] == '\\' && i+1 < len(value):
			i++
			parts[last] += value[i : i+1]
		case value[i] == ',':
			parts = append(parts, "")
		default:
			parts[last] += value[i : i+1]
		}
	}

	return parts
}

// tokenParam is a value of a search parameter of type token: code, system|code, |code (no system), system|
// (any code).
type tokenParam struct {
	system, code string
	anySystem    bool
}

func parseToken(value string) tokenParam {
	system, code, piped := strings.Cut(value, "|")
	if !piped {
		return tokenParam{code: value, anySystem: true}
	}
	return tokenParam{system: system, code: code}
}

func (t tokenParam) matches(system, code string) bool {
	return (t.anySystem || t.system == system) && (t.code == "" || t.code == code)
}

func (t tokenParam) matchesIdentifier(ids []identifier) bool {
	return slices.ContainsFunc(ids, func(id identifier) bool { return t.matches(id.System, id.Value) })
}

func (t tokenParam) matchesConcept(concept codeableConcept) bool {
	return slices.ContainsFunc(concept.Coding, func(c coding) bool { return t.matches(c.System, c.Code) })
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// resourceOf returns what a search result shows of a match.
type resourceOf[T any] func(T) (id string, resource json.RawMessage)

// searchReply answers with one page of the matches, and links to the pages before and after it.
func searchReply[T any](base, resourceType string, values url.Values, q query[T], matches []T, show resourceOf[T]) reply {
	set := searchset{ResourceType: "Bundle", Type: "searchset", Total: len(matches)}
	page := func(offset int) string {
		v := url.Values{}
		for name, list := range values {
			v[name] = list
		}

		v.Set("_count", strconv.Itoa(q.count))
		if v.Del("_offset"); offset > 0 {
			v.Set("_offset", strconv.Itoa(offset))
		}
		return base + "/" + resourceType + "?" + v.Encode()
	}

	set.Link = append(set.Link, link{"self", page(q.offset)})
	if q.count > 0 {
		if next := q.offset + q.count; next < len(matches) {
			set.Link = append(set.Link, link{"next", page(next)})
		}
		if q.offset > 0 {
			set.Link = append(set.Link, link{"previous", page(max(0, q.offset-q.count))})
		}
	}

	from := min(q.offset, len(matches))
	for _, item := range matches[from:min(from+q.count, len(matches))] {
		id, resource := show(item)
		set.Entry = append(set.Entry, searchEntry{FullURL: base + "/" + resourceType + "/" + id, Resource: resource, Search: searchMode{"match"}})
	}

	return jsonReply(http.StatusOK, typeFHIR, set)
}

// refuseSearch answers a search that cannot be understood.
func refuseSearch(err error) reply {
	return problem{status: http.StatusBadRequest, code: "invalid", detail: err.Error()}.outcome()
}
