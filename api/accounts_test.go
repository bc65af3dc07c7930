package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/pquerna/otp/totp"

	"github.com/vantrexia/vantrexia/account"
)

// goodPassword is the one of the contract's examples.
const goodPassword = "gravel pocket lantern nine"

func (s *system) accounts() *account.People {
	s.tb.Helper()
	people, err := account.NewPeople(account.Config{Store: s.store, PracticeCode: practice, Logger: s.log.logger()})
	if err != nil {
		s.tb.Fatal(err)
	}
	return people
}

// person makes an account whose owner chose goodPassword.
func (s *system) person(email string, role account.Role) uuid.UUID {
	s.tb.Helper()
	s.secret(email, goodPassword)
	row, _, err := s.accounts().Add(s.tb.Context(), account.By{Actor: account.Local, Reason: "a test"}, account.NewUser{
		Email:       email,
		FirstName:   "Nora",
		LastName:    "Lind",
		Role:        role,
		Password:    goodPassword,
		OwnPassword: true,
	})
	if err != nil {
		s.tb.Fatal(err)
	}
	return row.User.ID
}

func asJSON(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // it is a map of texts
	}
	return string(text)
}

func (c caller) signIn(email, password, code string) answer {
	c.tb.Helper()
	body := map[string]string{"email": email, "password": password}
	if code != "" {
		body["totp_code"] = code
	}
	return c.with("").do("POST", "/api/v1/auth/login/", asJSON(body))
}

// signedIn is a caller with a session, and its refresh token.
func (c caller) signedIn(email, password string) (caller, string) {
	c.tb.Helper()
	in := c.signIn(email, password, "").want(c.tb, http.StatusOK, "")
	c.secret(in.text("access"), in.text("refresh"))
	return c.with(in.text("access")), in.text("refresh")
}

func (c caller) refresh(token string) answer {
	c.tb.Helper()
	return c.with("").do("POST", "/api/v1/auth/token/refresh/", asJSON(map[string]string{"refresh": token}))
}

func (c caller) me() answer {
	c.tb.Helper()
	return c.do("GET", "/api/v1/auth/me/", "")
}

func code(tb testing.TB, secret string, at time.Time) string {
	tb.Helper()
	code, err := totp.GenerateCode(secret, at)
	if err != nil {
		tb.Fatal(err)
	}
	return code
}

// lockedUntil fails the test unless the answer says that the account is locked for about half an hour.
func (a answer) lockedUntil(tb testing.TB) time.Time {
	tb.Helper()
	a.want(tb, http.StatusLocked, "account_locked")
	until, err := time.Parse(time.RFC3339, a.text("locked_until"))
	if left := time.Until(until); err != nil || left < 29*time.Minute || left > 31*time.Minute {
		tb.Fatalf("locked until %q", a.text("locked_until"))
	}
	return until
}

