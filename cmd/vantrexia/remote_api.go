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

	"github.com/spf13/cobra"
)

// source says where a command finds what it manages: in the API, or in the database.
type source struct {
	local  bool
	reason string
	url    string
	token  string
}

// addFlags adds the flags to a command and its subcommands.
func (f *source) addFlags(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.BoolVar(&f.local, "local", false, "work on the database, without the API")
	flags.StringVar(&f.reason, "reason", "", "why, with --local")
	flags.StringVar(&f.url, "url", "", "the API's address (default: API_ADDRESS on this machine)")
	flags.StringVar(&f.token, "token", "", "an administrator's bearer token (default: VANTREXIA_TOKEN)")
}

// check returns an error when the reason is missing, or is not kept. changes is whether anything will be changed.
func (f source) check(changes bool) error {
	switch {
	case !f.local && f.reason != "":
		return errors.New("--reason is for --local: the API keeps who the token belongs to")
	case f.local && changes && strings.TrimSpace(f.reason) == "":
		return errors.New("--local needs --reason, which is kept with the change: say for example --reason \"first administrator\"")
	}
	return nil
}

// remoteAPI is a part of the API, asked by a command.
type remoteAPI struct {
	base   string
	token  string
	client *http.Client
}

// newRemoteAPI returns the part under /api/v1/ whose path is given.
func newRemoteAPI(cfg config, f source, path string) (remoteAPI, error) {
	token := cmp.Or(f.token, cfg.CommandToken)
	if token == "" {
		return remoteAPI{}, errors.New("no token for the API: set VANTREXIA_TOKEN to the access token of an administrator, " +
			"or use --local with --reason on the database")
	}
	return remoteAPI{
		base:   strings.TrimRight(cmp.Or(f.url, localURL(cfg.APIAddress)), "/") + "/api/v1/" + path,
		token:  token,
		client: &http.Client{Timeout: 30 * time.Second},
	}, nil
}

// call makes a request and decodes the answer into out, when there is an out.
func (r remoteAPI) call(ctx context.Context, method, path string, body, out any) error {
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

// apiRefused is what the API says about a request that it refuses.
func apiRefused(status int, text []byte) error {
	var refused struct {
		Detail string `json:"detail"`
	}
	if json.Unmarshal(text, &refused) != nil || refused.Detail == "" {
		return fmt.Errorf("the API answered %d %s, check --url", status, http.StatusText(status))
	}
	return fmt.Errorf("the API answered %d: %s", status, refused.Detail)
}
