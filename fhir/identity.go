package fhir

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Identity is by what two records of a patient are told to be of one person, beside an MRN or an id that a person may have
// mistyped: the family name and the birth date, which twins share and strangers do not.
type Identity struct {
	LastName  string
	BirthDate string // YYYY-MM-DD, or as much of it as is known
}

// Identity returns what of the demographics tells one person from another.
func (d Demographics) Identity() Identity {
	return Identity{LastName: d.LastName, BirthDate: d.BirthDate}
}

// The fields that [Identity.Differences] and [Identity.Contradictions] name, as the API calls them.
const (
	FieldLastName  = "last_name"
	FieldBirthDate = "birth_date"
)

// Differences names the fields that do not agree, or that one of the two lacks or knows in part; none if both are of one
// person. Names agree whatever their case, accents, punctuation and spaces: O'Brien is OBRIEN, Müller is Muller, Smith Jr.
// is not Smith.
func (i Identity) Differences(other Identity) (fields []string) {
	if i.LastName == "" || foldName(i.LastName) != foldName(other.LastName) {
		fields = append(fields, FieldLastName)
	}
	if !wholeDate(i.BirthDate) || i.BirthDate != other.BirthDate {
		fields = append(fields, FieldBirthDate)
	}
	return fields
}

// Contradictions names the fields of which the two say different things. What one of them lacks contradicts nothing, nor
// does the year of a birth date its day.
func (i Identity) Contradictions(other Identity) (fields []string) {
	if i.LastName != "" && other.LastName != "" && foldName(i.LastName) != foldName(other.LastName) {
		fields = append(fields, FieldLastName)
	}
	if !strings.HasPrefix(i.BirthDate, other.BirthDate) && !strings.HasPrefix(other.BirthDate, i.BirthDate) {
		fields = append(fields, FieldBirthDate)
	}
	return fields
}

// Fingerprint is the same for two identities without Differences and shows neither name nor date. It is a SHA-256 of few
// possible values, so it is no more public than they are.
func (i Identity) Fingerprint() string {
	sum := sha256.Sum256([]byte(foldName(i.LastName) + "\n" + i.BirthDate))
	return hex.EncodeToString(sum[:])
}

func wholeDate(s string) bool { return len(s) == len("2006-01-02") }

// foldName leaves of a name what no typist or program changes: its letters and digits without case and accents. Marks of
// scripts that write vowels as marks stay, and so does a name that has no letter at all: two of those are not the same.
func foldName(name string) string {
	folded := strings.Map(func(r rune) rune {
		switch {
		case r >= '\u0300' && r <= '\u036f': // the accents that NFKD takes off Latin, Greek and Cyrillic letters
			return -1
		case r >= '\u02b9' && r <= '\u02ff': // letters to Unicode, apostrophes to people: ʻ, ʼ
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

// strokes are the accents that are no marks to Unicode, and the letters that are written as two where a keyboard lacks them.
var strokes = strings.NewReplacer("ø", "o", "ł", "l", "đ", "d", "ð", "d", "ħ", "h", "ı", "i", "æ", "ae", "œ", "oe", "þ", "th")
