package ecw

import (
	"context"
	"net/http"
	"time"
)

// CodeRateLimited is the [Error.Code] of a request that our own [Limiter] held back: nothing has left for eCW.
const CodeRateLimited = "rate_limited"

// limiterRetry is when to ask again a limiter that could not answer.
const limiterRetry = 10 * time.Second

// Limiter keeps a practice below eCW's limit of 250 requests a minute, which counts FHIR and token requests of every
// process together, and bounds how many are under way at once. It must be safe for concurrent use.
type Limiter interface {
	// Begin lets one request leave, at once or after a short wait of its own, or says how long to wait before the next try;
	// then nothing may be sent. end must be called when the request is over.
	Begin(ctx context.Context) (end func(context.Context, Observed), wait time.Duration, err error)
	// Pause holds every request back for a while: eCW answered 429, and blocks all that we send until then.
	Pause(ctx context.Context, wait time.Duration) error
}

// Observed is how eCW bore a request.
type Observed struct {
	// Took is how long it was under way.
	Took time.Duration
	// Answered means that an answer came which is neither a fault of the server (5xx) nor a 429.
	Answered bool
	// Overloaded means that no answer came in time, or a fault of the server (5xx).
	Overloaded bool
	// Repeats counts the requests that Go's transport has sent again by itself: it does so with a GET that meets a broken
	// connection.
	Repeats int
}

// begin returns an error of [ClassThrottled] when the limiter holds the request back, or cannot answer: then nothing
// is sent either, since a practice that is blocked for exceeding its limit is worse off than one that waits.
func (w *wire) begin(ctx context.Context, op string) (end func(context.Context, Observed), err error) {
	if w.limiter == nil {
		return func(context.Context, Observed) {}, nil
	}

	end, wait, err := w.limiter.Begin(ctx)
	switch {
	case err != nil:
		return nil, &Error{
			Class:   ClassThrottled,
			Op:      op,
			Code:    CodeRateLimited,
			RetryAt: w.now().Add(limiterRetry),
			Message: "the limit of requests to eCW could not be asked, so nothing was sent",
			Err:     err,
		}
	case wait > 0:
		return nil, &Error{
			Class:   ClassThrottled,
			Op:      op,
			Code:    CodeRateLimited,
			RetryAt: w.now().Add(wait),
			Message: "our own limit of requests to eCW is reached; nothing was sent",
		}
	}

	return end, nil
}

// pause tells the others of a 429. If that fails, each of them meets its own.
func (w *wire) pause(ctx context.Context, header http.Header) {
	if w.limiter == nil {
		return
	}
	now := w.now()
	_ = w.limiter.Pause(context.WithoutCancel(ctx), retryAt(header, now).Sub(now))
}

// observed is what an exchange tells of eCW's load.
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
