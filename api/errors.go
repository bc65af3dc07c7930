package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/fhir"
)

// Error is the body of every answer that is not a success. Detail is for people and Code for programs. Fields
// names each wrong field of the request. LockedUntil is set with the code account_locked only.
type Error struct {
	Status      int          `json:"-"`
	Detail      string       `json:"detail"`
	Code        string       `json:"code"`
	Fields      []FieldError `json:"fields,omitempty"`
	LockedUntil *time.Time   `json:"locked_until,omitempty"`
	// RetryAfter is the header Retry-After, when it is above 0.
	RetryAfter time.Duration `json:"-"`
	// refusal is why the audit trail has a row about it, when the status does not say that it refuses something.
	refusal string
	// holder is the patient whom the answer names as the one with an MRN or an eCW id.
	holder uuid.UUID
}

// FieldError says what is wrong with one field of a request, and what to do about it.
type FieldError struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Detail }

func badRequest(code, format string, args ...any) *Error {
	return &Error{Status: http.StatusBadRequest, Code: code, Detail: fmt.Sprintf(format, args...)}
}

func notFound(what, id string) *Error {
	return &Error{Status: http.StatusNotFound, Code: "not_found", Detail: fmt.Sprintf("No %s has the id %s.", what, id)}
}

func conflict(code, format string, args ...any) *Error {
	return &Error{Status: http.StatusConflict, Code: code, Detail: fmt.Sprintf(format, args...)}
}

// broken collects the fields of a request that are wrong.
type broken []FieldError

func (b *broken) add(field, format string, args ...any) {
	*b = append(*b, FieldError{Field: clip(field), Message: fmt.Sprintf(format, args...)})
}

// addFrom adds the fields that package fhir refused.
func (b *broken) addFrom(err error) {
	var fields fhir.FieldErrors
	if errors.As(err, &fields) {
		for _, f := range fields {
			b.add(f.Field, "%s", f.Message)
		}
	} else if err != nil {
		b.add("", "%s", err)
	}
}

// clip shortens a field name that a sender made up, so that the answer stays readable. Our own names are
// shorter.
func clip(field string) string {
	const most = 48
	if runes := []rune(field); len(runes) > most {
		return string(runes[:most]) + "..."
	}
	return field
}

// maxBroken is how many broken fields an answer names. No request has as many fields of its own.
const maxBroken = 20

// err is nil when nothing is broken.
func (b broken) err() error {
	if len(b) == 0 {
		return nil
	}

	b = b[:min(len(b), maxBroken)]
	parts := make([]string, len(b))
	for i, f := range b {
		parts[i] = f.Field + ": " + f.Message
	}

	return &Error{
		Status: http.StatusBadRequest,
		Code:   "invalid",
		Detail: strings.Join(parts, "; "),
		Fields: b,
	}
}

// writeError turns every error into its answer; no other function does. An error that is not an *Error is our
// fault: the log has its text, and the caller gets a general message.
func (s *server) writeError(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}

	var answer *Error
	var echoErr *echo.HTTPError
	switch {
	case errors.Is(c.Request().Context().Err(), context.Canceled):
		s.logHangUp(c, err)
		answer = &Error{Status: statusHungUp, Code: "hung_up", Detail: "Nobody waits for this answer."}
	case errors.As(err, &answer):
	case errors.As(err, &echoErr):
		answer = fromEcho(echoErr)
	case isAudit(err):
		s.Logger.ErrorContext(c.Request().Context(), "the audit trail cannot be written", "method", c.Request().Method, "route", c.Path(),
			"error", err)
		answer = auditUnavailable()
	case db.IsUnavailable(err):
		s.Logger.ErrorContext(c.Request().Context(), "the database cannot be reached", "method", c.Request().Method, "route", c.Path(),
			"error", err)
		answer = databaseUnavailable()
	case db.IsSealed(err):
		s.Logger.ErrorContext(c.Request().Context(), "stored data cannot be decrypted", "method", c.Request().Method, "route", c.Path(),
			"error", err)
		answer = notDecrypted()
	default:
		s.Logger.ErrorContext(c.Request().Context(), "request failed", "method", c.Request().Method, "route", c.Path(), "error", err)
		answer = internalError()
	}

	s.recordRefusal(c, answer)
	if answer.Status == http.StatusUnauthorized {
		c.Response().Header().Set(echo.HeaderWWWAuthenticate, "Bearer")
	}

	if answer.RetryAfter > 0 {
		c.Response().Header().Set(echo.HeaderRetryAfter, seconds(answer.RetryAfter))
	}

	if err := c.JSON(answer.Status, answer); err != nil {
		s.Logger.DebugContext(c.Request().Context(), "answer not written", "error", err)
	}
}

// statusHungUp is the status that nginx logs for a request whose caller did not wait for the answer.
const statusHungUp = 499

// cutShort is the error of a batch whose caller hung up in the middle of it.
type cutShort struct{ stored int }

func (e *cutShort) Error() string {
	return fmt.Sprintf("the caller hung up when %d readings were stored", e.stored)
}

// logHangUp logs at info, because a caller that hangs up is no failure of ours. An error after that only
// follows from it.
func (s *server) logHangUp(c echo.Context, err error) {
	attrs := []any{"method", c.Request().Method, "route", c.Path(), "http_status", statusHungUp}
	var batch *cutShort
	if errors.As(err, &batch) {
		attrs = append(attrs, "stored", batch.stored)
	}
	s.Logger.InfoContext(c.Request().Context(), "the caller went away before the answer", attrs...)
}

func internalError() *Error {
	return &Error{
		Status: http.StatusInternalServerError,
		Code:   "internal",
		Detail: "Something went wrong on our side. Send the request again: a reading that is sent twice is stored once. " +
			"If it happens again, tell your operator.",
	}
}

// notDecrypted leaves to the log which key is missing, or which row was changed.
func notDecrypted() *Error {
	return &Error{
		Status: http.StatusInternalServerError,
		Code:   "internal",
		Detail: "What is stored cannot be decrypted. Tell your operator: the log says which key is missing, or which row was changed.",
	}
}

func databaseUnavailable() *Error {
	return &Error{
		Status: http.StatusServiceUnavailable,
		Code:   "database_unavailable",
		Detail: "The database does not answer. The request may not have been stored. " +
			"Send it again in a moment: a reading that is sent twice is stored once.",
	}
}

// temporalUnavailable is the answer when Temporal does not take a request. detail says what happened to the
// request.
func temporalUnavailable(detail string) *Error {
	return &Error{
		Status: http.StatusServiceUnavailable,
		Code:   "temporal_unavailable",
		Detail: "Temporal or a worker did not answer in time. " + detail,
	}
}

func fromEcho(err *echo.HTTPError) *Error {
	switch err.Code {
	case http.StatusNotFound:
		return &Error{Status: err.Code, Code: "not_found", Detail: "There is nothing at this path: /docs lists the paths."}
	case http.StatusMethodNotAllowed:
		return &Error{
			Status: err.Code,
			Code:   "method_not_allowed",
			Detail: "This path does not take this method: /docs lists those that it takes.",
		}
	case http.StatusRequestEntityTooLarge:
		return &Error{Status: err.Code, Code: "too_large", Detail: "The request body is larger than " + maxBody + "B: send less at a time."}
	default:
		return &Error{Status: err.Code, Code: "http_error", Detail: http.StatusText(err.Code)}
	}
}
