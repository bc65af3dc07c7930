package ecw

import (
	"context"
	"time"
)

const (
	previewLength = 20
	previewEnd    = "...truncated"
)

// TokenReport is what a test of the authentication found. It never carries the access token.
type TokenReport struct {
	TokenEndpoint string
	// Preview is the start of the access token, at most 20 characters and never more than half of it, and "...truncated".
	Preview   string
	TokenType string // as eCW spells it
	// ExpiresIn is in seconds; 60, which the client then goes by, when eCW does not say.
	ExpiresIn int
	Scope     string    // granted, separated by spaces
	IssuedAt  time.Time // UTC, on our clock
	// Refusal is what eCW said in its own words (error_description) when it gave no token. It is for the eyes of the person
	// who asked for the test: it may name anything, and goes into no log, history or database.
	Refusal string
}

// TestAuthentication signs a new assertion and asks eCW for a new access token, whether or not one is held. A good one
// replaces the one held. The error is an [*Error] with Op "token"; a token of too narrow a scope is one too
// ("insufficient_scope"). With an error only [TokenReport.Refusal] is set.
func (c *Client) TestAuthentication(ctx context.Context) (TokenReport, error) {
	t, said, err := c.tokens.renew(ctx)
	if err != nil {
		return TokenReport{Refusal: said}, err
	}
	c.tokens.hold(t)
	return TokenReport{
		TokenEndpoint: c.tokens.url,
		Preview:       preview(*t.value),
		TokenType:     t.kind,
		ExpiresIn:     int(t.lifetime / time.Second),
		Scope:         t.scope,
		IssuedAt:      t.issuedAt.UTC(),
	}, nil
}

// MayCreate reports whether the token held lets us create Observations, as far as its scope says; true while none is held.
func (c *Client) MayCreate() bool {
	t, held := c.tokens.held()
	return !held || len(missingScopes(createScope, t.scope)) == 0
}

const createScope = "system/Observation.c"

// preview shows enough of an access token to recognise its kind. A short token is shown less of: twenty characters could
// be all of it. The value is ASCII (see isBearerValue).
func preview(accessToken string) string {
	return accessToken[:min(previewLength, len(accessToken)/2)] + previewEnd
}