// A person signs in, turns two-factor sign-in on, is locked out, unlocked, and has a refresh token stolen.
func TestTheLifeOfAnAccount(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	const email = "nora@example.com"
	id := s.person(email, account.Nurse)
	s.person("admin@example.com", account.Admin)
	admin, _ := s.signedIn("admin@example.com", goodPassword)

	in := s.signIn(" Nora@EXAMPLE.com", goodPassword, "").want(t, http.StatusOK, "")
	if in.text("user", "id") != id.String() || in.text("user", "role") != "nurse" || in.get("user", "is_2fa_enabled") != false ||
		!slices.Equal(in.part("user").keys(), []string{"email", "first_name", "id", "is_2fa_enabled", "last_name", "role"}) {
		t.Fatalf("signed in as %s", in.body)
	}
	nora := s.with(in.text("access"))
	nora.do("GET", "/api/v1/patients/", "").want(t, http.StatusOK, "")
	nora.do("GET", "/api/v1/users/", "").want(t, http.StatusForbidden, "forbidden")

	// Two-factor sign-in.
	totpPath := "/api/v1/auth/me/totp/"
	nora.do("POST", totpPath+"confirm/", `{"code":"123456"}`).want(t, http.StatusConflict, "totp_not_set_up")
	nora.do("POST", totpPath, `{"password":"wrong"}`).want(t, http.StatusBadRequest, "invalid")
	offer := nora.do("POST", totpPath, asJSON(map[string]string{"password": goodPassword})).want(t, http.StatusOK, "")
	secret := offer.text("secret")
	s.secret(secret)
	if url := offer.text("otpauth_url"); !strings.HasPrefix(url, "otpauth://totp/Vantrexia:nora@example.com?") || !strings.Contains(url, secret) {
		t.Errorf("the URL for the app is %q", url)
	}
	s.signIn(email, goodPassword, "").want(t, http.StatusOK, "") // nothing has changed yet

	now := time.Now()
	nora.do("POST", totpPath+"confirm/", `{"code":"000000"}`).want(t, http.StatusBadRequest, "invalid")
	first := code(t, secret, now)
	confirmed := nora.do("POST", totpPath+"confirm/", asJSON(map[string]string{"code": first})).want(t, http.StatusOK, "")
	if confirmed.get("is_2fa_enabled") != true {
		t.Errorf("confirmed as %s", confirmed.body)
	}
	nora.do("POST", totpPath, asJSON(map[string]string{"password": goodPassword})).want(t, http.StatusConflict, "totp_enabled")

	s.signIn(email, goodPassword, "").want(t, http.StatusUnauthorized, "totp_required")
	s.signIn(email, "wrong", "").want(t, http.StatusUnauthorized, "authentication_failed")
	s.signIn(email, goodPassword, first).want(t, http.StatusUnauthorized, "authentication_failed") // used up
	next := code(t, secret, now.Add(30*time.Second))
	in = s.signIn(email, goodPassword, next).want(t, http.StatusOK, "")
	if in.get("user", "is_2fa_enabled") != true {
		t.Errorf("signed in as %s", in.body)
	}

	// Locked out, also with what is right; each try starts the time again.
	for range account.MostFailures {
		s.signIn(email, goodPassword, "999999").want(t, http.StatusUnauthorized, "authentication_failed")
	}
	s.exec("UPDATE users SET totp_step = 0 WHERE id = $1", id)
	was := s.signIn(email, goodPassword, next).lockedUntil(t)
	if until := s.signIn(email, "wrong", "").lockedUntil(t); !until.After(was) {
		t.Errorf("a further failure locks until %s, was %s", until, was)
	}
	nora.me().want(t, http.StatusOK, "") // who is in stays in
	if shown := admin.do("GET", "/api/v1/users/"+id.String()+"/", ""); shown.get("locked_until") == nil {
		t.Errorf("an administrator sees %s", shown.body)
	}
	if !strings.Contains(s.log.text(), "account locked") || !strings.Contains(s.log.text(), id.String()) {
		t.Error("the lockout is not logged")
	}

	// After the time the first failure locks again; an administrator takes the lock away.
	s.exec("UPDATE sign_in_failures SET locked_until = now() - interval '1 second'")
	s.signIn(email, "wrong", "").want(t, http.StatusUnauthorized, "authentication_failed")
	s.signIn(email, goodPassword, next).lockedUntil(t)
	unlocked := admin.do("POST", "/api/v1/users/"+id.String()+"/unlock/", "").want(t, http.StatusOK, "")
	if unlocked.get("locked_until") != nil {
		t.Errorf("unlocked as %s", unlocked.body)
	}
	in = s.signIn(email, goodPassword, next).want(t, http.StatusOK, "")

	// A stolen refresh token ends the session, whoever comes first.
	stolen := in.text("refresh")
	mine := s.refresh(stolen).want(t, http.StatusOK, "")
	s.with(mine.text("access")).me().want(t, http.StatusOK, "")
	s.refresh(stolen).want(t, http.StatusUnauthorized, "invalid_token")
	s.with(mine.text("access")).me().want(t, http.StatusUnauthorized, "session_ended")
	s.with(in.text("access")).me().want(t, http.StatusUnauthorized, "session_ended")
	s.refresh(mine.text("refresh")).want(t, http.StatusUnauthorized, "invalid_token")
	nora.me().want(t, http.StatusOK, "") // another session

	// Two-factor sign-in off, sign out.
	s.exec("UPDATE users SET totp_step = 0 WHERE id = $1", id)
	off := func(password, code string) answer {
		return nora.do("DELETE", totpPath, asJSON(map[string]string{"password": password, "code": code}))
	}
	off(goodPassword, "000000").want(t, http.StatusBadRequest, "invalid")
	off(goodPassword, next).want(t, http.StatusNoContent, "")
	off(goodPassword, next).want(t, http.StatusConflict, "totp_not_set_up")
	s.signIn(email, goodPassword, "").want(t, http.StatusOK, "")
	nora.do("POST", "/api/v1/auth/logout/", "").want(t, http.StatusNoContent, "")
	nora.me().want(t, http.StatusUnauthorized, "session_ended")

	var actions []string
	events := admin.do("GET", "/api/v1/users/events/", "").want(t, http.StatusOK, "")
	for i := range events.get("results").([]any) {
		if events.text("results", i, "user_id") == id.String() {
			actions = append(actions, events.text("results", i, "action"))
		}
	}
	want := []string{"totp_removed", "refresh_token_reused", "unlocked", "locked", "locked", "totp_enabled", "added"}
	if !slices.Equal(actions, want) {
		t.Errorf("the events are %v, want %v", actions, want)
	}
}

