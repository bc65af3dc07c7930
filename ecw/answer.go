package ecw

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
)

// answer is as much as we read of any FHIR resource eCW answers with: an Observation, an OperationOutcome, or
// a Bundle with a transaction's response or a search's result.
type answer struct {
	ResourceType string       `json:"resourceType"`
	ID           string       `json:"id"`
	Issue        short[issue] `json:"issue"`
	Entry        short[entry] `json:"entry"`
	Link         short[link]  `json:"link"`
}

// hasNext reports whether a search has more than this page.
func (a answer) hasNext() bool {
	for _, l := range a.Link {
		if l.Relation == "next" {
			return true
		}
	}
	return false
}

type link struct {
	Relation string `json:"relation"`
	URL      string `json:"url"`
}

// maxElements is more than any list in an answer to us has. A list of a million empty elements fits into the
// limit of an answer's size, and would cost a hundred times that when decoded.
const maxElements = 1000

// short is a list of at most maxElements. A longer one is an error: what is not read must not be taken for
// absent.
type short[T any] []T

func (s *short[T]) UnmarshalJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	switch start, err := d.Token(); {
	case err != nil || start == nil: // null is no list at all
		return err
	case start != json.Delim('['):
		return errors.New("not a list")
	}

	for d.More() {
		if len(*s) == maxElements {
			return errTooLarge
		}
		var element T
		if err := d.Decode(&element); err != nil {
			return err
		}
		*s = append(*s, element)
	}

	return nil
}

type entry struct {
	Resource json.RawMessage `json:"resource"`
	Response *entryResponse  `json:"response"`
}

// head is what the entry's resource is; nothing where there is none.
func (e entry) head() answer {
	var a answer
	if json.Unmarshal(e.Resource, &a) != nil {
		return answer{}
	}
	return a
}

// entryResponse is Bundle.entry.response; eCW puts numbers of its own into Status.
type entryResponse struct {
	Status   entryStatus `json:"status"`
	Location string      `json:"location"`
	Outcome  answer      `json:"outcome"`
}

// entryStatus is a string in FHIR. A number of eCW's that comes as a JSON number is the same number.
type entryStatus string

func (s *entryStatus) UnmarshalJSON(data []byte) error {
	var number json.Number // it takes null too, which leaves it empty
	if json.Unmarshal(data, &number) == nil {
		*s = entryStatus(number)
		return nil
	}
	return json.Unmarshal(data, (*string)(s))
}

// issue is one of an OperationOutcome's. Its diagnostics and details.text are left out on purpose: they may
// hold patient data.
type issue struct {
	Severity string  `json:"severity"`
	Code     string  `json:"code"`
	Details  concept `json:"details"`
}

// isIssueType reports whether a code is of FHIR R4's value set issue-type. Any other word is the server's
// own, and could be somebody's name.
func isIssueType(code string) bool {
	switch code {
	case "invalid", "structure", "required", "value", "invariant",
		"security", "login", "unknown", "expired", "forbidden", "suppressed",
		"processing", "not-supported", "duplicate", "multiple-matches", "not-found", "deleted", "too-long", "code-invalid",
		"extension", "too-costly", "business-rule", "conflict",
		"transient", "lock-error", "no-store", "exception", "timeout", "incomplete", "throttled", "informational":
		return true
	}
	return false
}

// name is eCW's number if the issue carries one that we know, else the FHIR issue type, which says more than
// eCW's generic failure; "processing", the most general one, in place of a word that is no issue type.
func (i issue) name() string {
	for _, c := range i.Details.Coding {
		if _, known := numberRule(c.Code); c.Code != numberGeneric && (known || c.Code == numberExists) {
			return c.Code
		}
	}
	if !isIssueType(i.Code) {
		return "processing"
	}
	return i.Code
}

// isGeneric reports whether the issue carries eCW's generic failure and nothing that says more.
func (i issue) isGeneric() bool {
	for _, c := range i.Details.Coding {
		if c.Code == numberGeneric {
			return i.name() == "processing"
		}
	}
	return false
}

// firstError returns the first issue that is not a mere hint.
func firstError(issues []issue) (issue, bool) {
	for _, i := range issues {
		switch i.Severity {
		case "information", "warning", "success":
		default:
			return i, true
		}
	}
	return issue{}, false
}

// idForm is FHIR's id, with room for the longer ones that servers hand out.
var idForm = regexp.MustCompile(`^[A-Za-z0-9._~-]{1,128}$`)

// issues are those of an OperationOutcome; none when the answer is anything else.
func (r *response) issues() []issue {
	var a answer
	if r.bodyErr != nil || !r.isJSON() || json.Unmarshal(r.body, &a) != nil || a.ResourceType != "OperationOutcome" {
		return nil
	}
	return a.Issue
}

// decode reads a 2xx answer. An empty one is an empty answer.
func (r *response) decode(op string) (answer, error) {
	var a answer
	switch {
	case r.bodyErr != nil:
		return a, r.bodyErr
	case len(r.body) == 0:
		return a, nil
	case !r.isJSON(), json.Unmarshal(r.body, &a) != nil, a.ResourceType == "":
		return answer{}, &Error{
			Class:      settle(op, ClassUnknown),
			Op:         op,
			Code:       "malformed_response",
			HTTPStatus: r.status,
			Message:    "eCW's answer is not FHIR; check ECW_FHIR_BASE_URL and any proxy in between",
		}
	}

	return a, nil
}

// judgeRead reads the answer to a GET into v. Anything but a resource of that type is an [*Error].
func (c *Client) judgeRead(res *response, op, resourceType string, v any) error {
	if res.status != http.StatusOK {
		return wordedForRead(refusal(op, res, res.status, res.issues(), c.now()))
	}
	if res.bodyErr != nil {
		return res.bodyErr
	}

	var head struct {
		ResourceType string `json:"resourceType"`
	}

	isFHIR := res.isJSON() && json.Unmarshal(res.body, &head) == nil
	if isFHIR && head.ResourceType == "OperationOutcome" {
		if bad, is := firstError(res.issues()); is {
			return wordedForRead(issueError(op, res, bad, c.now()))
		}
	}

	var err error
	if isFHIR = isFHIR && head.ResourceType == resourceType; isFHIR {
		err = json.Unmarshal(res.body, v)
	}

	switch {
	case errors.Is(err, errTooLarge):
		return &Error{
			Class:      ClassRetryable,
			Op:         op,
			Code:       "response_too_large",
			HTTPStatus: res.status,
			Message:    fmt.Sprintf("a list in eCW's answer has more than %d elements and was not read", maxElements),
		}
	case err != nil, !isFHIR:
		return &Error{
			Class:      ClassRetryable,
			Op:         op,
			Code:       "malformed_response",
			HTTPStatus: res.status,
			Message:    "eCW's answer is not a " + resourceType + "; check ECW_FHIR_BASE_URL and any proxy in between",
		}
	}

	return nil
}

// wordedForRead replaces the messages that speak of an Observation.
func wordedForRead(e *Error) *Error {
	if e.Class == ClassPermanentData {
		e.Message = "eCW refuses the request (" + e.Code + "); check ECW_FHIR_BASE_URL and ECW_PRACTICE_CODE"
	}
	return e
}
