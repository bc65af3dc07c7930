package fhir

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// The longest e-mail address and its part before the @, in bytes (RFC 5321 §4.5.3.1).
const (
	maxEmail      = 254
	maxEmailLocal = 64
)

// IsEmail reports whether a text may be an e-mail address: it has one @ with something on both sides, and only
// characters that are seen. Whether mail arrives there is not known. A text with a space, a control character or
// a mark that turns the direction of writing is refused, because it shows another address than it is.
func IsEmail(text string) bool {
	local, domain, found := strings.Cut(text, "@")
	if !found || local == "" || domain == "" || len(local) > maxEmailLocal || len(text) > maxEmail {
		return false
	}
	// Some characters look like @, and NFKC turns them into one: U+FF20, U+FE6B.
	return strings.Count(norm.NFKC.String(text), "@") == 1 && !strings.ContainsFunc(text, isUnseen)
}

// isUnseen reports whether a character leaves no mark of its own on paper.
func isUnseen(r rune) bool {
	return r == unicode.ReplacementChar || unicode.IsSpace(r) || !unicode.IsPrint(r) ||
		unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}
