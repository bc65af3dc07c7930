package account

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/vantrexia/vantrexia/db"
)

// ActorOIDC is the actor of what a sign-in with the identity provider does to an account.
const ActorOIDC = "oidc"

// maxPersonName is as long as a name can be that an administrator types in.
const maxPersonName = 100

// person is who somebody is at the identity provider.
type person struct {
	subject string
	email   string
	// emailVerified means that the provider has seen that the e-mail is theirs, as it is stored here.
	emailVerified bool
	first, last   string
	role          Role // empty: none of their groups has one
}

// personOf reads the claims (OpenID Connect Core 1.0 §5.1).
func (o *OIDC) personOf(claims idClaims) person {
	// Where the provider sends the whole name only, the last word is the family name. Its owner may correct it.
	whole := strings.Fields(claims.text("name"))
	var given, family string
	if len(whole) > 1 {
		given, family = strings.Join(whole[:len(whole)-1], " "), whole[len(whole)-1]
	}
	// NFKC makes the same address of others, in wide letters for example. Their mailboxes are not the verified one.
	verified := claims["email_verified"] == true || claims["email_verified"] == "true" // Cognito sends a text
	who := person{
		subject:       claims.text("sub"),
		email:         claims.text("email"),
		emailVerified: verified && isASCII(claims.text("email")),
		first:         cleanName(cmp.Or(claims.text("given_name"), given)),
		last:          cleanName(cmp.Or(claims.text("family_name"), family)),
	}

	groups := claims.list(o.GroupsClaim)
	if i := slices.IndexFunc(o.Roles, func(r GroupRole) bool { return slices.Contains(groups, r.Group) }); i >= 0 {
		who.role = o.Roles[i].Role
	}
	return who
}

// cleanName takes out what a name that is typed in cannot have.
func cleanName(name string) string {
	runes := []rune(strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, name)))
	return string(runes[:min(len(runes), maxPersonName)])
}

// signIn begins a session of a person whom the provider has let in.
func (o *OIDC) signIn(ctx context.Context, who person, by By) (in SignedIn, err error) {
	var refused error
	err = o.people.Store.InTx(ctx, func(q *db.Queries) (err error) {
		if err := q.HoldIdentity(ctx, o.Issuer+" "+who.subject); err != nil {
			return fmt.Errorf("begin a sign-in: %w", err)
		}
		if in.User, refused, err = o.admit(ctx, q, who, by); err != nil || refused != nil {
			return err
		}
		in.Tokens, err = o.people.startSession(ctx, q, in.User, entry{how: ActorOIDC, address: by.Address, most: oidcSessionFor})
		return err
	})
	if err != nil {
		return SignedIn{}, err
	}
	return in, refused
}

// admit returns the account of the person, locked and with the role that the groups give, or why there is
// none.
func (o *OIDC) admit(ctx context.Context, q *db.Queries, who person, by By) (user db.User, refused, err error) {
	user, err = q.LockUserOfIdentity(ctx, db.IdentityParams{
		PracticeCode: o.people.PracticeCode,
		Issuer:       o.Issuer,
		Subject:      who.subject,
	})
	known := err == nil
	switch {
	case !known && !db.IsNotFound(err):
		return user, nil, fmt.Errorf("look an identity up: %w", err)
	case who.role == "":
		o.refused(ctx, "no group of the claim OIDC_GROUPS_CLAIM has a role in OIDC_ROLES")
		return user, ErrOIDCNoRole, o.endSessions(ctx, q, user, known)
	case !known:
		if user, refused, err = o.welcome(ctx, q, who, by); err != nil || refused != nil {
			return user, refused, err
		}
	}

	if user.DisabledAt != nil {
		return user, ErrDisabled, nil
	}
	if before := user.Role; before != string(who.role) {
		user.Role = string(who.role)
		if err := q.SetRole(ctx, db.SetRoleParams{ID: user.ID, Role: user.Role}); err != nil {
			return user, nil, fmt.Errorf("change the role: %w", err)
		}
		return user, nil, o.people.record(ctx, q, user.ID, RoleChanged, by, before+" to "+user.Role)
	}
	return user, nil, nil
}

