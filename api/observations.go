package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"go.temporal.io/api/serviceerror"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/workflows"
)

const (
	// startTimeout is how long a request waits for Temporal to take a workflow.
	startTimeout = 2 * time.Second
	// eagerTimeout is how long a start may take that brings the first workflow task along. The SDK gives each of
	// its calls half of that: as long as Temporal waits for the task to be done.
	eagerTimeout = 20 * time.Second
)

// observationRequest is a reading as a device's gateway posts it.
type observationRequest struct {
	PatientID       uuid.UUID       `json:"patient_id"`
	ObservationType fhir.Type       `json:"observation_type"`
	EffectiveAt     time.Time       `json:"effective_at"`
	Device          *string         `json:"device"`
	Values          json.RawMessage `json:"values"`
}

// observation is a reading as the API shows it.
type observation struct {
	ID              uuid.UUID       `json:"id"`
	PatientID       uuid.UUID       `json:"patient_id"`
	ObservationType string          `json:"observation_type"`
	EffectiveAt     time.Time       `json:"effective_at"`
	Device          *string         `json:"device"`
	Values          json.RawMessage `json:"values"`
	CreatedAt       time.Time       `json:"created_at"`
	TransformedAt   *time.Time      `json:"transformed_at"`
	// FHIRStatus is null until the reading was transformed.
	FHIRStatus *string `json:"fhir_status"`
	// HeldReason is why nothing is sent until a person has seen to the patient; null when nothing is held.
	HeldReason   *string       `json:"held_reason"`
	Transmission *transmission `json:"transmission"`
}

// transmission is the newest transmission of an observation.
type transmission struct {
	ID               string     `json:"id"`
	Status           string     `json:"status"`
	AttemptCount     int32      `json:"attempt_count"`
	MaxAttempts      int32      `json:"max_attempts"`
	FirstAttemptedAt *time.Time `json:"first_attempted_at"`
	LastAttemptedAt  *time.Time `json:"last_attempted_at"`
	NextRetryAt      *time.Time `json:"next_retry_at"`
	HTTPStatus       *int32     `json:"http_status"`
	ECWObservationID *string    `json:"ecw_observation_id"`
	ErrorClass       *string    `json:"error_class"`
	ErrorMessage     *string    `json:"error_message"`
}

func (s *server) createObservation(c echo.Context) error {
	status, answer, err := s.postReading(c, body(c))
	if err != nil {
		return err
	}
	return c.JSON(status, answer)
}

// postReading stores a reading, starts its transmission if it is new, and returns the status of the answer and
// what the caller may see of the stored reading. raw is the reading as createObservation's contract has it.
func (s *server) postReading(c echo.Context, raw []byte) (status int, answer observation, err error) {
	ctx, caller := c.Request().Context(), callerOf(c)
	stored, created, err := s.takeReading(ctx, sentReading{key: string(idempotencyKey(c)), by: caller, raw: raw})
	if err != nil {
		return 0, answer, err
	}

	// A machine that sends what another one had posted learns no more than that it is stored: it knows the values
	// by itself, and where the other's transmission stands is none of its business.
	status, answer = http.StatusOK, newObservation(stored)
	switch {
	case created:
		status = http.StatusCreated
		answer.HeldReason = s.startTransmission(ctx, stored)
	case mayRead(caller, stored):
		answer, err = s.showObservation(ctx, stored)
	default:
		answer.TransformedAt = nil
	}

	setLocation(c, "/api/v1/observations/"+stored.ID.String()+"/")
	return status, answer, err
}

// mayRead reports whether the caller may look at a stored reading: whoever sees patient data may, and a machine
// may if it posted the reading.
func mayRead(caller account.Caller, o db.Observation) bool {
	return caller.Has(account.SeePatients) || caller.Subject == o.PostedBy
}

// sentReading is a reading as it was sent: alone, or as an item of a batch.
type sentReading struct {
	key string // its Idempotency-Key, if it has one
	by  account.Caller
	raw json.RawMessage
}

