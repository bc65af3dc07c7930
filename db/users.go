package db

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/keyring"
)

// The kinds of keyed hashes of an account's e-mail.
const (
	indexUserEmail      = "users.email"
	digestSignInFailure = "sign_in_failures.email"
)

// User is a person who may sign in.
type User struct {
	ID           uuid.UUID
	PracticeCode string
	Email        string
	FirstName    string
	LastName     string
	Role         string
	// PasswordHash is nil when the person has no password here.
	PasswordHash *string
	// PasswordTemporaryUntil is nil when the person chose the password.
	PasswordTemporaryUntil *time.Time
	// TOTPSecret is in base 32.
	TOTPSecret   *string
	TOTPEnabled  bool
	TOTPStep     int64
	LastSignInAt *time.Time
	DisabledAt   *time.Time
	CreatedAt    time.Time
	UpdatedAt    time.Time
}

// profile is what is sealed of a person.
type profile struct {
	Email     string `json:"email"`
	FirstName string `json:"first_name"`
	LastName  string `json:"last_name"`
}

func emailIn(plain []byte) (string, error) {
	var p profile
	if json.Unmarshal(plain, &p) != nil { // its error would repeat the text
		return "", errors.New("the profile cannot be read")
	}
	return p.Email, nil
}

func userCell(column, practice string, id uuid.UUID) keyring.Cell {
	return keyring.Cell{Table: "users", Column: column, Practice: practice, Row: id.String()}
}

// seal returns the profile of an account as it is stored.
func (p profile) seal(ring *keyring.Keyring, practice string, id uuid.UUID) ([]byte, error) {
	plain, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return ring.Seal(userCell("profile", practice, id), plain)
}

func sealTOTPSecret(ring *keyring.Keyring, practice string, id uuid.UUID, secret string) ([]byte, error) {
	return ring.Seal(userCell("totp_secret", practice, id), []byte(secret))
}

// open returns the account of a row.
func (u sealedUser) open(ring *keyring.Keyring) (User, error) {
	plain, err := ring.Open(userCell("profile", u.PracticeCode, u.ID), u.Profile)
	if err != nil {
		return User{}, err
	}
	var p profile
	if err := json.Unmarshal(plain, &p); err != nil {
		return User{}, fmt.Errorf("the profile of the account %s cannot be read", u.ID) // encoding/json repeats what it reads
	}

	opened := User{
		ID:                     u.ID,
		PracticeCode:           u.PracticeCode,
		Email:                  p.Email,
		FirstName:              p.FirstName,
		LastName:               p.LastName,
		Role:                   u.Role,
		PasswordHash:           u.PasswordHash,
		PasswordTemporaryUntil: u.PasswordTemporaryUntil,
		TOTPEnabled:            u.TOTPEnabled,
		TOTPStep:               u.TOTPStep,
		LastSignInAt:           u.LastSignInAt,
		DisabledAt:             u.DisabledAt,
		CreatedAt:              u.CreatedAt,
		UpdatedAt:              u.UpdatedAt,
	}
	if u.TOTPSecret != nil {
		secret, err := ring.Open(userCell("totp_secret", u.PracticeCode, u.ID), u.TOTPSecret)
		if err != nil {
			return User{}, err
		}
		opened.TOTPSecret = new(string(secret))
	}
	return opened, nil
}

// openUser opens the row of a query for one.
func (q *Queries) openUser(row sealedUser, err error) (User, error) {
	if err != nil {
		return User{}, err
	}
	return row.open(q.ring())
}

func (q *Queries) openUsers(rows []sealedUser, err error) ([]User, error) {
	if err != nil {
		return nil, err
	}
	users := make([]User, len(rows))
	for i, row := range rows {
		if users[i], err = row.open(q.ring()); err != nil {
			return nil, err
		}
	}
	return users, nil
}

// CreateUserParams is an account to store.
type CreateUserParams struct {
	PracticeCode string
	// Email is in the form of account.NormaliseEmail, so that two spellings of one address are one account.
	Email        string
	FirstName    string
	LastName     string
	Role         string
	PasswordHash *string
	// TemporarySeconds is nil when the person chose the password.
	TemporarySeconds *float64
}