// An e-mail that somebody has and one that nobody has get the same answers.
func TestSignInTellsNothingAboutWhoExists(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	s.person("known@example.com", account.Nurse)
	disabled := s.person("disabled@example.com", account.Nurse)
	s.exec("UPDATE users SET disabled_at = now() WHERE id = $1", disabled)
	s.exec("UPDATE users SET password_hash = NULL WHERE id = $1", s.person("elsewhere@example.com", account.Nurse))
	emails := []string{"known@example.com", "disabled@example.com", "elsewhere@example.com", "unknown@example.com"}

	for try := range account.MostFailures + 2 {
		var first answer
		for i, email := range emails {
			got := s.signIn(email, "wrong", "")
			if try >= account.MostFailures {
				got.lockedUntil(t)
				continue
			}
			got.want(t, http.StatusUnauthorized, "authentication_failed")
			if i == 0 {
				first = got
			} else if string(got.body) != string(first.body) || len(got.header) != len(first.header) {
				t.Errorf("%s: %s, want %s", email, got.body, first.body)
			}
		}
	}

	// Right passwords of accounts that may not be used.
	s.exec("DELETE FROM sign_in_failures")
	s.signIn("disabled@example.com", goodPassword, "").want(t, http.StatusUnauthorized, "authentication_failed")
	s.signIn("elsewhere@example.com", goodPassword, "").want(t, http.StatusUnauthorized, "authentication_failed")
	s.signIn("known@example.com", goodPassword, "").want(t, http.StatusOK, "")
}

// Ten thousand wrong codes meet the lock, and not the hash.
func TestTenThousandWrongCodes(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	s.person("nora@example.com", account.Nurse)
	for range account.MostFailures {
		s.signIn("nora@example.com", "wrong", "")
	}

	const callers = 8
	var all sync.WaitGroup
	began := time.Now()
	for i := range callers {
		all.Go(func() {
			for n := i; n < 10_000; n += callers {
				if got := s.signIn("nora@example.com", goodPassword, fmt.Sprintf("%06d", n)); got.status != http.StatusLocked {
					t.Errorf("code %06d is answered with %d", n, got.status)
					return
				}
			}
		})
	}
	all.Wait()
	t.Logf("answered in %s", time.Since(began))
	if s.rows("sessions") != 0 {
		t.Error("somebody got in")
	}
}

