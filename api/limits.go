package api

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/time/rate"
)

// Limits are how many requests under /api/ are taken; 0 is any number.
//
// Each process counts for itself, in memory. A count that all processes share would cost a round trip for each
// reading, and would stop every request while the database is away. So behind n processes a caller gets up to
// n times as much, and after a restart everybody begins anew. What must hold over all processes does not rest
// on these limits: an account is locked in the database, and requests to eCW are counted there (package gate).
type Limits struct {
	// Ingestion is how many times a second a caller may post readings. A batch counts once.
	Ingestion int
	// Callers is how many other requests a caller may make in an hour.
	Callers int
	// Anonymous is how many requests without a valid token an address may make in an hour.
	Anonymous int
	// SignIn is how many times a minute an address may try to sign in, and a person their own password or code.
	SignIn int
}

// limits are the buckets of each kind of request; nil where there is no limit.
type limits struct{ ingestion, callers, anonymous, signIn *buckets }

func newLimits(l Limits) limits {
	return limits{
		ingestion: newBuckets(l.Ingestion, time.Second),
		callers:   newBuckets(l.Callers, time.Hour),
		anonymous: newBuckets(l.Anonymous, time.Hour),
		signIn:    newBuckets(l.SignIn, time.Minute),
	}
}

const (
	headerLimit     = "X-RateLimit-Limit"
	headerRemaining = "X-RateLimit-Remaining"
	headerReset     = "X-RateLimit-Reset"
)

// refusalKey is the key under which limitRequests keeps why it knows no caller.
const refusalKey = "refusal"

// limitRequests finds out who the caller is and takes the request out of the caller's bucket, or out of the
// address's when the token is missing or not valid. An attempt to sign in is counted before anything is
// computed for it.
func (s *server) limitRequests(next echo.HandlerFunc) echo.HandlerFunc {
	identify := s.authenticate(func(echo.Context) error { return nil })
	return func(c echo.Context) error {
		if !isAPI(c) {
			return next(c)
		}

		address := BlockOf(s.TrustedProxies.clientOf(c.Request())).String()
		if isSignIn(c) {
			return s.limits.signIn.admit(c, address, next)
		}

		err := identify(c)
		if err == nil {
			return s.limits.ofCaller(c).admit(c, callerOf(c).Subject, next)
		}

		c.Set(refusalKey, err)
		var refused *Error
		if errors.As(err, &refused) && refused.Status == http.StatusUnauthorized {
			return s.limits.anonymous.admit(c, address, next)
		}
		s.limits.anonymous.show(c, address) // whether the token is valid is not known
		return next(c)
	}
}

// identified lets a request through whose caller limitRequests has found out.
func identified(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if refused, _ := c.Get(refusalKey).(error); refused != nil {
			return refused
		}
		return next(c)
	}
}

// isSignIn reports whether the request tries a password, a code or a refresh token.
func isSignIn(c echo.Context) bool {
	return slices.ContainsFunc([]string{"login", "token", "oidc"}, func(kind string) bool {
		return strings.HasPrefix(c.Request().URL.Path+"/", "/api/v1/auth/"+kind+"/")
	})
}

// ofCaller are the buckets that a known caller's request is taken from.
func (l limits) ofCaller(c echo.Context) *buckets {
	path := c.Request().URL.Path
	posts := path == "/api/v1/observations" || path == "/api/v1/observations/batch" || strings.HasPrefix(path, "/api/v1/ingestion/")
	if posts && c.Request().Method == http.MethodPost {
		return l.ingestion
	}
	if strings.HasPrefix(path, "/api/v1/auth/me/") {
		return l.signIn // like a sign-in, it tries a password or a code
	}
	return l.callers
}

// mostBuckets bounds each of the two generations of buckets. Somebody with more addresses than that has their
// buckets filled again early, and would get nearly as much without.
const mostBuckets = 10_000

// buckets are the token buckets of one kind of request: one of the same size for each caller or address. A
// bucket is full at first, and is filled evenly.
type buckets struct {
	size int
	rate rate.Limit // a second

	// Those used last are in recent. When it is full it becomes earlier, and what was there is forgotten. So
	// the memory is bounded, and a bucket is forgotten only after so many others were used.
	mu              sync.Mutex
	recent, earlier map[string]*rate.Limiter
}

func newBuckets(size int, per time.Duration) *buckets {
	if size <= 0 {
		return nil
	}
	return &buckets{
		size:   size,
		rate:   rate.Limit(float64(size) / per.Seconds()),
		recent: map[string]*rate.Limiter{},
	}
}

// of returns the bucket of a caller or an address.
func (b *buckets) of(key string) *rate.Limiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	if bucket := b.recent[key]; bucket != nil {
		return bucket
	}

	bucket := b.earlier[key]
	if bucket == nil {
		bucket = rate.NewLimiter(b.rate, b.size)
	}
	if len(b.recent) == mostBuckets {
		b.earlier, b.recent = b.recent, map[string]*rate.Limiter{}
	}
	b.recent[key] = bucket
	return bucket
}

// admit takes the request out of a bucket and goes on, or refuses it.
func (b *buckets) admit(c echo.Context, key string, next echo.HandlerFunc) error {
	if b == nil {
		return next(c)
	}

	allowed := b.of(key).Allow()
	tokens := b.show(c, key)
	if allowed {
		return next(c)
	}
	return tooMany(b.time(1 - tokens))
}

// show writes how much is left in a bucket into the answer's headers, and returns it.
func (b *buckets) show(c echo.Context, key string) float64 {
	if b == nil {
		return 0
	}

	tokens := b.of(key).Tokens()
	header := c.Response().Header()
	header.Set(headerLimit, strconv.Itoa(b.size))
	header.Set(headerRemaining, strconv.Itoa(max(0, int(tokens))))
	header.Set(headerReset, seconds(b.time(float64(b.size)-tokens)))
	return tokens
}

// time is how long so many tokens take to come.
func (b *buckets) time(tokens float64) time.Duration {
	return time.Duration(tokens / float64(b.rate) * float64(time.Second))
}

// seconds rounds up to whole seconds, for a header.
func seconds(d time.Duration) string { return strconv.Itoa(max(0, int(math.Ceil(d.Seconds())))) }

func tooMany(wait time.Duration) *Error {
	wait = max(wait, time.Second)
	return &Error{
		Status:     http.StatusTooManyRequests,
		Code:       "rate_limited",
		Detail:     fmt.Sprintf("Too many requests. Nothing was done. Send the request again in %s seconds.", seconds(wait)),
		RetryAfter: wait,
	}
}
