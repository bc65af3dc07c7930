package api

import (
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
)

// push is one delivery of one of a patient's readings, as the Sync Status tab shows it.
type push struct {
	TransmissionID  string     `json:"transmission_id"`
	ObservationID   uuid.UUID  `json:"observation_id"`
	ObservationType string     `json:"observation_type"`
	EffectiveAt     time.Time  `json:"effective_at"`
	Status          string     `json:"status"`
	NextRetryAt     *time.Time `json:"next_retry_at"`
	WorkflowURL     *string    `json:"workflow_url"`
	attempt
}

func (s *server) getSyncStatus(c echo.Context) error {
	patient, err := s.loadPatient(c)
	if err != nil {
		return err
	}

	p, err := queryListPage[db.PushKey](c, "pushes")
	if err != nil {
		return err
	}

	ctx := c.Request().Context()
	count, err := s.Store.CountPushes(ctx, s.PracticeCode, patient.ID)
	if err != nil {
		return fmt.Errorf("count pushes: %w", err)
	}

	rows, err := s.Store.ListPushes(ctx, s.PracticeCode, patient.ID, p.Page)
	if err != nil {
		return fmt.Errorf("list pushes: %w", err)
	}

	answer, err := newList(c, p, count, rows, s.showPush, db.Push.Key)
	if err != nil {
		return err
	}
	if err := s.showing(c, s.patientEvent(c, audit.SyncStatusRead, patient.ID, "")); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, answer)
}

func (s *server) showPush(row db.Push) push {
	return push{
		TransmissionID:  row.TransmissionNumber,
		ObservationID:   row.ObservationID,
		ObservationType: row.ObservationType,
		EffectiveAt:     row.EffectiveAt,
		Status:          row.Status,
		NextRetryAt:     row.NextRetryAt,
		WorkflowURL:     s.workflowURL(row.ObservationID),
		attempt:         showAttempt(row.ChartAttempt),
	}
}
