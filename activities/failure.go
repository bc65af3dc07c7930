package activities

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
)

// TypeNotSent is the type of an error that came before anything left for eCW: the delivery may simply begin again.
const TypeNotSent = "not_sent"

// TypeForgotten is the type of an error that says that the database does not know the transmission, or knows it as
// finished: it was restored, or another writer came first.
const TypeForgotten = "forgotten"

// CodeNotVisibleYet is the [Failure.Code] of a delivery that sent nothing: an earlier one may have arrived, and eCW's
// searches may not show it yet.
const CodeNotVisibleYet = "not_visible_yet"

// Failure is the part of a failed delivery that is recorded. It holds no patient data.
type Failure struct {
	Class      ecw.Class
	Code       string
	HTTPStatus int
	Message    string
	// RetryAt is set when eCW throttled the request, and with CodeNotVisibleYet: nothing may be sent before this moment.
	RetryAt time.Time
	// Finding is what the failure says about eCW itself, not about this reading alone.
	Finding gate.Finding `json:",omitempty"`
	// LookingUp means that eCW was asked whether an earlier delivery had arrived: nothing was sent.
	LookingUp bool `json:",omitempty"`
	// Alone means that eCW answered others meanwhile.
	Alone bool `json:",omitempty"`
	// HeldBack says how the delivery waits that our own limits held back after it had begun.
	HeldBack *Admission `json:",omitempty"`
}

// failure is an activity error whose type is the class. It is expected, so it is neither retried by Temporal nor logged
// as an error of the worker.
func failure(f Failure) error { return ofType(string(f.Class), f) }

// ofType is a failure whose type is another one than its class.
func ofType(typ string, f Failure) error {
	return temporal.NewApplicationErrorWithOptions(f.Message, typ, temporal.ApplicationErrorOptions{
		NonRetryable: true,
		Category:     temporal.ApplicationErrorCategoryBenign,
		Details:      []any{f},
	})
}

// retryable is an activity error that Temporal retries.
func retryable(f Failure) error {
	options := temporal.ApplicationErrorOptions{Category: temporal.ApplicationErrorCategoryBenign, Details: []any{f}}
	return temporal.NewApplicationErrorWithOptions(f.Message, string(f.Class), options)
}

// failureOf reads the recorded part out of an error of the eCW client.
func failureOf(err error) Failure {
	var e *ecw.Error
	if !errors.As(err, &e) {
		return Failure{Class: ecw.ClassUnknown, Code: "internal", Message: "The delivery broke off inside Vantrexia"}
	}
	return Failure{
		Class:      e.Class,
		Code:       e.Code,
		HTTPStatus: e.HTTPStatus,
		Message:    e.Message,
		RetryAt:    e.RetryAt,
		Finding:    gate.FindingOf(e),
	}
}

// Describe reads the recorded part out of an activity's error. An error without it means that the worker was lost in the
// middle of the activity: whether eCW got the reading is then unknown.
func Describe(err error) Failure {
	var app *temporal.ApplicationError
	var f Failure
	if errors.As(err, &app) && app.HasDetails() && app.Details(&f) == nil {
		return f
	}
	return workerLost()
}

func workerLost() Failure {
	return Failure{
		Class:   ecw.ClassUnknown,
		Code:    "worker_lost",
		Message: "The worker stopped in the middle of the delivery",
	}
}

// isOfType reports whether an activity's error has the given type.
func isOfType(err error, typ string) bool {
	var app *temporal.ApplicationError
	return errors.As(err, &app) && app.Type() == typ
}

// notSent is the error of a step of ours that failed before anything left for eCW.
func notSent(what string, err error) error {
	if errors.Is(err, db.ErrForgotten) {
		return written(what, err)
	}
	return temporal.NewApplicationErrorWithOptions(what+": "+db.Cause(err), TypeNotSent, temporal.ApplicationErrorOptions{NonRetryable: true})
}

// written gives the error of a write its type, when the database does not know what was to be written.
func written(what string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, db.ErrForgotten) {
		return temporal.NewApplicationErrorWithOptions(what+": "+db.ErrForgotten.Error(), TypeForgotten, temporal.ApplicationErrorOptions{
			NonRetryable: true,
			Category:     temporal.ApplicationErrorCategoryBenign,
		})
	}
	return fmt.Errorf("%s: %w", what, err)
}
