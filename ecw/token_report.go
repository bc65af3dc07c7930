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

// TokenReport is the result of a test of the authentication. It never contains the access token.
type TokenReport struct {
	TokenEndpoint string
	// Preview is the start of the access token and "...truncated". It shows at most 20 characters, and never
	// more than half of the token.
	Preview   string
	TokenType string // as eCW spells it
	// ExpiresIn is in seconds. It is 60, which the client then assumes, if eCW does not say.
	ExpiresIn int
	Scope     string    // granted, separated by spaces
	IssuedAt  time.Time // UTC, on our clock
	// Refusal is eCW's own text (error_description) if it gave no token. It may contain anything, so it is
	// shown only to the person who asked for the test and must not be stored or logged.
	Refusal string
}

// TestAuthentication signs a new assertion and asks eCW for a new access token, even if the client holds one.
// If it gets one, that replaces the old one. The error is an [*Error] with Op "token"; it has Code
// "insufficient_scope" if the scope of the token is too narrow. With an error only [TokenReport.Refusal] is
// set.
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

// preview shows enough of an access token to recognise its kind. It shows less of a short token, of which
// twenty characters could be the whole. The value is ASCII (see isBearerValue).
func preview(accessToken string) string {
	return accessToken[:min(previewLength, len(accessToken)/2)] + previewEnd
}

// maxSaid is how many characters of eCW's own text are shown.
const maxSaid = 300

// said is the error_description of a refusal, without any credentials of ours that the server repeats in it.
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

// jwtForm matches a JSON Web Token, which begins with "{" and a quotation mark in base64.
var jwtForm = regexp.MustCompile(`eyJ[A-Za-z0-9_.=-]+`)
