package fhir

// Type is a kind of reading, by the name that the API uses.
type Type string

// The types of reading, all of them in the catalogue.
const (
	BloodPressure    Type = "blood_pressure"
	HeartRate        Type = "heart_rate"
	RespiratoryRate  Type = "respiratory_rate"
	Temperature      Type = "temperature"
	Weight           Type = "weight"
	Height           Type = "height"
	BMI              Type = "bmi"
	OxygenSaturation Type = "oxygen_saturation"
	BloodGlucose     Type = "blood_glucose"
)

// Systems and profiles. They are the same in US Core 6.1.0 to 9.0.0.
const (
	loincSystem       = "http://loinc.org"
	ucumSystem        = "http://unitsofmeasure.org"
	categorySystem    = "http://terminology.hl7.org/CodeSystem/observation-category"
	absentSystem      = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
	usCore            = "http://hl7.org/fhir/us/core/StructureDefinition/"
	cgm               = "http://hl7.org/fhir/uv/cgm/StructureDefinition/"
	methodFingerStick = "finger_stick"
	methodCGM         = "cgm"
)

// coding is a code with the display text of its system.
type coding struct{ code, display string }

// Codes of the category system.
var (
	vitalSigns = coding{"vital-signs", "Vital Signs"}
	laboratory = coding{"laboratory", "Laboratory"}
)

// unit is one unit that a quantity may be measured in.
//
// The display is in ASCII, without a degree sign, because eCW refuses a resource for "unsupported characters"
// (its error 108). min and max are the limits of what a living person and a home device can produce. They are
// wide, because a reading of a person in a crisis must be accepted; a typing error, a wrong unit or a broken
// sensor must be refused.
type unit struct {
	ucum      string // valueQuantity.code, case-sensitive UCUM
	display   string // valueQuantity.unit, for people
	min, max  float64
	spellings []string // other spellings of people and devices; compared without case
}

// component is one part of a panel.
type component struct {
	field string // its name in Reading.Values
	code  coding
	unit  unit
	// optional components are left out of the resource if not measured. The others are declared absent, as US
	// Core demands.
	optional bool
}

// entry is a row of the catalogue. It has units, or components if it is a panel.
type entry struct {
	typ        Type
	method     string // only where the type has several
	profile    string
	category   coding
	codes      []coding // LOINC, all of them are sent
	hasMeal    bool     // a reading may say how it relates to a meal
	units      []unit
	components []component
}

