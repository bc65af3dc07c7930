package db

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/keyring"
)

// APIKey is the key of a machine. The names of its devices are stored sealed.
type APIKey struct {
	ID           uuid.UUID
	PracticeCode string
	Name         string
	Role         string
	Devices      []string // those that it may post for; empty: all
	Prefix       string
	KeyHash      []byte
	CreatedAt    time.Time
	CreatedBy    string
	Reason       string
	ExpiresAt    *time.Time
	LastUsedAt   *time.Time
	RevokedAt    *time.Time
	RevokedBy    *string
	RevokeReason string
}

func devicesCell(practice string, id uuid.UUID) keyring.Cell {
	return keyring.Cell{Table: "api_keys", Column: "devices", Practice: practice, Row: id.String()}
}

// openDevices opens the names of a key's devices, which stand in clear when they are not sealed yet.
func (q *Queries) openDevices(practice string, id uuid.UUID, sealed []byte, plain []string) ([]string, error) {
	if sealed == nil {
		return plain, nil
	}
	cell := devicesCell(practice, id)
	opened, err := q.ring().Open(cell, sealed)
	if err != nil {
		return nil, err
	}
	devices := []string{}
	if json.Unmarshal(opened, &devices) != nil {
		return nil, fmt.Errorf("%s is no list of devices", cell)
	}
	return devices, nil
}

func (q *Queries) openAPIKey(k sealedAPIKey, err error) (APIKey, error) {
	if err != nil {
		return APIKey{}, err
	}
	devices, err := q.openDevices(k.PracticeCode, k.ID, k.Devices, k.PlainDevices)
	return APIKey{
		ID:           k.ID,
		PracticeCode: k.PracticeCode,
		Name:         k.Name,
		Role:         k.Role,
		Devices:      devices,
		Prefix:       k.Prefix,
		KeyHash:      k.KeyHash,
		CreatedAt:    k.CreatedAt,
		CreatedBy:    k.CreatedBy,
		Reason:       k.Reason,
		ExpiresAt:    k.ExpiresAt,
		LastUsedAt:   k.LastUsedAt,
		RevokedAt:    k.RevokedAt,
		RevokedBy:    k.RevokedBy,
		RevokeReason: k.RevokeReason,
	}, err
}

// CreateAPIKeyParams is a key to store.
type CreateAPIKeyParams struct {
	PracticeCode string
	Name         string
	Role         string
	Devices      []string // empty: all
	Prefix       string
	KeyHash      []byte
	CreatedBy    string
	Reason       string
	ExpiresAt    *time.Time
}

// CreateAPIKey stores a key.
func (q *Queries) CreateAPIKey(ctx context.Context, arg CreateAPIKeyParams) (APIKey, error) {
	id, err := uuid.NewRandom() // here and not in the database: what is sealed is bound to it
	if err != nil {
		return APIKey{}, err
	}
	plain, err := json.Marshal(append([]string{}, arg.Devices...))
	if err != nil {
		return APIKey{}, err
	}
	devices, err := q.ring().Seal(devicesCell(arg.PracticeCode, id), plain)
	if err != nil {
		return APIKey{}, err
	}

	return q.openAPIKey(q.createAPIKey(ctx, createAPIKeyParams{
		ID:           id,
		PracticeCode: arg.PracticeCode,
		Name:         arg.Name,
		Role:         arg.Role,
		Devices:      devices,
		Prefix:       arg.Prefix,
		KeyHash:      arg.KeyHash,
		CreatedBy:    arg.CreatedBy,
		Reason:       arg.Reason,
		ExpiresAt:    arg.ExpiresAt,
	}))
}

// GetAPIKeyParams names a key.
type GetAPIKeyParams = getAPIKeyParams

// GetAPIKey returns a key.
func (q *Queries) GetAPIKey(ctx context.Context, arg GetAPIKeyParams) (APIKey, error) {
	return q.openAPIKey(q.getAPIKey(ctx, arg))
}

// ListAPIKeys lists all keys of a practice, the newest first.
func (q *Queries) ListAPIKeys(ctx context.Context, practiceCode string) ([]APIKey, error) {
	rows, err := q.listAPIKeys(ctx, practiceCode)
	if err != nil {
		return nil, err
	}
	keys := make([]APIKey, len(rows))
	for i, row := range rows {
		if keys[i], err = q.openAPIKey(row, nil); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// FindAPIKeyParams is the hash of a key.
type FindAPIKeyParams = findAPIKeyParams

// FindAPIKeyRow is what a key allows.
type FindAPIKeyRow struct {
	ID        uuid.UUID
	Role      string
	Devices   []string // empty: all
	ExpiresAt *time.Time
}

// FindAPIKey finds a key that may be used now.
func (q *Queries) FindAPIKey(ctx context.Context, arg FindAPIKeyParams) (FindAPIKeyRow, error) {
	row, err := q.findAPIKey(ctx, arg)
	if err != nil {
		return FindAPIKeyRow{}, err
	}
	devices, err := q.openDevices(arg.PracticeCode, row.ID, row.Devices, row.PlainDevices)
	return FindAPIKeyRow{row.ID, row.Role, devices, row.ExpiresAt}, err
}

// RevokeAPIKeyParams says which key ends, and why.
type RevokeAPIKeyParams = revokeAPIKeyParams

// RevokeAPIKey ends a key. The first revocation counts.
func (q *Queries) RevokeAPIKey(ctx context.Context, arg RevokeAPIKeyParams) (APIKey, error) {
	return q.openAPIKey(q.revokeAPIKey(ctx, arg))
}
