package ecw

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// The forms of a look-up, written as the initials of their search parameters.
const (
	alone        = "i"   // identifier
	withCategory = "ci"  // category, identifier
	withPatient  = "cip" // category, identifier, patient
	around       = "cdp" // category, date, patient
	aroundCode   = "Cdp" // Code, date, patient
)

func formOf(query url.Values) string {
	var letters string
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if name == "code" {
			name = "Code"
		}
		letters += name[:1]
	}
	return letters
}

// without returns testResource as it is held by an EHR that drops our identifier. The replacements come in
// pairs, the old text and the new.
func without(id string, replace ...string) string {
	o := strings.Replace(stored(id), `"identifier":[{"system":"`+testID.System+`","value":"`+testID.Value+`"}],`, "", 1)
	return strings.NewReplacer(replace...).Replace(o)
}

func bundleOf(next bool, resources ...string) http.HandlerFunc {
	var entries []string
	for _, r := range resources {
		entries = append(entries, `{"resource":`+r+`}`)
	}
	link := `[]`
	if next {
		link = `[{"relation":"self"},{"relation":"next","url":"https://elsewhere.example/?page=2"}]`
	}
	return reply(200, "", `{"resourceType":"Bundle","type":"searchset","link":`+link+`,"entry":[`+strings.Join(entries, ",")+`]}`)
}

// dropped is the answers of an EHR that finds resource by its content, but nothing by identifier.
func dropped(resource string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("identifier") {
			bundleOf(false)(w, r)
			return
		}
		bundleOf(false, resource)(w, r)
	}
}

// TestLookUp lists the searches of a look-up, in their order, and what the client concludes from them.
func TestLookUp(t *testing.T) {
	t.Parallel()
	refuse, down := reply(400, "", outcome("error", "invalid")), reply(503, "", "")
	found, empty := bundleOf(false, stored("obs-1")), bundleOf(false)
	theirs := strings.ReplaceAll(stored("obs-7"), testID.Value, "somebody-else")
	elsewhere := strings.ReplaceAll(stored("obs-1"), "pat-1", "pat-2")
	type answers map[string]http.HandlerFunc

	for _, tc := range []struct {
		name    string
		answers answers
		asked   string
		id      string // "" with no class: not found
		class   Class
		code    string
	}{
		{name: "found", answers: answers{alone: found}, asked: alone, id: "obs-1"},
		{name: "found in the chart linked before", answers: answers{alone: bundleOf(false, elsewhere)}, asked: alone, id: "obs-1"},
		{name: "absent, and nothing alike", answers: answers{alone: empty, around: empty}, asked: "i cdp"},
		{name: "422, found with category", answers: answers{alone: reply(422, "", ""), withCategory: found}, asked: "i ci", id: "obs-1"},
		{name: "found with patient", answers: answers{alone: refuse, withCategory: refuse, withPatient: found}, asked: "i ci cip", id: "obs-1"},
		{
			name:    "no search by identifier, alike",
			answers: answers{alone: refuse, withCategory: refuse, withPatient: refuse, around: bundleOf(false, theirs, without("obs-1"))},
			asked:   "i ci cip cdp",
			id:      "obs-1",
		},
		{
			name:    "no search by identifier, carried",
			answers: answers{alone: refuse, withCategory: refuse, withPatient: refuse, around: bundleOf(false, without("obs-2"), stored("obs-1"))},
			asked:   "i ci cip cdp",
			id:      "obs-1",
		},
		{
			name:    "no search by identifier, absent",
			answers: answers{alone: refuse, withCategory: refuse, withPatient: refuse, around: bundleOf(false, theirs)},
			asked:   "i ci cip cdp",
		},
		{
			name: "no search by category and date",
			answers: answers{
				alone:        refuse,
				withCategory: refuse,
				withPatient:  refuse,
				around:       refuse,
				aroundCode:   bundleOf(false, without("obs-1")),
			},
			asked: "i ci cip cdp Cdp",
			id:    "obs-1",
		},
		{
			name:    "no search at all",
			answers: answers{alone: refuse, withCategory: refuse, withPatient: refuse, around: refuse, aroundCode: refuse},
			asked:   "i ci cip cdp Cdp",
			class:   ClassPermanentData,
			code:    "invalid",
		},
		{
			name:    "identifier ignored, alike",
			answers: answers{alone: bundleOf(false, theirs), around: bundleOf(false, without("obs-1"))},
			asked:   "i cdp",
			id:      "obs-1",
		},
		{name: "identifier ignored, absent", answers: answers{alone: bundleOf(true, theirs), around: bundleOf(false, theirs)}, asked: "i cdp"},
		{
			name:    "identifier and date ignored",
			answers: answers{alone: bundleOf(true, theirs), around: bundleOf(true, theirs)},
			asked:   "i cdp",
			class:   ClassRetryable,
			code:    "incomplete_search",
		},
		{name: "identifier ignored, ours among them", answers: answers{alone: bundleOf(true, theirs, stored("obs-1"))}, asked: "i", id: "obs-1"},
		{name: "identifier dropped", answers: answers{alone: empty, around: bundleOf(true, without("obs-1"))}, asked: "i cdp", id: "obs-1"},
		{name: "absent, the second search is inconclusive", answers: answers{alone: empty, around: bundleOf(true, theirs)}, asked: "i cdp"},
		{
			name:    "an empty page with a next one does not say absent",
			answers: answers{alone: bundleOf(true), around: refuse, aroundCode: refuse},
			asked:   "i cdp Cdp",
			class:   ClassRetryable,
			code:    "incomplete_search",
		},
		{
			name:    "two empty pages with next ones do not say absent",
			answers: answers{alone: bundleOf(true), around: bundleOf(true)},
			asked:   "i cdp",
			class:   ClassRetryable,
			code:    "incomplete_search",
		},
		{
			name:    "refused with eCW's generic failure",
			answers: answers{alone: reply(400, "", numbered("2")), withCategory: found},
			asked:   "i ci",
			id:      "obs-1",
		},
		{name: "absent, no second search", answers: answers{alone: empty, around: refuse, aroundCode: refuse}, asked: "i cdp Cdp"},
		{name: "the first search fails", answers: answers{alone: down}, asked: "i", class: ClassRetryable, code: "http_503"},
		{name: "a later form fails", answers: answers{alone: refuse, withCategory: down}, asked: "i ci", class: ClassRetryable, code: "http_503"},
		{name: "the second search fails", answers: answers{alone: empty, around: down}, asked: "i cdp", class: ClassRetryable, code: "http_503"},
		{name: "forbidden", answers: answers{alone: reply(403, "", "")}, asked: "i", class: ClassPermanentCredentials, code: "forbidden"},
		{name: "throttled", answers: answers{alone: reply(429, "", "")}, asked: "i", class: ClassThrottled, code: "throttled"},
		{
			name:    "400 that is none of its form",
			answers: answers{alone: reply(400, "", outcome("error", "throttled"))},
			asked:   "i",
			class:   ClassThrottled,
			code:    "throttled",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			e.find = func(w http.ResponseWriter, r *http.Request) { tc.answers[formOf(r.URL.Query())](w, r) }
			d, found, err := e.client(t).FindDelivered(context.Background(), testResource, testID)

			switch {
			case tc.class != "":
				if ee := asError(t, err); ee.Class != tc.class || ee.Code != tc.code || found {
					t.Errorf("got %v, want %s %s", ee, tc.class, tc.code)
				}
			case err != nil || found != (tc.id != "") || d.ID != tc.id || d.Existing != found:
				t.Errorf("got %+v %v %v, want id %q", d, found, err, tc.id)
			}

			if got := strings.Join(e.forms(t), " "); got != tc.asked {
				t.Errorf("asked %s, want %s", got, tc.asked)
			}

			e.checkLogs(t)
		})
	}
}

