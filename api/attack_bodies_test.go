package api_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/account"
)

// A member that is there twice means two things to two readers. It is refused wherever it stands, and however
// its name is written: escaped, in capitals, or with letters that JSON readers of Go take for others.
func TestMembersThatAreThereTwice(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient(kevin)
	s.post(bloodPressure(patient))
	reading := replaced(bloodPressure(patient), "10:30:00Z", "11:30:00Z") // another reading, which would be stored
	posted := func(name, body string, fields ...string) bad { return invalid(name, body, fields...) }

	s.refuse(t, "POST", "/api/v1/observations/", []bad{
		posted("plain", member(reading, "patient_id", `"`+patient+`"`), "patient_id"),
		posted("escaped", member(reading, `patient\u005fid`, `"`+patient+`"`), "patient_id"),
		posted("all of it escaped", member(reading, `\u0064\u0065\u0076\u0069\u0063\u0065`, `"X"`), "device"),
		posted("in capitals, escaped", member(reading, `\u0044EVICE`, `"X"`), "device"),
		posted("inside", values(reading, `{"systolic":142,"diastolic":92,"\u0073ystolic":141}`), "values.systolic"),
		posted("inside, with a long s", values(reading, `{"systolic":142,"diastolic":92,"\u017fystolic":141}`), "values.ſystolic"),
		posted("a long s in place of the name", values(reading, `{"\u017fystolic":142,"diastolic":92}`), "values.ſystolic"),
		posted("the object itself", member(reading, `v\u0061lues`, `{"systolic":120,"diastolic":80}`), "values"),
		posted("a device with a long s", member(reading, `ob\u017fervation_type`, `"weight"`), "obſervation_type"),
	})
	s.refuse(t, "POST", "/api/v1/patients/", []bad{
		invalid("escaped", member(fullPatient, `\u006drn`, `"MRN-8"`), "mrn"),
		invalid("inside", replaced(fullPatient, `"city":"Tulsa"`, `"city":"Tulsa","\u0063ity":"Bixby"`), "address.city"),
		invalid("the object itself", member(fullPatient, "addre\\u0073s", `{"city":"Bixby"}`), "address"),
		invalid("a long s", member(fullPatient, "la\u017ft_name", `"Other"`), "laſt_name"),
	})

	// In a list: an item is refused alone, and the others are stored.
	got := s.do("POST", "/api/v1/observations/batch/", `{"observations":[`+
		member(reading, `\u0064evice`, `"X"`)+","+
		values(reading, `{"systolic":142,"diastolic":92,"\u0073ystolic":141}`)+","+
		weight(patient)+`]}`).want(t, http.StatusOK, "")
	if statuses := got.statuses(); !slices.Equal(statuses, []string{"400", "400", "201"}) {
		t.Errorf("the batch: %s", got.body)
	}
	s.do("POST", "/api/v1/observations/batch/", `{"observations":[],"\u006fbservations":[`+weight(patient)+`]}`).want(t, http.StatusBadRequest, "invalid")

	for path, body := range map[string]string{
		"/api/v1/ingestion/blood-pressure/": ingested(patient, cuff)[:1] + `"\u0070atient_id":"` + patient + `",` + ingested(patient, cuff)[1:],
		"/api/v1/patients/search/":          `{"search":"Doe","\u0073earch":""}`,
		"/api/v1/ecw/patients/search/":      `{"search":"Doe","SEARCH":""}`,
		"/api/v1/users/":                    `{"email":"a@example.com","first_name":"A","last_name":"B","role":"ma","\u0072ole":"admin"}`,
		"/api/v1/api-keys/":                 `{"name":"a","role":"service","\u0072ole":"admin"}`,
		"/api/v1/auth/login/":               `{"email":"a@example.com","password":"x","\u0065mail":"b@example.com"}`,
		"/api/v1/auth/token/refresh/":       `{"refresh":"x","\u0072efresh":"y"}`,
		"/api/v1/tokens/revoke/":            `{"jti":"a","reason":"r","\u006ati":"b"}`,
	} {
		if got := s.do("POST", path, body); got.status != http.StatusBadRequest || got.code() != "invalid" || len(got.fields()) != 1 {
			t.Errorf("%s: %d %s", path, got.status, clip(string(got.body)))
		}
	}

	// In a list of objects, deep inside.
	for _, payload := range []string{
		`{"data":"IkEi","\u0064ata":"IkIi"}`,
		`{"metadata":{"encoding":"anNvbi9wbGFpbg=="},"metadata":{"encoding":"YmluYXJ5L2VuY3J5cHRlZA=="}}`,
		`{"metadata":{"encoding":"anNvbi9wbGFpbg==","\u0065ncoding":"YmluYXJ5L2VuY3J5cHRlZA=="}}`,
	} {
		if got := s.do("POST", decodePath, `{"payloads":[`+payload+`]}`); got.status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", payload, got.status, clip(string(got.body)))
		}
	}

	if observations, patients, users, keys := s.rows("observations"), s.rows("patients"), s.rows("users"), s.rows("api_keys"); observations != 2 ||
		patients != 1 || users != 0 || keys != 0 {
		t.Errorf("%d readings, %d patients, %d accounts and %d keys are stored", observations, patients, users, keys)
	}
}

