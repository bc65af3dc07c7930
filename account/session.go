package account

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
)

const (
	// How long the tokens are good, as the platform documents it.
	accessFor  = 15 * time.Minute
	refreshFor = 24 * time.Hour
	// sessionFor is how long after a sign-in with a password its session ends, however often it is refreshed. It
	// is the shortest time in which the first refresh token is good for as long as it is said to be.
	sessionFor = 24 * time.Hour
)

// Tokens are what a session is used with.
type Tokens struct {
	// Access is a bearer token for the API.
	Access string
	// Refresh gets the next pair, once.
	Refresh string
}

// issue makes the next pair of tokens of a session.
func (p *People) issue(ctx context.Context, q *db.Queries, user uuid.UUID, role Role, session uuid.UUID) (Tokens, error) {
	refresh := make([]byte, 32)
	if _, err := rand.Read(refresh); err != nil {
		return Tokens{}, err
	}

	tokens := Tokens{Refresh: base64.RawURLEncoding.EncodeToString(refresh)}
	err := q.AddRefreshToken(ctx, db.AddRefreshTokenParams{
		SessionID:    session,
		TokenHash:    tokenHash(tokens.Refresh),
		LastsSeconds: refreshFor.Seconds(),
	})
	if err != nil {
		return Tokens{}, fmt.Errorf("store a refresh token: %w", err)
	}

	tokens.Access, err = p.Signer.Sign(user.String(), role, session.String(), accessFor)
	return tokens, err
}

// tokenHash is of the text as it was sent, so that no other spelling of the same bits is taken.
func tokenHash(refresh string) []byte {
	hash := sha256.Sum256([]byte(refresh))
	return hash[:]
}

// Refresh gives the next tokens for a refresh token, which is used up. A used one that comes again ends its
// session, because one of the two who had it has stolen it; both must sign in again. That is so for two
// requests at the same moment too: one of them gets tokens, and they are refused from the second request on.
// A client must therefore send one refresh at a time. Every other token gets [ErrRefresh] as well.
func (p *People) Refresh(ctx context.Context, refresh, address string) (Tokens, error) {
	var tokens Tokens
	var refused error
	err := p.Store.InTx(ctx, func(q *db.Queries) error {
		row, err := q.UseRefreshToken(ctx, db.UseRefreshTokenParams{PracticeCode: p.PracticeCode, TokenHash: tokenHash(refresh)})
		if db.IsNotFound(err) {
			refused = ErrRefresh
			return p.endIfReused(ctx, q, refresh, address)
		}
		if err != nil {
			return fmt.Errorf("use a refresh token: %w", err)
		}
		tokens, err = p.issue(ctx, q, row.UserID, Role(row.Role), row.SessionID)
		return err
	})
	if err != nil {
		return Tokens{}, err
	}
	return tokens, refused
}

// endIfReused ends the session of a token that was used before.
func (p *People) endIfReused(ctx context.Context, q *db.Queries, refresh, address string) error {
	used, err := q.FindUsedRefreshToken(ctx, db.FindUsedRefreshTokenParams{PracticeCode: p.PracticeCode, TokenHash: tokenHash(refresh)})
	if db.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look a refresh token up: %w", err)
	}

	ended, err := q.EndSession(ctx, db.EndSessionParams{ID: used.SessionID, Reason: reason(endedReused)})
	if err != nil {
		return fmt.Errorf("end a session: %w", err)
	}
	if ended == 0 { // it was over before
		return nil
	}
	p.Logger.WarnContext(ctx, "a refresh token came twice, its session has ended", "user_id", used.UserID, "session_id", used.SessionID)
	return p.record(ctx, q, used.UserID, TokenReused, By{Address: address}, "")
}

// EndReason says why a session has ended.
type EndReason string

const (
	endedSignOut  EndReason = "signed_out"
	endedAll      EndReason = "signed_out_everywhere"
	endedReused   EndReason = "refresh_token_reused"
	endedPassword EndReason = "password_changed"
	endedDisabled EndReason = "disabled"
	endedNoRole   EndReason = "no_role" // the identity provider gives the person none any more
)

// Check completes the caller of an access token whose signature and times are right. It looks at the session
// with each request, without a cache, so that a token is refused from the moment on at which its session
// ends, its user is disabled ([ErrSessionEnded]) or gets another role ([ErrRoleChanged]: a refresh gets a
// good one).
func (p *People) Check(ctx context.Context, c Caller) (Caller, error) {
	session, sessionErr := uuid.Parse(c.Session)
	user, userErr := uuid.Parse(c.Subject)
	if sessionErr != nil || userErr != nil {
		return c, ErrSessionEnded
	}

	row, err := p.Store.CheckSession(ctx, db.CheckSessionParams{
		PracticeCode: p.PracticeCode,
		SessionID:    session,
		UserID:       user,
	})
	switch {
	case db.IsNotFound(err):
		return c, ErrSessionEnded
	case err != nil:
		return c, fmt.Errorf("look at the session: %w", err)
	case Role(row.Role) != c.Role:
		return c, ErrRoleChanged
	}
	c.MustChangePassword = row.MustChangePassword
	return c, nil
}

// SignOut ends the caller's session, with all its tokens. It returns [ErrUnknownUser] for a machine, which
// has none.
func (p *People) SignOut(ctx context.Context, c Caller) error {
	id, err := uuid.Parse(c.Session)
	if err != nil {
		return ErrUnknownUser
	}
	return p.Store.InTx(ctx, func(q *db.Queries) error {
		if _, err := q.EndSession(ctx, db.EndSessionParams{ID: id, Reason: reason(endedSignOut)}); err != nil {
			return fmt.Errorf("end a session: %w", err)
		}
		return audit.Record(ctx, q, ByCaller(c).event(p.PracticeCode, audit.SignOut, sessionResource, c.Session))
	})
}

// SignOutEverywhere ends all sessions of the caller, this one too. It returns [ErrUnknownUser] for a machine.
func (p *People) SignOutEverywhere(ctx context.Context, c Caller) error {
	user, err := p.Own(ctx, c)
	if err != nil {
		return err
	}
	return p.Store.InTx(ctx, func(q *db.Queries) error {
		if err := q.EndSessionsOf(ctx, db.EndSessionsOfParams{UserID: user.ID, Reason: reason(endedAll)}); err != nil {
			return fmt.Errorf("end all sessions: %w", err)
		}
		e := ByCaller(c).event(p.PracticeCode, audit.SignOut, userResource, user.ID.String())
		e.Reason = string(endedAll)
		return audit.Record(ctx, q, e)
	})
}
