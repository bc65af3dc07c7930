// Package proof reports whether every reading was delivered exactly once. Devices send readings and remember
// which were accepted. An Operator waits until every reading is delivered or has failed. A Verdict compares
// the senders, our database and the EHR. `make chaos` and `make test-cluster` use it.
package proof

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// callTimeout bounds one request. The longest one processes the pending readings.
const callTimeout = 70 * time.Second

// Refusal is an answer that is not a success.
type Refusal struct {
	Status int // of HTTP
	Body   string
}

func (r *Refusal) Error() string { return fmt.Sprintf("HTTP %d: %s", r.Status, r.Body) }

// Call makes one request. in is sent as the JSON body, and the JSON answer is read into out; both may be nil.
// An answer that is not a success is returned as a *Refusal. The token may be empty.
func Call(ctx context.Context, method, url, token string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	var body io.Reader
	if in != nil {
		encoded, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(encoded)
	}

	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}

	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()

	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		return &Refusal{Status: res.StatusCode, Body: string(answer)}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}

// pause waits, or returns earlier when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
