package ecw

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// rule is what a code means: its class, and the sentence that people read.
type rule struct {
	class   Class
	message string
}

const (
	patientNotFound = "Patient not found in eCW; check the patient's external_id"
	checkReading    = "check the reading"
	checkFHIRURL    = "check ECW_FHIR_BASE_URL, ECW_PRACTICE_CODE and ECW_WRITE_MODE"
)

// settle turns [ClassUnknown] into [ClassRetryable] for everything but a create: a read or a token request
// changes nothing in eCW, so it may be repeated even if it was carried out.
func settle(op string, class Class) Class {
	if class == ClassUnknown && op != OpCreate {
		return ClassRetryable
	}
	return class
}

// statusRule is the table of HTTP statuses. 409 and 429 are handled in [refusal], because they need more than
// a rule.
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
		// A FHIR server would send an OperationOutcome. This is a wrong address, or a proxy whose application is
		// being replaced.
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

// The eCW numbers that are handled outside of the table.
const (
	numberSuccess = "1"
	numberGeneric = "2"
	numberExists  = "201" // ALREADY_EXIST, where HTTP would say Created

	// maxNumber bounds the unknown numbers that are shown. A longer one could be a person's, such as an MRN.
	maxNumber = 999
)

// numberRule is the table of eCW's write error numbers, taken from third-party captures of eCW's documents.
func numberRule(number string) (rule, bool) {
	data := func(message string) (rule, bool) { return rule{ClassPermanentData, message}, true }
	switch number {
	case numberGeneric:
		// eCW gives no reason, so it may have stored the Observation: the class makes the next delivery look it up.
		return rule{ClassUnknown, "eCW reports a failure without a reason; if it lasts, ask eCW's support what it logged"}, true
	case "100":
		return data("eCW does not accept the patient; check the patient's external_id")
	case "101":
		return data("eCW does not accept the provider; we name none, so ask the practice's eCW administrator which provider the app writes for")
	case "102":
		return data("eCW does not support a coding system of the Observation; check the observation type")
	case "103":
		// Nothing is stored. eCW's documents are said to allow one retry. The schedule makes its usual five
		// over some hours, because a person may correct the mapping meanwhile; each is preceded by a look-up
		// like any other.
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
		return data("several patients in eCW match; check the patient's external_id")
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

// issueRule is the table of FHIR issue types (R4 value set issue-type). After a transient one the same
// request may work later, after a security one only when a person has given us access, and after any other
// one never.
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

// refusal makes the error of an answer that is not a success. status is the answer's own, or that of its
// Bundle entry.
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

	code := "http_" + strconv.Itoa(status)
	switch {
	case status >= 300 && status < 400:
		code = "redirect"
	case status == http.StatusUnauthorized:
		code = "unauthorized"
	case status == http.StatusForbidden:
		code = "forbidden"
	case has:
		code = bad.name()
	}

	r := statusRule(status, has)
	return res.failed(r.class, op, code, r.message)
}

// issueError makes the error of an OperationOutcome's issue: by eCW's number if the issue carries one, else
// by its type. A create whose issue carries eCW's generic failure and nothing more is that failure, whatever
// the HTTP status.
func issueError(op string, res *response, bad issue, now time.Time) *Error {
	code := bad.name()
	if op == OpCreate && bad.isGeneric() {
		code = numberGeneric
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

	return res.failed(r.class, op, code, r.message)
}

func duplicate(op string, res *response) *Error {
	e := res.failed(ClassUnknown, op, "duplicate",
		"eCW reports a duplicate, but the Observation cannot be found by its identifier; look at the chart")
	e.Err = errDuplicate
	return e
}

func throttled(op string, res *response, now time.Time) *Error {
	e := res.failed(ClassThrottled, op, "throttled", "eCW's request limit is used up")
	e.RetryAt = retryAt(res.header, now)
	return e
}

// maxRetryAfter is the longest Retry-After that is honoured; eCW's own block never lasts beyond the minute.
const maxRetryAfter = time.Hour

// retryAt is when a throttled request may be repeated: after Retry-After (RFC 9110 §10.2.3), else at the
// start of eCW's next minute, when its count of requests begins again. Both are read on eCW's clock (the
// header Date) and converted to ours.
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

// tokenRefusal makes the error of an answer of the token endpoint other than 200.
func tokenRefusal(res *response, now time.Time) *Error {
	if res.status == http.StatusTooManyRequests {
		return throttled(OpToken, res, now)
	}

	code := oauthError(res)
	r := tokenRule(code, res.status)
	return res.failed(r.class, OpToken, code, r.message)
}

// tokenRule is the table of OAuth errors (RFC 6749 §5.2; eCW also sends access_denied with HTTP 500). An
// answer without one is judged by its HTTP status.
func tokenRule(code string, status int) rule {
	switch code {
	case "invalid_client":
		return rule{ClassPermanentCredentials, "eCW does not know us (invalid_client); check ECW_CLIENT_ID, ECW_TOKEN_URL, " +
			"and that eCW can reach the JWKS URL and finds our key there under ECW_KEY_ID"}
	case "invalid_grant":
		return rule{ClassPermanentCredentials, "eCW rejects the client assertion (invalid_grant); " +
			"check that the JWKS URL is public, the kid matches and the clock is right"}
	case "invalid_scope":
		return rule{ClassPermanentCredentials, "eCW does not grant the scopes (invalid_scope); check ECW_SCOPE against the app's registration"}
	case "key_not_found":
		return rule{ClassPermanentCredentials, "eCW finds no key or secret of ours (key_not_found); " +
			"check ECW_CLIENT_SECRET, ECW_KEY_ID and that eCW can reach the JWKS URL"}
	case "unauthorized_client", "invalid_request", "unsupported_grant_type":
		return rule{ClassPermanentCredentials, "eCW refuses the token request (" + code + "); check ECW_APP_TYPE and the app's registration"}
	case "access_denied":
		// It may be permanent, but eCW sends it as a server fault and it has been seen to pass, so it is retried.
		return rule{ClassRetryable, "eCW denies access (access_denied); if it lasts, check that the practice has activated the app"}
	}

	n := " (HTTP " + strconv.Itoa(status) + ")"
	switch {
	case status == http.StatusBadRequest, status == http.StatusUnauthorized, status == http.StatusForbidden:
		return rule{ClassPermanentCredentials, "eCW's token endpoint refuses the request" + n +
			"; check ECW_TOKEN_URL and the app's registration"}
	case status == http.StatusRequestTimeout, status >= 500:
		return rule{ClassRetryable, "eCW's token endpoint is unavailable" + n}
	}
	// OAuth refuses with neither a redirect nor a 404: this is a wrong URL, or a proxy during maintenance.
	return rule{ClassRetryable, "no token endpoint answers at this address" + n + "; check ECW_TOKEN_URL"}
}

// isOAuthError reports whether a code is one of RFC 6749 (§5.2, and those of §4.1.2.1 that eCW and others
// send here too), or eCW's own key_not_found. Any other word is the server's own and is not shown: it could
// be a person's name.
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
