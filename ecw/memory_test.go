package ecw

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// TestEveryListIsBounded: a large answer takes no more memory than a few times its size, whichever list it
// fills with empty elements. The lists are found by reflection on the types, so that a new list is tested
// too. The test measures the whole process, so it does not run in parallel.
func TestEveryListIsBounded(t *testing.T) {
	// For each request in all; reading the answer alone takes five times its size. An answer of a quarter of the
	// permitted size shows the same in less time.
	allowed := map[int]uint64{maxBody / 4: 16 << 20, maxReadBody / 4: 112 << 20}
	ctx := context.Background()
	find := func(c *Client) error { _, _, err := c.FindDelivered(ctx, testResource, testID); return err }

	type identified struct { // an Observation's identifiers are read in a second step
		Identifier short[Identifier] `json:"identifier"`
	}

	for _, tc := range []struct {
		read         any // the type that the answer, or the resource in it, is decoded into
		resourceType string
		wrapped      string
		size         int
		ask          func(*Client) error
	}{
		{answer{}, "Bundle", "%s", maxBody / 4, func(c *Client) error { _, err := c.CreateObservation(ctx, testResource, testID); return err }},
		{observation{}, "Observation", searchset("%s"), maxBody / 4, find},
		{identified{}, "Observation", searchset("%s"), maxBody / 4, find},
		{patientBundle{}, "Bundle", "%s", maxReadBody / 4, func(c *Client) error {
			_, err := c.SearchPatients(ctx, PatientQuery{Page: 1, PageSize: 20})
			return err
		}},
		{
			capabilityStatement{},
			"CapabilityStatement",
			"%s",
			maxReadBody / 4,
			func(c *Client) error { _, err := c.Capabilities(ctx); return err },
		},
	} {
		resource := reflect.TypeOf(tc.read)
		start := `{"resourceType":"` + tc.resourceType + `","id":"a",`
		for _, list := range listsOf(resource, nil) {
			if !list[len(list)-1].bounded {
				t.Errorf("%s%s is a list without a bound", resource.Name(), list)
			}

			for _, spread := range []bool{false, true} {
				if spread && !nested(list) {
					continue
				}

				t.Run(fmt.Sprintf("%s%s, spread %v", resource.Name(), list, spread), func(t *testing.T) {
					body := fmt.Sprintf(tc.wrapped, start+strings.TrimPrefix(fill(list, tc.size-1000, spread), "{"))
					if !json.Valid([]byte(body)) || len(body) > tc.size {
						t.Fatalf("%d bytes, %.100s", len(body), body)
					}

					e := newEHR(t)
					serve := func(w http.ResponseWriter, _ *http.Request) {
						w.Header().Set("Content-Type", mediaFHIR)
						_, _ = io.WriteString(w, body)
					}
					e.find, e.write = serve, serve
					c := e.client(t)
					mustAuthenticate(t, c)
					var before, after runtime.MemStats
					runtime.ReadMemStats(&before)
					err := tc.ask(c)
					runtime.ReadMemStats(&after)
					cost := after.TotalAlloc - before.TotalAlloc
					t.Logf("%d MiB, %v", cost>>20, err)

					if most := uint64(len(e.requests("POST"))+len(e.requests("GET"))) * allowed[tc.size]; cost > most {
						t.Errorf("allocated %d MiB in all, want at most %d", cost>>20, most>>20)
					}
				})
			}
		}
	}
}

// part is one element on the path from a resource to one of its lists.
type part struct {
	name    string
	list    bool
	bounded bool   // the list has the type short
	element string // an empty element of the list, in JSON
}

func (p part) String() string { return "." + p.name }

// listsOf are the paths to all lists of a type. A recursive type is entered once.
func listsOf(of reflect.Type, within []reflect.Type) [][]part {
	var found [][]part
	for _, t := range within {
		if t == of {
			return nil
		}
	}

	within = append(within, of)
	for f := range of.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		inner, step := f.Type, part{name: name, element: "{}"}
		if inner == reflect.TypeFor[json.RawMessage]() {
			continue
		}
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}

		if inner.Kind() == reflect.Slice {
			step.list, step.bounded = true, strings.HasPrefix(inner.Name(), "short[")
			inner = inner.Elem()
			if inner.Kind() == reflect.String {
				step.element = `""`
			}
			found = append(found, []part{step})
		}

		if inner.Kind() != reflect.Struct {
			continue
		}

		for _, deeper := range listsOf(inner, within) {
			if f.Anonymous {
				found = append(found, deeper)
			} else {
				found = append(found, append([]part{step}, deeper...))
			}
		}
	}

	return found
}

func nested(way []part) bool {
	lists := 0
	for _, step := range way {
		if step.list {
			lists++
		}
	}
	return lists > 1
}

// fill is a resource of that size. All empty elements are in its last list. If they are spread, they are in
// many lists, each as long as permitted, in the elements of the last list but one.
func fill(way []part, size int, spread bool) string {
	step := way[0]
	if step.list && len(way) == 1 {
		return wrap(step, repeat(step.element, size))
	}

	if spread && step.list && !nested(way[1:]) {
		inner := fill(way[1:], maxElements*len(way[len(way)-1].element+","), false)
		return wrap(step, repeat(inner, size))
	}

	inner := fill(way[1:], size, spread)
	if step.list {
		inner = "[" + inner + "]"
	}

	return wrap(step, inner)
}

func wrap(step part, value string) string {
	return `{"` + step.name + `":` + value + "}"
}

func repeat(element string, size int) string {
	return "[" + element + strings.Repeat(","+element, size/(len(element)+1)-1) + "]"
}
