package account

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
)

// The errors of API keys.
var (
	ErrKeyInvalid = errors.New("the API key is unknown, revoked or expired")
	// ErrKeyMistyped means a text that was never a key: it is cut off, or a character of it is wrong.
	ErrKeyMistyped = errors.New("the API key is mistyped")
	ErrUnknownKey  = errors.New("there is no such API key")
)

// FieldError says what is wrong with a field of a request.
type FieldError struct{ Field, Message string }

func (e *FieldError) Error() string { return e.Field + " " + e.Message }

// Machines are the API keys of a practice, and the tokens that are refused.
type Machines struct {
	store        *db.Store
	practiceCode string
	log          *slog.Logger

	keys   *recent[knownKey] // by hash
	tokens *recent[struct{}] // ids of tokens that are not denied
}

type knownKey struct {
	Caller
	expiresAt *time.Time
}

// NewMachines returns those of a practice.
func NewMachines(store *db.Store, practiceCode string, log *slog.Logger) *Machines {
	return &Machines{
		store:        store,
		practiceCode: practiceCode,
		log:          log,
		keys:         newRecent[knownKey](),
		tokens:       newRecent[struct{}](),
	}
}

// NewKey is an API key to make.
type NewKey struct {
	// Name is for people, 1 to 100 characters.
	Name string
	Role Role
	// Devices are those whose readings it may post: names, or beginnings of names that end in *. Empty: all.
	Devices []string
	// ExpiresAt is nil for a key that is good until it is revoked.
	ExpiresAt *time.Time
}

const maxKeyName = 100

func (k *NewKey) check(now time.Time) error {
	k.Name = strings.TrimSpace(k.Name)
	switch length := len([]rune(k.Name)); {
	case length == 0 || length > maxKeyName:
		return &FieldError{"name", fmt.Sprintf("is empty or longer than %d characters: say which machine uses the key", maxKeyName)}
	case !k.Role.Known():
		return &FieldError{"role", "is not a role: use " + JoinRoles(Roles())}
	case k.ExpiresAt != nil && !k.ExpiresAt.After(now):
		return &FieldError{"expires_at", "is in the past"}
	}
	if wrong := checkDevices(k.Devices); wrong != "" {
		return &FieldError{"devices", wrong}
	}
	if len(k.Devices) > 0 && !k.Role.Has(PostReadings) {
		return &FieldError{"devices", "says for which devices it may post, but the role posts no readings"}
	}
	return nil
}

// CreateKey makes an API key and returns its text, which nobody can find out later.
func (m *Machines) CreateKey(ctx context.Context, k NewKey, by By) (db.APIKey, string, error) {
	if err := k.check(time.Now()); err != nil {
		return db.APIKey{}, "", err
	}
	text, err := newKey()
	if err != nil {
		return db.APIKey{}, "", err
	}

	devices := k.Devices
	if devices == nil {
		devices = []string{}
	}
	var row db.APIKey
	err = m.store.InTx(ctx, func(q *db.Queries) (err error) {
		row, err = q.CreateAPIKey(ctx, db.CreateAPIKeyParams{
			PracticeCode: m.practiceCode,
			Name:         k.Name,
			Role:         string(k.Role),
			Devices:      devices,
			Prefix:       text[:shownKeyChars],
			KeyHash:      keyHash(text),
			CreatedBy:    by.Actor,
			Reason:       by.Reason,
			ExpiresAt:    k.ExpiresAt,
		})
		if err != nil {
			return err
		}
		return audit.Record(ctx, q, by.event(m.practiceCode, audit.APIKeyCreate, apiKeyResource, row.ID.String()))
	})
	if err != nil {
		return db.APIKey{}, "", fmt.Errorf("store an API key: %w", err)
	}
	m.log.InfoContext(ctx, "API key made", "key_id", row.ID, "role", row.Role, "by", by.Actor)
	return row, text, nil
}

// Keys lists all API keys, the newest first.
func (m *Machines) Keys(ctx context.Context) ([]db.APIKey, error) {
	return m.store.ListAPIKeys(ctx, m.practiceCode)
}

// Key returns an API key, or [ErrUnknownKey].
func (m *Machines) Key(ctx context.Context, id uuid.UUID) (db.APIKey, error) {
	row, err := m.store.GetAPIKey(ctx, db.GetAPIKeyParams{PracticeCode: m.practiceCode, ID: id})
	if db.IsNotFound(err) {
		return row, ErrUnknownKey
	}
	return row, err
}

