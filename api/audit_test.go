package api_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/pquerna/otp/totp"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/db"
)

// trailRow is a row of the audit trail, without its time and its place in the chain.
type trailRow struct {
	Subject, Role, TokenID, Address string
	Action, ResourceType            string
	ResourceIDs                     []string
	PatientIDs                      []uuid.UUID
	Outcome, Reason                 string
}

func (r trailRow) String() string {
	type plain trailRow
	return fmt.Sprintf("%+v", plain(r))
}

// trail returns the rows in the order in which they were written, without those of what happens by itself.
func (s *system) trail() []trailRow {
	s.tb.Helper()
	rows, err := s.conn.Query(s.tb.Context(), `
		SELECT subject, role, token_id, address, action, resource_type, resource_ids, patient_ids, outcome, reason
		FROM audit_events
		WHERE subject NOT IN ('vantrexia', 'local') AND practice_code = $1
		ORDER BY recorded_at, writer, sequence`, practice)
	if err != nil {
		s.tb.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[trailRow])
	if err != nil {
		s.tb.Fatal(err)
	}
	return found
}

// added returns the rows that something adds to the trail.
func (s *system) added(do func()) []trailRow {
	s.tb.Helper()
	before := len(s.trail())
	do()
	return s.trail()[before:]
}

// blockTrail has the database refuse every row of the trail, and returns what takes that back.
func (s *system) blockTrail() (unblock func()) {
	s.tb.Helper()
	s.exec("CREATE TRIGGER blocked BEFORE INSERT ON audit_events FOR EACH ROW EXECUTE FUNCTION refuse_change()")
	return func() { s.exec("DROP TRIGGER blocked ON audit_events") }
}

// auditedRoute is a route and the row that one request adds to the trail.
type auditedRoute struct {
	route string // method and pattern
	send  func() answer
	want  trailRow // without who did it; a resource id of "new" is in the answer
}

// unaudited are the routes without rows: they show nothing of patients and of other people's accounts.
func unaudited() []string {
	return []string{
		"GET /healthz",
		"GET /readyz",
		"GET /.well-known/jwks.json",
		"GET /openapi.yaml",
		"GET /docs",
		"GET /docs/:file",
		"GET /api/v1/fhir/status",         // numbers
		"GET /api/v1/auth/me",             // the own account
		"POST /api/v1/auth/token/refresh", // goes on with a session whose beginning is a row; a refusal is one
		"GET /api/v1/auth/oidc",           // nobody is known yet
		"GET /api/v1/auth/oidc/callback",  // TestSignInsWithTheProviderAreInTheTrail
	}
}

// auditRig is a system in which each route has something to show and to change.
type auditRig struct {
	*system
	linked, alone       string    // patients, with and without a chart
	observation, number string    // delivered
	waiting             [2]string // for the next delivery
	failed              string    // for good
	nora, otto, pia     uuid.UUID
	rosa                uuid.UUID
	asNora, asRosa      caller
	key, imported       string
	importedIDs         []uuid.UUID
	ecwIDs              []string
	secrets             map[uuid.UUID]string // of two-factor sign-in
}

func startAuditRig(t *testing.T) *auditRig {
	t.Helper()
	s := &auditRig{system: start(t, nothing), secrets: map[uuid.UUID]string{}}
	s.linked, s.alone = s.patient(kevin), s.patient("")
	s.observation = s.post(bloodPressure(s.linked))
	s.number = s.await(s.observation, "transmitted").text("transmission", "id")
	for i := range s.waiting {
		s.fault(`{"kind":"reset_after","target":"create"}`)
		s.waiting[i] = s.post(weight(s.linked))
		s.await(s.waiting[i], "failed")
	}
	s.failed = s.post(weight(s.alone)) // for there is no chart
	s.await(s.failed, "failed")

	s.nora, s.otto, s.pia = s.person("nora@example.com", account.Nurse), s.person("otto@example.com", account.Nurse),
		s.person("pia@example.com", account.Nurse)
	s.asNora, _ = s.signedIn("nora@example.com", goodPassword)
	s.rosa = s.person("rosa@example.com", account.Nurse)
	s.asRosa, _ = s.signedIn("rosa@example.com", goodPassword)
	for _, id := range []uuid.UUID{s.otto, s.pia} {
		s.secrets[id] = newSecret(t)
		s.useTOTP(id, s.secrets[id])
	}
	s.secrets[s.nora] = newSecret(t)
	offer := db.OfferTOTPParams{PracticeCode: practice, ID: s.nora, Secret: s.secrets[s.nora]}
	if err := s.store.OfferTOTP(t.Context(), offer); err != nil {
		t.Fatal(err)
	}

	s.key, _ = s.makeKey(`{"name":"gateway"}`)
	_, s.ecwIDs = s.people(4)
	s.imported = s.importPatients(s.ecwIDs[:2], "Prefer", "respond-async").want(t, http.StatusAccepted, "").text("id")
	eventually(t, "imported", func() bool {
		got := s.do("GET", "/api/v1/patients/imports/"+s.imported+"/", "")
		s.importedIDs = nil
		for i := range 2 {
			id, _ := uuid.Parse(got.text("result", "patients", i, "vantrexia_id"))
			s.importedIDs = append(s.importedIDs, id)
		}
		return got.text("status") == "finished"
	})
	return s
}

