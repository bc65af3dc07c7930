package main

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/account"
)

// remoteAccounts are the accounts behind the API.
type remoteAccounts struct{ apiClient }

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
	if err := r.call(ctx, http.MethodPost, "/users/", body, &made); err != nil {
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
		if err := r.call(ctx, http.MethodGet, "/users/?"+query.Encode(), nil, &list); err != nil {
			return nil, err
		}
		if users = append(users, list.Results...); list.Next == nil {
			return users, nil
		}
	}
}

func (r remoteAccounts) setDisabled(ctx context.Context, id uuid.UUID, disabled bool) error {
	return r.call(ctx, http.MethodPatch, "/users/"+id.String()+"/", map[string]bool{"disabled": disabled}, nil)
}

func (r remoteAccounts) resetPassword(ctx context.Context, id uuid.UUID, _ string) (string, error) {
	var made struct {
		Password string `json:"temporary_password"`
	}
	err := r.call(ctx, http.MethodPost, "/users/"+id.String()+"/reset-password/", nil, &made)
	return made.Password, err
}

func (r remoteAccounts) removeTOTP(ctx context.Context, id uuid.UUID) error {
	return r.call(ctx, http.MethodDelete, "/users/"+id.String()+"/totp/", nil, nil)
}

func (r remoteAccounts) unlock(ctx context.Context, id uuid.UUID) error {
	return r.call(ctx, http.MethodPost, "/users/"+id.String()+"/unlock/", nil, nil)
}