// endSessions ends the sessions of an account whose owner has lost every group with a role.
func (o *OIDC) endSessions(ctx context.Context, q *db.Queries, user db.User, known bool) error {
	if !known {
		return nil
	}
	if err := q.EndSessionsOf(ctx, db.EndSessionsOfParams{UserID: user.ID, Reason: reason(endedNoRole)}); err != nil {
		return fmt.Errorf("end the sessions: %w", err)
	}
	return nil
}

// welcome finds or makes the account of somebody who signs in for the first time.
func (o *OIDC) welcome(ctx context.Context, q *db.Queries, who person, by By) (user db.User, refused, err error) {
	email, err := NormaliseEmail(who.email)
	if err != nil {
		o.refused(ctx, "the id token has no e-mail that an account can have: let the provider send the claim email")
		return user, ErrOIDCClaims, nil
	}

	user, err = q.FindUser(ctx, db.FindUserParams{PracticeCode: o.people.PracticeCode, Email: email})
	switch {
	case db.IsNotFound(err):
		user, refused, err = o.create(ctx, q, who, email, by)
	case err != nil:
		err = fmt.Errorf("find the account: %w", err)
	default:
		user, refused, err = o.link(ctx, q, who, user, by)
	}
	if err != nil || refused != nil {
		return user, refused, err
	}

	err = q.AddIdentity(ctx, db.AddIdentityParams{
		PracticeCode: o.people.PracticeCode,
		Issuer:       o.Issuer,
		Subject:      who.subject,
		UserID:       user.ID,
	})
	if err != nil {
		return user, nil, fmt.Errorf("store an identity: %w", err)
	}
	return user, nil, nil
}

func (o *OIDC) create(ctx context.Context, q *db.Queries, who person, email string, by By) (user db.User, refused, err error) {
	if who.first == "" || who.last == "" {
		o.refused(ctx, "the id token has no names: let the provider send given_name and family_name, or a name of two words")
		return user, ErrOIDCClaims, nil
	}

	user, err = q.CreateUser(ctx, db.CreateUserParams{
		PracticeCode: o.people.PracticeCode,
		Email:        email,
		FirstName:    who.first,
		LastName:     who.last,
		Role:         string(who.role),
	})
	if db.IsNotFound(err) { // somebody got the e-mail in this moment
		return user, ErrOIDCAccountExists, nil
	}
	if err != nil {
		return user, nil, fmt.Errorf("store the account: %w", err)
	}
	return user, nil, o.people.record(ctx, q, user.ID, Added, by, string(who.role))
}

// link gives a person the account with their e-mail, if an administrator has made it for its owner to come:
// the password is one that the administrator set, or there is none. An account whose owner chose the password
// or set up two-factor sign-in is in use, and nobody gets it for an e-mail. Nor does anybody for an e-mail
// that the provider has not verified. The administrator's password is dropped, and its sessions end.
func (o *OIDC) link(ctx context.Context, q *db.Queries, who person, found db.User, by By) (user db.User, refused, err error) {
	user, err = q.LockUser(ctx, db.GetUserParams{PracticeCode: o.people.PracticeCode, ID: found.ID})
	if err != nil {
		return user, nil, fmt.Errorf("lock the account: %w", err)
	}
	taken, err := q.HasIdentity(ctx, db.HasIdentityParams{UserID: user.ID, Issuer: o.Issuer})
	if err != nil {
		return user, nil, fmt.Errorf("look for an identity: %w", err)
	}

	inUse := user.PasswordHash != nil && user.PasswordTemporaryUntil == nil || user.TOTPEnabled
	switch {
	case user.DisabledAt != nil && who.emailVerified:
		return user, ErrDisabled, nil
	case taken, inUse, !who.emailVerified, user.Email != found.Email:
		o.people.Logger.WarnContext(ctx, "sign-in with the identity provider refused: another account has the e-mail",
			"user_id", user.ID, "email_verified", who.emailVerified, "has_owner", taken || inUse)
		return user, ErrOIDCAccountExists, nil
	}

	if err := q.DropPassword(ctx, user.ID); err != nil {
		return user, nil, fmt.Errorf("drop the password: %w", err)
	}
	if err := q.EndSessionsOf(ctx, db.EndSessionsOfParams{UserID: user.ID, Reason: reason(endedPassword)}); err != nil {
		return user, nil, fmt.Errorf("end the sessions: %w", err)
	}
	return user, nil, o.people.record(ctx, q, user.ID, Linked, by, "")
}