// CreateUser stores an account. It returns no row when somebody has the e-mail.
func (q *Queries) CreateUser(ctx context.Context, p CreateUserParams) (User, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return User{}, err
	}
	sealed, err := profile{p.Email, p.FirstName, p.LastName}.seal(q.ring(), p.PracticeCode, id)
	if err != nil {
		return User{}, err
	}

	index := q.ring().Index(indexUserEmail, p.PracticeCode, p.Email)
	return q.openUser(q.createUser(ctx, createUserParams{
		ID:               id,
		PracticeCode:     p.PracticeCode,
		Profile:          sealed,
		EmailIndexA:      index.A,
		EmailIndexB:      index.B,
		Role:             p.Role,
		PasswordHash:     p.PasswordHash,
		TemporarySeconds: p.TemporarySeconds,
	}))
}

// FindUserParams names an account by its normalised e-mail.
type FindUserParams struct {
	PracticeCode string
	Email        string
}

// FindUser returns the account with an e-mail.
func (q *Queries) FindUser(ctx context.Context, p FindUserParams) (User, error) {
	index := q.ring().Index(indexUserEmail, p.PracticeCode, p.Email)
	return q.openUser(q.findUser(ctx, findUserParams{
		PracticeCode: p.PracticeCode,
		EmailIndexA:  index.A,
		EmailIndexB:  index.B,
	}))
}

// GetUserParams names an account.
type GetUserParams struct {
	PracticeCode string
	ID           uuid.UUID
}

// GetUser returns an account.
func (q *Queries) GetUser(ctx context.Context, p GetUserParams) (User, error) {
	return q.openUser(q.getUser(ctx, getUserParams(p)))
}

// LockUser returns an account, and locks its row.
func (q *Queries) LockUser(ctx context.Context, p GetUserParams) (User, error) {
	return q.openUser(q.lockUser(ctx, lockUserParams(p)))
}

// LockUserAndAdmins locks the user, and all administrators who may sign in: of two who demote each other at the
// same moment, the second waits, and then sees what the first has done.
func (q *Queries) LockUserAndAdmins(ctx context.Context, p GetUserParams) ([]User, error) {
	return q.openUsers(q.lockUserAndAdmins(ctx, lockUserAndAdminsParams(p)))
}

// IdentityParams names a person at the identity provider.
type IdentityParams struct {
	PracticeCode string
	Issuer       string
	Subject      string
}

// LockUserOfIdentity returns the account of a person at the identity provider, and locks its row.
func (q *Queries) LockUserOfIdentity(ctx context.Context, p IdentityParams) (User, error) {
	return q.openUser(q.lockUserOfIdentity(ctx, lockUserOfIdentityParams(p)))
}

// ShownUser is an account, and until when its e-mail is locked; nil: it is not.
type ShownUser struct {
	User        User
	LockedUntil *time.Time
}

// ShowUser returns an account with its lock.
func (q *Queries) ShowUser(ctx context.Context, p GetUserParams) (ShownUser, error) {
	user, err := q.GetUser(ctx, p)
	if err != nil {
		return ShownUser{}, err
	}
	shown, err := q.withLocks(ctx, p.PracticeCode, []User{user})
	if err != nil {
		return ShownUser{}, err
	}
	return shown[0], nil
}

// ListUsers returns all accounts of a practice, in no order.
func (q *Queries) ListUsers(ctx context.Context, practiceCode string) ([]User, error) {
	return q.openUsers(q.listUsers(ctx, practiceCode))
}

// ShowUsersParams says which accounts to list.
type ShowUsersParams struct {
	PracticeCode string
	// Email filters by the normalised address; empty: all.
	Email string
	Most  int
	Skip  int
}

