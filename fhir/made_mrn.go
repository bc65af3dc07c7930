package fhir

import (
	"strings"

	"golang.org/x/text/unicode/norm"
)

// MadeMRNPrefix begins every MRN that was made here, because nobody has given the patient one. No EHR knows such
// an MRN, so none is matched by it.
const MadeMRNPrefix = "VTX-"

// IsMadeMRN reports whether an MRN begins with MadeMRNPrefix, in any case and in any of the forms that Unicode
// has for its characters.
func IsMadeMRN(mrn string) bool {
	plain := []rune(norm.NFKC.String(strings.TrimSpace(mrn)))
	return len(plain) >= len(MadeMRNPrefix) && strings.EqualFold(string(plain[:len(MadeMRNPrefix)]), MadeMRNPrefix)
}
