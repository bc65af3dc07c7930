package simulate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// tries is how often a request is made that the API does not answer. Sending a reading again is safe: the API
// stores it once.
const tries = 5

// client speaks to the API.
type client struct {
	base  string
	token string
	http  *http.Client
}

// apiError is an answer of the API that is not a success.
type apiError struct {
	status int
	wait   time.Duration // of a 429: how long until the request may be sent again
	Detail string        `json:"detail"`
	Code   string        `json:"code"`
}

func (e *apiError) Error() string { return fmt.Sprintf("HTTP %d %s: %s", e.status, e.Code, e.Detail) }

// call makes a request and reads the JSON answer into out. It tries again when the API is away or fails on
// its side, and as often as the API says that it takes the request later.
func (c *client) call(ctx context.Context, method, path string, query url.Values, in, out any) (status int, err error) {
	for pause := 200 * time.Millisecond; ; {
		status, err = c.once(ctx, method, path, query, in, out)
		var refused *apiError
		isLimit := errors.As(err, &refused) && refused.wait > 0
		if err == nil || !isLimit && (refused != nil && refused.status < 500 || pause >= 200*time.Millisecond<<(tries-1)) {
			return status, err
		}

		wait := pause
		if isLimit {
			wait = refused.wait
		} else {
			pause *= 2
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func (c *client) once(ctx context.Context, method, path string, query url.Values, in, out any) (int, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return 0, err
	}

	req, err := http.NewRequestWithContext(ctx, method, c.base+path+"?"+query.Encode(), bytes.NewReader(body))
	if err != nil {
		return 0, err
	}

	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Type", "application/json")
	res, err := c.http.Do(req)
	if err != nil {
		return 0, fmt.Errorf("the API at %s does not answer; start it with `make run`, or give its address with --url: %w", c.base, err)
	}
	defer res.Body.Close()

	answer, err := io.ReadAll(io.LimitReader(res.Body, 10<<20))
	if err != nil {
		return 0, err
	}
	if res.StatusCode >= 300 {
		refused := &apiError{status: res.StatusCode}
		if seconds, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && res.StatusCode == http.StatusTooManyRequests {
			refused.wait = time.Duration(seconds) * time.Second
		}
		if json.Unmarshal(answer, refused) != nil {
			refused.Detail = "no explanation: is this the Vantrexia API?"
		}
		return res.StatusCode, refused
	}
	return res.StatusCode, json.Unmarshal(answer, out)
}
