package fhir

import (
	"encoding/json"
	"math/big"
	"slices"
)

// SameValues reports whether the values of two readings of one type say the same: equal numbers in the same
// units, by the same method, and in the same relation to a meal. How they are written does not matter: 92.0 is
// 92, lbs is lb, and a null, or a unit or a method that may be left out, says no more than its absence. Units
// are not converted. Values that [Reading.Validate] refuses are the same as none.
func SameValues(t Type, a, b json.RawMessage) bool {
	if len(entriesOf(t)) == 0 {
		return false
	}
	first, firstErrs := measure(t, a)
	second, secondErrs := measure(t, b)
	if len(firstErrs) > 0 || len(secondErrs) > 0 {
		return false
	}

	return first.entry == second.entry && first.meal == second.meal && first.value.equals(second.value) &&
		slices.EqualFunc(first.components, second.components, func(x, y *amount) bool {
			return x == y || x != nil && y != nil && x.equals(*y)
		})
}

// equals reports whether two amounts are the same number of the same unit. The zero amount equals itself.
func (a amount) equals(b amount) bool {
	if a.unit.ucum != b.unit.ucum {
		return false
	}
	x, okX := new(big.Rat).SetString(string(a.value)) // decimal has bounded its digits
	y, okY := new(big.Rat).SetString(string(b.value))
	return okX == okY && (!okX || x.Cmp(y) == 0)
}