func (r sentReading) request() db.Request { return db.Request{Key: r.key, Body: r.raw} }

// takeReading stores one reading, which the contract has checked. For a request that was made before, with
// the same key or the same reading, it returns the observation that is stored already.
func (s *server) takeReading(ctx context.Context, sent sentReading) (stored db.Observation, created bool, err error) {
	known, err := s.earlier(ctx, sent.key, sent.raw)
	if err != nil {
		return stored, false, err
	}
	if known != nil {
		return *known, false, audit.RecordNow(ctx, s.Store, s.repeatedEvent(sent.by, *known))
	}

	reading, err := s.decodeReading(sent, time.Now())
	if err != nil {
		return stored, false, err
	}

	stored, created, err = s.storeReading(ctx, sent, reading)
	if errors.Is(err, errKeyTaken) {
		return s.takeReading(ctx, sent) // returns what the other request stored
	}
	return stored, created, err
}

// patientReading is a reading with its patient, and with the id under which it is stored.
type patientReading struct {
	fhir.Reading
	id, patientID uuid.UUID
	by            string // the subject of its sender
}

// decodeReading decodes a reading that the contract has checked. It returns an error when its values are
// impossible, or when its sender may not post readings of its device.
func (s *server) decodeReading(sent sentReading, now time.Time) (patientReading, error) {
	var req observationRequest
	if err := unmarshal(sent.raw, &req); err != nil {
		return patientReading{}, err
	}

	reading, err := req.reading(now)
	if err != nil {
		return patientReading{}, err
	}

	if !sent.by.MayPost(reading.Device) {
		return patientReading{}, foreignDevice()
	}

	id := fhir.ReadingID(s.PracticeCode, req.PatientID, reading)
	return patientReading{
		Reading:   reading,
		id:        id,
		patientID: req.PatientID,
		by:        sent.by.Subject,
	}, nil
}

// reading returns what was measured, or an error that names the values that are impossible.
func (r observationRequest) reading(now time.Time) (fhir.Reading, error) {
	reading := fhir.Reading{
		Type:        r.ObservationType,
		Values:      r.Values,
		EffectiveAt: r.EffectiveAt.UTC().Truncate(time.Microsecond), // the database keeps microseconds
	}
	if r.Device != nil {
		reading.Device = *r.Device
	}

	var b broken
	b.addFrom(reading.Validate(now))
	return reading, b.err()
}

// storeReading stores a reading once: two requests with the same patient, type, time and device are one
// reading.
func (s *server) storeReading(ctx context.Context, sent sentReading, r patientReading) (
	stored db.Observation, created bool, err error,
) {
	var refused error
	err = s.Store.InTx(ctx, func(q *db.Queries) (err error) {
		stored, err = q.CreateObservation(ctx, db.CreateObservationParams{
			ID:              r.id,
			PracticeCode:    s.PracticeCode,
			PatientID:       r.patientID,
			ObservationType: string(r.Type),
			EffectiveAt:     r.EffectiveAt,
			Device:          r.Device,
			Measured:        r.Values,
			PostedBy:        r.by,
			Request:         sent.request(),
		})
		switch {
		case err == nil:
			created = true
			return audit.Record(ctx, q, s.readingEvent(sent.by, audit.ObservationCreate, stored))
		case db.IsUniqueViolation(err): // the key's; a reading that is stored already is no error
			return errKeyTaken
		case !db.IsNotFound(err):
			return fmt.Errorf("store reading: %w", err)
		}

		if stored, err = s.findReading(ctx, q, r); isConflict(err) {
			refused = err
			return audit.Record(ctx, q, s.conflictEvent(sent.by, textOf(r.id), r.patientID))
		} else if err != nil {
			return err
		}
		if sent.key != "" {
			if err := s.remember(ctx, q, sent.key, sent.raw, stored.ID); err != nil {
				return err
			}
		}
		return audit.Record(ctx, q, s.repeatedEvent(sent.by, stored))
	})
	if err == nil {
		err = refused
	}
	return stored, created && err == nil, err
}

