package canary_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
)

// accounts: people and machines sign in, rightly and wrongly.
func (s *system) accounts(t *testing.T, admin caller) {
	t.Parallel()
	admin = admin.in(t)
	anonymous := s.caller(t, "")
	anonymous.do("POST", "/api/v1/auth/login/", login(userEmail, wrongPassword)).want(http.StatusUnauthorized)
	anonymous.do("POST", "/api/v1/auth/login/", login(strangerEmail, password)).want(http.StatusUnauthorized)
	me := s.signIn(t, login(userEmail, password))

	offer := me.do("POST", "/api/v1/auth/me/totp/", map[string]string{"password": password}).want(http.StatusOK)
	secret := offer.text("secret")
	s.secret("TOTP secret", secret)
	me.do("POST", "/api/v1/auth/me/totp/confirm/", map[string]string{"code": "000000"}).
		want(http.StatusUnauthorized, http.StatusBadRequest, http.StatusUnprocessableEntity)
	me.do("POST", "/api/v1/auth/me/totp/confirm/", map[string]string{"code": code(t, secret)}).want(http.StatusOK)
	anonymous.do("POST", "/api/v1/auth/login/", login(userEmail, password)).want(http.StatusUnauthorized)

	me.do("POST", "/api/v1/auth/me/password/", map[string]string{"old_password": wrongPassword, "new_password": nextPassword}).
		want(http.StatusUnauthorized, http.StatusBadRequest, http.StatusUnprocessableEntity)
	me.do("POST", "/api/v1/auth/me/password/", map[string]string{"old_password": password, "new_password": "Password-1931"}).
		want(http.StatusBadRequest, http.StatusUnprocessableEntity)
	me.do("POST", "/api/v1/auth/me/password/", map[string]string{"old_password": password, "new_password": nextPassword}).
		want(http.StatusNoContent)
	me.do("PATCH", "/api/v1/auth/me/", map[string]string{"first_name": userFirst + "z"}).want(http.StatusOK)
	me.do("GET", "/api/v1/users/?email="+userEmail, nil).want(http.StatusOK)
	me.do("POST", "/api/v1/users/", map[string]string{
		"email": userEmail, "first_name": userFirst, "last_name": userLast, "role": "nurse",
	}).want(http.StatusConflict)

	nurse := me.do("POST", "/api/v1/users/", map[string]string{
		"email": "nurse." + userEmail, "first_name": userFirst, "last_name": userLast, "role": "nurse",
	}).want(http.StatusCreated)
	s.secret("temporary password", nurse.text("temporary_password"))
	for range 6 { // until it is locked
		anonymous.do("POST", "/api/v1/auth/login/", login("nurse."+userEmail, wrongPassword)).want(http.StatusUnauthorized, http.StatusLocked)
	}
	me.do("POST", "/api/v1/users/"+nurse.text("id")+"/unlock/", nil).want(http.StatusOK, http.StatusNoContent)
	s.secret("temporary password", me.do("POST", "/api/v1/users/"+nurse.text("id")+"/reset-password/", "{}").
		want(http.StatusOK).text("temporary_password"))

	key := me.do("POST", "/api/v1/api-keys/", map[string]any{"name": "gateway", "role": "service", "devices": []string{device + "*"}}).
		want(http.StatusCreated)
	s.secret("API key", key.text("key")[10:]) // the prefix is shown
	machine := s.caller(t, key.text("key"))
	machine.do("GET", "/api/v1/patients/?search="+lastName, nil).want(http.StatusForbidden)
	machine.do("POST", "/api/v1/observations/", reading1(weight, "00000000-0000-4000-8000-000000000000")).
		want(http.StatusNotFound, http.StatusUnprocessableEntity, http.StatusBadRequest)
	me.do("GET", "/api/v1/users/events/", nil).want(http.StatusOK)
	me.do("DELETE", "/api/v1/api-keys/"+key.text("id")+"/", nil).want(http.StatusNoContent, http.StatusOK)
	machine.do("GET", "/api/v1/observations/"+key.text("id")+"/", nil).want(http.StatusUnauthorized)

	admin.do("POST", "/api/v1/tokens/revoke/", map[string]string{"token": wrongToken, "reason": "canary"}).
		want(http.StatusBadRequest, http.StatusUnprocessableEntity)
	s.identityProvider(t)
	anonymous.do("GET", "/api/v1/auth/oidc/callback/?state="+wrongToken+"&code="+oidcSecret+"&error_description="+lastName, nil).
		want(http.StatusBadRequest, http.StatusUnauthorized)
	me.do("POST", "/api/v1/auth/logout/", nil).want(http.StatusNoContent)
}

