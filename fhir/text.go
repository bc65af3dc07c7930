package fhir

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
)

// idPattern is FHIR's id (R4, 2.24.0.1).
var idPattern = regexp.MustCompile(`^[A-Za-z0-9.-]{1,64}$`)

// maxDigits: "decimals SHALL NOT have more than 18 digits" (R4, 2.24.0.1).
const maxDigits = 18

// decimal returns a JSON number as a FHIR decimal with the same digits. 98.60 stays 98.60, because the
// trailing zero shows the precision of the measurement. FHIR allows an exponent, but few servers read one, so
// 9.86e1 becomes 98.6. It returns false if the number has more digits than FHIR allows.
func decimal(literal string) (json.Number, bool) {
	mantissa, exponent, written := strings.Cut(strings.ToLower(literal), "e")
	unsigned, negative := strings.CutPrefix(mantissa, "-")
	whole, fraction, _ := strings.Cut(unsigned, ".")
	digits := whole + fraction
	if len(digits) > maxDigits {
		return "", false
	}

	if !written {
		return json.Number(literal), true
	}

	shift, err := strconv.Atoi(exponent)
	if err != nil || shift < -maxDigits || shift > maxDigits { // checked first, so that few zeros are added below
		return "", false
	}

	point := len(whole) + shift
	if point < 1 {
		digits, point = strings.Repeat("0", 1-point)+digits, 1
	}
	if point > len(digits) {
		digits += strings.Repeat("0", point-len(digits))
	}

	whole, fraction = strings.TrimLeft(digits[:point], "0"), digits[point:]
	if whole == "" {
		whole = "0"
	}
	if len(whole)+len(fraction) > maxDigits {
		return "", false
	}

	plain := whole
	if fraction != "" {
		plain += "." + fraction
	}
	if negative {
		plain = "-" + plain
	}

	return json.Number(plain), true
}

// path is the API's name of a field of Reading.Values.
func path(name string) string { return "values." + clip(name) }

// quote writes a text of the sender into an error message.
func quote(s string) string { return strconv.Quote(clip(s)) }

// clip shortens a text of the sender, so that an error message stays readable.
func clip(s string) string {
	const most = 40
	if runes := []rune(s); len(runes) > most {
		return string(runes[:most]) + "..."
	}
	return s
}

// list writes the names of things as "a, b or c".
func list[T any](things []T, name func(T) string) string {
	names := make([]string, len(things))
	for i, t := range things {
		names[i] = name(t)
	}
	last := len(names) - 1
	if last == 0 {
		return names[0]
	}
	return strings.Join(names[:last], ", ") + " or " + names[last]
}
