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
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/account"
)

// remoteAccounts are the accounts behind the API.
type remoteAccounts struct {
	base   string
	token  string
	client *http.Client
}

func newRemoteAccounts(cfg config, base, token string) (accounts, error) {
	token = cmp.Or(token, cfg.CommandToken)
	if token == "" {
		return nil, errors.New("no token for the API: set VANTREXIA_TOKEN to the access token of an administrator, or use --local with --reason " +
			"on the database")
	}
	return remoteAccounts{
		base:   strings.TrimRight(cmp.Or(base, localURL(cfg.APIAddress)), "/") + "/api/v1/users/",
		token:  token,
		client: &http.Client{Timeout: 30 * time.Second},
	}, nil
}

func (r remoteAccounts) add(ctx context.Context, want account.NewUser) (cliUser, string, error) {
	body := map[string]string{
		"email":      want.Email,
		"first_name": want.FirstName,
		"last_name":  want.LastName,
		"role":       string(want.Role),
	}
	if want.Password != "" {
		body["password"] = want.Password
	}

	var made struct {
		cliUser
		Password *string `json:"temporary_password"`
	}
	if err := r.call(ctx, http.MethodPost, "", body, &made); err != nil {
		return cliUser{}, "", err
	}
	if made.Password == nil {
		return made.cliUser, "", nil
	}
	return made.cliUser, *made.Password, nil
}

func (r remoteAccounts) list(ctx context.Context, email string) (users []cliUser, err error) {
	for page := 1; ; page++ {
		query := url.Values{"page": {strconv.Itoa(page)}, "page_size": {strconv.Itoa(listPage)}}
		if email != "" {
			query.Set("email", email)
		}

		var list struct {
			Next    *string   `json:"next"`
			Results []cliUser `json:"results"`
		}
		if err := r.call(ctx, http.MethodGet, "?"+query.Encode(), nil, &list); err != nil {
			return nil, err
		}
		if users = append(users, list.Results...); list.Next == nil {
			return users, nil
		}
	}
}

func (r remoteAccounts) setDisabled(ctx context.Context, id uuid.UUID, disabled bool) error {
	return r.call(ctx, http.MethodPatch, id.String()+"/", map[string]bool{"disabled": disabled}, nil)
}

func (r remoteAccounts) resetPassword(ctx context.Context, id uuid.UUID, _ string) (string, error) {
	var made struct {
		Password string `json:"temporary_password"`
	}
	err := r.call(ctx, http.MethodPost, id.String()+"/reset-password/", nil, &made)
	return made.Password, err
}

func (r remoteAccounts) removeTOTP(ctx context.Context, id uuid.UUID) error {
	return r.call(ctx, http.MethodDelete, id.String()+"/totp/", nil, nil)
}

func (r remoteAccounts) unlock(ctx context.Context, id uuid.UUID) error {
	return r.call(ctx, http.MethodPost, id.String()+"/unlock/", nil, nil)
}

// call makes a request and decodes the answer into out, when there is an out.
func (r remoteAccounts) call(ctx context.Context, method, path string, body, out any) error {
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
