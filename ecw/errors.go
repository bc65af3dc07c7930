package ecw

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// Class says what a failure means for the reading that was being delivered. It is the only part of an [Error] that
// decisions are taken on.
type Class string

const (
	// ClassRetryable: nothing was stored. The same request may work later.
	ClassRetryable Class = "retryable"
	// ClassUnknown: eCW may or may not have stored the Observation. Look it up before creating it again.
	ClassUnknown Class = "unknown"
	// ClassPermanentData: eCW refuses this Observation and always will, until a person mends the data.
	ClassPermanentData Class = "permanent_data"
	// ClassPermanentCredentials: eCW refuses us: key, client id, scope or activation. No reading can be delivered
	// until a person acts.
	ClassPermanentCredentials Class = "permanent_credentials"
	// ClassThrottled: the practice's request limit is used up and nothing was stored. [Error.RetryAt] says when to go on.
	ClassThrottled Class = "throttled"
)

// The values of [Error.Op].
const (
	OpToken        = "token"        // asking the token endpoint
	OpCreate       = "create"       // creating an Observation
	OpFind         = "find"         // searching for an Observation
	OpCapabilities = "capabilities" // reading what the server can do
	OpPatients     = "patients"     // listing or counting patients
	OpRead         = "read"         // reading a Patient
)

// Error is every error that a [Client]'s methods return. None of its fields holds text of an eCW answer, which may be
// personal; all may be shown, logged and stored.
type Error struct {
	Class Class
	Op    string
	// Code names the cause for machines: an OAuth error ("invalid_client"), an eCW number ("613"), a FHIR issue code
	// ("duplicate"), an HTTP status ("http_503"), or one of ours ("timeout", "connect", "dns", "tls", "reset",
	// "canceled", "redirect", "malformed_response", "response_too_large", "no_id", "insufficient_scope", "not_found", ...).
	//
	// "key_not_found" is eCW's word when it has no key or secret for us, and ours when the private key cannot sign. A key
	// or secret that is not set at all never gets this far: [New] refuses the configuration.
	Code string
	// HTTPStatus is the status of eCW's answer, 0 when there was none.
	HTTPStatus int
	// Message is one short sentence for people, with the remedy where there is one.
	Message string
	// RetryAt is set with ClassThrottled only: not before.
	RetryAt time.Time
	// Err is the cause where it is safe to print, else nil.
	Err error
}

func (e *Error) Error() string {
	s := fmt.Sprintf("eCW %s: %s (%s, %s)", e.Op, e.Message, e.Class, e.Code)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Unavailable tells whether the failure says that eCW as a whole cannot be reached or is failing, rather than that this
// one request is at fault: the next reading would meet the same. What a FHIR server says of a request of ours, one of
// eCW's numbers or a FHIR issue in an answer that is not a 5xx, is never that, nor is a limit or a caller that gave up.
func (e *Error) Unavailable() bool {
	switch {
	case e.Class != ClassRetryable && e.Class != ClassUnknown, e.Code == "canceled", e.Code == "duplicate", eCWNumber.MatchString(e.Code):
		return false
	case e.Op == OpToken: // one token serves every reading
		return true
	case e.HTTPStatus == http.StatusRequestTimeout, e.HTTPStatus >= 500:
		return true
	}

	switch e.Code {
	case "dns", "connect", "tls", "timeout", "reset", "redirect", "malformed_response":
		return true
	case "http_404", "http_408": // a 404 of a FHIR server has an OperationOutcome and is not retryable
		return true
	}

	return strings.HasPrefix(e.Code, "http_5") // of a Bundle's entry
}

// RefusesUs reports whether eCW refuses our credentials whatever we ask, rather than this one request.
func (e *Error) RefusesUs() bool {
	return e.Class == ClassPermanentCredentials && (e.Op == OpToken || e.HTTPStatus == http.StatusUnauthorized)
}

// eCWNumber is the form of the numbers that eCW answers with.
var eCWNumber = regexp.MustCompile(`^[0-9]+$`)

// LogValue gives the fields to structured logs.
func (e *Error) LogValue() slog.Value {
	attrs := []slog.Attr{
		slog.String("op", e.Op), slog.String("class", string(e.Class)), slog.String("code", e.Code),
		slog.Int("http_status", e.HTTPStatus), slog.String("message", e.Message),
	}
	if !e.RetryAt.IsZero() {
		attrs = append(attrs, slog.Time("retry_at", e.RetryAt))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("cause", e.Err.Error()))
	}
	return slog.GroupValue(attrs...)
}

// errDuplicate marks the errors that say "I have this already"; a create confirms them by reading back.
var errDuplicate = errors.New("reported as a duplicate")
