package canary_test

import (
	"fmt"
	"slices"
	"strings"
)

// person is a patient of the EHR. The words of all people begin alike, so that one canary finds everybody's.
type person struct {
	FHIRID    string `json:"fhir_id"`
	MRN       string `json:"mrn"`
	FirstName string `json:"first_name"`
	LastName  string `json:"last_name"`
	BirthDate string `json:"birth_date"`
	Gender    string `json:"gender"`
	Mobile    string `json:"mobile"`
	Email     string `json:"email"`
	Street    string `json:"street"`
	City      string `json:"city"`
	State     string `json:"state"`
	PostCode  string `json:"post_code"`
}

// The words of which all people are made.
const (
	firstName = "Zephyrinella"
	lastName  = "Quaxington"
	ehrMRN    = "ECWMRNQX"
	ourMRN    = "OURMRNQX"
	fhirID    = "ecw-chart-qx"
	phone     = "909-555-73"
	email     = "zephy.mail.qx"
	street    = "Thistlewhack Lane"
	city      = "Borogrovia"
	zip       = "90917-44"
	device    = "CUFFQX-88213"
)

// people is how many there are.
const people = 12

// nobody is an id that the EHR does not have.
const nobody = fhirID + "-nobody"

// somebody is the nth person.
func somebody(n int) person {
	letter := string(rune('a' + n))
	return person{
		FHIRID:    fhirID + "-" + letter,
		MRN:       fmt.Sprintf("%s-%03d", ehrMRN, n),
		FirstName: firstName + letter,
		LastName:  lastName + strings.Repeat(letter, 3),
		BirthDate: fmt.Sprintf("1931-07-%02d", 10+n),
		Gender:    "female",
		Mobile:    fmt.Sprintf("%s%02d", phone, n),
		Email:     fmt.Sprintf("%s.%s@example.com", email, letter),
		Street:    fmt.Sprintf("44%02d %s", n, street),
		City:      city,
		State:     "OK",
		PostCode:  fmt.Sprintf("%s%02d", zip, n),
	}
}

// The measured values. A reading appends digits of its own to them.
const (
	weight      = "163.48371935"
	systolic    = "143.71928364"
	diastolic   = "91.71928364"
	pulse       = "71.29384756"
	saturation  = "97.31827465"
	glucose     = "118.42739156"
	temperature = "36.91827364"
	heartRate   = "73.18273645"
	respiration = "15.82736455"
	outOfRange  = "9163.48270001"
)

// The people who sign in, and what they prove themselves with.
const (
	userFirst     = "Wilhelmarine"
	userLast      = "Brackwaterson"
	userEmail     = "w.brackwaterson.qx@practice.example"
	strangerEmail = "stranger.qx@elsewhere.example"
	password      = "grommet-Lanternfish-9-qx"
	wrongPassword = "wrong-Marzipan-7-guess-qx"
	nextPassword  = "second-Pumpernickel-4-qx"
)

// What processes are given.
const (
	tokenSecret  = "signing-secret-qx-5512-0987654321-abcdef"
	clientSecret = "ehr-client-secret-qx-771203"
	oidcSecret   = "identity-secret-qx-882314"
)

const (
	idempotencyKey = "visit-of-Quaxsmith-1931-qx"
	wrongToken     = "token-of-nobody-qx-33187"
)

// ehrText is what the EHR writes into every text of its answers. A token ends in it, without the blanks.
const ehrText = firstName + "x " + lastName + "x Born 1931-07-10 " + ehrMRN + "-099 saidByTheEHRqx"

// known are the canaries that are no secrets of a run.
func known() []canary {
	canaries := []canary{
		{"first name", firstName}, {"last name", lastName}, {"MRN of the EHR", ehrMRN}, {"our MRN", ourMRN},
		{"patient's id in the EHR", fhirID}, {"phone", phone}, {"e-mail", email}, {"street", street}, {"city", city}, {"zip", zip},
		{"device", device},
		{"weight", weight}, {"systolic", systolic}, {"diastolic", diastolic}, {"pulse", pulse}, {"oxygen saturation", saturation},
		{"glucose", glucose}, {"temperature", temperature}, {"heart rate", heartRate}, {"respiratory rate", respiration},
		{"value out of range", outOfRange},
		{"user's first name", userFirst}, {"user's last name", userLast}, {"user's e-mail", userEmail}, {"stranger's e-mail", strangerEmail},
		{"password", password}, {"wrong password", wrongPassword}, {"next password", nextPassword},
		{"API_TOKEN_SECRET", tokenSecret}, {"ECW_CLIENT_SECRET", clientSecret}, {"OIDC_CLIENT_SECRET", oidcSecret},
		{"Idempotency-Key", idempotencyKey}, {"wrong bearer token", wrongToken},
		{"text of the EHR", "saidByTheEHRqx"},
		{"access token of the EHR", firstName + "x" + lastName + "x"},
		{"any signed token", "eyJhbGciOiJ"},
	}
	for n := range people {
		canaries = append(canaries, birthDates(somebody(n).BirthDate)...)
	}
	return canaries
}

// birthDates are the spellings of a date.
func birthDates(date string) (canaries []canary) {
	y, m, d := date[:4], date[5:7], date[8:]
	for _, text := range []string{date, m + "/" + d + "/" + y, d + "." + m + "." + y, y + m + d, "July " + d + ", " + y, d + " Jul " + y} {
		canaries = append(canaries, canary{"birth date", text})
	}
	return slices.Clip(canaries)
}
