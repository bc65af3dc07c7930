package fhir

import (
	"encoding/json"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// TestEveryListOfAPatientIsBounded: a Patient takes no more memory than a few times the 8 MiB that it may
// have, whichever list it fills with empty elements. The test measures the whole process, so it does not run
// in parallel.
func TestEveryListOfAPatientIsBounded(t *testing.T) {
	const (
		size    = 8 << 20
		allowed = 4 * size
	)

	// filled is a list of equal elements that has about size bytes.
	filled := func(element string, bytes int) string {
		return "[" + element + strings.Repeat(","+element, bytes/(len(element)+1)-1) + "]"
	}

	measured := map[string]func(bytes int) string{
		"identifier":             func(n int) string { return `{"identifier":` + filled("{}", n) + `}` },
		"identifier.type.coding": func(n int) string { return `{"identifier":[{"type":{"coding":` + filled("{}", n) + `}}]}` },
		"name":                   func(n int) string { return `{"name":` + filled("{}", n) + `}` },
		"name.given":             func(n int) string { return `{"name":[{"given":` + filled(`""`, n) + `}]}` },
		"telecom":                func(n int) string { return `{"telecom":` + filled("{}", n) + `}` },
		"address":                func(n int) string { return `{"address":` + filled("{}", n) + `}` },
		"address.line":           func(n int) string { return `{"address":[{"line":` + filled(`""`, n) + `}]}` },
		"codings of identifiers": func(n int) string {
			return `{"identifier":` + filled(`{"type":{"coding":`+filled("{}", 3*maxElements)+`}}`, n) + `}`
		},
		"givens of names": func(n int) string { return `{"name":` + filled(`{"given":`+filled(`""`, 3*maxElements)+`}`, n) + `}` },
		"lines of addresses": func(n int) string {
			return `{"address":` + filled(`{"line":`+filled(`""`, 3*maxElements)+`}`, n) + `}`
		},
	}

	for _, list := range listsOf(reflect.TypeFor[patient](), "") {
		if measured[list] == nil {
			t.Errorf("nobody measures what Patient.%s costs", list)
		}
	}

	for name, resource := range measured {
		t.Run(name, func(t *testing.T) {
			raw := json.RawMessage(`{"resourceType":"Patient","id":"1",` + resource(size - 1000)[1:])
			if !json.Valid(raw) || len(raw) > size {
				t.Fatalf("%d bytes: %.200s", len(raw), raw)
			}

			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := ParsePatient(raw, "")
			runtime.ReadMemStats(&after)
			cost := after.TotalAlloc - before.TotalAlloc
			if cost > allowed {
				t.Errorf("allocated %d MiB in all, want at most %d (%v)", cost>>20, allowed>>20, err)
			}

			if err == nil || !strings.Contains(err.Error(), "more than") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// listsOf names all lists of a type and of its elements.
func listsOf(of reflect.Type, within string) []string {
	var found []string
	for f := range of.Fields() {
		name := within + f.Tag.Get("json")
		inner := f.Type
		if inner.Kind() == reflect.Slice {
			inner, found = inner.Elem(), append(found, name)
		}
		if inner.Kind() == reflect.Struct {
			found = slices.Concat(found, listsOf(inner, name+"."))
		}
	}
	return found
}
