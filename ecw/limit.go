package ecw

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// CodeRateLimited is the [Error.Code] of a request that our own [Limiter] held back. Nothing was sent to eCW.
const CodeRateLimited = "rate_limited"

// CodeBudgetUsed is the [Error.Code] of a request that a [Limiter] refused with [ErrBudgetUsed]. Nothing was
// sent to eCW.
const CodeBudgetUsed = "ecw_budget_used"

// ErrBudgetUsed is the error of a [Limiter] for requests that may use a part of the limit only, and have.
var ErrBudgetUsed = errors.New("the part of the limit for such requests is used up")

// limiterRetry is how long to wait before asking a limiter again that could not answer.
const limiterRetry = 10 * time.Second

// Limiter keeps a practice below eCW's limit of 250 requests a minute, and bounds how many are under way at
// once. eCW counts the FHIR and token requests of all processes together. A Limiter must be safe for
// concurrent use.
type Limiter interface {
	// Begin permits one request, at once or after a short wait of its own; end must be called when the
	// request is over. If wait is above zero the request is not permitted, and the caller may ask again after
	// that time. Beside ErrBudgetUsed it is above zero too.
	Begin(ctx context.Context) (end func(context.Context, Observed), wait time.Duration, err error)
	// Pause holds back every request for a while. It is called after a 429, when eCW refuses all that we send.
	Pause(ctx context.Context, wait time.Duration) error
}

// Observed says how eCW coped with a request.
type Observed struct {
	// Took is how long it was under way.
	Took time.Duration
	// Answered means that an answer came that is neither a fault of the server (5xx) nor a 429.
	Answered bool
	// Overloaded means that no answer came in time, or a fault of the server (5xx).
	Overloaded bool
	// Repeats is how often Go's transport has sent the request again by itself, as it does with a GET on a
	// broken connection.
	Repeats int
}

// begin asks the limiter. It returns an error of [ClassThrottled] if the limiter holds the request back or
// cannot answer. In the latter case nothing is sent either: to wait is better than to exceed the limit and be
// blocked by eCW.
func (w *wire) begin(ctx context.Context, op string) (end func(context.Context, Observed), err error) {
	if w.limiter == nil {
		return func(context.Context, Observed) {}, nil
	}

	end, wait, err := w.limiter.Begin(ctx)
	if err == nil && wait <= 0 {
		return end, nil
	}

	code, message := CodeRateLimited, "our own limit of requests to eCW is reached; nothing was sent"
	switch {
	case errors.Is(err, ErrBudgetUsed):
		code, message = CodeBudgetUsed, "such requests have used up their part of our limit of requests to eCW; nothing was sent"
	case err != nil:
		wait, message = limiterRetry, "the limit of requests to eCW could not be asked, so nothing was sent"
	}
	return nil, &Error{
		Class:   ClassThrottled,
		Op:      op,
		Code:    code,
		RetryAt: w.now().Add(wait),
		Message: message,
		Err:     err,
	}
}

// pause makes the limiter hold back all other requests after a 429. Its error is ignored: at worst each of
// them gets a 429 of its own.
func (w *wire) pause(ctx context.Context, header http.Header) {
	if w.limiter == nil {
		return
	}
	now := w.now()
	_ = w.limiter.Pause(context.WithoutCancel(ctx), retryAt(header, now).Sub(now))
}

// observed describes an exchange for the limiter.
func observed(took time.Duration, res *response, err error, repeats int) Observed {
	o := Observed{Took: took, Repeats: repeats}
	if err != nil {
		e, ok := err.(*Error)
		o.Overloaded = ok && e.Code == "timeout"
		return o
	}
	o.Overloaded = res.status >= http.StatusInternalServerError || res.bodyErr != nil && res.bodyErr.Code == "timeout"
	o.Answered = !o.Overloaded && res.status != http.StatusTooManyRequests
	return o
}
