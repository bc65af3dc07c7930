package ecw

import (
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"time"
	"unicode"
)

const (
	previewLength = 20
	previewEnd    = "...truncated"
)

// TokenReport is what a test of the authentication found. It never carries the access token.
type TokenReport struct {
	TokenEndpoint string
	// Preview is the start of the access token, at most 20 characters and never more than half of it, and
	// "...truncated".
	Preview   string
	TokenType string // as eCW spells it
	// ExpiresIn is in seconds; 60, which the client then goes by, when eCW does not say.
	ExpiresIn int
	Scope     string    // granted, separated by spaces
	IssuedAt  time.Time // UTC, on our clock
	// Refusal is what eCW said in its own words (error_description) when it gave no token. It is for the eyes
	// of the person who asked for the test: it may name anything, and goes into no log, history or database.
	Refusal string
}

// TestAuthentication signs a new assertion and asks eCW for a new access token, whether or not one is held. A
// good one replaces the one held. The error is an [*Error] with Op "token"; a token of too narrow a scope is
// one too ("insufficient_scope"). With an error only [TokenReport.Refusal] is set.
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

// preview shows enough of an access token to recognise its kind. A short token is shown less of: twenty
// characters could be all of it. The value is ASCII (see isBearerValue).
func preview(accessToken string) string {
	return accessToken[:min(previewLength, len(accessToken)/2)] + previewEnd
}

// maxSaid is how many characters of eCW's words are shown.
const maxSaid = 300

// said is the error_description of a refusal, without what a server may repeat of our credentials.
func (s *tokenSource) said(res *response) string {
	var body struct {
		Description string `json:"error_description"`
	}
	if res.bodyErr != nil || !res.isJSON() || json.Unmarshal(res.body, &body) != nil {
		return ""
	}

	text := jwtForm.ReplaceAllString(body.Description, "[token]")
	if s.secret != "" {
		text = strings.ReplaceAll(text, s.secret, "[secret]")
	}

	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)

	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > maxSaid {
		return string(runes[:maxSaid]) + "..."
	}

	return text
}

// jwtForm is how a JSON Web Token begins: "{" and a quotation mark in base64.
var jwtForm = regexp.MustCompile(`eyJ[A-Za-z0-9_.=-]+`)
