package ecw

import (
	"encoding/json"
	"strconv"
	"strings"
)

// decimal is a number in the one form that equal numbers share: digits without zeros at either end, times ten to the
// exponent. Unlike a float it tells 98.6 from 98.60000000000001, and unlike math/big it costs nothing for 1e999999999.
type decimal struct {
	negative bool
	digits   string // "" is zero
	exponent int
}

// sameNumber compares by value, so that 98.60 equals 98.6.
func sameNumber(a, b json.Number) bool {
	x, okX := parseDecimal(a)
	y, okY := parseDecimal(b)
	return okX && okY && x == y
}

func parseDecimal(n json.Number) (decimal, bool) {
	mantissa, exponent, scientific := strings.Cut(strings.ToLower(n.String()), "e")
	var d decimal
	if scientific {
		var err error
		if d.exponent, err = strconv.Atoi(exponent); err != nil {
			return decimal{}, false
		}
	}
	mantissa, d.negative = strings.CutPrefix(mantissa, "-")
	whole, fraction, _ := strings.Cut(mantissa, ".")
	all := whole + fraction
	if all == "" || strings.Trim(all, "0123456789") != "" {
		return decimal{}, false
	}
	significant := strings.TrimRight(all, "0")
	d.exponent += len(all) - len(significant) - len(fraction)
	if d.digits = strings.TrimLeft(significant, "0"); d.digits == "" {
		return decimal{}, true
	}
	return d, true
}
