package account

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
)

// Config is what accounts need.
type Config struct {
	Store        *db.Store
	PracticeCode string
	// Signer signs access tokens. Only sign-ins and refreshes need it.
	Signer *Signer
	Logger *slog.Logger
}

// People are the accounts of a practice: sign-in, sessions, and what administrators do.
type People struct {
	Config
	hasher *hasher
}

// NewPeople returns the accounts of a practice.
func NewPeople(cfg Config) (*People, error) {
	h, err := newHasher()
	if err != nil {
		return nil, fmt.Errorf("accounts: %w", err)
	}
	return &People{cfg, h}, nil
}

// Action is what was done to an account.
type Action string

// The actions.
const (
	Added           Action = "added"
	Changed         Action = "changed"
	RoleChanged     Action = "role_changed"
	Disabled        Action = "disabled"
	Enabled         Action = "enabled"
	PasswordReset   Action = "password_reset"
	PasswordChanged Action = "password_changed"
	TOTPOffered     Action = "totp_offered" // in the audit trail only
	TOTPEnabled     Action = "totp_enabled"
	TOTPRemoved     Action = "totp_removed"
	LockedOut       Action = "locked"
	Unlocked        Action = "unlocked"
	// Linked means that the account belongs to somebody at the identity provider from now on.
	Linked Action = "linked"
	// TokenReused means that a refresh token came a second time, and ended its session.
	TokenReused Action = "refresh_token_reused"
)

// record keeps what was done, with the transaction that does it.
func (p *People) record(ctx context.Context, q *db.Queries, user uuid.UUID, action Action, by By, detail string) error {
	err := q.AddAccountEvent(ctx, db.AddAccountEventParams{
		PracticeCode: p.PracticeCode,
		UserID:       user,
		Action:       string(action),
		Actor:        by.Actor,
		Address:      by.Address,
		Detail:       detail,
		Reason:       by.Reason,
	})
	if err != nil {
		return fmt.Errorf("record what was done to an account: %w", err)
	}
	return p.audit(ctx, q, user, action, by)
}

// audit writes the row of what was done to an account.
func (p *People) audit(ctx context.Context, q *db.Queries, user uuid.UUID, action Action, by By) error {
	e := by.event(p.PracticeCode, audit.AccountChange, userResource, user.String())
	e.Reason = string(action)
	switch action {
	case TokenReused:
		e.Action, e.Outcome = audit.TokenRefresh, audit.Refused
	case LockedOut:
		e.Outcome = audit.Refused
	}
	return audit.Record(ctx, q, e)
}

// The errors of accounts. What they say may be shown to whoever caused them.
var (
	// ErrWrong means that e-mail, password and code do not belong together, for whatever reason.
	ErrWrong = errors.New("the e-mail, the password or the code is wrong")
	// ErrTOTPRequired means that the password is right, and the code is missing.
	ErrTOTPRequired = errors.New("the code of the authenticator app is missing")
	// ErrSessionEnded means that a token's session is over, or its user may not sign in any more.
	ErrSessionEnded = errors.New("the session has ended")
	// ErrRoleChanged means that a token names another role than its user has.
	ErrRoleChanged = errors.New("the token names a role of the past")
	// ErrRefresh means that a refresh token is unknown, used, expired, or of a session that has ended.
	ErrRefresh = errors.New("the refresh token is not valid any more")

	ErrUnknownUser   = errors.New("there is no such account")
	ErrEmailTaken    = errors.New("somebody has this e-mail already")
	ErrLastAdmin     = errors.New("this is the last administrator who may sign in")
	ErrRole          = errors.New("is not a role of people")
	ErrName          = errors.New("is empty")
	ErrTOTPIsEnabled = errors.New("two-factor sign-in is on already")
	ErrNoTOTP        = errors.New("two-factor sign-in was not set up")
	ErrCode          = errors.New("is not the current code of the authenticator app, or was used before")
)

// LockedError means that an e-mail is locked after too many failures.
type LockedError struct{ Until time.Time }

func (e *LockedError) Error() string { return "locked until " + e.Until.Format(time.RFC3339) }
