package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/gate"
	"github.com/vantrexia/vantrexia/workflows"
)

// ecwFailure is how the test endpoints report that eCW refused us or did not answer.
type ecwFailure struct {
	Status  string `json:"status"`
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
	// ECWSaid is the token endpoint's own words, for admins only.
	ECWSaid string `json:"ecw_said,omitempty"`
}

const notActivated = "eCW has not activated the app or its scopes for this practice: contact your eCW account representative."

// ecwHints is the tutorial's advice, by the error's code.
var ecwHints = map[string]string{
	"invalid_client": "Check that ECW_CLIENT_ID matches the portal; that eCW can fetch the JWKS URL, and finds there, under the kid of " +
		"ECW_KEY_ID, the public half of ECW_PRIVATE_KEY_FILE and not another key; and that ECW_TOKEN_URL is the address by which " +
		"eCW itself knows its token endpoint: it is the assertion's aud, and behind a proxy eCW may expect another.",
	"invalid_grant": "Verify that the JWKS endpoint is publicly accessible, that the kid matches, and that ECW_SCOPE holds only scopes granted to the app.",
	"invalid_scope": "Set ECW_SCOPE to the scopes as eCW granted them to the app, perhaps under SMART v2's names (system/Patient.rs " +
		"system/Observation.c system/Observation.rs). Without one to create Observations nothing can be delivered.",
	"key_not_found": "Ensure that ECW_PRIVATE_KEY_FILE (backend_service) or ECW_CLIENT_SECRET (confidential_client) is set correctly in your environment.",
	"insufficient_scope": "Have the missing scopes granted in the eCW developer portal. Change ECW_SCOPE only when eCW grants the same " +
		"under other names (system/Observation.c is to create): without a scope to create Observations nothing can be delivered.",
	ecw.CodeRateLimited: "Nothing was sent: Vantrexia's own limit, ECW_RATE_LIMIT requests a minute with all deliveries, is used up: " +
		"try again in a minute.",
	"timeout":      "eCW did not answer in time: try again, and check the network path to the token endpoint.",
	"transient":    eCWFails,
	"http_500":     eCWFails,
	"http_502":     eCWFails,
	"http_503":     eCWFails,
	"http_504":     eCWFails,
	"throttled":    "eCW takes 250 requests a minute from a practice, deliveries included: try again in a minute.",
	"unauthorized": notActivated, "forbidden": notActivated, "access_denied": notActivated,
}

const eCWFails = "eCW answers, and fails by itself: wait, then test again. Readings are kept meanwhile, and go on by themselves. " +
	"If it lasts, check ECW_TOKEN_URL and ECW_FHIR_BASE_URL, since a gateway answers so for a wrong address too, then ask eCW's support."

const defaultHint = "Check ECW_ENVIRONMENT, ECW_TOKEN_URL and ECW_FHIR_BASE_URL, and that eCW can be reached from this host."

func answerECWFailure(c echo.Context, err error) error { return answerRefusal(c, err, "") }

// answerRefusal shows what eCW said in its own words, which may name anything, to admins: nobody else can act on it.
func answerRefusal(c echo.Context, err error, said string) error {
	if role, _ := c.Get(roleKey).(string); role != RoleAdmin {
		said = ""
	}
	var e *ecw.Error
	if !errors.As(err, &e) {
		return err
	}
	hint, ok := ecwHints[e.Code]
	if !ok {
		hint = defaultHint
	}
	return c.JSON(http.StatusBadGateway, ecwFailure{Status: "error", Code: e.Code, Message: e.Message, Hint: hint, ECWSaid: said})
}

type jwtAnswer struct {
	Status             string    `json:"status"`
	Message            string    `json:"message"`
	TokenEndpoint      string    `json:"token_endpoint"`
	AccessTokenPreview string    `json:"access_token_preview"`
	TokenType          string    `json:"token_type"`
	ExpiresIn          int       `json:"expires_in"`
	Scope              string    `json:"scope"`
	IssuedAt           time.Time `json:"issued_at"`
}

func (s *server) testJWT(c echo.Context) error {
	report, err := s.EHR.TestAuthentication(c.Request().Context())
	if err != nil {
		return answerRefusal(c, err, report.Refusal)
	}
	return c.JSON(http.StatusOK, jwtAnswer{
		Status: "success", Message: "JWT authentication successful", TokenEndpoint: report.TokenEndpoint, AccessTokenPreview: report.Preview,
		TokenType: report.TokenType, ExpiresIn: report.ExpiresIn, Scope: report.Scope, IssuedAt: report.IssuedAt.UTC().Truncate(time.Second),
	})
}

type connectionAnswer struct {
	Status       string   `json:"status"`
	FHIRBaseURL  string   `json:"fhir_base_url"`
	FHIRVersion  string   `json:"fhir_version"`
	Capabilities []string `json:"capabilities"`
	// TestPatientCount is null when eCW does not say how many patients there are.
	TestPatientCount    *int  `json:"test_patient_count"`
	ConnectionLatencyMS int64 `json:"connection_latency_ms"`
	// Note says what does not work although the connection does, or what the test has set going.
	Note string `json:"note,omitempty"`
}

const cannotWrite = "The token's scope does not allow to create Observations, so nothing can be delivered: have eCW grant " +
	"system/Observation.write (system/Observation.c in SMART v2) to the app, and name it in ECW_SCOPE."

