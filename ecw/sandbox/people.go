package sandbox

import (
	_ "embed"
	"encoding/csv"
	"fmt"
	"strings"
	"time"
)

//go:embed data/patients.tsv
var patientsTSV string

//go:embed data/vitals.tsv
var vitalsTSV string

// Person is a patient of the sandbox. The demographics are made up.
type Person struct {
	FHIRID    string `json:"fhir_id"` // id of the Patient resource, "ecw-patient-2004454"
	MRN       string `json:"mrn"`     // medical record number, "ECW-10042"
	SampleID  string `json:"-"`       // PID in patients.tsv, equal to Visit.SampleID; "" for the people added to the sample
	FirstName string `json:"first_name"`
	Initial   string `json:"initial"` // of the middle name; may be empty
	LastName  string `json:"last_name"`
	BirthDate string `json:"birth_date"` // YYYY-MM-DD
	Gender    string `json:"gender"`     // FHIR administrative gender: male, female, other, unknown
	Active    bool   `json:"active"`     // false: the practice keeps the chart but no longer treats the patient
	Mobile    string `json:"mobile"`     // as written by the practice; this and the following fields may be empty
	HomePhone string `json:"home_phone"`
	Email     string `json:"email"`
	Street    string `json:"street"`
	Apartment string `json:"apartment"`
	City      string `json:"city"`
	State     string `json:"state"`
	PostCode  string `json:"post_code"`
}

// Visit is one row of vitals.tsv: the measurements of one moment. Each is the text of the file, because its
// decimals show the device's precision; an empty string means not measured.
type Visit struct {
	ID               string    // of the row
	SampleID         string    // the patient: Person.SampleID
	Time             time.Time // UTC; midnight if the file has only a date
	HeartRate        string    // /min
	RespiratoryRate  string    // /min
	Temperature      string    // Cel
	Weight           string    // kg
	Height           string    // cm
	BMI              string    // kg/m2
	Systolic         string    // mm[Hg]
	Diastolic        string    // mm[Hg]
	OxygenSaturation string    // %
}

const (
	sampleCount = 43
	addedCount  = 99
)

// People returns the 142 patients of the sandbox, always the same ones in the same order: those of patients.tsv, then
// 99 added ones. The slice is the caller's.
func People() []Person { return Crowd(sampleCount + addedCount) }

// Crowd returns as many patients as asked for, for measurements with more of them than People has: those of People first.
func Crowd(count int) []Person {
	people, _ := allPeople(count) // the table is embedded and a test reads it, so it cannot fail at run time
	return people
}

// Vitals returns the 602 visits of vitals.tsv in the order of the file. The slice is the caller's.
func Vitals() []Visit {
	visits, _ := allVisits() // cannot fail at run time, as in People
	return visits
}

func allPeople(count int) ([]Person, error) {
	rows, err := table(patientsTSV)
	if err != nil {
		return nil, fmt.Errorf("patients.tsv: %w", err)
	}

	people := make([]Person, 0, max(count, len(rows)))
	for _, row := range rows {
		people = append(people, Person{
			FHIRID:    "ecw-patient-" + row["PID"],
			SampleID:  row["PID"],
			Active:    true,
			FirstName: row["fname"],
			Initial:   row["initial"],
			LastName:  row["lname"],
			BirthDate: row["dob"],
			Gender:    row["gender"],
			Mobile:    row["cell"],
			HomePhone: row["home"],
			Email:     row["email"],
			Street:    row["street"],
			Apartment: row["apartment"],
			City:      row["city"],
			State:     row["region"],
			PostCode:  row["pcode"],
		})
	}

	for i := range count - len(people) {
		people = append(people, addedPerson(i))
	}

	for i := range people {
		people[i].MRN = fmt.Sprintf("ECW-%05d", 10001+i)
	}

	return people[:count], nil
}

func allVisits() ([]Visit, error) {
	rows, err := table(vitalsTSV)
	if err != nil {
		return nil, fmt.Errorf("vitals.tsv: %w", err)
	}

	visits := make([]Visit, 0, len(rows))
	for _, row := range rows {
		at, err := visitTime(row["TIMESTAMP"])
		if err != nil {
			return nil, fmt.Errorf("vitals.tsv: row %s: %w", row["ID"], err)
		}

		visits = append(visits, Visit{
			ID:               row["ID"],
			SampleID:         row["PID"],
			Time:             at,
			HeartRate:        row["HEART_RATE"],
			RespiratoryRate:  row["RESPIRATORY_RATE"],
			Temperature:      row["TEMPERATURE"],
			Weight:           row["WEIGHT"],
			Height:           row["HEIGHT"],
			BMI:              row["BMI"],
			Systolic:         row["SYSTOLIC"],
			Diastolic:        row["DIASTOLIC"],
			OxygenSaturation: row["OXYGEN_SATURATION"],
		})
	}

	return visits, nil
}

