package ecw

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
)

// answer is the part that we read of any FHIR resource that eCW answers with: an Observation, an
// OperationOutcome, or a Bundle that is the response to a transaction or the result of a search.
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

// maxElements is more than any list in a sound answer has. A list of a million empty elements is within the
// limit of an answer's size, but would take a hundred times that in memory when decoded.
const maxElements = 1000

// short is a list of at most maxElements. A longer one is an error and is not cut: elements that were dropped
// would be taken for absent.
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

// head decodes the entry's resource; it is empty if there is none.
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

// entryStatus is a string in FHIR. One of eCW's numbers may come as a JSON number, which means the same.
type entryStatus string

func (s *entryStatus) UnmarshalJSON(data []byte) error {
	var number json.Number // null is accepted too and leaves it empty
	if json.Unmarshal(data, &number) == nil {
		*s = entryStatus(number)
		return nil
	}
	return json.Unmarshal(data, (*string)(s))
}

// issue is one issue of an OperationOutcome. Its diagnostics and details.text are not read, because they may
// hold patient data.
type issue struct {
	Severity string  `json:"severity"`
	Code     string  `json:"code"`
	Details  concept `json:"details"`
}

// isIssueType reports whether a code is of FHIR R4's value set issue-type. Any other word is the server's own
// and is not shown: it could be a person's name.
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

// name is the code by which the issue is classed and shown. It is eCW's number if the issue carries one that
// we know, other than the generic failure; else the FHIR issue type; else "processing", the most general
// issue type.
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

// isGeneric reports whether the issue carries eCW's generic failure and nothing more specific.
func (i issue) isGeneric() bool {
	for _, c := range i.Details.Coding {
		if c.Code == numberGeneric {
			return i.name() == "processing"
		}
	}
	return false
}

// firstError returns the first issue that is an error and not a hint.
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

// idForm is FHIR's id, but longer and with more characters, because servers hand out such ids.
var idForm = regexp.MustCompile(`^[A-Za-z0-9._~-]{1,128}$`)

// isID reports whether id can be the id of a resource. It excludes what has another meaning in a path, such as
// ".." and "_history".
func isID(id string) bool {
	return idForm.MatchString(id) && strings.Trim(id, ".") != "" && !strings.HasPrefix(id, "_")
}

// issues are those of an OperationOutcome; there are none if the answer is anything else.
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
		return answer{}, r.failed(ClassUnknown, op, "malformed_response",
			"eCW's answer is not FHIR; check ECW_FHIR_BASE_URL and any proxy in between")
	}

	return a, nil
}

// errUnexpected marks an answer that is not the resource asked for.
var errUnexpected = errors.New("not the resource asked for")

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
	err := errUnexpected
	if res.isJSON() && json.Unmarshal(res.body, &head) == nil {
		switch head.ResourceType {
		case resourceType:
			err = json.Unmarshal(res.body, v)
		case "OperationOutcome":
			if bad, is := firstError(res.issues()); is {
				return wordedForRead(issueError(op, res, bad, c.now()))
			}
		}
	}

	switch {
	case errors.Is(err, errTooLarge):
		return res.failed(ClassRetryable, op, "response_too_large",
			fmt.Sprintf("a list in eCW's answer has more than %d elements and was not read", maxElements))
	case err != nil:
		return res.failed(ClassRetryable, op, "malformed_response",
			"eCW's answer is not a "+resourceType+"; check ECW_FHIR_BASE_URL and any proxy in between")
	}

	return nil
}

// wordedForRead replaces the messages that mention an Observation.
func wordedForRead(e *Error) *Error {
	if e.Class == ClassPermanentData {
		e.Message = "eCW refuses the request (" + e.Code + "); check ECW_FHIR_BASE_URL and ECW_PRACTICE_CODE"
	}
	return e
}