// readingEvent is the row of something that concerns one reading.
func (s *server) readingEvent(by account.Caller, action audit.Action, o db.Observation) audit.Event {
	return s.eventOf(by, action, observationResource, textOf(o.ID), o.PatientID)
}

// repeatedEvent is the row of a reading that was stored before.
func (s *server) repeatedEvent(by account.Caller, o db.Observation) audit.Event {
	e := s.readingEvent(by, audit.ObservationCreate, o)
	e.Reason = reasonRepeated
	return e
}

// conflictEvent is the row of readings that have other values than those that are stored. That is told to the sender, who
// finds the stored values out by sending one after the other.
func (s *server) conflictEvent(by account.Caller, ids []string, patients ...uuid.UUID) audit.Event {
	e := s.eventOf(by, audit.ObservationCreate, observationResource, ids, patients...)
	e.Outcome, e.Reason = audit.Failure, codeConflictingReading
	return e
}

// findReading returns the stored reading that kept r from being stored, or says why r must not be stored.
func (s *server) findReading(ctx context.Context, q *db.Queries, r patientReading) (db.Observation, error) {
	first, err := q.GetObservation(ctx, db.GetObservationParams{PracticeCode: s.PracticeCode, ID: r.id})
	switch {
	case db.IsNotFound(err): // so it was the patient that kept r from being stored
		return db.Observation{}, unknownPatient()
	case err != nil:
		return db.Observation{}, fmt.Errorf("find the stored reading: %w", err)
	case !fhir.SameValues(r.Type, first.Measured, r.Values):
		return db.Observation{}, conflictingReading(first.ID)
	}
	return first, nil
}

// foreignDevice is the answer to an API key that is for other devices.
func foreignDevice() error {
	var b broken
	b.add("device", "is none of those that your API key may post for: use another key, or name the device")
	return asRefused(b.err(), "foreign_device")
}

func unknownPatient() error {
	var b broken
	b.add("patient_id", "no patient has this id: create or import the patient first")
	return b.err()
}

const codeConflictingReading = "conflicting_reading"

func isConflict(err error) bool {
	var refused *Error
	return errors.As(err, &refused) && refused.Code == codeConflictingReading
}

func conflictingReading(storedID uuid.UUID) error {
	return conflict(codeConflictingReading,
		"Observation %s has the same patient, type, time and device, but other values. "+
			"Nothing was changed. If this is another measurement, send it with its own time.", storedID)
}

// startTransmission starts the workflow that carries the reading to eCW, unless the patient is archived. It
// returns why the reading is held, and no error: when Temporal is away, the reading waits in the database for the
// scheduled sweep.
//
// The caller waits for startTimeout at most, but the start is not cut short then. Temporal may have begun the
// workflow, and its answer holds the first workflow task for this process: if the answer is lost, Temporal
// gives that task to a worker again only after 10 s.
func (s *server) startTransmission(ctx context.Context, o db.Observation) (heldReason *string) {
	heldReason, err := s.heldReason(ctx, o.ID)
	if err != nil { // the workflow looks at the patient as well
		s.Logger.WarnContext(ctx, "the patient of a new reading could not be looked at", "observation_id", o.ID, "error", err)
	}
	if heldReason != nil && *heldReason == heldArchived {
		return heldReason
	}

	started := make(chan struct{})
	go func() {
		defer close(started)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), eagerTimeout)
		defer cancel()
		if err := s.start(ctx, o); err != nil {
			s.Logger.WarnContext(ctx, "transmission not started yet", "observation_id", o.ID, "error", err)
		}
	}()

	select {
	case <-started:
	case <-time.After(startTimeout):
	}
	return heldReason
}

