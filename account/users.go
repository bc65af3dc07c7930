package account

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
)

// temporaryFor is how long a password is good that somebody else knows. It is only good for choosing another.
const temporaryFor = 72 * time.Hour

// NewUser is an account to make.
type NewUser struct {
	Email     string
	FirstName string
	LastName  string
	Role      Role
	// Password is made when it is empty.
	Password string
	// OwnPassword means that the person chose the password, and nobody else knows it. Any other one is
	// temporary.
	OwnPassword bool
}

// Password is one that was set for somebody else.
type Password struct {
	// Text is empty when it is the one that was asked for.
	Text string
	// TemporaryUntil is when it expires; nil when the person chose it.
	TemporaryUntil *time.Time
}

// Add makes an account, and a password when none is given. It returns [ErrEmail], [ErrEmailTaken], [ErrRole],
// [ErrName], [ErrPasswordLength] or [ErrPasswordCommon] for what is wrong with it.
func (p *People) Add(ctx context.Context, by By, want NewUser) (db.ShownUser, Password, error) {
	email, err := NormaliseEmail(want.Email)
	if err != nil {
		return db.ShownUser{}, Password{}, err
	}

	first, firstErr := trimmed(want.FirstName)
	last, lastErr := trimmed(want.LastName)
	switch {
	case firstErr != nil || lastErr != nil:
		return db.ShownUser{}, Password{}, ErrName
	case !want.Role.HasPerson():
		return db.ShownUser{}, Password{}, ErrRole
	}

	made, hash, err := p.newPassword(ctx, want.Password, email, first, last)
	if err != nil {
		return db.ShownUser{}, Password{}, err
	}

	var user db.User
	err = p.Store.InTx(ctx, func(q *db.Queries) (err error) {
		user, err = q.CreateUser(ctx, db.CreateUserParams{
			PracticeCode:     p.PracticeCode,
			Email:            email,
			FirstName:        first,
			LastName:         last,
			Role:             string(want.Role),
			PasswordHash:     &hash,
			TemporarySeconds: temporary(want.OwnPassword && want.Password != ""),
		})
		if db.IsNotFound(err) {
			return ErrEmailTaken
		}
		if err != nil {
			return fmt.Errorf("store the account: %w", err)
		}
		return p.record(ctx, q, user.ID, Added, by, string(want.Role))
	})
	return db.ShownUser{User: user}, Password{made, user.PasswordTemporaryUntil}, err
}

// newPassword returns the hash of a password, and the text if it had to make one.
func (p *People) newPassword(ctx context.Context, want string, own ...string) (made, hash string, err error) {
	if want == "" {
		if made, err = NewPassword(); err != nil {
			return "", "", err
		}
		want = made
	} else if err := checkPassword(want, own...); err != nil {
		return "", "", err
	}
	hash, err = p.hasher.hash(ctx, want)
	return made, hash, err
}

// temporary is nil for a password that only its owner knows.
func temporary(own bool) *float64 {
	if own {
		return nil
	}
	seconds := temporaryFor.Seconds()
	return &seconds
}

// HasPerson reports whether people may have the role.
func (r Role) HasPerson() bool { return r.Has(OwnAccount) }

