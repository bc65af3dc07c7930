package activities

import (
	"errors"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/vantrexia/vantrexia/ecw"
)

// TypeNotSent is the type of an error that came before anything left for eCW: the delivery may simply begin again.
const TypeNotSent = "not_sent"

// Failure is the part of a failed delivery that is recorded. It holds no patient data.
type Failure struct {
	Code       string
	HTTPStatus int
	Message    string
	// RetryAt is set when eCW throttled the request: nothing may be sent before this moment.
	RetryAt time.Time
}

// failure is an activity error whose type is the class. It is expected, so it is neither retried by Temporal nor logged
// as an error of the worker.
func failure(class ecw.Class, f Failure) error {
	return temporal.NewApplicationErrorWithOptions(f.Message, string(class), temporal.ApplicationErrorOptions{
		NonRetryable: true, Category: temporal.ApplicationErrorCategoryBenign, Details: []any{f},
	})
}

// retryable is an activity error that Temporal retries.
func retryable(class ecw.Class, f Failure) error {
	options := temporal.ApplicationErrorOptions{Category: temporal.ApplicationErrorCategoryBenign, Details: []any{f}}
	return temporal.NewApplicationErrorWithOptions(f.Message, string(class), options)
}

// lookUpFailed turns an error of the look-up into an activity error. However a search is refused, that says nothing about
// the reading: what was unknown before still is.
func lookUpFailed(err error) error {
	var e *ecw.Error
	if errors.As(err, &e) && e.Class == ecw.ClassPermanentData {
		return failure(ecw.ClassUnknown, Failure{Code: e.Code, HTTPStatus: e.HTTPStatus, Message: "eCW could not be asked whether an earlier delivery arrived"})
	}
	return classified(err)
}

// classified turns an error of the eCW client into an activity error.
func classified(err error) error {
	var e *ecw.Error
	if !errors.As(err, &e) {
		return failure(ecw.ClassUnknown, Failure{Code: "internal", Message: "The delivery broke off inside Vantrexia"})
	}
	return failure(e.Class, Failure{Code: e.Code, HTTPStatus: e.HTTPStatus, Message: e.Message, RetryAt: e.RetryAt})
}

func notSent(err error) error {
	return temporal.NewApplicationErrorWithOptions(err.Error(), TypeNotSent, temporal.ApplicationErrorOptions{NonRetryable: true})
}