func (s *server) start(ctx context.Context, o db.Observation) error {
	start, in := workflows.FirstTransmissionStart(s.PracticeCode, o), workflows.TransmissionInput{ObservationRef: s.ref(o.ID)}
	_, err := s.Temporal.ExecuteWorkflow(ctx, start.Options(), workflows.Transmission, in)
	var known *serviceerror.WorkflowExecutionAlreadyStarted
	if !errors.As(err, &known) {
		return err
	}

	// A reading that is new to the database, but has had a workflow, was lost when the database was restored.
	// eCW may have it, so its new workflow begins with a look-up.
	start.Once, in.LookUp = false, true
	_, err = s.Temporal.ExecuteWorkflow(ctx, start.Options(), workflows.Transmission, in)
	return err
}

func (s *server) ref(id uuid.UUID) activities.ObservationRef {
	return activities.ObservationRef{PracticeCode: s.PracticeCode, ObservationID: id}
}

func (s *server) getObservation(c echo.Context) error {
	stored, err := s.loadObservation(c)
	if err != nil {
		return err
	}
	if !mayRead(callerOf(c), stored) {
		return asRefused(notFound("observation", stored.ID.String()), "foreign_reading") // to the caller, as if there were none
	}

	body, err := s.showObservation(c.Request().Context(), stored)
	if err != nil {
		return err
	}
	if err := s.showing(c, s.readingEvent(callerOf(c), audit.ObservationRead, stored)); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, body)
}

// loadObservation loads the observation that the path names.
func (s *server) loadObservation(c echo.Context) (db.Observation, error) {
	id := idParam(c)
	stored, err := s.Store.GetObservation(c.Request().Context(), db.GetObservationParams{PracticeCode: s.PracticeCode, ID: id})
	if db.IsNotFound(err) {
		return stored, notFound("observation", id.String())
	}
	if err != nil {
		return stored, fmt.Errorf("load observation: %w", err)
	}
	return stored, nil
}

// latestTransmission returns nil when there is none yet.
func (s *server) latestTransmission(ctx context.Context, id uuid.UUID) (*db.Transmission, error) {
	row, err := s.Store.LatestTransmission(ctx, db.LatestTransmissionParams{PracticeCode: s.PracticeCode, ObservationID: id})
	if db.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load transmission: %w", err)
	}
	return &row, nil
}

// newObservation shows an observation that has no transmission.
func newObservation(o db.Observation) observation {
	return observation{
		ID:              o.ID,
		PatientID:       o.PatientID,
		ObservationType: o.ObservationType,
		EffectiveAt:     o.EffectiveAt,
		Device:          nullable(o.Device),
		Values:          o.Measured,
		CreatedAt:       o.CreatedAt,
		TransformedAt:   o.TransformedAt,
	}
}

func (s *server) showObservation(ctx context.Context, o db.Observation) (observation, error) {
	body := newObservation(o)
	t, err := s.latestTransmission(ctx, o.ID)
	if err != nil {
		return body, err
	}
	if t == nil || waits(*t) {
		body.HeldReason, err = s.heldReason(ctx, o.ID)
	}
	if err != nil || t == nil {
		return body, err
	}

	body.FHIRStatus = &t.Status
	body.Transmission = &transmission{
		ID:               t.Number,
		Status:           t.Status,
		AttemptCount:     t.AttemptCount,
		MaxAttempts:      t.MaxAttempts,
		FirstAttemptedAt: t.FirstAttemptedAt,
		LastAttemptedAt:  t.LastAttemptedAt,
		NextRetryAt:      t.NextRetryAt,
		HTTPStatus:       t.HTTPStatus,
		ECWObservationID: t.ECWObservationID,
		ErrorClass:       nullable(t.ErrorClass),
		ErrorMessage:     nullable(t.ErrorMessage),
	}
	return body, nil
}

// waits reports whether a delivery is still to begin.
func waits(t db.Transmission) bool {
	return t.Status == db.StatusPending || t.Status == db.StatusFailed && t.NextRetryAt != nil
}

// nullable turns an empty text into nil, which JSON shows as null.
func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
