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

// Class says what a failure means for the reading that was being delivered. The decision whether and when to
// deliver again depends on nothing else in an [Error].
type Class string

const (
	// ClassRetryable: nothing was stored. The same request may work later.
	ClassRetryable Class = "retryable"
	// ClassUnknown: eCW may or may not have stored the Observation. Look it up before creating it again.
	ClassUnknown Class = "unknown"
	// ClassPermanentData: eCW refuses this Observation, and goes on to do so until a person corrects the data.
	ClassPermanentData Class = "permanent_data"
	// ClassPermanentCredentials: eCW refuses us because of the key, the client id, the scope or the
	// activation. No reading can be delivered until a person acts.
	ClassPermanentCredentials Class = "permanent_credentials"
	// ClassThrottled: the practice's request limit is used up and nothing was stored. [Error.RetryAt] says
	// when to go on.
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

// Error is every error that a [Client]'s methods return. All its fields may be shown, logged and stored: none
// holds text of an answer of eCW, which may be personal.
type Error struct {
	Class Class
	Op    string
	// Code names the cause for machines: an OAuth error ("invalid_client"), an eCW number ("613"), a FHIR
	// issue code ("duplicate"), an HTTP status ("http_503"), or one of ours ("timeout", "connect", "dns",
	// "tls", "reset", "canceled", "redirect", "malformed_response", "response_too_large", "no_id",
	// "insufficient_scope", "not_found", ...).
	//
	// eCW answers "key_not_found" when it has no key or secret for us; the client uses it when the private
	// key cannot sign. It does not mean that a key or secret is not set, because [New] refuses such a
	// configuration.
	Code string
	// HTTPStatus is the status of eCW's answer, 0 when there was none.
	HTTPStatus int
	// Message is one short sentence for people, with the remedy if there is one.
	Message string
	// RetryAt is the earliest time to repeat the request. It is set with ClassThrottled only.
	RetryAt time.Time
	// Err is the cause if it is safe to print, else nil.
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

// failed is the error of a request that got an answer. See [settle] for its class.
func (r *response) failed(class Class, op, code, message string) *Error {
	return &Error{
		Class:      settle(op, class),
		Op:         op,
		Code:       code,
		HTTPStatus: r.status,
		Message:    message,
	}
}

// Unavailable reports whether eCW as a whole cannot be reached or is failing, so that the next reading would
// fail in the same way. It is false if this one request is at fault: if the FHIR server refused it with one
// of eCW's numbers, or with a FHIR issue in an answer that is not a 5xx. It is also false for a limit, and if
// the caller gave up.
func (e *Error) Unavailable() bool {
	switch {
	case e.Class != ClassRetryable && e.Class != ClassUnknown, e.Code == "canceled", e.Code == "duplicate", eCWNumber.MatchString(e.Code):
		return false
	case e.Op == OpToken: // every reading needs the same token
		return true
	case e.HTTPStatus == http.StatusRequestTimeout, e.HTTPStatus >= 500:
		return true
	}

	switch e.Code {
	case "dns", "connect", "tls", "timeout", "reset", "redirect", "malformed_response":
		return true
	case "http_404", "http_408": // a FHIR server's 404 has an OperationOutcome, and so another code
		return true
	}

	return strings.HasPrefix(e.Code, "http_5") // the status of a Bundle's entry
}

// RefusesUs reports whether eCW refuses our credentials, and so every request and not only this one.
func (e *Error) RefusesUs() bool {
	return e.Class == ClassPermanentCredentials && (e.Op == OpToken || e.HTTPStatus == http.StatusUnauthorized)
}

// eCWNumber is the form of the numbers that eCW answers with.
var eCWNumber = regexp.MustCompile(`^[0-9]+$`)

// LogValue shows the fields in structured logs.
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

// errDuplicate marks the errors by which eCW says that it has the Observation already. A create confirms them
// by looking the Observation up.
var errDuplicate = errors.New("reported as a duplicate")
