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

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/audit"
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
	// ECWSaid is what the token endpoint itself answered, for admins only.
	ECWSaid string `json:"ecw_said,omitempty"`
}

// answerECWFailure answers with the error and its remedy, without eCW's own words.
func answerECWFailure(c echo.Context, err error) error { return answerRefusal(c, err, "") }

// answerRefusal adds what eCW itself said for admins only: it may name anything, and nobody else can act on
// it.
func answerRefusal(c echo.Context, err error, said string) error {
	if callerOf(c).Role != account.Admin {
		said = ""
	}

	var e *ecw.Error
	switch {
	case !errors.As(err, &e):
		return err
	case e.Code == ecw.CodeBudgetUsed:
		return budgetUsed(time.Until(e.RetryAt))
	}

	return c.JSON(http.StatusBadGateway, ecwFailure{
		Status:  "error",
		Code:    e.Code,
		Message: e.Message,
		Hint:    ecw.Remedy(e.Code),
		ECWSaid: said,
	})
}

// budgetUsed is the answer when people have asked too much of eCW.
func budgetUsed(wait time.Duration) *Error {
	wait = max(wait, time.Second)
	return &Error{
		Status: http.StatusTooManyRequests,
		Code:   ecw.CodeBudgetUsed,
		Detail: "People have used up their part of the requests to eCW. Nothing was done. Try again in " + seconds(wait) + " seconds. " +
			"A page far into eCW's list costs many requests: find the patient by name instead.",
		RetryAfter: wait,
	}
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
	if err := s.begin(c, s.event(callerOf(c), audit.ConnectionTest)); err != nil {
		return err
	}
	report, err := s.EHR.TestAuthentication(c.Request().Context())
	if err != nil {
		return answerRefusal(c, err, report.Refusal)
	}

	return c.JSON(http.StatusOK, jwtAnswer{
		Status:             "success",
		Message:            "JWT authentication successful",
		TokenEndpoint:      report.TokenEndpoint,
		AccessTokenPreview: report.Preview,
		TokenType:          report.TokenType,
		ExpiresIn:          report.ExpiresIn,
		Scope:              report.Scope,
		IssuedAt:           report.IssuedAt.UTC().Truncate(time.Second),
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

const cannotWrite = "Nothing can be delivered: the token's scope does not let us create Observations. Ask eCW to grant " +
	"system/Observation.write (system/Observation.c in SMART v2) to the app, and name it in ECW_SCOPE."

func (s *server) testConnection(c echo.Context) error {
	ctx := c.Request().Context()
	if err := s.begin(c, s.event(callerOf(c), audit.ConnectionTest)); err != nil {
		return err
	}
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
		Status:              "success",
		FHIRBaseURL:         capabilities.FHIRBaseURL,
		FHIRVersion:         capabilities.FHIRVersion,
		Capabilities:        capabilities.Interactions,
		ConnectionLatencyMS: latency.Milliseconds(),
	}
	if count >= 0 {
		answer.TestPatientCount = &count
	}
	if !s.EHR.MayCreate() {
		answer.Note = cannotWrite
		return c.JSON(http.StatusOK, answer)
	}

	answer.Note = s.tryCircuit(ctx, requestOf(c))
	return c.JSON(http.StatusOK, answer)
}

const (
	triedNow = "Readings are held because eCW was unavailable or refused us. One of them is tried now. " +
		"The others follow when eCW takes it."
	notTried = "Readings are held because eCW was unavailable or refused us. None could be tried now. " +
		"They go on by themselves within five minutes after eCW takes readings again."
)

// tryCircuit signals a circuit that is not closed to try eCW now, because eCW answers. It returns the note
// for the caller.
func (s *server) tryCircuit(ctx context.Context, req workflows.Request) string {
	way, err := s.circuit(ctx, 0)
	if err == nil && way.State == gate.Closed {
		return ""
	}
	if err == nil {
		options := workflows.CircuitBreakerStart(s.PracticeCode).Options()
		_, err = s.Temporal.SignalWithStartWorkflow(
			ctx, options.ID, workflows.SignalTryNow, req, options, workflows.CircuitBreaker, s.PracticeCode)
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
	DateOfBirth string     `json:"date_of_birth"`
	MRN         string     `json:"mrn"`
	Imported    bool       `json:"imported"`
	VantrexiaID *uuid.UUID `json:"vantrexia_id"`
}

// ecwPatientList is a page of eCW's patients. Note is set when eCW lists fewer patients than it has.
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
	if err := s.showing(c, s.ecwPatientsEvent(c, results)); err != nil {
		return err
	}

	answer := ecwPatientList{list: newNumberedList(c, p, int64(found.Total), results)}
	if found.Cut {
		answer.Note = fmt.Sprintf("eCW has more patients, but lists only %d of them: find the others by name, with search.", found.Total)
	}
	if found.Total < 0 { // eCW did not say how many there are
		answer.Count = int64(p.offset() + len(results))
		if found.More {
			answer.Count, answer.CountIsExact, answer.Next = answer.Count+1, false, pageLink(c, p.number+1)
		}
	}
	return c.JSON(http.StatusOK, answer)
}

// ecwPatientsEvent is the row of a look at eCW's patients. Those who are imported are named; of the others only their
// number is told, as their ids are stored encrypted everywhere else.
func (s *server) ecwPatientsEvent(c echo.Context, shown []ecwPatient) audit.Event {
	var imported []uuid.UUID
	for _, p := range shown {
		if p.VantrexiaID != nil {
			imported = append(imported, *p.VantrexiaID)
		}
	}
	e := s.eventOf(callerOf(c), audit.ECWPatientSearch, ecwPatientResource, nil, imported...)
	e.Reason = fmt.Sprintf("%d not imported", len(shown)-len(imported))
	return e
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

		results = append(results, ecwPatient{
			ECWFHIRID:   d.ID,
			Name:        strings.TrimSpace(d.FirstName + " " + d.LastName),
			DateOfBirth: d.BirthDate,
			MRN:         d.MRN,
		})

		ids = append(ids, d.ID)
	}

	linked, err := s.Store.ListLinkedIDs(ctx, db.ListLinkedIDsParams{PracticeCode: s.PracticeCode, ExternalIDs: ids})
	if err != nil {
		return nil, fmt.Errorf("look up imported patients: %w", err)
	}

	for i := range results {
		if id, ok := linked[results[i].ECWFHIRID]; ok {
			results[i].Imported, results[i].VantrexiaID = true, &id
		}
	}

	return results, nil
}
