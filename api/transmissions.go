package api

import (
	"cmp"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
)

// transmissionRow is one line of the transmission log.
type transmissionRow struct {
	ID            string    `json:"id"`
	ObservationID uuid.UUID `json:"observation_id"`
	PatientID     uuid.UUID `json:"patient_id"`
	// PatientName is null for a caller who may not see patient data.
	PatientName      *string    `json:"patient_name"`
	Status           string     `json:"status"`
	ErrorMessage     *string    `json:"error_message"`
	ErrorClass       *string    `json:"error_class"`
	HTTPStatus       *int32     `json:"http_status"`
	ECWObservationID *string    `json:"ecw_observation_id"`
	ECWPatientID     *string    `json:"ecw_patient_id"`
	AttemptCount     int32      `json:"attempt_count"`
	MaxAttempts      int32      `json:"max_attempts"`
	FirstAttemptedAt *time.Time `json:"first_attempted_at"`
	LastAttemptedAt  *time.Time `json:"last_attempted_at"`
	NextRetryAt      *time.Time `json:"next_retry_at"`
	ObservationType  string     `json:"observation_type"`
	CreatedAt        time.Time  `json:"created_at"`
	// WorkflowURL shows the workflow in the Temporal Web UI; null when its address is not configured.
	WorkflowURL *string `json:"workflow_url"`
}

// transmissionDetail is a transmission with everything that was tried.
type transmissionDetail struct {
	transmissionRow
	Attempts []attempt `json:"attempts"`
}

// attempt is one delivery. After a throttled one, the next has the same number.
type attempt struct {
	Number           int32      `json:"number"`
	StartedAt        time.Time  `json:"started_at"`
	FinishedAt       *time.Time `json:"finished_at"`
	DurationMS       *int64     `json:"duration_ms"`
	HTTPStatus       *int32     `json:"http_status"`
	ECWObservationID *string    `json:"ecw_observation_id"`
	// ECWPatientID is the chart that it was sent to, or that an earlier delivery was found in; null when
	// nothing was sent.
	ECWPatientID *string `json:"ecw_patient_id"`
	ErrorClass   *string `json:"error_class"`
	ErrorCode    *string `json:"error_code"`
	ErrorMessage *string `json:"error_message"`
}

// transmissionIDForm matches the ids that the database makes. Other texts are not looked up.
var transmissionIDForm = regexp.MustCompile(`^TXN-[0-9]{4}-[0-9]{5,19}$`)

func (s *server) listTransmissions(c echo.Context) error {
	ordering := cmp.Or(parameter(c, "ordering"), "-created_at")
	p, err := queryListPage[db.TransmissionKey](c, "transmissions "+ordering)
	if err != nil {
		return err
	}

	column, descending := strings.CutPrefix(ordering, "-")
	order := db.TransmissionOrder(column)
	filter := db.TransmissionFilter{
		PracticeCode:    s.PracticeCode,
		Status:          queryText(c, "status"),
		PatientID:       queryUUID(c, "patient_id"),
		ObservationType: queryText(c, "observation_type"),
		DateFrom:        queryTime(c, "date_from", s.TimeZone, false),
		DateTo:          queryTime(c, "date_to", s.TimeZone, true),
		FormerChart:     parameter(c, "former_chart") == "true",
	}

	rows, count, err := s.Store.ListTransmissions(c.Request().Context(), filter, order, descending, p.Page)
	if err != nil {
		return fmt.Errorf("list transmissions: %w", err)
	}

	show := func(row db.GetTransmissionRow) transmissionRow { return s.showTransmission(c, row) }
	key := func(row db.GetTransmissionRow) db.TransmissionKey { return order.Key(row.Transmission) }
	answer, err := newList(c, p, count, rows, show, key)
	if err != nil {
		return err
	}
	if err := s.showing(c, s.transmissionEvent(c, audit.TransmissionSearch, answer.Results...)); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, answer)
}

func (s *server) getTransmission(c echo.Context) error {
	ctx, id := c.Request().Context(), c.Param("id")
	if !transmissionIDForm.MatchString(id) {
		return notFound("transmission", clip(strings.ToValidUTF8(id, "?")))
	}

	row, err := s.Store.GetTransmission(ctx, db.GetTransmissionParams{PracticeCode: s.PracticeCode, Number: id})
	if db.IsNotFound(err) {
		return notFound("transmission", id)
	}
	if err != nil {
		return fmt.Errorf("load transmission: %w", err)
	}

	made, err := s.Store.ListChartAttempts(ctx, row.Transmission.ID)
	if err != nil {
		return fmt.Errorf("load attempts: %w", err)
	}

	detail := transmissionDetail{transmissionRow: s.showTransmission(c, row), Attempts: make([]attempt, len(made))}
	for i, a := range made {
		detail.Attempts[i] = showAttempt(a)
	}

	if err := s.showing(c, s.transmissionEvent(c, audit.TransmissionRead, detail.transmissionRow)); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, detail)
}

// transmissionEvent is the row of a look at transmissions.
func (s *server) transmissionEvent(c echo.Context, action audit.Action, shown ...transmissionRow) audit.Event {
	ids, patients := make([]string, len(shown)), make([]uuid.UUID, len(shown))
	for i, t := range shown {
		ids[i], patients[i] = t.ID, t.PatientID
	}
	return s.eventOf(callerOf(c), action, transmissionResource, ids, patients...)
}

func (s *server) showTransmission(c echo.Context, row db.GetTransmissionRow) transmissionRow {
	t := row.Transmission
	shown := transmissionRow{
		ID:               t.Number,
		ObservationID:    t.ObservationID,
		PatientID:        row.PatientID,
		Status:           t.Status,
		ErrorMessage:     nullable(t.ErrorMessage),
		ErrorClass:       nullable(t.ErrorClass),
		HTTPStatus:       t.HTTPStatus,
		ECWObservationID: t.ECWObservationID,
		ECWPatientID:     row.ECWPatientID,
		AttemptCount:     t.AttemptCount,
		MaxAttempts:      t.MaxAttempts,
		FirstAttemptedAt: t.FirstAttemptedAt,
		LastAttemptedAt:  t.LastAttemptedAt,
		NextRetryAt:      t.NextRetryAt,
		ObservationType:  row.ObservationType,
		CreatedAt:        t.CreatedAt,
		WorkflowURL:      s.workflowURL(t.ObservationID),
	}
	if callerOf(c).Has(account.SeePatients) {
		shown.PatientName = &row.PatientName
	}
	return shown
}

func showAttempt(a db.ChartAttempt) attempt {
	shown := attempt{
		Number:           a.Number,
		StartedAt:        a.StartedAt,
		FinishedAt:       a.FinishedAt,
		HTTPStatus:       a.HTTPStatus,
		ECWObservationID: a.ECWObservationID,
		ECWPatientID:     a.ECWPatientID,
		ErrorClass:       nullable(a.ErrorClass),
		ErrorCode:        nullable(a.ErrorCode),
		ErrorMessage:     nullable(a.ErrorMessage),
	}
	if a.FinishedAt != nil {
		ms := a.FinishedAt.Sub(a.StartedAt).Milliseconds()
		shown.DurationMS = &ms
	}
	return shown
}