// forms are the forms of the searches that were made. It checks the values of their parameters.
func (e *ehr) forms(t *testing.T) []string {
	t.Helper()
	want := map[string]string{
		"identifier": testID.System + "|" + testID.Value, "patient": "pat-1", "category": "vital-signs",
		"code": "http://loinc.org|8310-5", "date": "2026-02-06T10:30:00Z",
	}
	var forms []string

	for _, r := range e.requests("GET") {
		u, err := url.Parse(r.url)
		if err != nil || u.Path != "/fhir/r4/FFHEDD/Observation" {
			t.Errorf("asked %s", r.url)
		}

		for name, values := range u.Query() {
			if len(values) != 1 || values[0] != want[name] {
				t.Errorf("asked for %s %q", name, values)
			}
		}

		forms = append(forms, formOf(u.Query()))
	}

	return forms
}

// TestLookUpLearns: what a look-up has learned about the server saves requests for an hour.
func TestLookUpLearns(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	held, empty := bundleOf(false, stored("obs-1")), bundleOf(false)
	answers := map[string]http.HandlerFunc{alone: reply(400, "", ""), withCategory: empty, around: empty}
	e.find = func(w http.ResponseWriter, r *http.Request) { answers[formOf(r.URL.Query())](w, r) }
	clk := newClock(time.Now())
	c := e.client(t, withClock(clk))
	asked := 0

	expect := func(when, want string, found bool) {
		t.Helper()
		_, got, err := c.FindDelivered(context.Background(), testResource, testID)
		if err != nil || got != found {
			t.Errorf("%s: found %t, %v", when, got, err)
		}

		forms := e.forms(t)
		if now := strings.Join(forms[asked:], " "); now != want {
			t.Errorf("%s: asked %s, want %s", when, now, want)
		}

		asked = len(forms)
	}

	expect("at first", "i ci cdp", false)
	expect("the form is known", "ci cdp", false)
	answers[withCategory] = held
	expect("found", "ci", true)
	answers[withCategory] = empty
	expect("it finds, so that nothing found is enough", "ci", false)
	clk.advance(rememberFor)
	expect("after an hour", "i ci cdp", false)
}

