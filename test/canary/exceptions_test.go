package canary_test

// exceptions are all places in which a canary may be, each with its reason. Types, times and statuses are
// clear everywhere, and are no canaries.
func exceptions() (all []exception) {
	// The line of the integration's tutorial, with the patient's MRN and the values. A production refuses the
	// level.
	for _, canary := range []string{
		"our MRN", "MRN of the EHR", "weight", "systolic", "diastolic", "pulse", "oxygen saturation", "glucose", "temperature",
		"heart rate", "respiratory rate",
	} {
		all = append(all, exception{
			place:  "log of vantrexia serve: level DEBUG, component ecw_sync",
			canary: canary,
			reason: "the tutorial shows what was pushed for whom; ECW_ENVIRONMENT=production refuses LOG_LEVEL=debug",
		})
	}

	for _, canary := range []string{"first name", "last name"} {
		all = append(all,
			exception{
				place:  "error answer 400",
				canary: canary,
				sent:   true,
				reason: "a field or parameter that there is not is named, so that its sender finds it",
			},
			exception{
				place:  "error answer 404 of GET /api/v1/fhir/transmissions/{id}/",
				canary: canary,
				sent:   true,
				reason: "the answer names the id that was asked for",
			},
		)
	}
	all = append(all, exception{
		place:  "error answer 400",
		canary: "value out of range",
		sent:   true,
		reason: "the device's gateway is told which of its values is out of range",
	})

	for _, canary := range []string{"first name", "last name", "birth date", "MRN of the EHR", "text of the EHR"} {
		all = append(all, exception{
			place:  "error answer 502 of POST /api/v1/ecw/test/jwt/",
			canary: canary,
			reason: "ecw_said: administrators are shown what the EHR's token endpoint says, and it is kept nowhere",
		})
	}

	// data_monitor sees which chart a delivery went to, as the contract says, and nothing else of the
	// patient.
	return append(all, exception{
		place:  "answer without names to GET /api/v1/fhir/transmissions/",
		canary: "patient's id in the EHR",
		reason: "ecw_patient_id is the chart's id, with which one finds a delivery in the EHR; without access to it it says nothing",
	})
}
