package sandbox

import "slices"

const (
	loinc          = "http://loinc.org"
	ucum           = "http://unitsofmeasure.org"
	categorySystem = "http://terminology.hl7.org/CodeSystem/observation-category"
	absentSystem   = "http://terminology.hl7.org/CodeSystem/data-absent-reason"

	codePanel     = "85354-9"
	codeSystolic  = "8480-6"
	codeDiastolic = "8462-4"
	codeHeartRate = "8867-4"
)

// vital is a kind of Observation that the sandbox accepts, and where the page shows it.
type vital struct {
	column   string   // of the flowsheet
	codes    []string // LOINC; an Observation must carry all of them
	category string
	units    []string // UCUM; none: the values are in components
	most     float64  // a value above it in any of the units, or below 0, counts as a mistake
}

// vitals are the codes of vital signs that eCW is known to accept, and those of glucose, which a practice may
// refuse (Config.RefuseGlucose). US Core demands both codes of a pulse oximetry.
func vitals() []vital {
	const vitalSigns, laboratory = "vital-signs", "laboratory"
	return []vital{
		{"Blood pressure", []string{codePanel}, vitalSigns, nil, 0},
		{"Heart rate", []string{codeHeartRate}, vitalSigns, []string{"/min"}, 500},
		{"Resp. rate", []string{"9279-1"}, vitalSigns, []string{"/min"}, 200},
		{"Temperature", []string{"8310-5"}, vitalSigns, []string{"Cel", "[degF]"}, 120},
		{"Weight", []string{"29463-7"}, vitalSigns, []string{"kg", "[lb_av]", "g"}, 500_000},
		{"Height", []string{"8302-2"}, vitalSigns, []string{"cm", "[in_i]"}, 300},
		{"BMI", []string{"39156-5"}, vitalSigns, []string{"kg/m2"}, 300},
		{"BMI percentile", []string{"59576-9"}, vitalSigns, []string{"%"}, 100},
		{"SpO2", []string{"59408-5", "2708-6"}, vitalSigns, []string{"%"}, 100},
		{"Glucose", []string{"41653-7"}, laboratory, []string{"mg/dL"}, 3000},
		{"Glucose", []string{"2339-0"}, laboratory, []string{"mg/dL"}, 3000},
		{"Glucose", []string{"99504-3"}, laboratory, []string{"mg/dL"}, 3000},
		{"Glucose", []string{"105272-9"}, laboratory, []string{"mmol/L"}, 170},
		{"Glucose", []string{"14743-9"}, laboratory, []string{"mmol/L"}, 170},
	}
}

// componentVital describes a component of a blood pressure. Other codes may occur, because US Core permits
// them.
func componentVital(code string) (vital, bool) {
	switch code {
	case codeSystolic, codeDiastolic:
		return vital{codes: []string{code}, units: []string{"mm[Hg]"}, most: 400}, true
	case codeHeartRate:
		return vital{codes: []string{code}, units: []string{"/min"}, most: 500}, true
	}
	return vital{}, false
}

func (v vital) isGlucose() bool { return v.category == "laboratory" }

func (v vital) isPanel() bool { return v.codes[0] == codePanel }

// loincCodes returns the LOINC codes of a concept.
func loincCodes(c *codeableConcept) []string {
	var codes []string
	if c == nil {
		return nil
	}
	for _, coding := range c.Coding {
		if coding.System == loinc {
			codes = append(codes, coding.Code)
		}
	}
	return codes
}

// kindsOf returns the kinds of vital sign that a code means. A valid Observation has one.
func kindsOf(c *codeableConcept) []vital {
	codes := loincCodes(c)
	var kinds []vital
	for _, v := range vitals() {
		if slices.ContainsFunc(v.codes, func(code string) bool { return slices.Contains(codes, code) }) {
			kinds = append(kinds, v)
		}
	}
	return kinds
}
