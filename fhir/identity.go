package fhir

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Identity is the family name and the birth date, by which two records are compared to see whether they are
// of one person. It is needed because an MRN or an id may be mistyped. Twins have the same Identity;
// strangers usually do not.
type Identity struct {
	LastName  string
	BirthDate string // YYYY-MM-DD, or the part of it that is known
}

// Identity returns the part of the demographics by which persons are distinguished.
func (d Demographics) Identity() Identity {
	return Identity{LastName: d.LastName, BirthDate: d.BirthDate}
}

// The fields that [Identity.Differences] and [Identity.Contradictions] return, by their names in the API.
const (
	FieldLastName    = "last_name"
	FieldDateOfBirth = "date_of_birth"
)

// Differences returns the fields that are not equal, or that one of the two lacks or has only in part. It
// returns none if both are of one person. Names are compared without case, accents, punctuation and spaces:
// O'Brien equals OBRIEN and Müller equals Muller, but Smith Jr. does not equal Smith.
func (i Identity) Differences(other Identity) (fields []string) {
	if i.LastName == "" || foldName(i.LastName) != foldName(other.LastName) {
		fields = append(fields, FieldLastName)
	}
	if !wholeDate(i.BirthDate) || i.BirthDate != other.BirthDate {
		fields = append(fields, FieldDateOfBirth)
	}
	return fields
}

// Contradictions returns the fields whose values exclude each other. A missing value contradicts nothing, and
// a birth year does not contradict a full birth date of that year.
func (i Identity) Contradictions(other Identity) (fields []string) {
	if i.LastName != "" && other.LastName != "" && foldName(i.LastName) != foldName(other.LastName) {
		fields = append(fields, FieldLastName)
	}
	if !strings.HasPrefix(i.BirthDate, other.BirthDate) && !strings.HasPrefix(other.BirthDate, i.BirthDate) {
		fields = append(fields, FieldDateOfBirth)
	}
	return fields
}

// Fingerprint is the same for two identities without Differences, and shows neither name nor date. It must be
// kept as secret as these: it is a SHA-256, and the possible values are so few that they can be tried.
func (i Identity) Fingerprint() string {
	sum := sha256.Sum256([]byte(foldName(i.LastName) + "\n" + i.BirthDate))
	return hex.EncodeToString(sum[:])
}

func wholeDate(s string) bool { return len(s) == len("2006-01-02") }

// foldName returns the letters and digits of a name without case and accents, because people and programs
// change the rest. It keeps the marks of scripts that write vowels as marks. A name without any letter is
// returned as it is, so that two such names are not equal.
func foldName(name string) string {
	folded := strings.Map(func(r rune) rune {
		switch {
		case r >= '\u0300' && r <= '\u036f': // the accents that NFKD takes off Latin, Greek and Cyrillic letters
			return -1
		case r >= '\u02b9' && r <= '\u02ff': // letters in Unicode, but used as apostrophes: ʻ, ʼ
			return -1
		case unicode.IsLetter(r), unicode.IsMark(r), unicode.IsNumber(r):
			return r
		}

		return -1
	}, norm.NFKD.String(cases.Fold().String(norm.NFKD.String(name))))

	if folded = strokes.Replace(folded); folded != "" {
		return folded
	}

	return strings.TrimSpace(name)
}

// strokes replaces letters that Unicode does not decompose into a letter and an accent, and those that people
// write as two letters if their keyboard lacks them.
var strokes = strings.NewReplacer("ø", "o", "ł", "l", "đ", "d", "ð", "d", "ħ", "h", "ı", "i", "æ", "ae", "œ", "oe", "þ", "th")
