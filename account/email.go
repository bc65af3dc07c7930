package account

import (
	"errors"
	"regexp"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// ErrEmail means that a text is no e-mail address that an account can have.
var ErrEmail = errors.New("is not an e-mail address of plain letters, digits and punctuation, such as jane.doe@example.com")

// maxEmail is the longest address (RFC 5321 §4.5.3.1.3, without the angle brackets).
const maxEmail = 254

// emailForm is what browsers take in <input type=email> (HTML Living Standard §4.10.5.1.5), with a dot in the domain.
var emailForm = regexp.MustCompile("^[a-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)+$")

// NormaliseEmail returns the one form in which an address is stored and compared: without space around it, in
// NFKC (Unicode Annex 15), in lower case. What is not ASCII then is refused with [ErrEmail], because letters
// that look alike, that cannot be seen, or that turn the direction around would let two accounts look like
// one. An international domain can be written in its ASCII form (xn--).
func NormaliseEmail(text string) (string, error) {
	email := norm.NFKC.String(strings.TrimSpace(text))
	// Before the lower case, which makes an i of U+0130.
	if !isASCII(email) {
		return "", ErrEmail
	}
	if email = strings.ToLower(email); len(email) > maxEmail || !emailForm.MatchString(email) {
		return "", ErrEmail
	}
	return email, nil
}

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r > unicode.MaxASCII })
}
