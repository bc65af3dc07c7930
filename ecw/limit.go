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
// process together. It must be safe for concurrent use.
type Limiter interface {
	// Allow counts one request, or says how long to wait before the next can be sent; 0 lets it go now.
	Allow(ctx context.Context) (wait time.Duration, err error)
	// Pause holds every request back for a while: eCW answered 429, and blocks all that we send until then.
	Pause(ctx context.Context, wait time.Duration) error
}

// allowed returns an error of [ClassThrottled] when the limiter holds the request back, or cannot answer: then nothing
// is sent either, since a practice that is blocked for exceeding its limit is worse off than one that waits.
func (w *wire) allowed(ctx context.Context, op string) error {
	if w.limiter == nil {
		return nil
	}
	wait, err := w.limiter.Allow(ctx)
	switch {
	case err != nil:
		return &Error{Class: ClassThrottled, Op: op, Code: CodeRateLimited, RetryAt: w.now().Add(limiterRetry),
			Message: "the request limit could not be asked, so nothing was sent", Err: err}
	case wait > 0:
		return &Error{Class: ClassThrottled, Op: op, Code: CodeRateLimited, RetryAt: w.now().Add(wait),
			Message: "the practice's own request limit is used up; nothing was sent"}
	}
	return nil
}

// countRepeats counts the requests that Go's transport has repeated by itself: it does so with a GET that meets a broken
// connection. They have left already, so the answers change nothing.
func (w *wire) countRepeats(ctx context.Context, repeats int) {
	for ; w.limiter != nil && repeats > 0; repeats-- {
		_, _ = w.limiter.Allow(context.WithoutCancel(ctx))
	}
}

// pause tells the others of a 429. If that fails, each of them meets its own.
func (w *wire) pause(ctx context.Context, header http.Header) {
	if w.limiter == nil {
		return
	}
	now := w.now()
	_ = w.limiter.Pause(context.WithoutCancel(ctx), retryAt(header, now).Sub(now))
}