// Of tries at the same moment no more tell anything than of tries one after the other.
func TestFailuresAtTheSameMoment(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	for _, email := range []string{"nora@example.com", "unknown@example.com"} {
		if strings.HasPrefix(email, "nora") {
			s.person(email, account.Nurse)
		}
		var mu sync.Mutex
		var all sync.WaitGroup
		statuses := map[int]int{}
		for range 20 {
			all.Go(func() {
				got := s.signIn(email, "wrong", "")
				mu.Lock()
				defer mu.Unlock()
				statuses[got.status]++
			})
		}
		all.Wait()
		if statuses[http.StatusUnauthorized] != account.MostFailures || statuses[http.StatusLocked] != 20-account.MostFailures {
			t.Errorf("%s: the answers are %v", email, statuses)
		}
	}
}

// A crowd that signs in with the right password gets in.
func TestSignInsAtTheSameMoment(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	s.person("nora@example.com", account.Nurse)
	var all sync.WaitGroup
	for range 30 {
		all.Go(func() {
			if got := s.signIn("nora@example.com", goodPassword, ""); got.status != http.StatusOK {
				t.Errorf("answered with %d %s", got.status, got.body)
			}
		})
	}
	all.Wait()
}

// Of refreshes with one token at the same moment exactly one gets tokens, and the session is over then.
func TestRefreshesAtTheSameMoment(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	s.person("nora@example.com", account.Nurse)
	for range 5 {
		_, token := s.signedIn("nora@example.com", goodPassword)
		answers := make([]answer, 8)
		var all sync.WaitGroup
		for i := range answers {
			all.Go(func() { answers[i] = s.refresh(token) })
		}
		all.Wait()

		won := slices.DeleteFunc(answers, func(a answer) bool { return a.status == http.StatusUnauthorized && a.code() == "invalid_token" })
		if len(won) != 1 || won[0].status != http.StatusOK {
			t.Fatalf("%d won", len(won))
		}
		s.with(won[0].text("access")).me().want(t, http.StatusUnauthorized, "session_ended")
		s.refresh(won[0].text("refresh")).want(t, http.StatusUnauthorized, "invalid_token")
	}
}

