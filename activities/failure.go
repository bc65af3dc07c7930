package activities

import (
	"errors"
	"net/http"
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
	// RetryAt is set when eCW throttled the request, or our own limit held it back: nothing may be sent before this moment.
	RetryAt time.Time
	// Unavailable means that eCW as a whole could not be reached or failed, not at this reading alone.
	Unavailable bool `json:",omitempty"`
	// RefusesUs means that eCW refuses our credentials whatever we ask, not at this reading alone.
	RefusesUs bool `json:",omitempty"`
	// Place is the place in the queue for the request limit that is held meanwhile.
	Place time.Time `json:",omitzero"`
	// Trial means that the delivery was to decide whether the circuit closes.
	Trial bool `json:",omitempty"`
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

// classify reads the class and the recorded part out of an error of the eCW client.
func classify(err error) (ecw.Class, Failure) {
	var e *ecw.Error
	if !errors.As(err, &e) {
		return ecw.ClassUnknown, Failure{Code: "internal", Message: "The delivery broke off inside Vantrexia"}
	}
	return e.Class, Failure{
		Code: e.Code, HTTPStatus: e.HTTPStatus, Message: e.Message, RetryAt: e.RetryAt, Unavailable: e.Unavailable(),
		RefusesUs: e.Class == ecw.ClassPermanentCredentials && (e.Op == ecw.OpToken || e.HTTPStatus == http.StatusUnauthorized),
	}
}

func notSent(err error) error {
	return temporal.NewApplicationErrorWithOptions(err.Error(), TypeNotSent, temporal.ApplicationErrorOptions{NonRetryable: true})
}