// TestLookUpLearnsThatThereIsNoIdentifierSearch: otherwise each look-up would take four requests, and soon
// use up the practice's limit.
func TestLookUpLearnsThatThereIsNoIdentifierSearch(t *testing.T) {
	t.Parallel()
	refuse := reply(400, "", "")
	ignore := bundleOf(false, strings.ReplaceAll(stored("obs-7"), testID.Value, "somebody-else"))

	for name, tc := range map[string]struct {
		byIdentifier http.HandlerFunc
		first        string
	}{
		"refused": {refuse, "i ci cip cdp"},
		"ignored": {ignore, "i cdp"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			content := reply(503, "", "")

			e.find = func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Has("identifier") {
					tc.byIdentifier(w, r)
					return
				}
				content(w, r)
			}

			clk := newClock(time.Now())
			c := e.client(t, withClock(clk))
			asked := ""

			expect := func(when, want string, found, fails bool) {
				t.Helper()
				_, got, err := c.FindDelivered(context.Background(), testResource, testID)
				if (err != nil) != fails || got != found {
					t.Errorf("%s: found %t, %v", when, got, err)
				}
				if asked = strings.TrimSpace(asked + " " + want); strings.Join(e.forms(t), " ") != asked {
					t.Errorf("%s: asked %v, want %s", when, e.forms(t), asked)
				}
			}

			expect("the other search fails", tc.first, false, true)
			content = bundleOf(false)
			expect("nothing is known yet", tc.first, false, false)
			content = bundleOf(false, stored("obs-1"))
			expect("it is known", "cdp", true, false)
			clk.advance(rememberFor)
			expect("after an hour", tc.first, true, false)
		})
	}
}

func TestFindDeliveredRefusesWhatCarriesNoIdentifier(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	_, _, err := e.client(t).FindDelivered(context.Background(), json.RawMessage(`{"resourceType":"Observation"}`), testID)
	if ee := asError(t, err); ee.Code != "invalid_resource" || len(e.requests("GET")) != 0 {
		t.Errorf("got %v", ee)
	}
}

