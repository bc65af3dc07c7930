package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// apiClient is a caller of the API, for commands that administrators use.
type apiClient struct {
	base   string
	token  string
	client *http.Client
}

// newAPIClient returns a caller with the token, or else with VANTREXIA_TOKEN. base is the API's address; this
// machine's when it is empty.
func newAPIClient(cfg config, base, token string) (apiClient, error) {
	token = cmp.Or(token, cfg.CommandToken)
	if token == "" {
		return apiClient{}, errors.New("no token for the API: set VANTREXIA_TOKEN to the access token of an administrator, " +
			"or use --local with --reason on the database")
	}
	client := &http.Client{}
	if base == "" {
		base, client = cfg.apiURL(), cfg.localClient()
	} else if err := cfg.checkAPITLS(base); err != nil {
		return apiClient{}, err
	}
	client.Timeout = 30 * time.Second
	return apiClient{
		base:   strings.TrimRight(base, "/") + "/api/v1",
		token:  token,
		client: client,
	}, nil
}

// call makes a request and decodes the answer into out, when there is an out.
func (r apiClient) call(ctx context.Context, method, path string, body, out any) error {
	var sent io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		sent = bytes.NewReader(text)
	}

	req, err := http.NewRequestWithContext(ctx, method, r.base+path, sent)
	if err != nil {
		return fmt.Errorf("--url: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	req.Header.Set("Content-Type", "application/json")

	res, err := r.client.Do(req)
	if err != nil {
		return fmt.Errorf("the API does not answer, check that it runs and that --url is right: %w", err)
	}
	defer res.Body.Close()

	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("the API's answer was cut off: %w", err)
	}
	if res.StatusCode >= http.StatusBadRequest {
		return apiRefused(res.StatusCode, text)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("the API's answer cannot be read, check --url: %w", err)
	}
	return nil
}

// apiError is what the API says about a request that it refuses.
type apiError struct {
	status int
	code   string
	detail string
}

func (e *apiError) Error() string { return fmt.Sprintf("the API answered %d: %s", e.status, e.detail) }

// apiRefused reads the answer to a request that the API refuses.
func apiRefused(status int, text []byte) error {
	var refused struct {
		Detail string `json:"detail"`
		Code   string `json:"code"`
	}
	if json.Unmarshal(text, &refused) != nil || refused.Detail == "" {
		return fmt.Errorf("the API answered %d %s, check --url", status, http.StatusText(status))
	}
	return &apiError{status: status, code: refused.Code, detail: refused.Detail}
}
