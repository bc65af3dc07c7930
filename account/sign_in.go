package account

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
)

// The lock, as the platform documents it: this many failures in a row lock for this long. Each further
// failure starts the time again, and so does the first one after it is over.
const (
	MostFailures = 5
	LockedFor    = 30 * time.Minute
)

// Credentials are what a person signs in with. Code is empty when two-factor sign-in is off.
type Credentials struct {
	Email    string
	Password string
	Code     string
}

// SignedIn is a new session.
type SignedIn struct {
	Tokens
	// User is set with an error too, as far as it is known whose account it is; it may have an ID only.
	User db.User
}

// SignIn begins a session. It returns [ErrEmail], [ErrWrong], [ErrTOTPRequired] or a [LockedError], which
// say the same, after the same time, whether the e-mail has an account or not.
func (p *People) SignIn(ctx context.Context, c Credentials, address string) (SignedIn, error) {
	email, err := NormaliseEmail(c.Email)
	if err != nil {
		return SignedIn{}, err
	}

	var in SignedIn
	t := try{
		email:     email,
		password:  c.Password,
		code:      c.Code,
		needsCode: true,
		address:   address,
	}
	id, err := p.prove(ctx, t, func(q *db.Queries, user db.User) (err error) {
		in.User = user
		in.Tokens, err = p.startSession(ctx, q, user, entry{how: "password", address: address, most: sessionFor})
		return err
	})
	if err != nil {
		return SignedIn{User: db.User{ID: id}}, err
	}
	return in, nil
}

// try is one try to show that somebody is the owner of an account.
type try struct {
	email          string // normalised
	password, code string
	needsCode      bool // when two-factor sign-in is on
	address        string
}

// prove runs then if the try is good, in the transaction that judges the try. A failed try is counted. It returns the id
// of the account that the try was about, if there is one.
//
// The password is compared before, because that takes long and needs no lock. Tries at the same moment are
// judged one after the other, and while the e-mail is locked the answer is the same for a right and a wrong
// password. So nobody learns anything from more than MostFailures tries, however many run at once.
func (p *People) prove(ctx context.Context, t try, then func(*db.Queries, db.User) error) (about uuid.UUID, err error) {
	var found *db.User
	user, err := p.Store.FindUser(ctx, db.FindUserParams{PracticeCode: p.PracticeCode, Email: t.email})
	if err == nil {
		found, about = &user, user.ID
	} else if !db.IsNotFound(err) {
		return about, fmt.Errorf("find the account: %w", err)
	}
	if err := p.refuseLocked(ctx, p.Store.Queries, t.email); err != nil {
		return about, err
	}

	var hash *string
	if found != nil {
		hash = found.PasswordHash
	}
	right, err := p.hasher.matches(ctx, hash, t.password)
	if err != nil {
		return about, err
	}

	var refused error
	err = p.Store.InTx(ctx, func(q *db.Queries) error {
		var owner *db.User
		if owner, refused, err = p.judge(ctx, q, t, found, right); err != nil || refused != nil {
			return err
		}
		return then(q, *owner)
	})
	if err != nil {
		return about, err
	}
	return about, refused
}

// refuseLocked counts the try as a failure and returns a [LockedError] when the e-mail is locked.
func (p *People) refuseLocked(ctx context.Context, q *db.Queries, email string) error {
	until, err := q.RefuseLocked(ctx, db.RefuseLockedParams{
		PracticeCode: p.PracticeCode,
		Email:        email,
		LockSeconds:  LockedFor.Seconds(),
	})
	switch {
	case db.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("look for a lock: %w", err)
	}
	return &LockedError{*until}
}

// judge returns the owner, locked, of a try that is good, and otherwise why it is refused. found is the
// account as it was when the password was compared; nil: there is none.
func (p *People) judge(ctx context.Context, q *db.Queries, t try, found *db.User, right bool) (owner *db.User, refused, err error) {
	if err := q.HoldSignIn(ctx, db.FindUserParams{PracticeCode: p.PracticeCode, Email: t.email}); err != nil {
		return nil, nil, fmt.Errorf("begin a sign-in: %w", err)
	}
	if refused := p.refuseLocked(ctx, q, t.email); refused != nil {
		return nil, refused, nil
	}

	good := false
	if found != nil {
		user, err := q.LockUser(ctx, db.GetUserParams{PracticeCode: p.PracticeCode, ID: found.ID})
		if err != nil {
			return nil, nil, fmt.Errorf("lock the account: %w", err)
		}
		owner = &user
		if good = right && mayUse(user, *found); good && t.needsCode && user.TOTPEnabled {
			if t.code == "" {
				return nil, nil, ErrTOTPRequired // is no failure, and rolls back
			}
			if good, err = useCode(ctx, q, user, t.code); err != nil {
				return nil, nil, err
			}
		}
	}

	if !good {
		return nil, ErrWrong, p.countFailure(ctx, q, t, found)
	}
	if err := q.ForgetFailures(ctx, db.FindUserParams{PracticeCode: p.PracticeCode, Email: t.email}); err != nil {
		return nil, nil, fmt.Errorf("forget failed sign-ins: %w", err)
	}
	return owner, nil, nil
}

// mayUse reports whether the account may be used with the password that was compared with its earlier state.
func mayUse(now, compared db.User) bool {
	return now.DisabledAt == nil &&
		now.PasswordHash != nil && *now.PasswordHash == *compared.PasswordHash &&
		now.Email == compared.Email &&
		(now.PasswordTemporaryUntil == nil || now.PasswordTemporaryUntil.After(time.Now()))
}

// countFailure counts a failure, and records and logs the lock that follows from it.
func (p *People) countFailure(ctx context.Context, q *db.Queries, t try, user *db.User) error {
	until, err := q.CountFailure(ctx, db.CountFailureParams{
		PracticeCode: p.PracticeCode,
		Email:        t.email,
		Most:         MostFailures,
		LockSeconds:  LockedFor.Seconds(),
	})
	if err != nil {
		return fmt.Errorf("count a failed sign-in: %w", err)
	}
	if until == nil || user == nil {
		return nil
	}
	p.Logger.WarnContext(ctx, "account locked after failed sign-ins", "user_id", user.ID, "locked_until", *until)
	return p.record(ctx, q, user.ID, LockedOut, By{Address: t.address}, "")
}

// entry is how somebody signs in.
type entry struct {
	how     string // password, or the actor of another way
	address string
	most    time.Duration // that the session lasts, however often it is refreshed
}

// startSession begins a session of a user who has shown who he is. q is a transaction that has the user
// locked, so that an account that is being disabled gets no session.
func (p *People) startSession(ctx context.Context, q *db.Queries, user db.User, e entry) (Tokens, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return Tokens{}, err
	}

	session := db.CreateSessionParams{
		ID:                 id,
		UserID:             user.ID,
		LastsSeconds:       refreshFor.Seconds(),
		SignInAgainSeconds: e.most.Seconds(),
	}
	if err := q.CreateSession(ctx, session); err != nil {
		return Tokens{}, fmt.Errorf("begin a session: %w", err)
	}

	by := By{
		Actor:   user.ID.String(),
		Role:    Role(user.Role),
		TokenID: id.String(),
		Address: e.address,
	}
	row := by.event(p.PracticeCode, audit.SignIn, sessionResource, id.String())
	row.Reason = e.how
	if err := audit.Record(ctx, q, row); err != nil {
		return Tokens{}, err
	}
	return p.issue(ctx, q, user.ID, Role(user.Role), id)
}