// ShowUsers lists a page of the accounts in the order of their e-mails, and returns how many there are. A
// practice has dozens of them, and nothing in the database tells their order: all are opened, and ordered here.
func (q *Queries) ShowUsers(ctx context.Context, p ShowUsersParams) (page []ShownUser, count int64, err error) {
	var users []User
	if p.Email == "" {
		users, err = q.ListUsers(ctx, p.PracticeCode)
	} else {
		var user User
		if user, err = q.FindUser(ctx, FindUserParams{PracticeCode: p.PracticeCode, Email: p.Email}); err == nil {
			users = []User{user}
		} else if IsNotFound(err) {
			err = nil
		}
	}
	if err != nil {
		return nil, 0, err
	}

	slices.SortFunc(users, func(a, b User) int { return cmp.Compare(a.Email, b.Email) })
	from := min(p.Skip, len(users))
	to := min(from+p.Most, len(users))
	page, err = q.withLocks(ctx, p.PracticeCode, users[from:to])
	return page, int64(len(users)), err
}

// withLocks adds the locks of the e-mails.
func (q *Queries) withLocks(ctx context.Context, practice string, users []User) ([]ShownUser, error) {
	keys := make([][]byte, len(users))
	for i, user := range users {
		keys[i] = q.failuresOf(practice, user.Email)
	}
	locks, err := q.listLocks(ctx, listLocksParams{PracticeCode: practice, EmailKeys: keys})
	if err != nil {
		return nil, err
	}

	shown := make([]ShownUser, len(users))
	for i, user := range users {
		shown[i].User = user
		at := slices.IndexFunc(locks, func(l listLocksRow) bool { return bytes.Equal(l.EmailKey, keys[i]) })
		if at >= 0 {
			shown[i].LockedUntil = &locks[at].LockedUntil
		}
	}
	return shown, nil
}

// UpdateUserParams is what an administrator may change about an account.
type UpdateUserParams struct {
	PracticeCode string
	ID           uuid.UUID
	Email        string
	FirstName    string
	LastName     string
	Role         string
	// Disabled keeps the moment of an account that is disabled already.
	Disabled bool
}

// UpdateUser writes what an administrator may change.
func (q *Queries) UpdateUser(ctx context.Context, p UpdateUserParams) error {
	sealed, err := profile{p.Email, p.FirstName, p.LastName}.seal(q.ring(), p.PracticeCode, p.ID)
	if err != nil {
		return err
	}
	index := q.ring().Index(indexUserEmail, p.PracticeCode, p.Email)
	return q.updateUser(ctx, updateUserParams{
		PracticeCode: p.PracticeCode,
		ID:           p.ID,
		Profile:      sealed,
		EmailIndexA:  index.A,
		EmailIndexB:  index.B,
		Role:         p.Role,
		Disabled:     p.Disabled,
	})
}

// OfferTOTPParams is a secret that waits for its first code.
type OfferTOTPParams struct {
	PracticeCode string
	ID           uuid.UUID
	Secret       string
}

// OfferTOTP stores a secret, unless two-factor sign-in is on.
func (q *Queries) OfferTOTP(ctx context.Context, p OfferTOTPParams) error {
	sealed, err := sealTOTPSecret(q.ring(), p.PracticeCode, p.ID, p.Secret)
	if err != nil {
		return err
	}
	return q.offerTOTP(ctx, offerTOTPParams{ID: p.ID, TOTPSecret: sealed})
}

// failuresOf is what the failed sign-ins of an e-mail are counted by. It is under the key that is in use, so
// that after a rotation a count begins anew.
func (q *Queries) failuresOf(practice, email string) []byte {
	return q.ring().Digest(digestSignInFailure, practice, email)
}

// RefuseLockedParams is a try to sign in.
type RefuseLockedParams struct {
	PracticeCode string
	Email        string
	LockSeconds  float64
}

// RefuseLocked counts a try as one more failure while the e-mail is locked, which starts the lock again. It
// returns no row when it is not locked.
func (q *Queries) RefuseLocked(ctx context.Context, p RefuseLockedParams) (*time.Time, error) {
	return q.refuseLocked(ctx, refuseLockedParams{
		PracticeCode: p.PracticeCode,
		EmailKey:     q.failuresOf(p.PracticeCode, p.Email),
		LockSeconds:  p.LockSeconds,
	})
}

