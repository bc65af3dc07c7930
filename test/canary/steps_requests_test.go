package canary_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"
)

// jsonNumber writes a decimal with all its digits.
func jsonNumber(digits string) json.Number { return json.Number(digits) }

// badRequests of each kind, with canaries in the path, the query, the headers and the body.
func (s *system) badRequests(t *testing.T, admin caller) {
	t.Parallel()
	who := []caller{admin.in(t), s.caller(t, ""), s.caller(t, wrongToken)}
	name := url.PathEscape(firstName + " " + lastName)
	id := "00000000-0000-4000-8000-000000000000"
	for _, c := range who {
		for _, path := range []string{
			"/" + name, "/api/v1/" + name + "/", "/api/v1/patients/" + name + "/", "/api/v1/patients/" + fhirID + "-a/sync-status/",
			"/api/v1/observations/" + weight + "/", "/api/v1/fhir/observations/" + name + "/", "/api/v1/fhir/transmissions/" + name + "/",
			"/api/v1/patients/imports/" + name + "/", "/api/v1/users/" + userEmail + "/", "/api/v1/api-keys/" + name + "/", "/docs/" + name,
			"/api/v1/patients/?" + name + "=1", "/api/v1/patients/?ordering=" + name, "/api/v1/patients/?active=" + name,
			"/api/v1/patients/?cursor=" + name, "/api/v1/patients/?page=" + name, "/api/v1/patients/?search=%00" + name,
			"/api/v1/patients/?search=" + name + "&search=" + name, "/api/v1/patients/?search=%ff%fe" + name,
			"/api/v1/fhir/transmissions/?status=" + name, "/api/v1/fhir/transmissions/?patient_id=" + name,
			"/api/v1/users/?email=" + url.QueryEscape(userEmail) + "&page=x",
			"/api/v1/ecw/patients/?page=" + name, "/api/v1/ecw/patients/?search=%00" + name,
		} {
			c.do("GET", path, nil)
			c.do("DELETE", path, nil)
		}
		for _, path := range []string{
			"/api/v1/patients/", "/api/v1/patients/search/", "/api/v1/observations/", "/api/v1/observations/batch/", "/api/v1/ingestion/weight/",
			"/api/v1/ingestion/blood-pressure/", "/api/v1/patients/import_selected_from_ecw/", "/api/v1/users/", "/api/v1/api-keys/",
			"/api/v1/auth/login/",
			"/api/v1/auth/token/refresh/", "/api/v1/auth/me/password/", "/api/v1/tokens/revoke/", "/api/v1/ecw/patients/search/",
		} {
			s.badBodies(c, "POST", path)
		}
		s.badBodies(c, "PATCH", "/api/v1/patients/"+id+"/")
		for _, header := range []string{"Idempotency-Key", "Authorization", "Content-Type", "Accept", "Prefer", "X-Forwarded-For",
			"Cookie", "User-Agent", "X-HTTP-Method-Override", "Range", "Expect"} {
			for _, text := range []string{firstName + " " + lastName, "Bearer " + wrongToken, "text/" + lastName, strings.Repeat(lastName, 40)} {
				c.do("POST", "/api/v1/observations/", reading1(weight, id), header, text)
			}
		}
	}

	for _, junk := range []string{
		"GET /" + lastName + " HTTP/9.9\r\n\r\n", "GET /" + lastName + "\x01 HTTP/1.1\r\nHost: x\r\n\r\n", lastName + "\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: " + lastName + " " + lastName + "\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\n" + lastName + "\r\n\r\n",
		"POST /api/v1/observations/ HTTP/1.1\r\nHost: x\r\nContent-Length: " + lastName + "\r\n\r\n",
		"POST /api/v1/observations/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: " + lastName + "\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat(lastName, 8000) + "\r\n\r\n",
		"\x16\x03\x01\x02\x00" + lastName,
	} {
		s.junk(t, junk)
	}
}

// badBodies sends what is no valid body anywhere.
func (s *system) badBodies(c caller, method, path string) {
	name, many := firstName+" "+lastName, strings.Repeat(lastName+" ", 100)
	for _, body := range []string{
		"", name, `"` + name + `"`, `[` + `"` + name + `"]`, `{"` + name, `{"` + name + `": 1}`, `{"first_name": "` + name + `"`,
		`{"first_name": "` + name + `", "first_name": 2}`,
		`{"first_name": {"` + name + `": 1}}`,
		`{"last_name": "` + many + `", "date_of_birth": "` + many + `", "mrn": "` + many + `", "external_id": "` + many + `"}`,
		fmt.Sprintf(`{"first_name": %[1]q, "last_name": "\u0000%[2]s", "date_of_birth": "07/19/1931", "gender": %[1]q, "email": %[1]q}`,
			name, lastName),
		fmt.Sprintf(`{"patient_id": %[1]q, "observation_type": %[1]q, "effective_at": %[1]q, "device": %[2]q, "values": {%[1]q: %[3]q}}`,
			name, many, weight),
		fmt.Sprintf(`{"patient_id": %[1]q, "measured_at": %[1]q, "value": %[2]q, "unit": %[1]q, "systolic": %[3]s, "diastolic": %[2]q}`,
			name, diastolic, outOfRange),
		`{"email": "` + name + `", "password": "` + wrongPassword + `", "totp_code": "` + name + `", "role": "` + name + `"}`,
		`{"observations": "` + name + `"}`, `{"ecw_patient_ids": ["` + name + `", "` + name + `", 7]}`,
		`{"search": 1931, "mrn": ["` + name + `"]}`,
		`{"old_password": "` + wrongPassword + `", "new_password": "short"}`, `{"refresh": "` + wrongToken + `"}`,
		`{"name": "", "devices": ["` + device + `\n"]}`,
		"\xff\xfe" + name, `{"first_name": "` + name + "\xff" + `"}`, strings.Repeat("[", 10000) + name,
	} {
		c.do(method, path, body)
	}
	c.do(method, path, name, "Content-Type", "text/plain")
	c.do(method, path, fmt.Sprintf(`{"first_name": %q}`, strings.Repeat(lastName, 200_000))) // too large
}

// junk is sent as it is, and what comes back is an error that somebody was shown.
func (s *system) junk(t *testing.T, text string) {
	t.Helper()
	conn, err := net.Dial("tcp", s.address("api"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := conn.Write([]byte(text)); err != nil {
		return // it has hung up already
	}
	answer := make([]byte, 1<<16)
	n, _ := bufio.NewReader(conn).Read(answer)
	s.said.add(utterance{place: "error answer of the HTTP server", answer: string(answer[:n]), sent: text})
}