// identityProvider: a sign-in with it fails, as it takes neither the code nor us.
func (s *system) identityProvider(t *testing.T) {
	t.Helper()
	c := s.caller(t, "")
	begun := c.do("GET", "/api/v1/auth/oidc/?return_to=/"+lastName, nil).want(http.StatusFound, http.StatusSeeOther)
	there, err := url.Parse(begun.header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	cookie, _, _ := strings.Cut(begun.header.Get("Set-Cookie"), ";")
	back := url.Values{"state": {there.Query().Get("state")}, "code": {wrongToken}}
	c.do("GET", "/api/v1/auth/oidc/callback/?"+back.Encode(), nil, "Cookie", cookie).want(http.StatusUnauthorized)
	c.do("GET", "/api/v1/auth/oidc/callback/?"+back.Encode(), nil, "Cookie", "other="+userEmail).want(http.StatusBadRequest)
}

func login(email, password string) map[string]string {
	return map[string]string{"email": email, "password": password}
}

func code(t *testing.T, secret string) string {
	t.Helper()
	code, err := totp.GenerateCode(secret, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func (s *system) signIn(t *testing.T, with map[string]string) caller {
	t.Helper()
	session := s.caller(t, "").do("POST", "/api/v1/auth/login/", with).want(http.StatusOK)
	s.secretToken("access token of a person", session.text("access"))
	s.secret("refresh token", session.text("refresh"))
	again := s.caller(t, "").do("POST", "/api/v1/auth/token/refresh/", map[string]string{"refresh": session.text("refresh")}).
		want(http.StatusOK)
	s.secretToken("access token of a person", again.text("access"))
	s.secret("refresh token", again.text("refresh"))
	return s.caller(t, again.text("access"))
}

// secretToken notes the signature of a token, which nobody else can make.
func (s *system) secretToken(name, token string) {
	s.secret(name, token[strings.LastIndex(token, ".")+1:])
}

// commands of administrators.
func (s *system) commands(t *testing.T) (admin caller) {
	t.Helper()
	add := []string{"users", "add", "--local", "--reason", "first administrator", "--email", userEmail, "--first", userFirst,
		"--last", userLast,
		"--role", "admin", "--ask-password"}
	if _, ok := s.command(t, password+"\n", nil, add...); !ok {
		t.Fatalf("vantrexia users add: %v", s.said.all)
	}
	s.command(t, password+"\n", nil, add...)     // twice
	s.command(t, lastName+"1931\n", nil, add...) // and with a password that is none
	s.command(t, "", nil, "users", "list", "--local")
	s.command(t, "", []string{"VANTREXIA_TOKEN=" + wrongToken}, "users", "list", "--url", s.url("api"))
	s.command(t, "", []string{"DATABASE_URL=postgres://vantrexia:" + wrongPassword + "@" + s.address("postgres") + "/" + database}, "migrate")
	s.command(t, "", []string{"DATABASE_URL=postgres://vantrexia:" + wrongPassword + "@127.0.0.1:1/" + database}, "migrate")
	s.command(t, "", []string{"API_TOKEN_SECRET=" + wrongToken}, "token")
	s.command(t, "", []string{"KEYRING_FILE=.local/ecw-private.pem"}, "serve") // a key where a keyring is expected
	s.command(t, "", []string{"ECW_PRIVATE_KEY_FILE=.local/keyring.json"}, "worker")

	token, ok := s.command(t, "", nil, "token", "--role", "admin")
	if !ok {
		t.Fatal("vantrexia token failed")
	}
	s.secretToken("token of the command line", token)
	return s.caller(t, token)
}

// patient makes a patient by hand who is linked to a person of the EHR; external may be empty.
func (c caller) patient(p person, external string, more map[string]any) answer {
	body := map[string]any{
		"first_name": p.FirstName, "last_name": p.LastName, "date_of_birth": p.BirthDate, "gender": p.Gender,
		"mrn": strings.Replace(p.MRN, ehrMRN, ourMRN, 1), "external_id": external, "phone": p.Mobile, "email": p.Email,
		"address": map[string]string{"line1": p.Street, "city": p.City, "state": p.State, "zip": p.PostCode},
	}
	for name, value := range more {
		body[name] = value
	}
	return c.do("POST", "/api/v1/patients/", body)
}

// patients are made, found, changed, linked and archived.
func (s *system) patients(t *testing.T, admin caller) {
	t.Parallel()
	c := admin.in(t)
	p, q := somebody(1), somebody(2)
	id := c.patient(p, p.FHIRID, nil).want(http.StatusCreated).text("id")
	c.patient(p, "", nil).want(http.StatusConflict)       // the MRN
	c.patient(q, p.FHIRID, nil).want(http.StatusConflict) // the link
	c.patient(somebody(3), q.FHIRID, nil).want(http.StatusConflict)
	c.patient(somebody(3), nobody, nil).want(http.StatusUnprocessableEntity, http.StatusBadRequest)

	for _, query := range []string{
		"search=" + strings.ToLower(lastName), "search=" + ourMRN, "mrn=" + ourMRN + "-001", "external_id=" + p.FHIRID,
		"ordering=last_name&page_size=1",
	} {
		c.do("GET", "/api/v1/patients/?"+query, nil).want(http.StatusOK)
	}
	c.do("POST", "/api/v1/patients/search/", map[string]string{"search": lastName, "ordering": "-last_name"}).want(http.StatusOK)
	c.do("GET", "/api/v1/patients/"+id+"/", nil).want(http.StatusOK)

	path := "/api/v1/patients/" + id + "/"
	c.do("PATCH", path, map[string]any{"phone": phone + "99", "address": map[string]string{"line1": "1 " + street, "city": city}}).
		want(http.StatusOK)
	c.do("PATCH", path, map[string]any{"external_id": q.FHIRID}).want(http.StatusConflict)
	c.do("PATCH", path, map[string]any{"external_id": q.FHIRID, "confirm_mismatch": true}).want(http.StatusOK)
	c.send(id, "weight", value(weight, "kg"))
	c.do("PATCH", path, map[string]any{"external_id": nil}).want(http.StatusOK)
	c.do("PATCH", path, map[string]any{"external_id": p.FHIRID}).want(http.StatusOK)
	c.do("PATCH", path, map[string]any{"date_of_birth": "1931-07-32", "mrn": lastName + "\x00"}).
		want(http.StatusBadRequest, http.StatusUnprocessableEntity)

	c.do("POST", path+"archive/", nil).want(http.StatusOK)
	c.send(id, "weight", value(weight, "kg"))
	c.do("GET", path, nil).want(http.StatusOK)
	c.do("POST", path+"unarchive/", nil).want(http.StatusOK)
	c.do("GET", path+"sync-status/", nil).want(http.StatusOK)
	c.do("GET", "/api/v1/ecw/patients/?search="+lastName, nil).want(http.StatusOK)
	c.do("POST", "/api/v1/ecw/patients/search/", map[string]string{"search": lastName}).want(http.StatusOK)
	c.do("POST", "/api/v1/ecw/test/jwt/", nil).want(http.StatusOK)
	c.do("POST", "/api/v1/ecw/test/connection/", nil).want(http.StatusOK)
}

// values are made unlike each other by digits at their end.
func value(number, unit string) map[string]any {
	return map[string]any{"value": jsonNumber(number), "unit": unit}
}

func reading1(number, patient string) map[string]any {
	return map[string]any{
		"patient_id": patient, "observation_type": "weight", "effective_at": "2026-02-06T10:30:00Z", "device": device + "-1",
		"values": value(number, "kg"),
	}
}

// nextTime is another moment each time.
func (s *system) nextTime() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readings++
	return time.Date(2026, 2, 6, 10, 0, 0, 0, time.UTC).Add(time.Duration(s.readings) * time.Minute).Format(time.RFC3339)
}

// send posts a reading, and returns its id.
func (c caller) send(patient, kind string, values map[string]any, headers ...string) string {
	c.t.Helper()
	return c.do("POST", "/api/v1/observations/", map[string]any{
		"patient_id": patient, "observation_type": kind, "effective_at": c.system.nextTime(), "device": device + "-1", "values": values,
	}, headers...).want(http.StatusCreated).text("id")
}

// status of a reading's transmission, such as "transmitted"; "failed, again later" is one that is retried.
func (c caller) status(id string) string {
	c.t.Helper()
	got := c.do("GET", "/api/v1/observations/"+id+"/", nil)
	if got.status != http.StatusOK {
		return fmt.Sprint(got.status)
	}
	return got.text("transmission", "status")
}

// awaitStatus waits until the status of a reading's transmission is one of these.
func (c caller) awaitStatus(id string, statuses ...string) {
	c.t.Helper()
	now := ""
	defer func() {
		if c.t.Failed() {
			c.t.Logf("it is %s: %s", now, c.do("GET", "/api/v1/observations/"+id+"/", nil).body)
		}
	}()
	c.sweeping(fmt.Sprintf("the reading %s is %v", id, statuses), func() bool {
		now = c.status(id)
		return slices.Contains(statuses, now)
	})
}

// sweeping awaits, and starts what is pending meanwhile: on a loaded machine a reading may be stored and its
// workflow not be started in time, which is left to the sweep.
func (c caller) sweeping(what string, yes func() bool) {
	c.t.Helper()
	swept := time.Now()
	c.system.await(c.t, what, func() bool {
		if time.Since(swept) > 3*time.Second {
			swept = time.Now()
			c.do("POST", "/api/v1/fhir/process-pending/", nil)
		}
		return yes()
	})
}

// doors: readings come in each way, well and badly.
func (s *system) doors(t *testing.T, admin caller) {
	t.Parallel()
	c := admin.in(t)
	p := somebody(4)
	id := c.patient(p, p.FHIRID, nil).want(http.StatusCreated).text("id")
	var sent []string
	post := func(path string, body map[string]any, statuses ...int) answer {
		body["patient_id"], body["device_id"] = id, device+"-2"
		if body["measured_at"] == nil {
			body["measured_at"] = s.nextTime()
		}
		got := c.do("POST", "/api/v1/ingestion/"+path+"/", body, "Idempotency-Key", idempotencyKey+s.nextTime()).want(statuses...)
		if got.status < 300 {
			sent = append(sent, got.text("id"))
		}
		return got
	}

	pressure := map[string]any{"systolic": jsonNumber(systolic), "diastolic": jsonNumber(diastolic), "pulse": jsonNumber(pulse)}
	post("blood-pressure", pressure, http.StatusCreated)
	post("blood-pressure", pressure, http.StatusOK) // the same again
	pressure["systolic"] = jsonNumber(systolic + "9")
	post("blood-pressure", pressure, http.StatusConflict)
	pressure["systolic"] = jsonNumber(outOfRange)
	post("blood-pressure", pressure, http.StatusBadRequest, http.StatusUnprocessableEntity)
	for path, body := range map[string]map[string]any{
		"weight": value(weight, "kg"), "oxygen-saturation": value(saturation, "%"), "heart-rate": value(heartRate, "bpm"),
		"temperature": value(temperature, "Cel"), "respiratory-rate": value(respiration, "/min"),
		"glucose": {"value": jsonNumber(glucose), "unit": "mg/dL", "meal": "pre"},
	} {
		post(path, body, http.StatusCreated)
		wrong := map[string]any{"value": jsonNumber(outOfRange), "unit": body["unit"]}
		post(path, wrong, http.StatusBadRequest, http.StatusUnprocessableEntity)
		post(path, map[string]any{"value": lastName, "unit": firstName}, http.StatusBadRequest, http.StatusUnprocessableEntity)
	}

	single := reading1(weight, id)
	key := []string{"Idempotency-Key", idempotencyKey}
	c.do("POST", "/api/v1/observations/", single, key...).want(http.StatusCreated)
	c.do("POST", "/api/v1/observations/", single, key...).want(http.StatusOK)
	c.do("POST", "/api/v1/observations/", reading1(weight+"1", id), key...).want(http.StatusUnprocessableEntity)
	c.do("POST", "/api/v1/observations/", reading1(weight+"1", id)).want(http.StatusConflict)
	batch := []any{reading1(weight, id), reading1(weight+"1", id), reading1(outOfRange, id), reading1(weight, somebody(0).FHIRID),
		map[string]any{lastName: weight},
		map[string]any{"patient_id": id, "observation_type": "weight", "effective_at": s.nextTime(), "device": device + "-3",
			"values": value(weight, "kg")}}
	c.do("POST", "/api/v1/observations/batch/", map[string]any{"observations": batch}, "Idempotency-Key", idempotencyKey+"-batch").
		want(http.StatusOK, http.StatusMultiStatus)

	for _, one := range sent {
		c.awaitStatus(one, "transmitted")
		c.do("GET", "/api/v1/fhir/observations/"+one+"/", nil).want(http.StatusOK)
	}
	c.do("POST", "/api/v1/fhir/observations/"+sent[0]+"/transform/", nil).want(http.StatusOK, http.StatusConflict)
	c.do("POST", "/api/v1/fhir/observations/"+sent[0]+"/transmit/", nil).want(http.StatusConflict)
	c.do("GET", "/api/v1/fhir/transmissions/", nil).want(http.StatusOK)
	c.do("GET", "/api/v1/fhir/status/", nil).want(http.StatusOK)
}