// bodied are the routes that read a body, with what else stands in their path.
func bodied(patient string) (routes []route) {
	for _, r := range routesOf(patient) {
		if strings.HasPrefix(r.body, "{") {
			r.pattern = strings.Replace(r.pattern, ":id", patient, 1)
			routes = append(routes, r)
		}
	}
	return routes
}

// What is nested deeply costs neither the stack nor time, whichever route it is sent to.
func TestDeeplyNestedBodies(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient("")
	const depth = 60_000
	nested := map[string]string{
		"lists":                   `{"x":` + strings.Repeat("[", depth) + strings.Repeat("]", depth) + `}`,
		"objects":                 strings.Repeat(`{"x":`, depth) + "1" + strings.Repeat("}", depth),
		"lists without an end":    `{"x":` + strings.Repeat("[", 4*depth),
		"objects without an end":  strings.Repeat(`{"x":`, depth),
		"lists in a known member": `{"values":` + strings.Repeat("[", depth) + strings.Repeat("]", depth) + `}`,
		"in an item":              `{"observations":[{"values":` + strings.Repeat(`{"x":`, depth) + "1" + strings.Repeat("}", depth) + `}]}`,
		"as deep as is read":      `{"x":` + strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000) + `}`,
	}
	for _, r := range bodied(patient) {
		for name, body := range nested {
			began := time.Now()
			got := s.rawBody(t, r.method, r.pattern, body)                                                    // to check it against the contract takes the test long
			ignored := r.pattern == decodePath && name == "as deep as is read" && got.status == http.StatusOK // what Temporal may add there
			if got.status != http.StatusBadRequest && !ignored || len(got.body) > 4096 {
				t.Errorf("%s %s, %s: %d %s", r.method, r.pattern, name, got.status, clip(string(got.body)))
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("%s %s, %s takes %s", r.method, r.pattern, name, took)
			}
		}
	}
}

// A body that was packed is not unpacked: a few bytes cannot become many.
func TestPackedBodiesAreNotUnpacked(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient("")
	plain := bloodPressure(patient)
	bomb := `{"device":"` + strings.Repeat("A", 16<<20) + `"}`
	for _, text := range []string{plain, bomb} {
		for encoding, pack := range map[string]func(io.Writer) io.WriteCloser{
			"gzip":    func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
			"x-gzip":  func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
			"deflate": func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
			"raw": func(w io.Writer) io.WriteCloser {
				packed, err := flate.NewWriter(w, flate.BestCompression)
				if err != nil {
					t.Error(err)
				}
				return packed
			},
		} {
			var packed bytes.Buffer
			w := pack(&packed)
			if _, err := io.WriteString(w, text); err != nil || w.Close() != nil {
				t.Fatal(err)
			}
			for _, c := range []caller{s.caller, s.as(account.Service)} {
				if got := c.do("POST", "/api/v1/observations/", packed.String(), "Content-Encoding", encoding); got.status != http.StatusBadRequest && got.status != http.StatusUnsupportedMediaType {
					t.Errorf("%s of %d bytes: %d %s", encoding, len(text), got.status, clip(string(got.body)))
				}
			}
		}
	}
	if n := s.rows("observations"); n != 0 {
		t.Errorf("%d readings are stored", n)
	}
}

// Characters that PostgreSQL or a log would stumble over are refused in each text of each body, by name.
func TestCharactersThatAreNoText(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient("")
	for _, r := range bodied(patient) {
		for name, text := range map[string]string{
			"a NUL":               `"\u0000"`,
			"a NUL after a word":  `"Jane\u0000"`,
			"a bare NUL":          "\"\x00\"",
			"no UTF-8":            "\"\xff\xfe\"",
			"half a character":    "\"\xe2\x82\"",
			"an overlong slash":   "\"\xc0\xaf\"",
			"a surrogate in UTF8": "\"\xed\xa0\x80\"",
		} {
			for field := range strings.SplitSeq(memberNames(t, r.body), " ") {
				body := `{"` + field + `":` + text + `}`
				got := s.do(r.method, r.pattern, body)
				if got.status != http.StatusBadRequest && got.status != http.StatusUnauthorized && got.status != http.StatusNotFound {
					t.Errorf("%s %s, %s as %s: %d %s", r.method, r.pattern, name, field, got.status, clip(string(got.body)))
				}
			}
		}
	}
	if patients, observations := s.rows("patients"), s.rows("observations"); patients != 1 || observations != 0 {
		t.Errorf("%d patients and %d readings are stored", patients, observations)
	}
}

// memberNames are the names of an object's members, with a space between them.
func memberNames(t *testing.T, object string) string {
	t.Helper()
	if names := (answer{body: []byte(object)}).keys(); len(names) > 0 {
		return strings.Join(names, " ")
	}
	return "x"
}

// rawBody sends a body, and checks nothing of the answer.
func (c caller) rawBody(t *testing.T, method, path, body string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Type", "application/json")
	return c.read(req)
}
