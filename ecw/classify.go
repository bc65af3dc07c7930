package ecw

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// rule is what a code means: the class, and the sentence for people.
type rule struct {
	class   Class
	message string
}

const (
	patientNotFound = "Patient not found in eCW; check the patient's ecw_fhir_id"
	checkReading    = "check the reading"
	checkFHIRURL    = "check ECW_FHIR_BASE_URL, ECW_PRACTICE_CODE and ECW_WRITE_MODE"
)

// settle turns "unknown" into "retryable" for everything but a write: a read or a token request that may have been
// carried out has changed nothing.
func settle(op string, class Class) Class {
	if class == ClassUnknown && op != OpCreate {
		return ClassRetryable
	}
	return class
}

// statusRule is the table of HTTP statuses (401, 409 and 429 need more than a table, see refusal).
func statusRule(status int, hasOutcome bool) rule {
	n := " (HTTP " + strconv.Itoa(status) + ")"
	switch {
	case status == http.StatusUnauthorized:
		return rule{ClassPermanentCredentials, "eCW refuses a fresh access token" + n + "; check that the app is active for the practice"}
	case status == http.StatusForbidden:
		return rule{ClassPermanentCredentials, "eCW forbids the request" + n + "; check the app's scopes and that the practice has activated it"}
	case status == http.StatusNotFound && hasOutcome:
		return rule{ClassPermanentData, patientNotFound}
	case status == http.StatusNotFound:
		// No FHIR server speaks here: a wrong address, or a proxy whose application is being replaced.
		return rule{ClassRetryable, "there is no FHIR server at this address" + n + "; " + checkFHIRURL}
	case status == http.StatusMethodNotAllowed, status == http.StatusUnsupportedMediaType:
		return rule{ClassPermanentData, "eCW does not take requests at this address" + n + "; " + checkFHIRURL}
	case status == http.StatusPreconditionFailed:
		return rule{ClassPermanentData, "several Observations in eCW match this reading" + n + "; look at them in the chart"}
	case status == http.StatusRequestEntityTooLarge:
		return rule{ClassPermanentData, "eCW finds the Observation too large" + n + "; " + checkReading}
	case status == http.StatusRequestTimeout, status >= 500:
		return rule{ClassUnknown, "eCW failed while handling the request" + n + "; it is probably unavailable"}
	case status >= 400:
		return rule{ClassPermanentData, "eCW refuses the request as invalid" + n + "; " + checkReading}
	case status >= 300:
		return rule{ClassUnknown, "eCW redirects elsewhere" + n + ", which is not followed; " + checkFHIRURL}
	}

	return rule{ClassUnknown, "eCW gave an answer that is not a final one" + n}
}

// The eCW numbers that more than a table knows.
const (
	numberSuccess = "1"
	numberGeneric = "2"
	numberExists  = "201" // ALREADY_EXIST, where HTTP would say Created

	// maxNumber bounds the numbers that are shown although we do not know them. A longer one could be somebody's.
	maxNumber = 999
)

// numberRule is the table of eCW's write error numbers. They come from third-party captures of eCW's documents.
func numberRule(number string) (rule, bool) {
	data := func(message string) (rule, bool) { return rule{ClassPermanentData, message}, true }
	switch number {
	case numberGeneric:
		// A failure without a reason: eCW may have got as far as storing it, so it is looked up before a repeat.
		return rule{ClassUnknown, "eCW reports a failure without a reason; if it lasts, ask eCW's support what it logged"}, true
	case "100":
		return data("eCW does not accept the patient; check the patient's ecw_fhir_id")
	case "101":
		return data("eCW does not accept the provider; we name none, so ask the practice's eCW administrator which provider the app writes for")
	case "102":
		return data("eCW does not support a coding system of the Observation; check the observation type")
	case "103":
		// Nothing is stored. eCW's documents are said to allow one retry; the schedule makes its usual five, hours apart,
		// since a mapping that a person mends meanwhile is worth them, and each is looked up first like any other.
		return rule{ClassRetryable, "eCW reports an unknown mapping error; if it lasts, have this vital sign mapped in the practice's eCW"}, true
	case "108":
		return data("eCW does not accept a character in the Observation; check the device's name")
	case "109":
		return data("eCW finds the Observation too large; " + checkReading)
	case "110":
		return data("eCW does not accept the Observation's status; " + checkReading)
	case "120":
		return data("eCW does not accept a code of the Observation; check the observation type")
	case "122":
		return data("eCW does not accept the Observation's category; check the observation type")
	case "202":
		return data("several patients in eCW match; check the patient's ecw_fhir_id")
	case "204":
		return data("eCW does not accept the Observation's date; check the reading's time")
	case "207":
		return data(patientNotFound)
	case "308":
		return rule{ClassPermanentCredentials, "eCW has no write-back user configured; ask the practice's eCW administrator to set one"}, true
	case "611":
		return data("eCW does not accept the unit; check the reading's unit")
	case "612":
		return data("eCW does not accept the value; check the reading's value")
	case "613":
		return data("eCW does not accept this type of observation; ask eCW which vital signs the practice may write")
	}

	return rule{}, false
}

