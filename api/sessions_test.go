package api_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/vantrexia/vantrexia/account"
)

// hours are two times of a session's, counted from its sign-in.
func (s *system) hours(column string) (hours float64) {
	s.tb.Helper()
	err := s.conn.QueryRow(s.tb.Context(), "SELECT max(extract(epoch FROM "+column+" - created_at)) / 3600 FROM sessions").Scan(&hours)
	if err != nil {
		s.tb.Fatal(err)
	}
	return hours
}

// However often a session is refreshed, it ends a day after the sign-in: whoever has stolen a token does not
// keep it alive.
func TestASessionEndsADayAfterItsSignIn(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	s.person("nora@example.com", account.Nurse)
	nora, token := s.signedIn("nora@example.com", goodPassword)
	for range 3 {
		token = s.refresh(token).want(t, http.StatusOK, "").text("refresh")
		s.secret(token)
	}
	if ends := s.hours("sign_in_again_at"); ends != 24 {
		t.Errorf("the session ends after %v hours", ends)
	}

	// As if 23 hours and 59 minutes had passed, and then a day.
	s.exec("UPDATE sessions SET sign_in_again_at = sign_in_again_at - interval '23 hours 59 minutes'")
	next := s.refresh(token).want(t, http.StatusOK, "")
	s.secret(next.text("access"), next.text("refresh"))
	nora.me().want(t, http.StatusOK, "")
	s.exec("UPDATE sessions SET sign_in_again_at = sign_in_again_at - interval '1 minute'")
	nora.me().want(t, http.StatusUnauthorized, "session_ended")
	s.with(next.text("access")).me().want(t, http.StatusUnauthorized, "session_ended")
	s.refresh(next.text("refresh")).want(t, http.StatusUnauthorized, "invalid_token")
	s.signedIn("nora@example.com", goodPassword)
}

// A session that nobody uses is good for nothing after 15 minutes, and cannot be refreshed after a day.
func TestAnIdleSessionEnds(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	s.person("nora@example.com", account.Nurse)
	nora, token := s.signedIn("nora@example.com", goodPassword)

	var said account.Claims
	if _, _, err := jwt.NewParser().ParseUnverified(nora.token, &said); err != nil {
		t.Fatal(err)
	}
	if life := said.ExpiresAt.Sub(said.IssuedAt.Time); life != 15*time.Minute {
		t.Errorf("an access token is good for %s", life)
	}
	if idle := s.hours("expires_at"); idle != 24 {
		t.Errorf("a refresh token is good for %v hours", idle)
	}

	s.exec("UPDATE refresh_tokens SET expires_at = now() - interval '1 second'")
	s.refresh(token).want(t, http.StatusUnauthorized, "invalid_token")
}

// Whoever signs out everywhere ends the own sessions, all of them, and nobody else's.
func TestSignOutEverywhere(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	s.person("nora@example.com", account.Nurse)
	s.person("mary@example.com", account.Provider)
	laptop, laptopToken := s.signedIn("nora@example.com", goodPassword)
	phone, phoneToken := s.signedIn("nora@example.com", goodPassword)
	mary, maryToken := s.signedIn("mary@example.com", goodPassword)

	phone.do("POST", "/api/v1/auth/logout/everywhere/", "").want(t, http.StatusNoContent, "")
	for _, c := range []caller{laptop, phone} {
		c.me().want(t, http.StatusUnauthorized, "session_ended")
		c.do("GET", "/api/v1/patients/", "").want(t, http.StatusUnauthorized, "session_ended")
		c.do("POST", "/api/v1/auth/logout/everywhere/", "").want(t, http.StatusUnauthorized, "session_ended")
	}
	for _, token := range []string{laptopToken, phoneToken} {
		s.refresh(token).want(t, http.StatusUnauthorized, "invalid_token")
	}

	mary.me().want(t, http.StatusOK, "")
	s.refresh(maryToken).want(t, http.StatusOK, "")
	s.signedIn("nora@example.com", goodPassword)
}

// Sign-out ends the own session with all its tokens, and no other.
func TestSignOut(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	s.person("nora@example.com", account.Nurse)
	laptop, laptopToken := s.signedIn("nora@example.com", goodPassword)
	phone, _ := s.signedIn("nora@example.com", goodPassword)
	laptop.do("POST", "/api/v1/auth/logout/", "").want(t, http.StatusNoContent, "")
	laptop.me().want(t, http.StatusUnauthorized, "session_ended")
	s.refresh(laptopToken).want(t, http.StatusUnauthorized, "invalid_token")
	phone.me().want(t, http.StatusOK, "")
}

// A disabled account is refused from the next request on, with every kind of token that it has. An API key that
// its owner has made goes on, because machines use it: the list says whose it is.
func TestADisabledAccount(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	id := s.person("ada@example.com", account.Admin)
	s.person("mary@example.com", account.Admin)
	ada, _ := s.signedIn("ada@example.com", goodPassword)
	mary, _ := s.signedIn("mary@example.com", goodPassword)
	old := ada
	_, used := s.signedIn("ada@example.com", goodPassword)
	next := s.refresh(used).want(t, http.StatusOK, "")
	s.secret(next.text("access"), next.text("refresh"))
	made := ada.do("POST", "/api/v1/api-keys/", `{"name":"gateway","role":"service"}`).want(t, http.StatusCreated, "")
	s.secret(made.text("key"))

	mary.do("PATCH", "/api/v1/users/"+id.String()+"/", `{"disabled":true}`).want(t, http.StatusOK, "")
	for name, c := range map[string]caller{"the first access token": old, "that of a refresh": s.with(next.text("access"))} {
		for _, path := range []string{"/api/v1/auth/me/", "/api/v1/patients/", "/api/v1/users/", "/api/v1/fhir/status/"} {
			if got := c.do("GET", path, ""); got.status != http.StatusUnauthorized || got.code() != "session_ended" {
				t.Errorf("%s at %s: %d %s", name, path, got.status, got.body)
			}
		}
		c.do("POST", "/api/v1/api-keys/", `{"name":"another","role":"admin"}`).want(t, http.StatusUnauthorized, "session_ended")
	}
	s.refresh(next.text("refresh")).want(t, http.StatusUnauthorized, "invalid_token")
	s.signIn("ada@example.com", goodPassword, "").want(t, http.StatusUnauthorized, "authentication_failed")

	s.with(made.text("key")).do("GET", "/api/v1/patients/", "").want(t, http.StatusForbidden, "forbidden") // a key of a machine, which may post
	if by := mary.do("GET", "/api/v1/api-keys/", "").text("results", 0, "created_by"); by != id.String() {
		t.Errorf("the key is listed as made by %q", by)
	}
}