// TestSameReading: an Observation that is not plainly equal counts as another reading. If it were taken for
// this one, this one would never be delivered.
func TestSameReading(t *testing.T) {
	t.Parallel()
	pressure := func(components string) string {
		value := `"valueQuantity":{"value":98.60,"unit":"degrees F","system":"http://unitsofmeasure.org","code":"[degF]"}`
		return without("obs-1", value, `"component":[`+components+`]`)
	}

	part := func(code, value string) string {
		return `{"code":{"coding":[{"system":"http://loinc.org","code":"` + code + `"}]},` +
			`"valueQuantity":{"value":` + value + `,"system":"http://unitsofmeasure.org","code":"mm[Hg]"}}`
	}
	both := pressure(part("8480-6", "142") + "," + part("8462-4", "92"))
	ours := without("")

	for _, tc := range []struct {
		name, ours, theirs string
		want               bool
	}{
		{"equal", ours, without("obs-1"), true},
		{"decimal written otherwise", ours, without("obs-1", "98.60", "9.86e1"), true},
		{"instant written otherwise", ours, without("obs-1", "10:30:00Z", "05:30:00.000-05:00"), true},
		{"absolute reference", ours, without("obs-1", "Patient/pat-1", "https://ehr.example/fhir/Patient/pat-1/_history/3"), true},
		{"one more coding", ours, without("obs-1", `"code":{"coding":[`, `"code":{"coding":[{"system":"urn:ecw","code":"77"},`), true},
		{"no device", ours, without("obs-1", `"device":{"display":"TEMP-1"},`, ""), true},
		{"unit without code", ours, without("obs-1", `,"system":"http://unitsofmeasure.org","code":"[degF]"`, ""), true},
		{"components in another order", both, pressure(part("8462-4", "92") + "," + part("8480-6", "142.0")), true},
		{"another patient", ours, without("obs-1", "pat-1", "pat-12"), false},
		{"no subject", ours, without("obs-1", `"subject":{"reference":"Patient/pat-1"},`, ""), false},
		{"another code", ours, without("obs-1", "8310-5", "8331-1"), false},
		{
			"code of another system",
			ours,
			without("obs-1", `"system":"http://loinc.org","code":"8310-5"`, `"system":"urn:ecw","code":"8310-5"`),
			false,
		},
		{"a second later", ours, without("obs-1", "10:30:00Z", "10:30:01Z"), false},
		{"a millisecond later", ours, without("obs-1", "10:30:00Z", "10:30:00.001Z"), false},
		{"the day only", ours, without("obs-1", "T10:30:00Z", ""), false},
		{"another value", ours, without("obs-1", "98.60", "98.6000000000000001"), false},
		{"negative", ours, without("obs-1", "98.60", "-98.60"), false},
		{"converted", ours, without("obs-1", `98.60,"unit":"degrees F"`, `37,"unit":"C"`, "[degF]", "Cel"), false},
		{"the same number of another unit", ours, without("obs-1", "[degF]", "Cel"), false},
		{
			"another unit without code",
			ours,
			without("obs-1", `"unit":"degrees F","system":"http://unitsofmeasure.org","code":"[degF]"`, `"unit":"C"`),
			false,
		},
		{"no unit at all", ours, without("obs-1", `,"unit":"degrees F","system":"http://unitsofmeasure.org","code":"[degF]"`, ""), false},
		{"less than", ours, without("obs-1", `"value":98.60`, `"value":98.60,"comparator":"<"`), false},
		{"no value", ours, without("obs-1", `"value":98.60,`, ""), false},
		{"struck out", ours, without("obs-1", `"final"`, `"entered-in-error"`), false},
		{"neither names a device", without("", `"device":{"display":"TEMP-1"},`, ""), without("obs-1", `"device":{"display":"TEMP-1"},`, ""), true},
		{"a device where ours has none", without("", `"device":{"display":"TEMP-1"},`, ""), without("obs-1"), false},
		{"another device", ours, without("obs-1", "TEMP-1", "TEMP-2"), false},
		{"an odd form", ours, without("obs-1", `"device":{"display":"TEMP-1"}`, `"device":7`), false},
		{"another component", both, pressure(part("8480-6", "142") + "," + part("8462-4", "93")), false},
		{"a component less", both, pressure(part("8480-6", "142")), false},
		{"a component more", pressure(part("8480-6", "142")), both, false},
		{"swapped", both, pressure(part("8480-6", "92") + "," + part("8462-4", "142")), false},
		{"twice the same", pressure(part("8480-6", "142") + "," + part("8480-6", "142")), both, false},
		{"nothing measured in both", pressure(""), pressure(""), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			e.find = dropped(tc.theirs)
			ours := strings.Replace(tc.ours, `"status"`, `"identifier":[{"system":"`+testID.System+`","value":"`+testID.Value+`"}],"status"`, 1)
			_, found, err := e.client(t).FindDelivered(context.Background(), json.RawMessage(ours), testID)
			if err != nil || found != tc.want {
				t.Errorf("found %t, %v; want %t", found, err, tc.want)
			}

			e.checkLogs(t)
		})
	}
}

// TestIdentifiersOfOthers: an Observation with another identifier of ours is another reading, even if its
// content is equal.
func TestIdentifiersOfOthers(t *testing.T) {
	t.Parallel()
	for identifiers, want := range map[string]bool{
		`[]`:                                  true,
		`[{"system":"urn:ecw","value":"17"}]`: true,
		`[{"system":"` + testID.System + `","value":"somebody-else"}]`: false,
		`[{"system":"urn:ecw"},{"system":"` + testID.System + `"}]`:    false,
		`{"system":"` + testID.System + `","value":"somebody-else"}`:   false,
		`[{"system":7}]`: false,
	} {
		e := newEHR(t)
		theirs := without("obs-1", `"status"`, `"identifier":`+identifiers+`,"status"`)
		e.find = dropped(theirs)
		if _, found, err := e.client(t).FindDelivered(context.Background(), testResource, testID); err != nil || found != want {
			t.Errorf("%s: found %t, %v", identifiers, found, err)
		}
	}
}

func TestSameNumber(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"98.6", "98.60", true}, {"98.6", "986e-1", true}, {"100", "1E2", true}, {"100", "1e+2", true}, {"0", "-0.00", true}, {"0", "0e9", true},
		{"0.05", "5e-2", true}, {"1e999999999", "1e999999999", true},
		{"98.6", "98.60000000000001", false}, {"1", "-1", false}, {"1", "10", false}, {"1", "0.1", false}, {"", "", false}, {"0", "", false},
		{"1e999999999", "1e999999998", false}, {"1e99999999999999999999", "1e99999999999999999999", false}, {"x", "x", false},
	} {
		if got := sameNumber(json.Number(tc.a), json.Number(tc.b)); got != tc.want {
			t.Errorf("%s and %s: %t", tc.a, tc.b, got)
		}
	}
}