func (s *server) testConnection(c echo.Context) error {
	ctx := c.Request().Context()
	start := time.Now()
	capabilities, err := s.EHR.Capabilities(ctx)
	if err != nil {
		return answerECWFailure(c, err)
	}
	latency := time.Since(start)
	count, err := s.EHR.CountPatients(ctx)
	if err != nil {
		return answerECWFailure(c, err)
	}
	answer := connectionAnswer{
		Status: "success", FHIRBaseURL: capabilities.FHIRBaseURL, FHIRVersion: capabilities.FHIRVersion, Capabilities: capabilities.Interactions,
		ConnectionLatencyMS: latency.Milliseconds(),
	}
	if count >= 0 {
		answer.TestPatientCount = &count
	}
	if !s.EHR.MayCreate() {
		answer.Note = cannotWrite
		return c.JSON(http.StatusOK, answer)
	}
	answer.Note = s.tryCircuit(ctx)
	return c.JSON(http.StatusOK, answer)
}

const (
	triedNow = "Readings are held since eCW was unavailable or refused us: one of them is tried now, and the others follow when eCW takes it."
	notTried = "Readings are held since eCW was unavailable or refused us, and none could be tried now: they go on by themselves within five " +
		"minutes after eCW takes readings again."
)

// tryCircuit has a circuit that is not closed tried now, since eCW answers, and returns what to say of it.
func (s *server) tryCircuit(ctx context.Context) string {
	way, err := s.circuit(ctx, 0)
	if err == nil && way.State == gate.Closed {
		return ""
	}
	if err == nil {
		options := workflows.CircuitBreakerStart(s.PracticeCode).Options()
		_, err = s.Temporal.SignalWithStartWorkflow(ctx, options.ID, workflows.SignalTryNow, nil, options, workflows.CircuitBreaker, s.PracticeCode)
	}
	if err != nil {
		s.Logger.WarnContext(ctx, "the circuit could not be tried after a good connection test", "error", err)
		return notTried
	}
	return triedNow
}

// ecwPatient is a patient of eCW who may be imported. VantrexiaID is null until then.
type ecwPatient struct {
	ECWFHIRID   string     `json:"ecw_fhir_id"`
	Name        string     `json:"name"`
	BirthDate   string     `json:"birth_date"`
	MRN         string     `json:"mrn"`
	Imported    bool       `json:"imported"`
	VantrexiaID *uuid.UUID `json:"vantrexia_id"`
}

// ecwPatientList is a page of eCW's patients. Note says so when the list ends before eCW's count of them.
type ecwPatientList struct {
	list[ecwPatient]
	Note string `json:"note,omitempty"`
}

func (s *server) listECWPatients(c echo.Context) error {
	p := queryPage(c)
	search := queryText(c, "search")
	query := ecw.PatientQuery{Page: p.number, PageSize: p.size}
	if search != nil {
		query.Name = *search
	}
	ctx := c.Request().Context()
	found, err := s.EHR.SearchPatients(ctx, query)
	var refused *ecw.Error
	if errors.As(err, &refused) && refused.Code == ecw.CodeInvalidPage {
		var b broken
		b.add("page", "%s", refused.Message)
		return b.err()
	}
	if err != nil {
		return answerECWFailure(c, err)
	}
	results, err := s.showECWPatients(ctx, found)
	if err != nil {
		return err
	}
	answer := ecwPatientList{list: newNumberedList(c, p, int64(found.Total), results)}
	if found.Cut {
		answer.Note = fmt.Sprintf("eCW has more patients, but lets only %d be listed: find the others by name, with search.", found.Total)
	}
	if found.Total < 0 { // eCW did not say how many there are
		answer.Count = int64(p.offset() + len(results))
		if found.More {
			answer.Count, answer.CountIsExact, answer.Next = answer.Count+1, false, pageURL(c, p.number+1)
		}
	}
	return c.JSON(http.StatusOK, answer)
}

func (s *server) showECWPatients(ctx context.Context, found ecw.PatientPage) ([]ecwPatient, error) {
	results := make([]ecwPatient, 0, len(found.Patients))
	ids := make([]string, 0, len(found.Patients))
	for _, resource := range found.Patients {
		d, err := fhir.ParsePatient(resource, s.MRNSystem)
		if err != nil {
			s.Logger.WarnContext(ctx, "eCW sent a Patient that cannot be read", "error", err)
			continue
		}
		results = append(results, ecwPatient{ECWFHIRID: d.ID, Name: strings.TrimSpace(d.FirstName + " " + d.LastName), BirthDate: d.BirthDate, MRN: d.MRN})
		ids = append(ids, d.ID)
	}
	linked, err := s.Store.ListLinkedIDs(ctx, db.ListLinkedIDsParams{PracticeCode: s.PracticeCode, ECWFHIRIDs: ids})
	if err != nil {
		return nil, fmt.Errorf("look up imported patients: %w", err)
	}
	known := make(map[string]uuid.UUID, len(linked))
	for _, row := range linked {
		known[row.ECWFHIRID] = row.ID
	}
	for i := range results {
		if id, ok := known[results[i].ECWFHIRID]; ok {
			results[i].Imported, results[i].VantrexiaID = true, &id
		}
	}
	return results, nil
}
