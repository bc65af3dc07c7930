package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
)

// headerRefresh marks a request that a page makes by itself, to show a view anew. Within audit.Window of a row, such a read
// by the same session of the same data needs no row of its own.
const headerRefresh = "X-Automatic-Refresh"

// mostViews bounds the memory of the rows that automatic refreshes need not repeat. Beyond it a refresh gets a row.
const mostViews = 10_000

// The resources of audited actions, by what their ids are.
const (
	patientResource      = "Patient"
	observationResource  = "Observation"
	transmissionResource = "Transmission"
	importResource       = "Import"
	ecwPatientResource   = "ECWPatient" // without ids: those are not told outside of the database's sealed columns
	userResource         = "User"
	accountEventResource = "AccountEvent"
	apiKeyResource       = "APIKey"
	payloadResource      = "Payload" // without ids: a payload does not say of which workflow it is
	routeResource        = "Route"
)

// reasonRepeated is the reason of a row about readings that were stored before.
const reasonRepeated = "repeated"

// event is the row of an action. Whoever begins it adds what it was done to.
func (s *server) event(by account.Caller, action audit.Action) audit.Event {
	return audit.Event{
		PracticeCode: s.PracticeCode,
		Subject:      by.Subject,
		Role:         string(by.Role),
		TokenID:      by.Credential(),
		Address:      by.Address,
		Action:       action,
	}
}

// eventOf is event with the resource and its patients.
func (s *server) eventOf(by account.Caller, action audit.Action, resource string, ids []string, patients ...uuid.UUID) audit.Event {
	e := s.event(by, action)
	e.ResourceType, e.ResourceIDs, e.Patients = resource, ids, distinct(patients)
	return e
}

func distinct(ids []uuid.UUID) []uuid.UUID {
	seen := make(map[uuid.UUID]bool, len(ids))
	var once []uuid.UUID
	for _, id := range ids {
		if !seen[id] {
			seen[id] = true
			once = append(once, id)
		}
	}
	return once
}

func textOf(ids ...uuid.UUID) []string {
	return textOfEach(ids, func(id uuid.UUID) uuid.UUID { return id })
}

// textOfEach returns the id of each row as a text.
func textOfEach[R any](rows []R, id func(R) uuid.UUID) []string {
	texts := make([]string, len(rows))
	for i, row := range rows {
		texts[i] = id(row).String()
	}
	return texts
}

// showing writes the row of a read. It is called when everything that will be shown is known, and before any of it is
// shown: with an error, nothing may be.
func (s *server) showing(c echo.Context, e audit.Event) error {
	view := viewOf(c, e)
	if isRefresh(c) && s.views.Has(view) {
		return nil
	}
	if err := audit.RecordNow(c.Request().Context(), s.Store, e); err != nil {
		return err
	}
	s.views.Add(view)
	return nil
}

// isRefresh reports whether a page has sent the request by itself.
func isRefresh(c echo.Context) bool {
	return strings.EqualFold(c.Request().Header.Get(headerRefresh), "true")
}

// viewOf says what makes two reads the same: the session, the request, and what is shown. It is a hash, because a request
// may name a person.
func viewOf(c echo.Context, e audit.Event) string {
	asked := []string{e.Subject, e.TokenID, e.Address, c.Path(), c.Request().URL.RawQuery, string(body(c)), e.Reason}
	parts := append(asked, e.ResourceIDs...)
	for _, patient := range e.Patients {
		parts = append(parts, patient.String())
	}
	hash := sha256.Sum256([]byte(strings.Join(parts, "\x1f")))
	return string(hash[:])
}

// begin writes the row of something that is about to be done elsewhere than in the database. With an error, it must not be.
func (s *server) begin(c echo.Context, e audit.Event) error {
	return audit.RecordNow(c.Request().Context(), s.Store, e)
}

// recordFailure writes that what is recorded as begun has not succeeded. The error stands anyway.
func (s *server) recordFailure(ctx context.Context, e audit.Event, err error) {
	var answer *Error
	e.Outcome, e.Reason = audit.Failure, "internal"
	if errors.As(err, &answer) {
		e.Reason = answer.Code
	}
	if err := audit.RecordNow(context.WithoutCancel(ctx), s.Store, e); err != nil {
		s.Logger.WarnContext(ctx, "a failure could not be written into the audit trail", "action", e.Action, "reason", e.Reason, "error", err)
	}
}

// auditUnavailable is the answer when the row of an action could not be written.
func auditUnavailable() *Error {
	return &Error{
		Status: http.StatusServiceUnavailable,
		Code:   "audit_unavailable",
		Detail: "This request cannot be written into the audit trail, so nothing is shown, and nothing more was stored. " +
			"Send it again in a moment: a reading that is sent twice is stored once. " +
			"If it happens again, tell your operator: the log says why.",
	}
}

// isAudit reports whether the row of an action could not be written.
func isAudit(err error) bool { return errors.Is(err, db.ErrAudit) }
