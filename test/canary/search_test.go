package canary_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// canary is a text that nothing else in the system has.
type canary struct {
	name string
	text string
}

// needle is a canary in one of the forms in which it might be written.
type needle struct {
	canary string // its name
	form   string // such as "hex"
	text   []byte
}

// forms returns a canary in all forms that are searched for.
func forms(c canary) []needle {
	raw := []byte(c.text)
	found := map[string]string{c.text: "as it is"}
	add := func(form, text string) {
		if _, has := found[text]; !has {
			found[text] = form
		}
	}

	add("lower case", strings.ToLower(c.text))
	add("upper case", strings.ToUpper(c.text))
	add("URL-encoded", url.QueryEscape(c.text))
	add("URL-encoded", url.PathEscape(c.text))
	for _, text := range []string{c.text, strings.ToLower(c.text)} {
		add("hex", hex.EncodeToString([]byte(text)))
		add("hex", strings.ToUpper(hex.EncodeToString([]byte(text))))
	}
	for before := range 3 {
		add("base64", base64Within(base64.RawStdEncoding, raw, before))
		add("base64", base64Within(base64.RawURLEncoding, raw, before))
	}

	var all []needle
	for text, form := range found {
		all = append(all, needle{c.name, form, []byte(text)})
	}
	return all
}

// base64Within is the part of a longer text in base64 that depends on nothing but raw, which begins after so
// many bytes (modulo three) of the text.
func base64Within(encoding *base64.Encoding, raw []byte, before int) string {
	whole := encoding.EncodeToString(append(make([]byte, before), raw...))
	first := (before*8 + 5) / 6
	last := (before + len(raw)) * 8 / 6
	return whole[first:last]
}

// shortest is the length of the shortest needle: it must not be found by chance in megabytes of base64.
const shortest = 7

// searcher looks for many needles at once.
type searcher struct{ byStart map[[4]byte][]needle }

func newSearcher(canaries []canary) (*searcher, error) {
	s := &searcher{byStart: map[[4]byte][]needle{}}
	for _, c := range canaries {
		for _, n := range forms(c) {
			if len(n.text) < shortest {
				return nil, fmt.Errorf("the canary %q is too short: %s is %q", c.name, n.form, n.text)
			}
			start := [4]byte(n.text)
			s.byStart[start] = append(s.byStart[start], n)
		}
	}
	return s, nil
}

// hit is a canary that was found.
type hit struct {
	needle
	near string // what stands around it
}

// in returns what a text holds: of each canary and form the first place.
func (s *searcher) in(text []byte) (hits []hit) {
	var starts [1 << 16]bool // of the needles' first two bytes, which rules nearly everything out
	for start := range s.byStart {
		starts[int(start[0])<<8|int(start[1])] = true
	}

	seen := map[string]bool{}
	for i := 0; i+4 <= len(text); i++ {
		if !starts[int(text[i])<<8|int(text[i+1])] {
			continue
		}
		for _, n := range s.byStart[[4]byte(text[i:])] {
			if bytes.HasPrefix(text[i:], n.text) && !seen[n.canary+n.form] {
				seen[n.canary+n.form] = true
				hits = append(hits, hit{n, around(text, i, len(n.text))})
			}
		}
	}

	slices.SortFunc(hits, func(a, b hit) int { return strings.Compare(a.canary+a.form, b.canary+b.form) })
	return hits
}

func around(text []byte, at, length int) string {
	return fmt.Sprintf("%q", text[max(0, at-60):min(len(text), at+length+30)])
}

// TestTheSearchFindsEachForm: a search that finds nothing in anything would prove nothing.
func TestTheSearchFindsEachForm(t *testing.T) {
	t.Parallel()
	const name = "Zephyrinella O'Quaxington"
	s, err := newSearcher([]canary{{"name", name}, {"another", "something else"}})
	if err != nil {
		t.Fatal(err)
	}

	hidden := map[string]string{
		"as it is":    "say " + name + "!",
		"lower case":  "lower('" + strings.ToLower(name) + "')",
		"upper case":  strings.ToUpper(name),
		"URL-encoded": "https://h.example/?q=" + url.QueryEscape(name) + "&n=1",
		"hex":         `\x00ff` + hex.EncodeToString([]byte("<"+name+">")),
	}
	for form, text := range hidden {
		wantOnly(t, s, form, text)
	}
	for before := range 7 { // all alignments, with neighbours of any kind
		text := strings.Repeat("x", before) + name + strings.Repeat("\xff", before)
		wantOnly(t, s, "base64", base64.StdEncoding.EncodeToString([]byte(text)))
		wantOnly(t, s, "base64", base64.RawURLEncoding.EncodeToString([]byte(text)))
	}
	if hits := s.in([]byte("Zephyrinella Quaxington, something els")); len(hits) > 0 {
		t.Errorf("found %v", hits)
	}
	if _, err := newSearcher([]canary{{"short", "abc"}}); err == nil {
		t.Error("a canary of three letters was taken")
	}
}

func wantOnly(t *testing.T, s *searcher, form, text string) {
	t.Helper()
	hits := s.in([]byte(text))
	if len(hits) != 1 || hits[0].canary != "name" || hits[0].form != form {
		t.Errorf("%s in %q: found %v", form, text, hits)
	}
}