// catalogue has everything in which the types of reading differ. It is never changed. A type has more than
// one row if the code depends on the unit or the method.
var catalogue = []entry{
	{
		typ:      BloodPressure,
		profile:  usCore + "us-core-blood-pressure",
		category: vitalSigns,
		codes:    []coding{{"85354-9", "Blood pressure panel with all children optional"}},
		components: []component{
			{field: "systolic", code: coding{"8480-6", "Systolic blood pressure"}, unit: unit{"mm[Hg]", "mmHg", 30, 300, nil}},
			{field: "diastolic", code: coding{"8462-4", "Diastolic blood pressure"}, unit: unit{"mm[Hg]", "mmHg", 10, 200, nil}},
			{
				field:    "heart_rate",
				code:     coding{"8867-4", "Heart rate"},
				unit:     unit{"/min", "beats/minute", 20, 300, nil},
				optional: true,
			},
		},
	},
	{
		typ:      HeartRate,
		profile:  usCore + "us-core-heart-rate",
		category: vitalSigns,
		codes:    []coding{{"8867-4", "Heart rate"}},
		units:    []unit{{"/min", "beats/minute", 20, 300, []string{"bpm", "beats/min", "{beats}/min", "1/min"}}},
	},
	{
		typ:      RespiratoryRate,
		profile:  usCore + "us-core-respiratory-rate",
		category: vitalSigns,
		codes:    []coding{{"9279-1", "Respiratory rate"}},
		units:    []unit{{"/min", "breaths/minute", 3, 150, []string{"breaths/min", "{breaths}/min", "br/min", "brpm", "1/min"}}},
	},
	{
		typ:      Temperature,
		profile:  usCore + "us-core-body-temperature",
		category: vitalSigns,
		codes:    []coding{{"8310-5", "Body temperature"}},
		units: []unit{
			// In UCUM, C is the coulomb and F the farad, but no temperature is measured in either.
			{"Cel", "Cel", 20, 45, []string{"C", "°C", "℃", "degC", "Celsius"}},
			{"[degF]", "degF", 68, 113, []string{"F", "°F", "℉", "Fahrenheit"}},
		},
	},
	{
		typ:      Weight,
		profile:  usCore + "us-core-body-weight",
		category: vitalSigns,
		codes:    []coding{{"29463-7", "Body weight"}},
		units: []unit{
			{"kg", "kg", 0.2, 650, []string{"kgs"}},
			{"[lb_av]", "lb", 0.4, 1433, []string{"lbs", "lb_av"}},
			{"g", "g", 200, 650_000, nil},
		},
	},
	{
		typ:      Height,
		profile:  usCore + "us-core-body-height",
		category: vitalSigns,
		codes:    []coding{{"8302-2", "Body height"}},
		units: []unit{
			{"cm", "cm", 20, 280, nil},
			{"[in_i]", "in", 7.8, 110.3, []string{"inch", "inches", "in_i"}},
		},
	},
	{
		typ:      BMI,
		profile:  usCore + "us-core-bmi",
		category: vitalSigns,
		codes:    []coding{{"39156-5", "Body mass index (BMI) [Ratio]"}},
		units:    []unit{{"kg/m2", "kg/m2", 4, 250, []string{"kg/m²", "kg/m^2"}}},
	},
	{
		typ:      OxygenSaturation,
		profile:  usCore + "us-core-pulse-oximetry",
		category: vitalSigns,
		codes: []coding{
			{"59408-5", "Oxygen saturation in Arterial blood by Pulse oximetry"},
			{"2708-6", "Oxygen saturation in Arterial blood"},
		},
		units: []unit{{"%", "%", 20, 100, []string{"percent"}}},
	},
	{
		typ:      BloodGlucose,
		method:   methodFingerStick,
		profile:  usCore + "us-core-observation-lab",
		category: laboratory,
		codes:    []coding{{"41653-7", "Glucose [Mass/volume] in Capillary blood by Glucometer"}},
		hasMeal:  true,
		units:    []unit{{"mg/dL", "mg/dL", 5, 2000, nil}},
	},
	{
		typ:      BloodGlucose,
		method:   methodFingerStick,
		profile:  usCore + "us-core-observation-lab",
		category: laboratory,
		codes:    []coding{{"14743-9", "Glucose [Moles/volume] in Capillary blood by Glucometer"}},
		hasMeal:  true,
		units:    []unit{{"mmol/L", "mmol/L", 0.2, 111.1, nil}},
	},
	// HL7's CGM guide also prescribes the display of the unit, with a small l.
	{
		typ:      BloodGlucose,
		method:   methodCGM,
		profile:  cgm + "cgm-sensor-reading-mass-per-volume",
		category: laboratory,
		codes:    []coding{{"99504-3", "Glucose [Mass/volume] in Interstitial fluid"}},
		hasMeal:  true,
		units:    []unit{{"mg/dL", "mg/dl", 5, 2000, nil}},
	},
	{
		typ:      BloodGlucose,
		method:   methodCGM,
		profile:  cgm + "cgm-sensor-reading-moles-per-volume",
		category: laboratory,
		codes:    []coding{{"105272-9", "Glucose [Moles/volume] in Interstitial fluid"}},
		hasMeal:  true,
		units:    []unit{{"mmol/L", "mmol/l", 0.2, 111.1, nil}},
	},
}

// Types lists all types, in the order of the catalogue. The slice is the caller's.
func Types() []Type {
	var types []Type
	for _, e := range catalogue {
		if n := len(types); n == 0 || types[n-1] != e.typ { // the rows of a type are adjacent
			types = append(types, e.typ)
		}
	}
	return types
}

// ParseType returns the type of that name, or FieldErrors for "observation_type" that list the names.
func ParseType(name string) (Type, error) {
	if len(entriesOf(Type(name))) == 0 {
		return "", FieldErrors{unknownType(name)}
	}
	return Type(name), nil
}

func unknownType(name string) FieldError {
	e := FieldError{Field: "observation_type", Message: "is required"}
	if name != "" {
		e.Message = quote(name) + " is not a type of reading"
	}
	e.Message += "; use " + list(Types(), func(t Type) string { return string(t) })
	return e
}

// entriesOf returns the rows of a type, none if there is no such type.
func entriesOf(t Type) []*entry {
	var rows []*entry
	for i := range catalogue {
		if catalogue[i].typ == t {
			rows = append(rows, &catalogue[i])
		}
	}
	return rows
}
