package ecw

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// answer is as much as we read of any FHIR resource eCW answers with: an Observation, an OperationOutcome, or a Bundle
// with a transaction's response or a search's result.
type answer struct {
	ResourceType string       `json:"resourceType"`
	ID           string       `json:"id"`
	Issue        short[issue] `json:"issue"`
	Entry        short[entry] `json:"entry"`
	Link         short[link]  `json:"link"`
}

type link struct {
	Relation string `json:"relation"`
	URL      string `json:"url"`
}

// maxElements is more than any list in an answer to us has. A list of a million empty elements fits into the limit of an
// answer's size, and would cost a hundred times that when decoded.
const maxElements = 1000

// short is a list of at most maxElements. A longer one is an error: what is not read must not be taken for absent.
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

// issue is one of an OperationOutcome's. Its diagnostics and details.text are left out on purpose: they may hold
// patient data.
type issue struct {
	Severity string  `json:"severity"`
	Code     string  `json:"code"`
	Details  concept `json:"details"`
}

// isIssueType reports whether a code is of FHIR R4's value set issue-type. Any other word is the server's own, and could
// be somebody's name.
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

// name is eCW's number if the issue carries one that we know, else the FHIR issue type, which says more than eCW's
// generic failure; "processing", the most general one, in place of a word that is no issue type.
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

// isGeneric tells whether the issue carries eCW's generic failure and nothing that says more.
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
		return answer{}, &Error{Class: settle(op, ClassUnknown), Op: op, Code: "malformed_response", HTTPStatus: r.status,
			Message: "eCW's answer is not FHIR; check ECW_FHIR_BASE_URL and any proxy in between"}
	}
	return a, nil
}

// judgeCreate reads eCW's answer to a create. A 2xx counts only when the body does not deny it and an id is found.
func judgeCreate(res *response, now time.Time) (Delivered, error) {
	if res.status/100 != 2 {
		return Delivered{}, refusal(OpCreate, res, res.status, res.issues(), now)
	}
	a, err := res.decode(OpCreate)
	if err != nil {
		return Delivered{}, err
	}
	if bad, is := firstError(a.Issue); is {
		return Delivered{}, issueError(OpCreate, res, bad, now)
	}
	if len(a.Entry) > 0 && a.Entry[0].Response != nil {
		return judgeEntry(res, a.Entry[0], now)
	}
	return delivered(res, res.header.Get("Location"), a, res.status == http.StatusOK)
}

// judgeEntry reads the answer to the one entry of our transaction. Its status is one of eCW's numbers ("1" is success,
// and a bare "201" means ALREADY_EXIST) or, as FHIR has it, an HTTP status with its phrase ("201 Created").
func judgeEntry(res *response, e entry, now time.Time) (Delivered, error) {
	issues := e.Response.Outcome.Issue
	number, phrase, _ := strings.Cut(strings.TrimSpace(string(e.Response.Status)), " ")
	status, err := strconv.Atoi(number)
	isHTTP := err == nil && phrase != "" && strings.EqualFold(strings.TrimSpace(phrase), http.StatusText(status))
	rule, known := numberRule(number)
	bad, hasBad := firstError(issues)
	switch {
	case hasBad && number == numberGeneric && bad.name() == "processing":
		return Delivered{}, genericFailure(res)
	case hasBad && (number == numberSuccess || number == numberGeneric || isHTTP && status/100 == 2):
		return Delivered{}, issueError(OpCreate, res, bad, now)
	case number == numberSuccess, isHTTP && status/100 == 2:
		return delivered(res, e.Response.Location, e.head(), isHTTP && status == http.StatusOK)
	case isHTTP, status >= 400 && status < 600:
		return Delivered{}, refusal(OpCreate, res, status, issues, now)
	case number == numberExists:
		return Delivered{}, duplicate(OpCreate, res)
	case known:
		return Delivered{}, &Error{Class: rule.class, Op: OpCreate, Code: number, HTTPStatus: res.status, Message: rule.message}
	}
	code := "unknown_status"
	if err == nil && status > 0 && status <= maxNumber {
		code = strconv.Itoa(status)
	}
	return Delivered{}, &Error{Class: ClassUnknown, Op: OpCreate, Code: code, HTTPStatus: res.status,
		Message: "eCW answered the transaction with a status that is not known to us"}
}

// delivered needs the Observation's id: from the location, else from the resource itself.
func delivered(res *response, location string, a answer, existing bool) (Delivered, error) {
	id := idFromLocation(location)
	if id == "" && a.ResourceType == "Observation" && idForm.MatchString(a.ID) {
		id = a.ID
	}
	if id == "" {
		return Delivered{}, &Error{Class: ClassUnknown, Op: OpCreate, Code: "no_id", HTTPStatus: res.status,
			Message: "eCW accepted the Observation but did not say under which id"}
	}
	return Delivered{ID: id, HTTPStatus: res.status, Existing: existing}, nil
}

// idForm is FHIR's id, with room for the longer ones that servers hand out.
var idForm = regexp.MustCompile(`^[A-Za-z0-9._~-]{1,128}$`)

// idFromLocation takes the id out of ".../Observation/{id}" with or without "/_history/{version}", absolute or not.
func idFromLocation(location string) string {
	u, err := url.Parse(location)
	if err != nil {
		return ""
	}
	path, _, _ := strings.Cut(u.Path, "/_history")
	parts := strings.Split(strings.TrimSuffix(path, "/"), "/")
	if n := len(parts); n >= 2 && parts[n-2] == "Observation" && idForm.MatchString(parts[n-1]) {
		return parts[n-1]
	}
	return ""
}