// List returns a page of the accounts, in the order of their e-mails, and how many there are. An email
// filters exactly. It returns [ErrEmail] for a filter that no account can fit.
func (p *People) List(ctx context.Context, email string, limit, offset int) (rows []db.ShownUser, count int64, err error) {
	if email != "" {
		if email, err = NormaliseEmail(email); err != nil {
			return nil, 0, err
		}
	}

	rows, count, err = p.Store.ShowUsers(ctx, db.ShowUsersParams{
		PracticeCode: p.PracticeCode,
		Email:        email,
		Most:         limit,
		Skip:         offset,
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list accounts: %w", err)
	}
	return rows, count, nil
}

// Get returns an account, or [ErrUnknownUser].
func (p *People) Get(ctx context.Context, id uuid.UUID) (db.ShownUser, error) {
	user, err := p.Store.ShowUser(ctx, db.GetUserParams{PracticeCode: p.PracticeCode, ID: id})
	if db.IsNotFound(err) {
		return user, ErrUnknownUser
	}
	if err != nil {
		return user, fmt.Errorf("load the account: %w", err)
	}
	return user, nil
}

// Change says what to change about an account; nil leaves a field as it is.
type Change struct {
	Email     *string
	FirstName *string
	LastName  *string
	Role      *Role
	Disabled  *bool
}

// Change changes an account. Disabling it ends its sessions. It returns [ErrUnknownUser], [ErrEmail],
// [ErrEmailTaken], [ErrRole], [ErrName], or [ErrLastAdmin] if nobody were left who manages accounts.
func (p *People) Change(ctx context.Context, by By, id uuid.UUID, change Change) (db.ShownUser, error) {
	err := p.Store.InTx(ctx, func(q *db.Queries) error {
		locked, err := q.LockUserAndAdmins(ctx, db.GetUserParams{PracticeCode: p.PracticeCode, ID: id})
		if err != nil {
			return fmt.Errorf("lock the account: %w", err)
		}

		at := slices.IndexFunc(locked, func(u db.User) bool { return u.ID == id })
		if at < 0 {
			return ErrUnknownUser
		}

		before := locked[at]
		want, err := change.of(before)
		if err != nil {
			return err
		}
		others := slices.ContainsFunc(locked, func(u db.User) bool { return u.ID != id && isActiveAdmin(u.Role, u.DisabledAt != nil) })
		if isActiveAdmin(before.Role, before.DisabledAt != nil) && !isActiveAdmin(want.Role, want.Disabled) && !others {
			return ErrLastAdmin
		}

		// Looked for first, because a constraint that refuses it ends the transaction.
		holder, err := q.FindUser(ctx, db.FindUserParams{PracticeCode: p.PracticeCode, Email: want.Email})
		if err == nil && holder.ID != id {
			return ErrEmailTaken
		}
		if err != nil && !db.IsNotFound(err) {
			return fmt.Errorf("find the account: %w", err)
		}

		want.PracticeCode, want.ID = p.PracticeCode, id
		if err := q.UpdateUser(ctx, want); db.IsUniqueViolation(err) {
			return ErrEmailTaken
		} else if err != nil {
			return fmt.Errorf("change the account: %w", err)
		}
		return p.recordChange(ctx, q, by, before, want)
	})
	if err != nil {
		return db.ShownUser{}, err
	}
	return p.Get(ctx, id)
}

func isActiveAdmin(role string, disabled bool) bool { return Role(role) == Admin && !disabled }

// of returns the account with the change.
func (c Change) of(user db.User) (want db.UpdateUserParams, err error) {
	want = db.UpdateUserParams{
		Email:     user.Email,
		FirstName: user.FirstName,
		LastName:  user.LastName,
		Role:      user.Role,
		Disabled:  user.DisabledAt != nil,
	}

	if c.Email != nil {
		if want.Email, err = NormaliseEmail(*c.Email); err != nil {
			return want, err
		}
	}
	if c.FirstName != nil {
		if want.FirstName, err = trimmed(*c.FirstName); err != nil {
			return want, err
		}
	}
	if c.LastName != nil {
		if want.LastName, err = trimmed(*c.LastName); err != nil {
			return want, err
		}
	}
	if c.Role != nil {
		if !c.Role.HasPerson() {
			return want, ErrRole
		}
		want.Role = string(*c.Role)
	}
	if c.Disabled != nil {
		want.Disabled = *c.Disabled
	}
	return want, nil
}

// recordChange records each kind of change, and ends the sessions of an account that was disabled.
func (p *People) recordChange(ctx context.Context, q *db.Queries, by By, before db.User, now db.UpdateUserParams) error {
	if now.Disabled && before.DisabledAt == nil {
		if err := q.EndSessionsOf(ctx, db.EndSessionsOfParams{UserID: before.ID, Reason: reason(endedDisabled)}); err != nil {
			return fmt.Errorf("end the sessions: %w", err)
		}
	}

	for _, done := range []struct {
		happened bool
		action   Action
		detail   string
	}{
		{before.Email != now.Email, Changed, "email"},
		{before.FirstName != now.FirstName || before.LastName != now.LastName, Changed, "name"},
		{before.Role != now.Role, RoleChanged, before.Role + " to " + now.Role},
		{before.DisabledAt == nil && now.Disabled, Disabled, ""},
		{before.DisabledAt != nil && !now.Disabled, Enabled, ""},
	} {
		if !done.happened {
			continue
		}
		if err := p.record(ctx, q, before.ID, done.action, by, done.detail); err != nil {
			return err
		}
	}
	return nil
}

// ResetPassword gives an account another password, ends its sessions and takes its lock away. An empty
// password is made. It is temporary, unless the person chose it (own). It returns [ErrUnknownUser],
// [ErrPasswordLength] or [ErrPasswordCommon].
func (p *People) ResetPassword(ctx context.Context, by By, id uuid.UUID, password string, own bool) (Password, error) {
	user, err := p.Get(ctx, id)
	if err != nil {
		return Password{}, err
	}

	made, hash, err := p.newPassword(ctx, password, user.User.Email, user.User.FirstName, user.User.LastName)
	if err != nil {
		return Password{}, err
	}

	var until *time.Time
	err = p.Store.InTx(ctx, func(q *db.Queries) error {
		// The lock first, as with a sign-in, so that the two never wait for each other.
		if err := q.ForgetFailures(ctx, db.FindUserParams{PracticeCode: p.PracticeCode, Email: user.User.Email}); err != nil {
			return fmt.Errorf("take the lock away: %w", err)
		}
		set := db.SetPasswordParams{
			PracticeCode:     p.PracticeCode,
			ID:               id,
			PasswordHash:     &hash,
			TemporarySeconds: temporary(own && password != ""),
		}
		if until, err = q.SetPassword(ctx, set); err != nil {
			return fmt.Errorf("store the password: %w", err)
		}
		if err := q.EndSessionsOf(ctx, db.EndSessionsOfParams{UserID: id, Reason: reason(endedPassword)}); err != nil {
			return fmt.Errorf("end the sessions: %w", err)
		}
		return p.record(ctx, q, id, PasswordReset, by, "")
	})
	return Password{made, until}, err
}

// RemoveTOTP turns two-factor sign-in off for somebody who has lost the device. It returns [ErrUnknownUser]
// or [ErrNoTOTP].
func (p *People) RemoveTOTP(ctx context.Context, by By, id uuid.UUID) error {
	return p.Store.InTx(ctx, func(q *db.Queries) error {
		user, err := q.LockUser(ctx, db.GetUserParams{PracticeCode: p.PracticeCode, ID: id})
		switch {
		case db.IsNotFound(err):
			return ErrUnknownUser
		case err != nil:
			return fmt.Errorf("lock the account: %w", err)
		case !user.TOTPEnabled:
			return ErrNoTOTP
		}
		if err := q.RemoveTOTP(ctx, id); err != nil {
			return fmt.Errorf("turn two-factor sign-in off: %w", err)
		}
		return p.record(ctx, q, id, TOTPRemoved, by, "")
	})
}

// Unlock takes the lock of an account's e-mail away, and forgets its failures. It returns [ErrUnknownUser].
func (p *People) Unlock(ctx context.Context, by By, id uuid.UUID) (db.ShownUser, error) {
	user, err := p.Get(ctx, id)
	if err != nil {
		return user, err
	}
	err = p.Store.InTx(ctx, func(q *db.Queries) error {
		if err := q.ForgetFailures(ctx, db.FindUserParams{PracticeCode: p.PracticeCode, Email: user.User.Email}); err != nil {
			return fmt.Errorf("take the lock away: %w", err)
		}
		return p.record(ctx, q, id, Unlocked, by, "")
	})
	user.LockedUntil = nil
	return user, err
}

// Events returns a page of what was done to accounts, the newest first, and how much there is.
func (p *People) Events(ctx context.Context, limit, offset int) (rows []db.AccountEvent, count int64, err error) {
	if count, err = p.Store.CountAccountEvents(ctx, p.PracticeCode); err != nil {
		return nil, 0, fmt.Errorf("count account events: %w", err)
	}
	page := db.ListAccountEventsParams{PracticeCode: p.PracticeCode, Most: int32(limit), Skip: int32(offset)}
	if rows, err = p.Store.ListAccountEvents(ctx, page); err != nil {
		return nil, 0, fmt.Errorf("list account events: %w", err)
	}
	return rows, count, nil
}
