package api

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
)

// apiKey is an API key as the API shows it: never the key itself.
type apiKey struct {
	ID         uuid.UUID    `json:"id"`
	Name       string       `json:"name"`
	Role       account.Role `json:"role"`
	Devices    []string     `json:"devices"`
	Prefix     string       `json:"prefix"`
	CreatedAt  time.Time    `json:"created_at"`
	CreatedBy  string       `json:"created_by"`
	ExpiresAt  *time.Time   `json:"expires_at"`
	LastUsedAt *time.Time   `json:"last_used_at"`
	RevokedAt  *time.Time   `json:"revoked_at"`
	RevokedBy  *string      `json:"revoked_by"`
}

// newAPIKey is the answer that makes a key, the only one with its text.
type newAPIKey struct {
	apiKey
	Key string `json:"key"`
}

type apiKeyRequest struct {
	Name      string       `json:"name"`
	Role      account.Role `json:"role"`
	Devices   []string     `json:"devices"`
	ExpiresAt *time.Time   `json:"expires_at"`
}

func (s *server) createKey(c echo.Context) error {
	req := apiKeyRequest{Role: account.Service}
	if err := bind(c, &req); err != nil {
		return err
	}

	row, text, err := s.machines.CreateKey(c.Request().Context(), account.NewKey(req), account.ByCaller(callerOf(c)))
	if err != nil {
		return accountError(err)
	}

	setLocation(c, "/api/v1/api-keys/"+row.ID.String()+"/")
	return c.JSON(http.StatusCreated, newAPIKey{apiKey: showKey(row), Key: text})
}

func (s *server) listKeys(c echo.Context) error {
	rows, err := s.machines.Keys(c.Request().Context())
	if err != nil {
		return fmt.Errorf("list API keys: %w", err)
	}

	keys := make([]apiKey, len(rows))
	for i, row := range rows {
		keys[i] = showKey(row)
	}
	ids := textOfEach(rows, func(row db.APIKey) uuid.UUID { return row.ID })
	if err := s.showing(c, s.eventOf(callerOf(c), audit.APIKeySearch, apiKeyResource, ids)); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, list[apiKey]{Count: int64(len(keys)), CountIsExact: true, Results: keys})
}

func (s *server) getKey(c echo.Context) error {
	row, err := s.machines.Key(c.Request().Context(), idParam(c))
	if err != nil {
		return keyError(c, err)
	}
	if err := s.showing(c, s.eventOf(callerOf(c), audit.APIKeyRead, apiKeyResource, textOf(row.ID))); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, showKey(row))
}

// revokeKey may be repeated. The key stays in the list.
func (s *server) revokeKey(c echo.Context) error {
	row, err := s.machines.RevokeKey(c.Request().Context(), idParam(c), account.ByCaller(callerOf(c)))
	if err != nil {
		return keyError(c, err)
	}
	return c.JSON(http.StatusOK, showKey(row))
}

func keyError(c echo.Context, err error) error {
	if errors.Is(err, account.ErrUnknownKey) {
		return notFound("API key", idParam(c).String())
	}
	return err
}

func showKey(row db.APIKey) apiKey {
	return apiKey{
		ID:         row.ID,
		Name:       row.Name,
		Role:       account.Role(row.Role),
		Devices:    row.Devices,
		Prefix:     row.Prefix,
		CreatedAt:  row.CreatedAt,
		CreatedBy:  row.CreatedBy,
		ExpiresAt:  row.ExpiresAt,
		LastUsedAt: row.LastUsedAt,
		RevokedAt:  row.RevokedAt,
		RevokedBy:  row.RevokedBy,
	}
}

type revokeTokenRequest struct {
	TokenID string `json:"jti"`
	Reason  string `json:"reason"`
}

// revokeToken has a token refused before it expires. Nothing tells whether such a token was ever signed.
func (s *server) revokeToken(c echo.Context) error {
	var req revokeTokenRequest
	if err := bind(c, &req); err != nil {
		return err
	}

	by := account.ByCaller(callerOf(c))
	by.Reason = req.Reason
	if err := s.machines.Deny(c.Request().Context(), req.TokenID, by); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}