// A clock that is ten minutes off makes codes that are refused, and tokens that are expired or not.
func TestClocksTenMinutesOff(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	id := s.person("nora@example.com", account.Nurse)
	key, err := totp.Generate(totp.GenerateOpts{Issuer: "Vantrexia", AccountName: "nora@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	s.useTOTP(id, key.Secret())
	for _, off := range []time.Duration{-10 * time.Minute, 10 * time.Minute, -90 * time.Second, 90 * time.Second} {
		s.signIn("nora@example.com", goodPassword, code(t, key.Secret(), time.Now().Add(off))).want(t, http.StatusUnauthorized, "authentication_failed")
	}
	in := s.signIn("nora@example.com", goodPassword, code(t, key.Secret(), time.Now())).want(t, http.StatusOK, "")

	var session account.Caller
	parsed, _, err := jwt.NewParser().ParseUnverified(in.text("access"), jwt.MapClaims{})
	if err != nil {
		t.Fatal(err)
	}
	session.Session, _ = parsed.Claims.(jwt.MapClaims)["sid"].(string)
	good := claims{"sub": id.String(), "sid": session.Session, "role": "nurse"}
	s.with(s.sign(t, good)).me().want(t, http.StatusOK, "")
	good["exp"] = time.Now().Add(-10 * time.Minute).Unix()
	s.with(s.sign(t, good)).me().want(t, http.StatusUnauthorized, "token_expired")
}

// An access token is good for nothing as soon as its account is disabled, and needs a refresh when the role
// has changed.
func TestTokensFollowTheAccount(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	id := s.person("nora@example.com", account.Nurse)
	nora, refresh := s.signedIn("nora@example.com", goodPassword)
	path := "/api/v1/users/" + id.String() + "/"

	s.do("PATCH", path, `{"role":"data_monitor"}`).want(t, http.StatusOK, "")
	nora.me().want(t, http.StatusUnauthorized, "invalid_token")
	again := s.refresh(refresh).want(t, http.StatusOK, "")
	nora = s.with(again.text("access"))
	nora.do("GET", "/api/v1/patients/", "").want(t, http.StatusForbidden, "forbidden")
	nora.do("GET", "/api/v1/fhir/transmissions/", "").want(t, http.StatusOK, "")

	s.do("PATCH", path, `{"disabled":true}`).want(t, http.StatusOK, "")
	nora.me().want(t, http.StatusUnauthorized, "session_ended")
	s.refresh(again.text("refresh")).want(t, http.StatusUnauthorized, "invalid_token")
	s.signIn("nora@example.com", goodPassword, "").want(t, http.StatusUnauthorized, "authentication_failed")

	s.do("PATCH", path, `{"disabled":false}`).want(t, http.StatusOK, "")
	nora.me().want(t, http.StatusUnauthorized, "session_ended")
	s.signedIn("nora@example.com", goodPassword)

	// A token with a session of somebody else, or of nobody.
	for _, change := range []claims{
		{"sub": id.String(), "sid": uuid.NewString(), "role": "data_monitor"},
		{"sub": id.String(), "sid": "x", "role": "data_monitor"},
		{"sub": "tests", "sid": uuid.NewString(), "role": "admin"},
	} {
		s.with(s.sign(t, change)).me().want(t, http.StatusUnauthorized, "session_ended")
	}
}

// A password that an administrator made is good for choosing another one, for some time.
func TestPasswords(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	made := s.do("POST", "/api/v1/users/", `{"email":"Nora@example.com","first_name":" Nora ","last_name":"Murakami","role":"provider"}`)
	made.want(t, http.StatusCreated, "")
	id, temporary := made.text("id"), made.text("temporary_password")
	s.secret("nora@example.com", "Murakami", temporary)
	if made.text("email") != "nora@example.com" || made.text("first_name") != "Nora" || made.get("must_change_password") != true ||
		!strings.HasSuffix(made.header.Get("Location"), "/api/v1/users/"+id+"/") {
		t.Errorf("made as %s", made.body)
	}
	s.do("POST", "/api/v1/users/", `{"email":"NORA@example.com","first_name":"N","last_name":"M","role":"ma"}`).want(t, http.StatusConflict, "user_exists")

	nora, _ := s.signedIn("nora@example.com", temporary)
	nora.do("GET", "/api/v1/patients/", "").want(t, http.StatusForbidden, "password_change_required")
	other, otherRefresh := s.signedIn("nora@example.com", temporary)

	change := func(old, password string) answer {
		return nora.do("POST", "/api/v1/auth/me/password/", asJSON(map[string]string{"old_password": old, "new_password": password}))
	}
	for _, bad := range []string{"short", "password1234", "NoraMurakami1", temporary, strings.Repeat("é", 7)} {
		if got := change(temporary, bad).want(t, http.StatusBadRequest, "invalid"); !slices.Equal(got.fields(), []string{"new_password"}) {
			t.Errorf("%q: %s", bad, got.body)
		}
	}
	if got := change("wrong", goodPassword).want(t, http.StatusBadRequest, "invalid"); !slices.Equal(got.fields(), []string{"old_password"}) {
		t.Errorf("%s", got.body)
	}
	change(temporary, goodPassword).want(t, http.StatusNoContent, "")
	nora.do("GET", "/api/v1/patients/", "").want(t, http.StatusOK, "")
	other.me().want(t, http.StatusUnauthorized, "session_ended")
	s.refresh(otherRefresh).want(t, http.StatusUnauthorized, "invalid_token")
	s.signIn("nora@example.com", temporary, "").want(t, http.StatusUnauthorized, "authentication_failed")

	// Five wrong old passwords lock the account too.
	for range account.MostFailures - 1 {
		change("wrong", "twelve quiet copper owls").want(t, http.StatusBadRequest, "invalid")
	}
	change(goodPassword, "twelve quiet copper owls").lockedUntil(t)

	// A reset ends everything, and takes the lock away.
	reset := s.do("POST", "/api/v1/users/"+id+"/reset-password/", "").want(t, http.StatusOK, "")
	s.secret(reset.text("temporary_password"))
	nora.me().want(t, http.StatusUnauthorized, "session_ended")
	s.signedIn("nora@example.com", reset.text("temporary_password"))
	s.exec("UPDATE users SET password_temporary_until = now() - interval '1 second' WHERE id = $1", uuid.MustParse(id))
	s.signIn("nora@example.com", reset.text("temporary_password"), "").want(t, http.StatusUnauthorized, "authentication_failed")
}

func TestAdministratorsManageAccounts(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	one, two := s.person("one@example.com", account.Admin), s.person("two@example.com", account.Admin)
	path := func(id uuid.UUID) string { return "/api/v1/users/" + id.String() + "/" }

	// Of two who demote each other at the same moment, one stays.
	for range 5 {
		var all sync.WaitGroup
		answers := make([]answer, 2)
		for i, id := range []uuid.UUID{one, two} {
			body := []string{`{"role":"nurse"}`, `{"disabled":true}`}[i]
			all.Go(func() { answers[i] = s.do("PATCH", path(id), body) })
		}
		all.Wait()
		if a, b := answers[0].status, answers[1].status; a+b != http.StatusOK+http.StatusConflict {
			t.Fatalf("the answers are %d and %d", a, b)
		}
		s.exec("UPDATE users SET role = 'admin', disabled_at = NULL")
	}
	s.do("PATCH", path(one), `{"role":"nurse"}`).want(t, http.StatusOK, "")
	s.do("PATCH", path(two), `{"disabled":true}`).want(t, http.StatusConflict, "last_admin")
	s.do("PATCH", path(two), `{"email":"one@example.com"}`).want(t, http.StatusConflict, "user_exists")
	moved := s.do("PATCH", path(two), `{"email":"Three@example.com","last_name":"Berg"}`).want(t, http.StatusOK, "")
	if moved.text("email") != "three@example.com" || moved.text("last_name") != "Berg" {
		t.Errorf("changed to %s", moved.body)
	}
	s.signedIn("three@example.com", goodPassword)
	s.signIn("two@example.com", goodPassword, "").want(t, http.StatusUnauthorized, "authentication_failed")

	list := s.do("GET", "/api/v1/users/?page_size=1", "").want(t, http.StatusOK, "")
	if list.get("count") != number("2") || list.text("results", 0, "email") != "one@example.com" || list.get("next") == nil {
		t.Errorf("the list is %s", list.body)
	}
	found := s.do("GET", "/api/v1/users/?email=THREE@example.com", "").want(t, http.StatusOK, "")
	if found.get("count") != number("1") || found.text("results", 0, "id") != two.String() {
		t.Errorf("found %s", found.body)
	}

	three, _ := s.signedIn("three@example.com", goodPassword)
	me := three.do("PATCH", "/api/v1/auth/me/", `{"first_name":" Tove "}`).want(t, http.StatusOK, "")
	if me.text("first_name") != "Tove" || me.text("last_name") != "Berg" {
		t.Errorf("renamed to %s", me.body)
	}
	three.do("DELETE", path(one)+"totp/", "").want(t, http.StatusConflict, "totp_not_set_up")
}

// What is wrong with a request is told field by field, and nothing is stored.
func TestBadRequestsAboutAccounts(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	s.person("admin@example.com", account.Admin)
	me, _ := s.signedIn("admin@example.com", goodPassword)
	for _, test := range []struct{ method, path, body, field string }{
		{"POST", "auth/login/", `{"email":1,"password":"x"}`, "email"},
		{"POST", "auth/login/", `{"email":null,"password":"x"}`, "email"},
		{"POST", "auth/login/", `{"email":"a@example.com"}`, "password"},
		{"POST", "auth/login/", `{"email":"a@example.com","password":["x"]}`, "password"},
		{"POST", "auth/login/", `{"email":"a@example.com","password":{"$ne":""}}`, "password"},
		{"POST", "auth/login/", `{"email":"a@example.com","password":"x","totp_code":123456}`, "totp_code"},
		{"POST", "auth/login/", `{"email":"a@example.com","password":"x","totp_code":"12345"}`, "totp_code"},
		{"POST", "auth/login/", `{"email":"a@example.com","password":"x","totp_code":"１２３４５６"}`, "totp_code"},
		{"POST", "auth/login/", `{"email":"a@example.com","password":"x","remember":true}`, "remember"},
		{"POST", "auth/login/", `{"email":"a@example.com","email":"b@example.com","password":"x"}`, "email"},
		{"POST", "auth/login/", `{"email":"a@example.com","password":"` + strings.Repeat("x", 129) + `"}`, "password"},
		{"POST", "auth/login/", `{"email":"adm\u0456n@example.com","password":"x"}`, "email"},
		{"POST", "auth/login/", `{"email":"admin\u200b@example.com","password":"x"}`, "email"},
		{"POST", "auth/login/", `{"email":"\u202eadmin@example.com","password":"x"}`, "email"},
		{"POST", "auth/login/", `{"email":"admin@example.com\u0000","password":"x"}`, "email"},
		{"POST", "auth/login/", `{"email":"admin@example.com' OR 1=1 --","password":"x"}`, "email"},
		{"POST", "auth/token/refresh/", `{"refresh":7}`, "refresh"},
		{"POST", "auth/token/refresh/", `{}`, "refresh"},
		{"PATCH", "auth/me/", `{"email":"other@example.com"}`, "email"},
		{"PATCH", "auth/me/", `{"role":"admin"}`, "role"},
		{"PATCH", "auth/me/", `{"first_name":" "}`, "first_name"},
		{"PATCH", "auth/me/", `{"first_name":null}`, "first_name"},
		{"POST", "auth/me/totp/confirm/", `{"code":"abcdef"}`, "code"},
		{"POST", "users/", `{"email":"n@example.com","first_name":"N","last_name":"L","role":"service"}`, "role"},
		{"POST", "users/", `{"email":"n@example.com","first_name":"N","last_name":"L","role":"patient"}`, "role"},
		{"POST", "users/", `{"email":"n@example.com","first_name":"N","last_name":"L","role":"nurse","password":"password1234"}`, "password"},
		{"POST", "users/", `{"email":"n\u00e9@example.com","first_name":"N","last_name":"L","role":"nurse"}`, "email"},
		{"POST", "users/", `{"email":"n@example.com","first_name":"\u0007","last_name":"L","role":"nurse"}`, "first_name"},
		{"PATCH", "users/" + uuid.NewString() + "/", `{"disabled":"yes"}`, "disabled"},
		{"GET", "users/?email=n%40", "", "email"},
		{"GET", "users/?page=0", "", "page"},
	} {
		got := me.do(test.method, "/api/v1/"+test.path, test.body)
		if got.status != http.StatusBadRequest || got.code() != "invalid" || !slices.Contains(got.fields(), test.field) {
			t.Errorf("%s %s %s: %d %s, want the field %s", test.method, test.path, test.body, got.status, got.body, test.field)
		}
	}
	if s.rows("users") != 1 || s.rows("sessions") != 1 || s.rows("sign_in_failures") != 0 || s.rows("account_events") != 1 {
		t.Error("something was stored")
	}
}