// RevokeKey ends the use of an API key, for good. This process refuses it at once, others within five seconds.
func (m *Machines) RevokeKey(ctx context.Context, id uuid.UUID, by By) (db.APIKey, error) {
	var row db.APIKey
	err := m.store.InTx(ctx, func(q *db.Queries) (err error) {
		row, err = q.RevokeAPIKey(ctx, db.RevokeAPIKeyParams{
			PracticeCode: m.practiceCode,
			ID:           id,
			RevokedBy:    &by.Actor,
			RevokeReason: by.Reason,
		})
		if err != nil {
			return err
		}
		return audit.Record(ctx, q, by.event(m.practiceCode, audit.APIKeyRevoke, apiKeyResource, id.String()))
	})
	if db.IsNotFound(err) {
		return row, ErrUnknownKey
	}
	if err != nil {
		return row, fmt.Errorf("revoke an API key: %w", err)
	}

	m.keys.forget(string(row.KeyHash))
	m.log.InfoContext(ctx, "API key revoked", "key_id", id, "by", by.Actor)
	return row, nil
}

// CheckKey returns the caller that an API key stands for, or [ErrKeyInvalid], also for a key of another
// practice; with the caller for whom it was, if it is revoked or has expired. [ErrKeyMistyped] is found without the database.
func (m *Machines) CheckKey(ctx context.Context, text string) (Caller, error) {
	if !wellFormed(text) {
		return Caller{}, ErrKeyMistyped
	}

	hash, now := keyHash(text), time.Now()
	known, ok := m.keys.get(string(hash))
	if ok && (known.expiresAt == nil || known.expiresAt.After(now)) {
		return known.Caller, nil
	}

	row, err := m.store.FindAPIKey(ctx, db.FindAPIKeyParams{PracticeCode: m.practiceCode, KeyHash: hash})
	if db.IsNotFound(err) {
		return m.formerCaller(ctx, hash)
	}
	if err != nil {
		return Caller{}, fmt.Errorf("look an API key up: %w", err)
	}

	caller := keyCaller(row.ID, row.Role)
	caller.Devices = row.Devices
	m.keys.put(string(hash), knownKey{caller, row.ExpiresAt}, now)
	go m.touch(context.WithoutCancel(ctx), row.ID) // no request waits for it
	return caller, nil
}

// keyCaller is who uses an API key.
func keyCaller(id uuid.UUID, role string) Caller {
	return Caller{
		Subject: keySubject + id.String(),
		Role:    Role(role),
		TokenID: id.String(),
	}
}

// formerCaller refuses a key that may not be used, and says whose it was.
func (m *Machines) formerCaller(ctx context.Context, hash []byte) (Caller, error) {
	row, err := m.store.WhoseAPIKey(ctx, db.WhoseAPIKeyParams{PracticeCode: m.practiceCode, KeyHash: hash})
	if db.IsNotFound(err) {
		return Caller{}, ErrKeyInvalid
	}
	if err != nil {
		return Caller{}, fmt.Errorf("look a former API key up: %w", err)
	}
	return keyCaller(row.ID, row.Role), ErrKeyInvalid
}

// touch notes that a key is used, beside the request.
func (m *Machines) touch(ctx context.Context, id uuid.UUID) {
	ctx, cancel := context.WithTimeout(ctx, rememberFor)
	defer cancel()
	if err := m.store.TouchAPIKey(ctx, id); err != nil {
		m.log.DebugContext(ctx, "the use of an API key was not noted", "key_id", id, "error", err)
	}
}

// Deny refuses a token from now on, by its id (jti). This process refuses it at once, others within five
// seconds.
func (m *Machines) Deny(ctx context.Context, tokenID string, by By) error {
	err := m.store.InTx(ctx, func(q *db.Queries) error {
		err := q.DenyToken(ctx, db.DenyTokenParams{
			PracticeCode: m.practiceCode,
			TokenID:      tokenID,
			ExpiresAt:    time.Now().Add(MaxTokenLife + clockLeeway), // no token of today is good any longer
			DeniedBy:     by.Actor,
			Reason:       by.Reason,
		})
		if err != nil {
			return err
		}
		return audit.Record(ctx, q, by.event(m.practiceCode, audit.TokenRevoke, tokenResource, tokenID))
	})
	if err != nil {
		return fmt.Errorf("deny a token: %w", err)
	}

	m.tokens.forget(tokenID)
	m.log.InfoContext(ctx, "token denied", "token_id", tokenID, "by", by.Actor)
	return nil
}

// IsDenied reports whether a token was denied.
func (m *Machines) IsDenied(ctx context.Context, tokenID string) (bool, error) {
	if _, good := m.tokens.get(tokenID); good {
		return false, nil
	}

	now := time.Now()
	denied, err := m.store.IsTokenDenied(ctx, db.IsTokenDeniedParams{PracticeCode: m.practiceCode, TokenID: tokenID})
	if err != nil {
		return false, fmt.Errorf("look at the denied tokens: %w", err)
	}
	if !denied {
		m.tokens.put(tokenID, struct{}{}, now)
	}
	return denied, nil
}
