package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/vantrexia/vantrexia/account"
)

// tokenSource has an administrator's token for the API.
type tokenSource interface {
	// access returns a caller of the API. again means that the API refused the last one's token.
	access(ctx context.Context, again bool) (apiClient, error)
	// end gives the token up.
	end()
}

// codecToken returns the token that is set, or signs in.
func codecToken(cmd *cobra.Command, cfg config, url, email string) (tokenSource, error) {
	if cfg.CommandToken != "" {
		api, err := newAPIClient(cfg, url, cfg.CommandToken)
		return fixedToken{api}, err
	}
	if email == "" {
		return nil, errors.New("nobody to sign in: use --email, or set VANTREXIA_TOKEN to the access token of an administrator")
	}
	api, err := newAPIClient(cfg, url, "none yet")
	if err != nil {
		return nil, err
	}
	s := &session{api: api}
	return s, s.signIn(cmd, email)
}

// fixedToken is one that somebody else made.
type fixedToken struct{ api apiClient }

func (t fixedToken) access(_ context.Context, again bool) (apiClient, error) {
	if again {
		return t.api, errors.New("the API does not take the token any more: start the command again with another one")
	}
	return t.api, nil
}

func (fixedToken) end() {}

// session is an administrator who has signed in.
type session struct {
	mu      sync.Mutex // one refresh at a time: a refresh token that is used twice ends the session
	api     apiClient
	refresh string
	until   time.Time // when the access token is renewed, before it expires
}

// renewAfter is shorter than an access token is good.
const renewAfter = 12 * time.Minute

type tokens struct {
	Access  string `json:"access"`
	Refresh string `json:"refresh"`
}

func (s *session) access(ctx context.Context, again bool) (apiClient, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !again && time.Now().Before(s.until) {
		return s.api, nil
	}

	// The page that asks may be left at any moment, and a refresh whose answer nobody reads would end the session.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
	defer cancel()
	var renewed tokens
	err := s.api.call(ctx, http.MethodPost, "/auth/token/refresh/", map[string]string{"refresh": s.refresh}, &renewed)
	if err != nil {
		return s.api, fmt.Errorf("the session has ended, start the command again: %w", err)
	}
	s.take(renewed)
	return s.api, nil
}

// end signs out.
func (s *session) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	_ = s.api.call(ctx, http.MethodPost, "/auth/logout/", nil, nil) // the session ends within a day by itself
}

func (s *session) take(t tokens) {
	s.api.token, s.refresh, s.until = t.Access, t.Refresh, time.Now().Add(renewAfter)
}

// signIn asks for the password and, when the account has one, for the code.
func (s *session) signIn(cmd *cobra.Command, email string) error {
	lines := bufio.NewReader(cmd.InOrStdin())
	password, err := prompt(cmd, lines, "Password: ")
	if err != nil {
		return err
	}

	sent := map[string]string{"email": email, "password": password}
	var signedIn tokens
	err = s.api.call(cmd.Context(), http.MethodPost, "/auth/login/", sent, &signedIn)
	var refused *apiError
	if errors.As(err, &refused) && refused.code == "totp_required" {
		if sent["totp_code"], err = prompt(cmd, lines, "Code of the authenticator app: "); err != nil {
			return err
		}
		err = s.api.call(cmd.Context(), http.MethodPost, "/auth/login/", sent, &signedIn)
	}
	if err != nil {
		return fmt.Errorf("sign in: %w", err)
	}
	s.take(signedIn)
	return nil
}

// prompt reads a line from the terminal without showing it, or the next line of the input.
func prompt(cmd *cobra.Command, lines *bufio.Reader, question string) (string, error) {
	if input := int(os.Stdin.Fd()); term.IsTerminal(input) {
		fmt.Fprint(cmd.ErrOrStderr(), question)
		text, err := term.ReadPassword(input)
		fmt.Fprintln(cmd.ErrOrStderr())
		return string(text), err
	}
	line, err := lines.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// ownToken signs an administrator's token itself: `make run` has the secret.
type ownToken struct {
	cfg config
	api apiClient
}

func (t ownToken) access(context.Context, bool) (api apiClient, err error) {
	t.api.token, err = t.cfg.signToken("codec", account.Admin, time.Minute)
	return t.api, err
}

func (ownToken) end() {}
