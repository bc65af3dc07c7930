package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/fhir"
)

// Error is every answer that is not a success. Detail is for people, Code for programs; Fields names each broken field
// of a request.
type Error struct {
	Status int          `json:"-"`
	Detail string       `json:"detail"`
	Code   string       `json:"code"`
	Fields []FieldError `json:"fields,omitempty"`
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

// broken collects the fields of a request that cannot be taken.
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

// clip keeps an answer readable whatever name a sender came up with; no field of ours is as long.
func clip(field string) string {
	const most = 48
	if runes := []rune(field); len(runes) > most {
		return string(runes[:most]) + "..."
	}
	return field
}

// maxBroken is how many broken fields an answer names, more than any request of ours has.
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
	return &Error{Status: http.StatusBadRequest, Code: "invalid", Detail: strings.Join(parts, "; "), Fields: b}
}

// writeError maps every error to its answer, in this one place. What is not an *Error is ours to mend: it is logged, and
// the caller learns no more than that.
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
	case db.IsUnavailable(err):
		s.Logger.ErrorContext(c.Request().Context(), "the database cannot be reached", "method", c.Request().Method, "route", c.Path(), "error", err)
		answer = databaseUnavailable()
	default:
		s.Logger.ErrorContext(c.Request().Context(), "request failed", "method", c.Request().Method, "route", c.Path(), "error", err)
		answer = internalError()
	}
	if answer.Status == http.StatusUnauthorized {
		c.Response().Header().Set(echo.HeaderWWWAuthenticate, "Bearer")
	}
	if err := c.JSON(answer.Status, answer); err != nil {
		s.Logger.DebugContext(c.Request().Context(), "answer not written", "error", err)
	}
}

// statusHungUp is how a log of nginx shows a request whose caller did not wait for the answer.
const statusHungUp = 499

// cutShort is the error of a batch whose caller hung up in the middle of it.
type cutShort struct{ stored int }

func (e *cutShort) Error() string {
	return fmt.Sprintf("the caller hung up when %d readings were stored", e.stored)
}

// logHangUp writes a line at info: a caller that does not wait is no trouble of ours, whatever its request met then.
func (s *server) logHangUp(c echo.Context, err error) {
	attrs := []any{"method", c.Request().Method, "route", c.Path(), "http_status", statusHungUp}
	var batch *cutShort
	if errors.As(err, &batch) {
		attrs = append(attrs, "stored", batch.stored)
	}
	s.Logger.InfoContext(c.Request().Context(), "the caller went away before the answer", attrs...)
}

func internalError() *Error {
	return &Error{Status: http.StatusInternalServerError, Code: "internal", Detail: "Something went wrong on our side. Send the request again, a reading sent twice is stored once; tell your operator if it persists."}
}

func databaseUnavailable() *Error {
	return &Error{Status: http.StatusServiceUnavailable, Code: "database_unavailable", Detail: "The database does not answer, and nothing may have been stored. Send the request again in a moment, a reading sent twice is stored once."}
}

// temporalUnavailable says what becomes of the matter all the same.
func temporalUnavailable(detail string) *Error {
	return &Error{Status: http.StatusServiceUnavailable, Code: "temporal_unavailable", Detail: "Temporal or a worker did not answer in time. " + detail}
}

func fromEcho(err *echo.HTTPError) *Error {
	switch err.Code {
	case http.StatusNotFound:
		return &Error{Status: err.Code, Code: "not_found", Detail: "There is nothing at this path."}
	case http.StatusMethodNotAllowed:
		return &Error{Status: err.Code, Code: "method_not_allowed", Detail: "This path does not take this method."}
	case http.StatusRequestEntityTooLarge:
		return &Error{Status: err.Code, Code: "too_large", Detail: "The request body is larger than " + maxBody + "B: send less at a time."}
	default:
		return &Error{Status: err.Code, Code: "http_error", Detail: http.StatusText(err.Code)}
	}
}
