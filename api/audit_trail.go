package api

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
)

// auditEvent is a row of the audit trail.
type auditEvent struct {
	ID         string    `json:"id"`
	RecordedAt time.Time `json:"recorded_at"`
	Subject    string    `json:"subject"`
	// SubjectName is null for somebody who has no account and no API key.
	SubjectName  *string     `json:"subject_name"`
	Role         string      `json:"role"`
	TokenID      string      `json:"token_id"`
	Address      string      `json:"address"`
	Action       string      `json:"action"`
	ResourceType string      `json:"resource_type"`
	ResourceIDs  []string    `json:"resource_ids"`
	PatientIDs   []uuid.UUID `json:"patient_ids"`
	Outcome      string      `json:"outcome"`
	Reason       string      `json:"reason"`
}

func showAuditEvent(e db.AuditEvent, name string) auditEvent {
	return auditEvent{
		ID:           audit.ID(e),
		RecordedAt:   e.RecordedAt,
		Subject:      e.Subject,
		SubjectName:  nullable(name),
		Role:         e.Role,
		TokenID:      e.TokenID,
		Address:      e.Address,
		Action:       e.Action,
		ResourceType: e.ResourceType,
		ResourceIDs:  e.ResourceIDs,
		PatientIDs:   e.PatientIDs,
		Outcome:      e.Outcome,
		Reason:       e.Reason,
	}
}

func (s *server) auditFilter(c echo.Context) db.AuditFilter {
	return db.AuditFilter{
		PracticeCode: s.PracticeCode,
		PatientID:    queryUUID(c, "patient"),
		Subject:      queryText(c, "subject"),
		Action:       queryText(c, "action"),
		Outcome:      queryText(c, "outcome"),
		From:         queryTime(c, "from", s.TimeZone, false),
		To:           queryTime(c, "to", s.TimeZone, true),
	}
}

// auditUse is the row of somebody who looks at the trail. The filter's texts are not kept: somebody may have typed a name there.
func (s *server) auditUse(c echo.Context, action audit.Action, f db.AuditFilter) audit.Event {
	e := s.event(callerOf(c), action)
	e.ResourceType = "AuditEvent"
	if f.PatientID != nil {
		e.Patients = []uuid.UUID{*f.PatientID}
	}
	return e
}

func (s *server) listAuditEvents(c echo.Context) error {
	ctx, filter := c.Request().Context(), s.auditFilter(c)
	p, err := queryListPage[db.AuditKey](c, "audit")
	if err != nil {
		return err
	}

	rows, count, err := s.Store.ListAuditEvents(ctx, filter, p.Page)
	if err != nil {
		return fmt.Errorf("list the audit trail: %w", err)
	}
	names, err := account.Names(ctx, s.Store, s.PracticeCode)
	if err != nil {
		return err
	}
	show := func(e db.AuditEvent) auditEvent { return showAuditEvent(e, names[e.Subject]) }
	answer, err := newList(c, p, count, rows, show, db.AuditEvent.Key)
	if err != nil {
		return err
	}

	if err := s.showing(c, s.auditUse(c, audit.AuditSearch, filter)); err != nil { // now, so that it is not in the answer
		return err
	}
	return c.JSON(http.StatusOK, answer)
}

// exportAuditEvents streams the rows. A slow caller holds up nobody. After an error the connection breaks, so that nobody
// takes a part for the whole.
func (s *server) exportAuditEvents(c echo.Context) error {
	ctx, filter, format := c.Request().Context(), s.auditFilter(c), c.QueryParam("format")
	names, err := account.Names(ctx, s.Store, s.PracticeCode)
	if err != nil {
		return err
	}
	export := s.auditUse(c, audit.AuditExport, filter)
	export.Reason = format
	if err := s.begin(c, export); err != nil {
		return err
	}

	answer := c.Response()
	answer.Header().Set(echo.HeaderContentType, auditMedia(format))
	answer.Header().Set(echo.HeaderContentDisposition, fmt.Sprintf("attachment; filename=%q",
		"audit-"+time.Now().In(s.TimeZone).Format("2006-01-02-1504")+"."+format))
	if c.Request().Method == http.MethodHead {
		return c.NoContent(http.StatusOK)
	}

	out, err := s.newAuditWriter(format, answer)
	if err != nil {
		return err
	}
	for e, err := range s.Store.AuditEvents(ctx, filter) {
		if err == nil {
			err = out.Write(e, names[e.Subject])
		}
		if err != nil {
			return s.breakOff(c, err)
		}
	}
	if err := out.Flush(); err != nil {
		return s.breakOff(c, err)
	}
	if !answer.Committed { // there is no row
		return c.NoContent(http.StatusOK)
	}
	return nil
}

// breakOff ends an answer whose beginning is sent already by cutting the connection; otherwise the error is the answer.
func (s *server) breakOff(c echo.Context, err error) error {
	if !c.Response().Committed {
		c.Response().Header().Del(echo.HeaderContentDisposition)
		return err
	}
	s.Logger.WarnContext(c.Request().Context(), "an export of the audit trail was broken off", "error", db.Cause(err))
	panic(http.ErrAbortHandler)
}

func auditMedia(format string) string {
	switch format {
	case "csv":
		return "text/csv; charset=utf-8"
	case "fhir":
		return "application/fhir+ndjson"
	}
	return "application/x-ndjson"
}

// auditWriter writes rows of the trail in some form, each with the name of its subject.
type auditWriter interface {
	Write(e db.AuditEvent, name string) error
	Flush() error
}

func (s *server) newAuditWriter(format string, w io.Writer) (auditWriter, error) {
	lines := json.NewEncoder(w)
	lines.SetEscapeHTML(false)
	switch format {
	case "csv":
		return audit.NewCSV(w)
	case "fhir":
		return jsonLines{lines, func(e db.AuditEvent, name string) any { return audit.FHIR(e, name, s.PublicURL) }}, nil
	}
	return jsonLines{lines, func(e db.AuditEvent, name string) any { return showAuditEvent(e, name) }}, nil
}

// jsonLines writes a JSON object a line.
type jsonLines struct {
	*json.Encoder
	show func(e db.AuditEvent, name string) any
}

func (l jsonLines) Write(e db.AuditEvent, name string) error { return l.Encode(l.show(e, name)) }

func (jsonLines) Flush() error { return nil }
