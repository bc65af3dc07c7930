package sandbox

import "net/http"

// errorNumbers is the code system of eCW's numbers in OperationOutcome.issue.details. eCW publishes the
// numbers for its transaction Bundle only. Where they are in the answer to a plain create, and under which
// system, is this sandbox's choice.
const errorNumbers = "https://vantrexia.com/fhir/CodeSystem/ecw-write-error"

// eCW's numbers for the outcome of a write.
const (
	numberSuccess      = "1"
	numberGeneric      = "2"
	numberPatient      = "100"
	numberProvider     = "101"
	numberSystem       = "102"
	numberTooLarge     = "109"
	numberStatus       = "110"
	numberCoding       = "120"
	numberAlreadyExist = "201"
	numberCategory     = "122"
	numberDate         = "204"
	numberNoPatient    = "207"
	numberUnit         = "611"
	numberValue        = "612"
	numberUnsupported  = "613"
)

func numberText(number string) string {
	switch number {
	case numberPatient:
		return "INVALID_PATIENT"
	case numberProvider:
		return "INVALID_PROVIDER"
	case numberSystem:
		return "UNSUPPORTED_CODING_SYSTEM"
	case numberTooLarge:
		return "TOO_LARGE"
	case numberStatus:
		return "INVALID_STATUS"
	case numberCoding:
		return "INVALID_CODING"
	case numberAlreadyExist:
		return "ALREADY_EXIST"
	case numberCategory:
		return "INVALID_CATEGORY"
	case numberDate:
		return "INVALID_DATE"
	case numberNoPatient:
		return "PATIENT_NOT_FOUND"
	case numberUnit:
		return "INVALID_UNIT"
	case numberValue:
		return "INVALID_VITAL_VALUE"
	case numberUnsupported:
		return "UNSUPPORTED_OBSERVATION"
	default:
		return "FAILURE"
	}
}

// problem is a refusal. Its detail goes into OperationOutcome.diagnostics and may contain patient data, as in
// real EHRs, so a client must not log it.
type problem struct {
	status int    // HTTP
	code   string // FHIR issue type (http://hl7.org/fhir/R4/valueset-issue-type.html)
	number string // eCW's number, if there is one
	at     string // FHIRPath of the element
	detail string
}

func (p problem) issue() issue {
	i := issue{Severity: "error", Code: p.code, Diagnostics: p.detail}
	if p.number != "" {
		i.Details = &codeableConcept{Coding: []coding{{
			System:  errorNumbers,
			Code:    p.number,
			Display: numberText(p.number),
		}}, Text: numberText(p.number)}
	}

	if p.at != "" {
		i.Expression = []string{p.at}
		i.Diagnostics = p.at + ": " + p.detail
	}

	return i
}

func (p problem) outcome() reply {
	return outcomeReply(p.status, p)
}

func outcomeOf(problems ...problem) outcome {
	o := outcome{ResourceType: "OperationOutcome"}
	for _, p := range problems {
		o.Issue = append(o.Issue, p.issue())
	}
	return o
}

func outcomeReply(status int, problems ...problem) reply {
	return jsonReply(status, typeFHIR, outcomeOf(problems...))
}

// oauth makes the refusal of a token request for a reason outside of OAuth, such as the limit on requests.
func (p problem) oauth() reply {
	code := "temporarily_unavailable"
	switch p.status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		code = "invalid_request"
	case http.StatusForbidden:
		code = "access_denied"
	case http.StatusInternalServerError:
		code = "server_error"
	}
	return oauthError(p.status, code, p.detail)
}

func throttled() problem {
	return problem{
		status: http.StatusTooManyRequests,
		code:   "throttled",
		detail: "too many requests; the practice is blocked until the top of the next minute",
	}
}