// issueRule is the table of FHIR issue types (R4 value set issue-type): transient ones may work later, security ones
// need a person with access, the rest will not work unchanged.
func issueRule(code string) rule {
	switch code {
	case "lock-error", "no-store":
		return rule{ClassRetryable, "eCW cannot store anything right now (" + code + ")"}
	case "transient", "exception", "timeout", "incomplete":
		return rule{ClassUnknown, "eCW had a passing fault while handling the request (" + code + ")"}
	case "throttled":
		return rule{ClassThrottled, "eCW's request limit is used up"}
	case "security", "login", "unknown", "expired", "forbidden":
		return rule{ClassPermanentCredentials, "eCW refuses us (" + code + "); check the app's scopes and that the practice has activated it"}
	case "not-found", "deleted":
		return rule{ClassPermanentData, patientNotFound}
	case "multiple-matches":
		return rule{ClassPermanentData, "several Observations in eCW match this reading; look at them in the chart"}
	}

	return rule{ClassPermanentData, "eCW refuses the Observation (" + code + "); " + checkReading}
}

// refusal classes an answer that is not a success. status is the answer's own, or that of its Bundle entry.
func refusal(op string, res *response, status int, issues []issue, now time.Time) *Error {
	bad, has := firstError(issues)
	switch status {
	case http.StatusTooManyRequests:
		return throttled(op, res, now)
	case http.StatusConflict:
		return duplicate(op, res)
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		if has {
			return issueError(op, res, bad, now)
		}
	}

	r := statusRule(status, has)
	e := &Error{
		Class:      settle(op, r.class),
		Op:         op,
		Code:       "http_" + strconv.Itoa(status),
		HTTPStatus: res.status,
		Message:    r.message,
	}

	switch {
	case status >= 300 && status < 400:
		e.Code = "redirect"
	case status == http.StatusUnauthorized:
		e.Code = "unauthorized"
	case status == http.StatusForbidden:
		e.Code = "forbidden"
	case has:
		e.Code = bad.name()
	}

	return e
}

// issueError classes an OperationOutcome's issue: by eCW's number where it carries one, else by the issue type. A create
// that failed for no reason but eCW's generic one is that failure, whatever the status, as where the number stands alone.
func issueError(op string, res *response, bad issue, now time.Time) *Error {
	code := bad.name()
	if op == OpCreate && bad.isGeneric() {
		return genericFailure(res)
	}
	if code == "duplicate" || code == numberExists {
		return duplicate(op, res)
	}

	r, ok := numberRule(code)
	if !ok {
		r = issueRule(code)
	}
	if r.class == ClassThrottled {
		return throttled(op, res, now)
	}

	return &Error{
		Class:      settle(op, r.class),
		Op:         op,
		Code:       code,
		HTTPStatus: res.status,
		Message:    r.message,
	}
}

func genericFailure(res *response) *Error {
	r, _ := numberRule(numberGeneric)
	return &Error{
		Class:      r.class,
		Op:         OpCreate,
		Code:       numberGeneric,
		HTTPStatus: res.status,
		Message:    r.message,
	}
}

func duplicate(op string, res *response) *Error {
	return &Error{
		Class:      settle(op, ClassUnknown),
		Op:         op,
		Code:       "duplicate",
		HTTPStatus: res.status,
		Err:        errDuplicate,
		Message:    "eCW reports a duplicate, but the Observation cannot be found by its identifier; look at the chart",
	}
}

func throttled(op string, res *response, now time.Time) *Error {
	return &Error{
		Class:      ClassThrottled,
		Op:         op,
		Code:       "throttled",
		HTTPStatus: res.status,
		RetryAt:    retryAt(res.header, now),
		Message:    "eCW's request limit is used up",
	}
}