func newSecret(t *testing.T) string {
	t.Helper()
	key, err := totp.Generate(totp.GenerateOpts{Issuer: "tests", AccountName: "tests"})
	if err != nil {
		t.Fatal(err)
	}
	return key.Secret()
}

func uuids(texts ...string) (ids []uuid.UUID) {
	for _, text := range texts {
		ids = append(ids, uuid.MustParse(text))
	}
	return ids
}

// reads are all routes that show data, each with a request.
func (s *auditRig) reads() []auditedRoute {
	get := func(path string) func() answer { return func() answer { return s.do("GET", path, "") } }
	post := func(path, body string) func() answer { return func() answer { return s.do("POST", path, body) } }
	patient := func(action string) trailRow {
		return trailRow{Action: action, ResourceType: "Patient", ResourceIDs: []string{s.linked}, PatientIDs: uuids(s.linked)}
	}
	reading := trailRow{
		Action: "observation.read", ResourceType: "Observation", ResourceIDs: []string{s.observation}, PatientIDs: uuids(s.linked),
	}
	mrn := s.do("GET", "/api/v1/patients/"+s.linked+"/", "").text("mrn")
	ecw := trailRow{Action: "ecw_patient.search", ResourceType: "ECWPatient"}
	name := s.do("GET", "/api/v1/patients/"+s.importedIDs[0].String()+"/", "").text("last_name")
	s.secret(name)
	return []auditedRoute{
		{"GET /api/v1/patients", get("/api/v1/patients/?mrn=" + mrn), patient("patient.search")},
		{"POST /api/v1/patients/search", post("/api/v1/patients/search/", `{"mrn":"`+mrn+`"}`), patient("patient.search")},
		{"GET /api/v1/patients/:id", get("/api/v1/patients/" + s.linked + "/"), patient("patient.read")},
		{"GET /api/v1/patients/:id/sync-status", get("/api/v1/patients/" + s.linked + "/sync-status/"), patient("patient.sync_status.read")},
		{"GET /api/v1/patients/imports/:id", get("/api/v1/patients/imports/" + s.imported + "/"), trailRow{
			Action: "import.read", ResourceType: "Import", ResourceIDs: []string{s.imported}, PatientIDs: s.importedIDs,
		}},
		{"GET /api/v1/ecw/patients", get("/api/v1/ecw/patients/?search=" + name), ecw},
		{"POST /api/v1/ecw/patients/search", post("/api/v1/ecw/patients/search/", `{"search":"`+name+`"}`), ecw},
		{"GET /api/v1/observations/:id", get("/api/v1/observations/" + s.observation + "/"), reading},
		{"GET /api/v1/fhir/observations/:id", get("/api/v1/fhir/observations/" + s.observation + "/"), reading},
		{"GET /api/v1/fhir/transmissions", get("/api/v1/fhir/transmissions/?status=transmitted"), trailRow{
			Action: "transmission.search", ResourceType: "Transmission", ResourceIDs: []string{s.number}, PatientIDs: uuids(s.linked),
		}},
		{"GET /api/v1/fhir/transmissions/:id", get("/api/v1/fhir/transmissions/" + s.number + "/"), trailRow{
			Action: "transmission.read", ResourceType: "Transmission", ResourceIDs: []string{s.number}, PatientIDs: uuids(s.linked),
		}},
		{"GET /api/v1/users", get("/api/v1/users/?email=pia@example.com"), trailRow{
			Action: "account.search", ResourceType: "User", ResourceIDs: []string{s.pia.String()},
		}},
		{"GET /api/v1/users/:id", get("/api/v1/users/" + s.pia.String() + "/"), trailRow{
			Action: "account.read", ResourceType: "User", ResourceIDs: []string{s.pia.String()},
		}},
		{"GET /api/v1/users/events", get("/api/v1/users/events/?page_size=1"), trailRow{
			Action: "account.search", ResourceType: "AccountEvent", ResourceIDs: []string{"new"},
		}},
		{"GET /api/v1/api-keys", get("/api/v1/api-keys/"), trailRow{
			Action: "api_key.search", ResourceType: "APIKey", ResourceIDs: []string{s.key},
		}},
		{"GET /api/v1/api-keys/:id", get("/api/v1/api-keys/" + s.key + "/"), trailRow{
			Action: "api_key.read", ResourceType: "APIKey", ResourceIDs: []string{s.key},
		}},
		{"GET /api/v1/audit", get("/api/v1/audit/?patient=" + s.linked), trailRow{
			Action: "audit.search", ResourceType: "AuditEvent", PatientIDs: uuids(s.linked),
		}},
		{"GET /api/v1/audit/export", get("/api/v1/audit/export/?format=csv&patient=" + s.linked), trailRow{
			Action: "audit.export", ResourceType: "AuditEvent", PatientIDs: uuids(s.linked), Reason: "csv",
		}},
		{"POST /api/v1/temporal/decode", post(decodePath, `{"payloads":[{"metadata":{"encoding":"anNvbi9wbGFpbg=="},"data":"IkEi"}]}`), trailRow{
			Action: "payload.decode", ResourceType: "Payload", Reason: "1 payloads",
		}},
	}
}