// HoldSignIn locks the e-mail's row until the transaction ends, so that tries at the same moment are counted
// one after the other.
func (q *Queries) HoldSignIn(ctx context.Context, p FindUserParams) error {
	return q.holdSignIn(ctx, holdSignInParams{PracticeCode: p.PracticeCode, EmailKey: q.failuresOf(p.PracticeCode, p.Email)})
}

// CountFailureParams is a failed try to sign in.
type CountFailureParams struct {
	PracticeCode string
	Email        string
	Most         int32
	LockSeconds  float64
}

// CountFailure counts a failed try. From Most in a row on, each locks the e-mail.
func (q *Queries) CountFailure(ctx context.Context, p CountFailureParams) (lockedUntil *time.Time, err error) {
	return q.countFailure(ctx, countFailureParams{
		PracticeCode: p.PracticeCode,
		EmailKey:     q.failuresOf(p.PracticeCode, p.Email),
		Most:         p.Most,
		LockSeconds:  p.LockSeconds,
	})
}

// ForgetFailures forgets the failures of an e-mail, and its lock.
func (q *Queries) ForgetFailures(ctx context.Context, p FindUserParams) error {
	return q.forgetFailures(ctx, forgetFailuresParams{PracticeCode: p.PracticeCode, EmailKey: q.failuresOf(p.PracticeCode, p.Email)})
}

// oidcSecrets is what is sealed of a sign-in with the identity provider.
type oidcSecrets struct {
	Nonce        string `json:"nonce"`
	CodeVerifier string `json:"code_verifier"`
}

func oidcCell(practice string, stateHash []byte) keyring.Cell {
	return keyring.Cell{Table: "oidc_sign_ins", Column: "secrets", Practice: practice, Row: `\x` + hex.EncodeToString(stateHash)} // as SQL shows it
}

// BeginOIDCParams is a sign-in with the identity provider that begins.
type BeginOIDCParams struct {
	StateHash    []byte
	BrowserHash  []byte
	PracticeCode string
	Nonce        string
	CodeVerifier string
	ReturnTo     string
	LastsSeconds float64
}

// BeginOIDC keeps a sign-in that begins, and deletes some of those that nobody has finished.
func (q *Queries) BeginOIDC(ctx context.Context, p BeginOIDCParams) error {
	plain, err := json.Marshal(oidcSecrets{Nonce: p.Nonce, CodeVerifier: p.CodeVerifier})
	if err != nil {
		return err
	}
	sealed, err := q.ring().Seal(oidcCell(p.PracticeCode, p.StateHash), plain)
	if err != nil {
		return err
	}
	return q.beginOIDC(ctx, beginOIDCParams{
		StateHash:    p.StateHash,
		BrowserHash:  p.BrowserHash,
		PracticeCode: p.PracticeCode,
		Secrets:      sealed,
		ReturnTo:     p.ReturnTo,
		LastsSeconds: p.LastsSeconds,
	})
}

// UseOIDCParams names a sign-in with the identity provider, and the browser that began it.
type UseOIDCParams struct {
	StateHash    []byte
	BrowserHash  []byte
	PracticeCode string
}

// OIDCSignIn is a sign-in with the identity provider that was under way.
type OIDCSignIn struct {
	Nonce        string
	CodeVerifier string
	ReturnTo     string
}

// UseOIDC uses a sign-in up. It returns no row when it is unknown, used, too old, or of another browser.
func (q *Queries) UseOIDC(ctx context.Context, p UseOIDCParams) (OIDCSignIn, error) {
	row, err := q.useOIDC(ctx, useOIDCParams(p))
	if err != nil {
		return OIDCSignIn{}, err
	}
	plain, err := q.ring().Open(oidcCell(p.PracticeCode, p.StateHash), row.Secrets)
	if err != nil {
		return OIDCSignIn{}, err
	}
	var secrets oidcSecrets
	if err := json.Unmarshal(plain, &secrets); err != nil {
		return OIDCSignIn{}, errors.New("the secrets of a sign-in cannot be read")
	}
	return OIDCSignIn{Nonce: secrets.Nonce, CodeVerifier: secrets.CodeVerifier, ReturnTo: row.ReturnTo}, nil
}
