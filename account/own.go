package account

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
)

// Own returns the account of a caller who has signed in; [ErrUnknownUser] for a machine.
func (p *People) Own(ctx context.Context, c Caller) (db.User, error) {
	id, err := uuid.Parse(c.Subject)
	if err != nil || c.Session == "" {
		return db.User{}, ErrUnknownUser
	}
	user, err := p.Store.GetUser(ctx, db.GetUserParams{PracticeCode: p.PracticeCode, ID: id})
	if db.IsNotFound(err) {
		return user, ErrUnknownUser
	}
	if err != nil {
		return user, fmt.Errorf("load the account: %w", err)
	}
	return user, nil
}

// ChangePassword takes the old password and sets another one. All other sessions end. It returns
// [ErrWrong] or a [LockedError] for the old password, [ErrPasswordLength] or [ErrPasswordCommon] for the new.
func (p *People) ChangePassword(ctx context.Context, c Caller, old, password string) error {
	user, err := p.Own(ctx, c)
	if err != nil {
		return err
	}
	session, err := uuid.Parse(c.Session)
	if err != nil {
		return ErrSessionEnded
	}
	if err := checkPassword(password, user.Email, user.FirstName, user.LastName); err != nil {
		return err
	}
	if normalisePassword(old) == normalisePassword(password) {
		return ErrPasswordSame
	}

	hash, err := p.hasher.hash(ctx, password)
	if err != nil {
		return err
	}

	t := try{email: user.Email, password: old, address: c.Address}
	_, err = p.prove(ctx, t, func(q *db.Queries, user db.User) error {
		_, err := q.SetPassword(ctx, db.SetPasswordParams{PracticeCode: p.PracticeCode, ID: user.ID, PasswordHash: &hash})
		if err != nil {
			return fmt.Errorf("store the password: %w", err)
		}
		if err := q.EndSessionsOf(ctx, db.EndSessionsOfParams{UserID: user.ID, But: &session, Reason: reason(endedPassword)}); err != nil {
			return fmt.Errorf("end the other sessions: %w", err)
		}
		return p.record(ctx, q, user.ID, PasswordChanged, ByCaller(c), "")
	})
	return err
}

func reason(r EndReason) *string { return (*string)(&r) }

// OfferTOTP makes a secret for an authenticator app. It counts once ConfirmTOTP has seen a code. A secret
// that was offered before is forgotten. It returns [ErrWrong], a [LockedError] or [ErrTOTPIsEnabled].
func (p *People) OfferTOTP(ctx context.Context, c Caller, password string) (secret, url string, err error) {
	user, err := p.Own(ctx, c)
	if err != nil {
		return "", "", err
	}
	if secret, url, err = newTOTP(user.Email); err != nil {
		return "", "", err
	}

	t := try{email: user.Email, password: password, address: c.Address}
	_, err = p.prove(ctx, t, func(q *db.Queries, user db.User) error {
		if user.TOTPEnabled {
			return ErrTOTPIsEnabled
		}
		if err := q.OfferTOTP(ctx, db.OfferTOTPParams{PracticeCode: p.PracticeCode, ID: user.ID, Secret: secret}); err != nil {
			return fmt.Errorf("store the TOTP secret: %w", err)
		}
		return p.audit(ctx, q, user.ID, TOTPOffered, ByCaller(c))
	})
	return secret, url, err
}

// ConfirmTOTP turns two-factor sign-in on, with a first code of the offered secret. Failures are not counted:
// the caller knows the secret. It returns [ErrCode], [ErrNoTOTP] or [ErrTOTPIsEnabled].
func (p *People) ConfirmTOTP(ctx context.Context, c Caller, code string) error {
	user, err := p.Own(ctx, c)
	if err != nil {
		return err
	}

	return p.Store.InTx(ctx, func(q *db.Queries) error {
		user, err := q.LockUser(ctx, db.GetUserParams{PracticeCode: p.PracticeCode, ID: user.ID})
		switch {
		case err != nil:
			return fmt.Errorf("lock the account: %w", err)
		case user.TOTPEnabled:
			return ErrTOTPIsEnabled
		case user.TOTPSecret == nil:
			return ErrNoTOTP
		}

		if good, err := useCode(ctx, q, user, code); err != nil || !good {
			return cmp.Or(err, ErrCode)
		}
		if err := q.EnableTOTP(ctx, user.ID); err != nil {
			return fmt.Errorf("turn two-factor sign-in on: %w", err)
		}
		return p.record(ctx, q, user.ID, TOTPEnabled, ByCaller(c), "")
	})
}

// DropTOTP turns two-factor sign-in off. It needs the password and a code. It returns [ErrWrong], a
// [LockedError] or [ErrNoTOTP].
func (p *People) DropTOTP(ctx context.Context, c Caller, password, code string) error {
	user, err := p.Own(ctx, c)
	if err != nil {
		return err
	}
	if !user.TOTPEnabled {
		return ErrNoTOTP
	}

	t := try{
		email:     user.Email,
		password:  password,
		code:      code,
		needsCode: true,
		address:   c.Address,
	}
	_, err = p.prove(ctx, t, func(q *db.Queries, user db.User) error {
		if err := q.RemoveTOTP(ctx, user.ID); err != nil {
			return fmt.Errorf("turn two-factor sign-in off: %w", err)
		}
		return p.record(ctx, q, user.ID, TOTPRemoved, ByCaller(c), "")
	})
	return err
}

// Rename changes the caller's own names; nil leaves one as it is. It returns [ErrName].
func (p *People) Rename(ctx context.Context, c Caller, first, last *string) (db.User, error) {
	user, err := p.Own(ctx, c)
	if err != nil {
		return user, err
	}
	shown, err := p.Change(ctx, ByCaller(c), user.ID, Change{FirstName: first, LastName: last})
	return shown.User, err
}

// trimmed returns a name without space around it.
func trimmed(name string) (string, error) {
	if name = strings.TrimSpace(name); name == "" {
		return "", ErrName
	}
	return name, nil
}