// visitTime reads a time in any of the file's three forms. A time without a zone is in UTC.
func visitTime(s string) (time.Time, error) {
	switch {
	case len(s) == len(time.DateOnly):
		return time.Parse(time.DateOnly, s)
	case strings.HasSuffix(s, "Z"):
		return time.Parse(time.RFC3339, s)
	default:
		return time.Parse("2006-01-02T15:04:05", s)
	}
}

// table reads a tab-separated text whose first line has the names of the columns. It returns a map for each
// row.
func table(text string) ([]map[string]string, error) {
	r := csv.NewReader(strings.NewReader(text))
	r.Comma = '\t'
	lines, err := r.ReadAll()
	if err != nil {
		return nil, err
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("no header line")
	}

	rows := make([]map[string]string, 0, len(lines)-1)
	for _, line := range lines[1:] {
		row := make(map[string]string, len(line))
		for i, value := range line {
			row[lines[0][i]] = value
		}
		rows = append(rows, row)
	}

	return rows, nil
}

// addedPerson makes one of the people added to the sample. There are enough of them for several pages. They
// have names that software often mishandles (with apostrophes, accents, hyphens, blanks, of one letter),
// telephone numbers of the range reserved for fiction, and addresses at example.com.
func addedPerson(i int) Person {
	families := strings.Split("Abernathy,Bergström,Castellanos,D'Angelo,Eriksen,Fitzgerald,García-Núñez,Hathaway,Ivanova,Jørgensen,"+
		"Kowalczyk,Lindqvist,MacAllister,Nguyễn,O'Brien,Pemberton,Quintanilla,Rasmussen,St. Clair,Thibodeaux,Underhill,Van der Berg,"+
		"Whitlock,Xu,Yamamoto,Zielinski,Ashdown,Bellweather,Crowfoot,Delacroix,Ekwueme,Faraday,Greenhalgh", ",")

	givens := strings.Split("Ada,Bartholomew,Célia,Desmond,Eleanor,Florian,Guadalupe,Horatio,Imogen,Jebediah,Katarína,Leopold,Marisol,"+
		"Nathaniel,Ottilie,Percival,Rosalind,Silvester,Theodora,Ulysses,Valentina,Wendell,Xiomara,Yusuf,Zoë,Ambrose,Beatriz,Cornelius,"+
		"Drusilla,Evander,Félicité,Gideon,Henrietta,Isidro", ",")
	towns := []string{"Tulsa,OK,74103", "Bixby,OK,74008", "Broken Arrow,OK,74012", "Sapulpa,OK,74066", "Durham,NC,27701", "Belmont,MA,02478"}
	streets := []string{"Alder Ct", "Birch Ln", "Cedar Pl", "Dogwood Dr", "Elm Ter"}

	given, family := givens[i%len(givens)], families[i%len(families)]
	town := strings.Split(towns[i%len(towns)], ",")
	p := Person{
		// 7,919 is coprime to the width of the range, so that no id occurs twice, and neighbours have distant ids.
		FHIRID:    fmt.Sprintf("ecw-patient-%d", 3000000+(i*7919+271)%900000),
		FirstName: given,
		LastName:  family,
		Gender:    []string{"female", "male"}[i%2],
		Active:    i%33 != 32,
		BirthDate: time.Date(1931+(i*37)%78, time.January, 1+(i*53)%365, 0, 0, 0, 0, time.UTC).Format(time.DateOnly),
		Mobile:    fmt.Sprintf("918-555-01%02d", i%100),
		Email:     fmt.Sprintf("patient%03d@example.com", i+1),
		Street:    fmt.Sprintf("%d %s", 3+(i*29)%180, streets[i%len(streets)]),
		City:      town[0],
		State:     town[1],
		PostCode:  town[2],
	}

	switch i % 25 {
	case 7:
		p.Gender = "other"
	case 13:
		p.Gender = "unknown"
	case 19:
		p.Mobile, p.Email = "", ""
	}

	if i%9 == 4 {
		p.HomePhone = fmt.Sprintf("405-555-01%02d", i%100)
	}

	return p
}
