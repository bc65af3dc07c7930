package fhir

import (
	"slices"
	"strings"
	"testing"
)

func TestNamesOfOnePerson(t *testing.T) {
	t.Parallel()
	const born = "1957-03-21"
	for _, test := range []struct {
		one, other string
		same       bool
	}{
		{"Doe", "Doe", true},
		{"Doe", "DOE", true},
		{"Doe", " doe ", true},
		{"Doe", "Dow", false},
		{"Doe", "", false},
		{"", "", false},

		{"O'Brien", "OBrien", true},
		{"O'Brien", "O’Brien", true},
		{"OʻBrien", "O`BRIEN", true},
		{"O´Brien", "OʼBrien", true},
		{"D'Angelo", "Dangelo", true},
		{"O'Brien", "Brien", false},

		{"García-Núñez", "GARCIA NUNEZ", true},
		{"García-Núñez", "Garcia–Nunez", true},
		{"García-Núñez", "García", false},
		{"Van der Berg", "Vanderberg", true},
		{"Van der Berg", "Berg", false},
		{"St. Clair", "St Clair", true},
		{"St. Clair", "Saint Clair", false},

		{"Müller", "Muller", true},
		{"Müller", "Mu\u0308ller", true},
		{"Müller", "Mueller", false},
		{"Nguyễn", "NGUYEN", true},
		{"Jørgensen", "Jorgensen", true},
		{"Łukasz", "LUKASZ", true},
		{"Strauß", "STRAUSS", true},
		{"Yılmaz", "Yilmaz", true},
		{"İnönü", "Inonu", true},
		{"Ǆ", "ǆ", true},
		{"ﬁscher", "Fischer", true},

		{"Smith Jr.", "Smith", false},
		{"Smith Jr.", "SMITH, JR", true},
		{"Smith Jr.", "Smith Sr.", false},
		{"Smith II", "Smith III", false},
		{"Smith 2nd", "Smith 3rd", false},
		{"Doe", "Doe Smith", false},

		{"Иванова", "ИВАНОВА", true},
		{"Иванова", "Петрова", false},
		{"Παπαδόπουλος", "ΠΑΠΑΔΟΠΟΥΛΟΣ", true},
		{"王", "王", true},
		{"王", "李", false},
		{"김", "이", false},
		{"김", "\u1100\u1175\u11b7", true},
		{"が", "か", false},
		{"सिंह", "सुंह", false},
		{"محمد", "أحمد", false},
		{"כהן", "לוי", false},

		{"-", "—", false},
		{"-", "-", true},
		{"...", "", false},
	} {
		t.Run(test.one+" "+test.other, func(t *testing.T) {
			t.Parallel()
			one, other := Identity{LastName: test.one, BirthDate: born}, Identity{LastName: test.other, BirthDate: born}
			want := []string{FieldLastName}
			if test.same {
				want = nil
			}
			if got, back := one.Differences(other), other.Differences(one); !slices.Equal(got, want) || !slices.Equal(back, want) {
				t.Errorf("the differences are %v, and %v the other way, want %v", got, back, want)
			}
			if same := one.Fingerprint() == other.Fingerprint(); same != test.same && test.one+test.other != "" {
				t.Errorf("the fingerprints are the same: %v", same)
			}
		})
	}
}

func TestBirthDatesOfOnePerson(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		one, other           string
		differs, contradicts bool
	}{
		{"1957-03-21", "1957-03-21", false, false},
		{"1957-03-21", "1957-12-03", true, true},
		{"1957-03-21", "1957-03", true, false},
		{"1957-03-21", "1957", true, false},
		{"1957-03-21", "1958", true, true},
		{"1957-03", "1957-03", true, false},
		{"1957-03-21", "", true, false},
		{"", "", true, false},
	} {
		t.Run(test.one+" "+test.other, func(t *testing.T) {
			t.Parallel()
			one, other := Identity{LastName: "Doe", BirthDate: test.one}, Identity{LastName: "Doe", BirthDate: test.other}
			for _, both := range [][2]Identity{{one, other}, {other, one}} {
				if got := both[0].Differences(both[1]); slices.Equal(got, []string{FieldDateOfBirth}) != test.differs {
					t.Errorf("the differences are %v", got)
				}
				if got := both[0].Contradictions(both[1]); slices.Equal(got, []string{FieldDateOfBirth}) != test.contradicts {
					t.Errorf("the contradictions are %v", got)
				}
			}
		})
	}
}

func TestIdentitiesOfTwoPeople(t *testing.T) {
	t.Parallel()
	jane, john := Identity{LastName: "Doe", BirthDate: "1957-03-21"}, Identity{LastName: "Roe", BirthDate: "1961-07-09"}
	both := []string{FieldLastName, FieldDateOfBirth}
	if got := jane.Differences(john); !slices.Equal(got, both) {
		t.Errorf("the differences are %v", got)
	}
	if got := jane.Contradictions(john); !slices.Equal(got, both) {
		t.Errorf("the contradictions are %v", got)
	}
	if got := jane.Contradictions(Identity{}); got != nil {
		t.Errorf("an empty record contradicts %v", got)
	}

	mark := jane.Fingerprint()
	younger := Identity{LastName: "Doe", BirthDate: "1957-03-22"}
	if mark == john.Fingerprint() || mark == younger.Fingerprint() || strings.Contains(mark, "doe") || len(mark) != 64 {
		t.Errorf("the fingerprint is %s", mark)
	}
}