// writes are all routes that change something, each with a request that succeeds once.
func (s *auditRig) writes() []auditedRoute {
	send := func(method, path, body string) func() answer {
		return func() answer { return s.do(method, path, body) }
	}
	own := func(method, path string, body func() string) func() answer {
		return func() answer { return s.asNora.do(method, path, body()) }
	}
	text := func(text string) func() string { return func() string { return text } }
	change := func(user uuid.UUID, what string) trailRow {
		return trailRow{Action: "account.change", ResourceType: "User", ResourceIDs: []string{user.String()}, Reason: what}
	}
	patient := func(action, id string) trailRow {
		return trailRow{Action: action, ResourceType: "Patient", ResourceIDs: []string{id}, PatientIDs: uuids(id)}
	}
	reading := func(action, id, patient string) trailRow {
		return trailRow{Action: action, ResourceType: "Observation", ResourceIDs: []string{id}, PatientIDs: uuids(patient)}
	}
	created := trailRow{Action: "observation.create", ResourceType: "Observation", ResourceIDs: []string{"new"}, PatientIDs: uuids(s.alone)}
	steer := func(action, id string) func() answer {
		return send("POST", "/api/v1/fhir/observations/"+id+"/"+action+"/", "")
	}

	routes := []auditedRoute{
		{"POST /api/v1/observations", send("POST", "/api/v1/observations/", weight(s.alone)), created},
		{"POST /api/v1/observations/batch", send("POST", batchPath, `{"observations":[`+weight(s.alone)+`]}`), created},
		{
			"POST /api/v1/patients",
			send("POST", "/api/v1/patients/", `{"first_name":"Jane","last_name":"Doe","date_of_birth":"1957-03-21"}`),
			trailRow{Action: "patient.create", ResourceType: "Patient", ResourceIDs: []string{"new"}},
		},
		{"PATCH /api/v1/patients/:id", send("PATCH", "/api/v1/patients/"+s.alone+"/", `{"phone":"555-0142"}`), patient("patient.update", s.alone)},
		{"POST /api/v1/patients/:id/archive", send("POST", "/api/v1/patients/"+s.alone+"/archive/", ""), patient("patient.archive", s.alone)},
		{"POST /api/v1/patients/:id/unarchive", send("POST", "/api/v1/patients/"+s.alone+"/unarchive/", ""), patient("patient.unarchive", s.alone)},
		{
			"POST /api/v1/patients/import_selected_from_ecw",
			func() answer { return s.importPatients(s.ecwIDs[2:], "Prefer", "respond-async") },
			trailRow{Action: "import.create", ResourceType: "Import", ResourceIDs: []string{"new"}},
		},
		{"POST /api/v1/ecw/test/jwt", send("POST", "/api/v1/ecw/test/jwt/", ""), trailRow{Action: "connection.test"}},
		{"POST /api/v1/ecw/test/connection", send("POST", "/api/v1/ecw/test/connection/", ""), trailRow{Action: "connection.test"}},
		{"POST /api/v1/fhir/observations/:id/transform", steer("transform", s.failed), reading("observation.transform", s.failed, s.alone)},
		{"POST /api/v1/fhir/observations/:id/cancel", steer("cancel", s.waiting[0]), reading("observation.cancel", s.waiting[0], s.linked)},
		{"POST /api/v1/fhir/observations/:id/transmit", steer("transmit", s.waiting[1]), reading("observation.transmit", s.waiting[1], s.linked)},
		{"POST /api/v1/fhir/process-pending", send("POST", "/api/v1/fhir/process-pending/", ""), trailRow{Action: "pending.process"}},
		{"POST /api/v1/api-keys", send("POST", "/api/v1/api-keys/", `{"name":"scale"}`), trailRow{
			Action: "api_key.create", ResourceType: "APIKey", ResourceIDs: []string{"new"},
		}},
		{"DELETE /api/v1/api-keys/:id", send("DELETE", "/api/v1/api-keys/"+s.key+"/", ""), trailRow{
			Action: "api_key.revoke", ResourceType: "APIKey", ResourceIDs: []string{s.key},
		}},
		{"POST /api/v1/tokens/revoke", send("POST", "/api/v1/tokens/revoke/", `{"jti":"1","reason":"lost"}`), trailRow{
			Action: "token.revoke", ResourceType: "Token", ResourceIDs: []string{"1"},
		}},
		{
			"POST /api/v1/users",
			send("POST", "/api/v1/users/", `{"email":"ada@example.com","first_name":"A","last_name":"B","role":"ma"}`),
			trailRow{Action: "account.change", ResourceType: "User", ResourceIDs: []string{"new"}, Reason: "added"},
		},
		{"PATCH /api/v1/users/:id", send("PATCH", "/api/v1/users/"+s.pia.String()+"/", `{"role":"ma"}`), change(s.pia, "role_changed")},
		{"POST /api/v1/users/:id/reset-password", send("POST", "/api/v1/users/"+s.pia.String()+"/reset-password/", ""), change(s.pia, "password_reset")},
		{"POST /api/v1/users/:id/unlock", send("POST", "/api/v1/users/"+s.pia.String()+"/unlock/", ""), change(s.pia, "unlocked")},
		{"DELETE /api/v1/users/:id/totp", send("DELETE", "/api/v1/users/"+s.pia.String()+"/totp/", ""), change(s.pia, "totp_removed")},
		{"POST /api/v1/auth/login", func() answer {
			return s.signIn("otto@example.com", goodPassword, code(s.tb, s.secrets[s.otto], time.Now()))
		}, trailRow{Action: "sign_in", ResourceType: "Session", ResourceIDs: []string{"new"}, Reason: "password"}},
		{"PATCH /api/v1/auth/me", own("PATCH", "/api/v1/auth/me/", text(`{"first_name":"N"}`)), change(s.nora, "changed")},
		{"POST /api/v1/auth/me/totp/confirm", own("POST", "/api/v1/auth/me/totp/confirm/", func() string {
			return asJSON(map[string]string{"code": code(s.tb, s.secrets[s.nora], time.Now())})
		}), change(s.nora, "totp_enabled")},
		{"DELETE /api/v1/auth/me/totp", own("DELETE", "/api/v1/auth/me/totp/", func() string {
			return asJSON(map[string]string{"password": goodPassword, "code": code(s.tb, s.secrets[s.nora], time.Now().Add(30*time.Second))})
		}), change(s.nora, "totp_removed")},
		{"POST /api/v1/auth/me/totp", own("POST", "/api/v1/auth/me/totp/", text(asJSON(map[string]string{"password": goodPassword}))),
			change(s.nora, "totp_offered")},
		{"POST /api/v1/auth/me/password", own("POST", "/api/v1/auth/me/password/", text(asJSON(map[string]string{
			"old_password": goodPassword, "new_password": "violet anchor thimble four",
		}))), change(s.nora, "password_changed")},
		{"POST /api/v1/auth/logout", own("POST", "/api/v1/auth/logout/", text("")), trailRow{
			Action: "sign_out", ResourceType: "Session", ResourceIDs: []string{"new"},
		}},
		{
			"POST /api/v1/auth/logout/everywhere",
			func() answer { return s.asRosa.do("POST", "/api/v1/auth/logout/everywhere/", "") },
			trailRow{Action: "sign_out", ResourceType: "User", ResourceIDs: []string{s.rosa.String()}, Reason: "signed_out_everywhere"},
		},
	}
	for _, path := range slices.Sorted(maps.Keys(doors())) {
		body := ingested(s.alone, doors()[path][1])
		routes = append(routes, auditedRoute{"POST /api/v1/ingestion/" + path, send("POST", "/api/v1/ingestion/"+path+"/", body), created})
	}
	return routes
}