// maxRetryAfter bounds what a Retry-After can ask for; eCW's own block never lasts beyond the minute.
const maxRetryAfter = time.Hour

// retryAt is when a throttled request may be repeated: after Retry-After (RFC 9110 §10.2.3), else at the top of eCW's
// next minute, when its limit starts anew. Times are taken on eCW's clock (Date) and turned to ours.
func retryAt(h http.Header, now time.Time) time.Time {
	theirs, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		theirs = now
	}

	wait := theirs.Truncate(time.Minute).Add(time.Minute).Sub(theirs)
	if after := h.Get("Retry-After"); after != "" {
		if seconds, err := strconv.ParseUint(after, 10, 31); err == nil {
			wait = time.Duration(seconds) * time.Second
		} else if at, err := http.ParseTime(after); err == nil {
			wait = at.Sub(theirs)
		}
	}

	return now.Add(min(max(wait, time.Second), maxRetryAfter))
}

// tokenRefusal classes an answer of the token endpoint other than 200: by its OAuth error first (RFC 6749 §5.2; eCW
// also sends access_denied with HTTP 500), else by its status.
func tokenRefusal(res *response, now time.Time) *Error {
	if res.status == http.StatusTooManyRequests {
		return throttled(OpToken, res, now)
	}

	e := &Error{Op: OpToken, Code: oauthError(res), HTTPStatus: res.status}
	var r rule
	switch e.Code {
	case "invalid_client":
		r = rule{ClassPermanentCredentials, "eCW does not know us (invalid_client); check ECW_CLIENT_ID, ECW_TOKEN_URL, " +
			"and that eCW can reach the JWKS URL and finds our key there under ECW_KEY_ID"}
	case "invalid_grant":
		r = rule{ClassPermanentCredentials, "eCW rejects the client assertion (invalid_grant); " +
			"check that the JWKS URL is public, the kid matches and the clock is right"}
	case "invalid_scope":
		r = rule{ClassPermanentCredentials, "eCW does not grant the scopes (invalid_scope); check ECW_SCOPE against the app's registration"}
	case "key_not_found":
		r = rule{ClassPermanentCredentials, "eCW finds no key or secret of ours (key_not_found); " +
			"check ECW_CLIENT_SECRET, ECW_KEY_ID and that eCW can reach the JWKS URL"}
	case "unauthorized_client", "invalid_request", "unsupported_grant_type":
		r = rule{ClassPermanentCredentials, "eCW refuses the token request (" + e.Code + "); check ECW_APP_TYPE and the app's registration"}
	case "access_denied":
		// It may be permanent, but it comes as a server fault and has been seen to pass: the schedule decides.
		r = rule{ClassRetryable, "eCW denies access (access_denied); if it lasts, check that the practice has activated the app"}
	default:
		r = tokenStatusRule(res.status)
	}

	e.Class, e.Message = r.class, r.message
	return e
}

// tokenStatusRule is for answers without an OAuth error.
func tokenStatusRule(status int) rule {
	n := " (HTTP " + strconv.Itoa(status) + ")"
	switch {
	case status == http.StatusBadRequest, status == http.StatusUnauthorized, status == http.StatusForbidden:
		return rule{ClassPermanentCredentials, "eCW's token endpoint refuses the request" + n +
			"; check ECW_TOKEN_URL and the app's registration"}
	case status == http.StatusRequestTimeout, status >= 500:
		return rule{ClassRetryable, "eCW's token endpoint is unavailable" + n}
	}
	// A redirect or a 404 is not OAuth's way to refuse us: a wrong URL, or a proxy during maintenance.
	return rule{ClassRetryable, "no token endpoint answers at this address" + n + "; check ECW_TOKEN_URL"}
}

// isOAuthError reports whether a code is one of RFC 6749 (§5.2, and those of §4.1.2.1 that eCW and others send here too), or
// eCW's own key_not_found. Any other word is the server's own, and could be somebody's name.
func isOAuthError(code string) bool {
	switch code {
	case "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
		"access_denied", "server_error", "temporarily_unavailable",
		"key_not_found":
		return true
	}
	return false
}

// oauthError is the answer's error code, else "http_" and its status.
func oauthError(res *response) string {
	var body struct {
		Error string `json:"error"`
	}
	if res.bodyErr == nil && res.isJSON() && json.Unmarshal(res.body, &body) == nil && isOAuthError(body.Error) {
		return body.Error
	}
	return "http_" + strconv.Itoa(res.status)
}