// Each read of patient data adds exactly one row, and each write one in its transaction. Without the row no data is shown
// and nothing is stored. A route that nobody has thought about fails the test.
func TestEveryRouteIsInTheTrail(t *testing.T) {
	t.Parallel()
	s := startAuditRig(t)
	reads, writes := s.reads(), s.writes()

	known := unaudited()
	for _, r := range slices.Concat(reads, writes) {
		known = append(known, r.route)
	}
	var routes []route
	for _, r := range known {
		method, pattern, _ := strings.Cut(r, " ")
		routes = append(routes, route{method: method, pattern: pattern})
	}
	s.wantNoOtherRoute(routes)

	unblock := s.blockTrail()
	before := s.stored()
	for _, r := range slices.Concat(reads, writes) {
		if strings.HasPrefix(r.route, "DELETE /api/v1/auth/me/totp") {
			continue // nora has no second factor yet; otto's would do the same
		}
		t.Run("without a trail, "+r.route, func(t *testing.T) {
			got := r.send().want(t, http.StatusServiceUnavailable, "audit_unavailable")
			for _, name := range []string{"Jane", "Doe", s.linked, s.observation} {
				if strings.Contains(string(got.body), name) {
					t.Errorf("it is shown: %s", got.body)
				}
			}
		})
	}
	for table, was := range before {
		if now := s.stored()[table]; now != was {
			t.Errorf("something was stored in %s without a row", table)
		}
	}
	unblock()

	for _, r := range slices.Concat(reads, writes) {
		t.Run(r.route, func(t *testing.T) {
			var got answer
			rows := s.added(func() { got = r.send() })
			if got.status >= 300 {
				t.Fatalf("got %d %s", got.status, got.body)
			}
			if len(rows) == 2 && rows[0].Action == "import.create" && rows[1].Action == "import.read" {
				rows = rows[:1] // it was done before the answer, which then shows the patients
			}
			if len(rows) != 1 {
				t.Fatalf("%d rows: %v", len(rows), rows)
			}
			s.wantRow(t, rows[0], r, got)
		})
	}

	for _, row := range s.trail() {
		for word := range s.log.secrets {
			if strings.Contains(row.String(), word) {
				t.Errorf("a row holds %q: %v", word, row)
			}
		}
		if found := private.FindString(regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}`).ReplaceAllString(row.String(), "")); found != "" {
			t.Errorf("a row holds %q: %v", found, row)
		}
	}
}

// wantRow fails the test unless a row is the one of a route, and of its caller.
func (s *auditRig) wantRow(t *testing.T, got trailRow, r auditedRoute, shown answer) {
	t.Helper()
	want := r.want
	want.Outcome, want.Address = "success", "127.0.0.1"
	if slices.Equal(want.ResourceIDs, []string{"new"}) {
		want.ResourceIDs = got.ResourceIDs
		isShown := len(got.ResourceIDs) == 1 && strings.Contains(string(shown.body), got.ResourceIDs[0])
		if !isShown && want.ResourceType != "Session" {
			t.Errorf("the id is none of the answer's: %v", got)
		}
	}
	switch want.Action {
	case "patient.create":
		want.PatientIDs = uuids(shown.text("id"))
	case "ecw_patient.search":
		others := 0
		for i := 0; shown.get("results", i) != nil; i++ {
			if id := shown.text("results", i, "vantrexia_id"); id != "" {
				want.PatientIDs = append(want.PatientIDs, uuid.MustParse(id))
			} else {
				others++
			}
		}
		want.Reason = fmt.Sprint(others, " not imported")
		if len(want.PatientIDs) == 0 {
			t.Error("the list has nobody who is imported")
		}
	}

	switch {
	case strings.Contains(r.route, "/auth/login"):
		want.Subject, want.Role, want.TokenID = s.otto.String(), "nurse", got.ResourceIDs[0]
	case strings.Contains(r.route, "/everywhere"):
		want.Subject, want.Role, want.TokenID = s.rosa.String(), "nurse", s.sessionOf(t, s.rosa)
	case strings.Contains(r.route, "/auth/"):
		want.Subject, want.Role, want.TokenID = s.nora.String(), "nurse", s.sessionOf(t, s.nora)
	default:
		want.Subject, want.Role, want.TokenID = "tests", "admin", tokenID(t, s.token)
	}
	for _, row := range []*trailRow{&want, &got} { // nil is empty
		row.ResourceIDs, row.PatientIDs = append([]string{}, row.ResourceIDs...), append([]uuid.UUID{}, row.PatientIDs...)
		slices.SortFunc(row.PatientIDs, func(a, b uuid.UUID) int { return strings.Compare(a.String(), b.String()) })
	}
	if got.String() != want.String() {
		t.Errorf("the row is\n%v, want\n%v", got, want)
	}
}

func tokenID(t *testing.T, token string) string {
	t.Helper()
	id, err := account.TokenID(token)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// sessionOf returns the id of a person's only session.
func (s *system) sessionOf(t *testing.T, user uuid.UUID) (id string) {
	t.Helper()
	if err := s.conn.QueryRow(t.Context(), "SELECT id::text FROM sessions WHERE user_id = $1", user).Scan(&id); err != nil {
		t.Fatal(err)
	}
	return id
}

// stored is what the tables hold, each as a hash.
func (s *system) stored() map[string]string {
	s.tb.Helper()
	hashes := map[string]string{}
	for _, table := range []string{
		"patients", "observations", "idempotency_keys", "patient_imports", "patient_import_items", "users", "sessions",
		"account_events", "api_keys", "denied_tokens", "transmissions", "audit_events",
	} {
		var hash string
		query := "SELECT coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM " + pgx.Identifier{table}.Sanitize() + " t"
		if err := s.conn.QueryRow(s.tb.Context(), query).Scan(&hash); err != nil {
			s.tb.Fatal(err)
		}
		hashes[table] = hash
	}
	return hashes
}

// A row that waits is a row that is not there: behind a lock on the table nothing is answered either.
func TestTheTrailIsLocked(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient("")
	tx, err := s.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), "LOCK TABLE audit_events IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}

	var group sync.WaitGroup
	group.Go(func() {
		s.do("GET", "/api/v1/patients/"+patient+"/", "").want(t, http.StatusServiceUnavailable, "audit_unavailable")
	})
	group.Go(func() {
		s.do("POST", "/api/v1/observations/", weight(patient)).want(t, http.StatusServiceUnavailable, "audit_unavailable")
	})
	group.Go(func() {
		s.do("POST", batchPath, `{"observations":[`+weight(patient)+`]}`).want(t, http.StatusServiceUnavailable, "audit_unavailable")
	})
	group.Go(func() {
		s.with("nonsense").do("GET", "/api/v1/patients/", "").want(t, http.StatusUnauthorized, "invalid_token")
	})
	group.Wait()

	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := s.rows("observations"); n > 0 {
		t.Errorf("%d readings are stored", n)
	}
}

// A write that fails leaves no row that says it was done.
func TestAFailedWriteLeavesNoRow(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient("")
	s.exec("CREATE TRIGGER blocked BEFORE INSERT OR UPDATE ON patients FOR EACH ROW EXECUTE FUNCTION refuse_change()")
	s.mayFail = true
	rows := s.added(func() {
		s.do("PATCH", "/api/v1/patients/"+patient+"/", `{"phone":"555-0142"}`).want(t, http.StatusInternalServerError, "internal")
		s.do("POST", "/api/v1/observations/", weight(uuid.NewString())).want(t, http.StatusBadRequest, "invalid")
		s.do("GET", "/api/v1/patients/"+uuid.NewString()+"/", "").want(t, http.StatusNotFound, "not_found")
	})
	if len(rows) > 0 {
		t.Errorf("the trail has %v", rows)
	}
}

// A reading that is sent again is a row that says so, whichever way it takes.
func TestARepeatedReadingIsInTheTrail(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient, other := s.patient(""), s.patient("")
	first, second := weight(patient), weight(other)
	key := []string{"Idempotency-Key", "1"}
	id := s.do("POST", "/api/v1/observations/", first, key...).want(t, http.StatusCreated, "").text("id")

	for name, send := range map[string]func(){
		"with the same key": func() { s.do("POST", "/api/v1/observations/", first, key...).want(t, http.StatusOK, "") },
		"without a key":     func() { s.do("POST", "/api/v1/observations/", first).want(t, http.StatusOK, "") },
		"a space later": func() {
			s.do("POST", "/api/v1/observations/", strings.Replace(first, "SCALE-7", "SCALE-7 ", 1)).want(t, http.StatusOK, "")
		},
		"in a batch": func() { s.do("POST", batchPath, `{"observations":[`+first+`]}`).want(t, http.StatusOK, "") },
	} {
		rows := s.added(send)
		if len(rows) != 1 || rows[0].Reason != "repeated" || !slices.Equal(rows[0].ResourceIDs, []string{id}) ||
			!slices.Equal(rows[0].PatientIDs, uuids(patient)) {
			t.Errorf("%s: %v", name, rows)
		}
	}

	batched := `{"observations":[` + first + `,` + second + `,` + second + `]}`
	for _, want := range [][]string{{"", "repeated"}, {"repeated"}} {
		rows := s.added(func() { s.do("POST", batchPath, batched, "Idempotency-Key", "2").want(t, http.StatusOK, "") })
		var reasons []string
		for _, row := range rows {
			reasons = append(reasons, row.Reason)
		}
		if !slices.Equal(reasons, want) {
			t.Errorf("the batch adds %v, want the reasons %q", rows, want)
		}
		if last := rows[len(rows)-1]; !slices.Equal(last.PatientIDs, uuids(patient, other)) || len(last.ResourceIDs) != 2 {
			t.Errorf("the repeated readings are %v", last)
		}
	}
}

// A refusal that says what another has stored is a read: who sends one value after the other finds out the right one.
func TestWhatAConflictTellsIsInTheTrail(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient, other := s.patient(""), s.patient("")
	reading := weight(patient)
	guess := strings.Replace(reading, `"value":`, `"value":1`, 1)
	id := s.do("POST", "/api/v1/observations/", reading).want(t, http.StatusCreated, "").text("id")
	device := s.as(account.Service)
	mrn := s.do("GET", "/api/v1/patients/"+patient+"/", "").want(t, http.StatusOK, "").text("mrn")
	person := `{"first_name":"A","last_name":"B","date_of_birth":"1990-01-01","mrn":"` + mrn + `"}`

	for name, step := range map[string]struct {
		send     func()
		reason   string
		resource string
	}{
		"a reading": {func() {
			device.do("POST", "/api/v1/observations/", guess).want(t, http.StatusConflict, "conflicting_reading")
		}, "conflicting_reading", id},
		"a batch of guesses": {func() {
			device.do("POST", batchPath, `{"observations":[`+guess+`,`+guess+`]}`).want(t, http.StatusOK, "")
		}, "conflicting_reading", id},
		"a batch of one by one": {func() {
			device.do("POST", batchPath, `{"observations":[`+guess+`]}`, "Idempotency-Key", "1").want(t, http.StatusOK, "")
		}, "conflicting_reading", id},
		"a new patient with a known MRN": {func() {
			s.do("POST", "/api/v1/patients/", person).want(t, http.StatusConflict, "patient_exists")
		}, "patient_exists", patient},
		"a patient who gets the MRN of another": {func() {
			s.do("PATCH", "/api/v1/patients/"+other+"/", `{"mrn":"`+mrn+`"}`).want(t, http.StatusConflict, "patient_exists")
		}, "patient_exists", patient},
	} {
		rows := s.added(step.send)
		if len(rows) != 1 || rows[0].Outcome != "failure" || rows[0].Reason != step.reason ||
			!slices.Equal(rows[0].ResourceIDs, []string{step.resource}) || !slices.Equal(rows[0].PatientIDs, uuids(patient)) {
			t.Errorf("%s: %v", name, rows)
		}
	}
}

// What an automatic refresh shows is in the trail already, or gets a row.
func TestAutomaticRefreshes(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient("")
	path, list := "/api/v1/patients/"+patient+"/", "/api/v1/patients/"
	auto := []string{"X-Automatic-Refresh", "true"}
	admin, nurse := s.caller, s.as(account.Nurse)

	for _, step := range []struct {
		what   string
		by     caller
		path   string
		header []string
		rows   int
	}{
		{"the first", admin, path, auto, 1},
		{"a refresh", admin, path, auto, 0},
		{"a person", admin, path, nil, 1},
		{"a refresh after that", admin, path, auto, 0},
		{"another session", nurse, path, auto, 1},
		{"another view", admin, list, auto, 1},
		{"its refresh", admin, list, auto, 0},
		{"another page of it", admin, list + "?page_size=5", auto, 1},
		{"another header", admin, list, []string{"X-Automatic-Refresh", "false"}, 1},
	} {
		rows := s.added(func() { step.by.do("GET", step.path, "", step.header...).want(t, http.StatusOK, "") })
		if len(rows) != step.rows {
			t.Errorf("%s: %v, want %d rows", step.what, rows, step.rows)
		}
	}

	s.patient("")
	if rows := s.added(func() { s.do("GET", list, "", auto...).want(t, http.StatusOK, "") }); len(rows) != 1 || len(rows[0].PatientIDs) != 2 {
		t.Errorf("somebody new is in the list: %v", rows)
	}
	for _, data := range []string{"IkEi", "IkIi"} {
		rows := s.added(func() {
			s.do("POST", decodePath, `{"payloads":[{"metadata":{"encoding":"anNvbi9wbGFpbg=="},"data":"`+data+`"}]}`, auto...).want(t, http.StatusOK, "")
		})
		if len(rows) != 1 {
			t.Errorf("another payload: %v", rows)
		}
	}
}

// Each kind of refusal is one row, however often it comes.
func TestRefusalsAreInTheTrail(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient("")
	nora := s.person("nora@example.com", account.Nurse)
	asNora, refresh := s.signedIn("nora@example.com", goodPassword)
	session := s.sessionOf(t, nora)
	_, cuffs := s.makeKey(`{"name":"cuffs","devices":["BP-*"]}`)
	revokedID, revoked := s.makeKey(`{"name":"old"}`)
	s.do("DELETE", "/api/v1/api-keys/"+revokedID+"/", "").want(t, http.StatusOK, "")
	stranger := s.with("")
	foreign := s.post(weight(patient))
	expired := s.with(s.sign(t, claims{"sub": "gateway-7", "role": "service", "jti": "j1", "exp": time.Now().Add(-time.Minute).Unix(),
		"iat": time.Now().Add(-time.Hour).Unix()}))
	forged := s.with(s.signWith(t, jwt.SigningMethodHS256, []byte("another secret, of nobody whom we know, long enough"), claims{"sub": nora.String()}))

	for _, test := range []struct {
		what string
		send func()
		want trailRow
	}{
		{"no token", func() { stranger.do("GET", "/api/v1/patients/", "") }, trailRow{
			Action: "access.refuse", ResourceIDs: []string{"GET /api/v1/patients"}, Reason: "not_authenticated",
		}},
		{"a forged token", func() { forged.do("GET", "/api/v1/patients/", "") }, trailRow{
			Action: "access.refuse", ResourceIDs: []string{"GET /api/v1/patients"}, Reason: "invalid_token",
		}},
		{"an expired token", func() { expired.do("GET", "/api/v1/patients/", "") }, trailRow{
			Subject: "gateway-7", Role: "service", TokenID: "j1",
			Action: "access.refuse", ResourceIDs: []string{"GET /api/v1/patients"}, Reason: "token_expired",
		}},
		{"another role", func() { asNora.do("GET", "/api/v1/users/"+nora.String()+"/", "") }, trailRow{
			Subject: nora.String(), Role: "nurse", TokenID: session,
			Action: "access.refuse", ResourceIDs: []string{"GET /api/v1/users/:id"}, Reason: "forbidden",
		}},
		{"a reading of another machine", func() { cuffs.do("GET", "/api/v1/observations/"+foreign+"/", "") }, trailRow{
			Subject: "key", Role: "service", TokenID: "key",
			Action: "access.refuse", ResourceIDs: []string{"GET /api/v1/observations/:id"}, Reason: "foreign_reading",
		}},
		{"another device, in a batch", func() {
			cuffs.do("POST", batchPath, `{"observations":[`+weight(patient)+`,`+weight(patient)+`]}`).want(t, http.StatusOK, "")
		}, trailRow{
			Subject: "key", Role: "service", TokenID: "key",
			Action: "access.refuse", ResourceIDs: []string{"POST /api/v1/observations/batch"}, Reason: "foreign_device",
		}},
		{"a revoked key", func() { revoked.do("GET", "/api/v1/patients/", "").want(t, http.StatusUnauthorized, "invalid_token") }, trailRow{
			Subject: "key:" + revokedID, Role: "service", TokenID: revokedID,
			Action: "access.refuse", ResourceIDs: []string{"GET /api/v1/patients"}, Reason: "invalid_token",
		}},
		{"a wrong own password", func() {
			asNora.do("POST", "/api/v1/auth/me/totp/", `{"password":"wrong"}`).want(t, http.StatusBadRequest, "invalid")
		}, trailRow{
			Subject: nora.String(), Role: "nurse", TokenID: session,
			Action: "access.refuse", ResourceIDs: []string{"POST /api/v1/auth/me/totp"}, Reason: "wrong_password",
		}},
		{"a wrong password", func() { s.signIn("nora@example.com", "wrong", "") }, trailRow{
			Subject: nora.String(), Action: "sign_in", ResourceIDs: []string{"POST /api/v1/auth/login"}, Reason: "authentication_failed",
		}},
		{"an unknown e-mail", func() { s.signIn("nobody@example.com", "wrong", "") }, trailRow{
			Action: "sign_in", ResourceIDs: []string{"POST /api/v1/auth/login"}, Reason: "authentication_failed",
		}},
		{"a refresh token that nobody has", func() { s.refresh("x") }, trailRow{
			Action: "token.refresh", ResourceIDs: []string{"POST /api/v1/auth/token/refresh"}, Reason: "invalid_token",
		}},
	} {
		rows := s.added(func() { test.send(); test.send() })
		test.want.Outcome, test.want.Address, test.want.ResourceType = "refused", "127.0.0.1", "Route"
		if len(rows) == 1 && test.want.Subject == "key" {
			test.want.Subject, test.want.TokenID = rows[0].Subject, strings.TrimPrefix(rows[0].Subject, "key:")
		}
		test.want.PatientIDs = []uuid.UUID{}
		if len(rows) != 1 || rows[0].String() != test.want.String() {
			t.Errorf("%s:\n%v, want\n%v", test.what, rows, test.want)
		}
	}

	s.refresh(refresh).want(t, http.StatusOK, "")
	reused := s.added(func() { s.refresh(refresh).want(t, http.StatusUnauthorized, "invalid_token") })
	if len(reused) != 1 || reused[0].Reason != "refresh_token_reused" || !slices.Equal(reused[0].ResourceIDs, []string{nora.String()}) {
		t.Errorf("a refresh token that came twice: %v", reused)
	}
	if ended := s.added(func() { asNora.me() }); len(ended) != 1 || ended[0].Subject != nora.String() || ended[0].Reason != "session_ended" {
		t.Errorf("after that: %v", ended)
	}

	// A trail that cannot be written refuses nobody's refusal.
	defer s.blockTrail()()
	stranger.do("GET", "/api/v1/users/", "").want(t, http.StatusUnauthorized, "not_authenticated")
	s.as(account.Nurse).do("GET", "/api/v1/users/", "").want(t, http.StatusForbidden, "forbidden")
}

// Somebody with many addresses cannot fill the disk.
func TestStrangersCannotFillTheTrail(t *testing.T) {
	t.Parallel()
	s := startWith(t, setup{missing: temporal, change: behindProxy})
	stranger := s.with("")
	knock := func(address string) {
		stranger.do("GET", "/api/v1/patients/", "", "X-Forwarded-For", address).want(t, http.StatusUnauthorized, "not_authenticated")
	}

	block := s.added(func() { knock("2001:db8:0:1::1"); knock("2001:db8:0:1::2"); knock("2001:db8:0:2::1") })
	if len(block) != 2 || block[0].Address != "2001:db8:0:1::1" || block[1].Address != "2001:db8:0:2::1" {
		t.Errorf("of two networks: %v", block)
	}

	rows := s.added(func() {
		for i := range 1_020 {
			knock(fmt.Sprintf("10.0.%d.%d", i/250, i%250))
		}
	})
	if len(rows) != 1_000-2+1 || rows[len(rows)-1].Reason != "too_many_refusals" || rows[len(rows)-1].Address != "" {
		t.Errorf("%d rows, the last one %v", len(rows), rows[len(rows)-1])
	}

	// Nor do they hide who tries the password of an account that there is.
	nora := s.person("nora@example.com", account.Nurse)
	rows = s.added(func() { s.signIn("nora@example.com", "wrong", "") })
	if len(rows) != 1 || rows[0].Subject != nora.String() || rows[0].Reason != "authentication_failed" {
		t.Errorf("of a wrong password: %v", rows)
	}

	// Those whom we know are not drowned by them.
	if rows := s.added(func() { s.as(account.Nurse).do("GET", "/api/v1/users/", "") }); len(rows) != 1 || rows[0].Reason != "forbidden" {
		t.Errorf("of a nurse: %v", rows)
	}
}

func TestSignInsWithTheProviderAreInTheTrail(t *testing.T) {
	t.Parallel()
	s := startOIDC(t, nil)
	s.provider.person(nora(nil))

	var in answer
	rows := s.added(func() { in = s.oidc().want(t, http.StatusOK, "") })
	id := in.text("user", "id")
	session := s.sessionOf(t, uuid.MustParse(id))
	if len(rows) != 2 || rows[0].Action != "account.change" || rows[0].Reason != "added" || rows[0].Subject != "oidc" ||
		rows[1].Action != "sign_in" || rows[1].Reason != "oidc" || rows[1].Subject != id || rows[1].TokenID != session {
		t.Errorf("the first sign-in: %v", rows)
	}

	s.exec("UPDATE users SET disabled_at = now()")
	refused := s.added(func() { s.oidc().want(t, http.StatusForbidden, "account_disabled") })
	if len(refused) != 1 || refused[0].Action != "sign_in" || refused[0].Outcome != "refused" || refused[0].Subject != id ||
		refused[0].Reason != "account_disabled" {
		t.Errorf("a disabled account: %v", refused)
	}
	unknown := s.added(func() {
		s.browser().do("GET", "/api/v1/auth/oidc/callback/?state=x&code=y", "").want(t, http.StatusBadRequest, "oidc_state_invalid")
	})
	if len(unknown) != 1 || unknown[0].Subject != "" || unknown[0].Reason != "oidc_state_invalid" {
		t.Errorf("a sign-in that nobody began: %v", unknown)
	}

	s.exec("UPDATE users SET disabled_at = NULL")
	sessions := s.rows("sessions")
	unblock := s.blockTrail()
	s.oidc().want(t, http.StatusServiceUnavailable, "audit_unavailable")
	unblock()
	if s.rows("sessions") != sessions {
		t.Error("a session began without a row")
	}
}
