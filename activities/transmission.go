// Package activities is what the workflows ask of the outside world: each activity loads, calls or records, and leaves
// every decision to the workflow. Inputs and results carry ids and outcomes only, because they stand in the workflow's
// history; readings, names and tokens never do.
package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/fastenhealth/gofhir-models/fhir401"
	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/gate"
)

// Transmission holds the activities of the Transmission workflow.
type Transmission struct {
	Store *db.Store
	EHR   *ecw.Client
	Gate  *gate.Gate
	// RetryDelays are the waits between deliveries; there is one delivery more than there are delays.
	RetryDelays []time.Duration
	// Logger writes the ecw_sync lines.
	Logger *slog.Logger
}

// ObservationRef names one observation of one practice.
type ObservationRef struct {
	PracticeCode  string
	ObservationID uuid.UUID
	// Unasked marks what a sweep starts: a transmission that failed for good is left alone until a person asks.
	Unasked bool `json:",omitempty"`
	// LookUp means that the reading may have been sent before, whatever the database says of that: eCW is asked first.
	LookUp bool `json:",omitempty"`
	// UnknownSince is when the last send of this workflow ended whose outcome is unknown; zero: it knows of none.
	UnknownSince time.Time `json:",omitzero"`
}

// Opened is a transmission that is ready to be delivered, or was delivered already.
type Opened struct {
	TransmissionID  uuid.UUID
	Number          string // what people call it
	PatientID       uuid.UUID
	ObservationType string
	// Delivered is set when eCW holds the observation: nothing is left to do.
	Delivered bool
	// LeftAlone is set when the last transmission failed for good and nobody asked for another, or when the patient is
	// Archived: nothing is to be done.
	LeftAlone bool `json:",omitempty"`
	// Archived is set when no transmission was opened because the patient is archived.
	Archived bool `json:",omitempty"`
	// AttemptsMade and DeliveriesMade are not zero when a new workflow takes over a transmission whose workflow was lost.
	AttemptsMade   int
	DeliveriesMade int
	// Due is the moment that the schedule has given the next delivery; zero when that may begin at once.
	Due         time.Time `json:",omitzero"`
	MaxAttempts int
	RetryDelays []time.Duration
}

// Open opens a transmission for an observation, or finds the one that is open or delivered. It opens none while the
// patient is archived: the reading waits without a workflow. It may run twice.
func (a *Transmission) Open(ctx context.Context, ref ObservationRef) (Opened, error) {
	row, err := a.load(ctx, ref)
	if err != nil {
		return Opened{}, err
	}
	archived := row.Patient.ArchivedAt != nil
	if ref.Unasked || archived {
		last, err := a.latest(ctx, ref)
		if err != nil && !db.IsNotFound(err) {
			return Opened{}, fmt.Errorf("load transmission: %w", err)
		}
		over := last.Status == db.StatusFailed && last.NextRetryAt == nil
		none := db.IsNotFound(err)
		if over || none && archived {
			opened := a.opened(last, row.Observation)
			opened.LeftAlone, opened.Archived = true, none
			return opened, nil
		}
	}

	id, err := uuid.NewV7()
	if err != nil {
		return Opened{}, fmt.Errorf("make the transmission's id: %w", err)
	}
	err = a.Store.OpenTransmission(ctx, db.OpenTransmissionParams{
		ID:            id,
		PracticeCode:  ref.PracticeCode,
		ObservationID: ref.ObservationID,
		MaxAttempts:   a.maxAttempts(),
	})
	if err != nil {
		return Opened{}, fmt.Errorf("open transmission: %w", err)
	}
	open, err := a.latest(ctx, ref)
	if err != nil {
		return Opened{}, fmt.Errorf("load transmission: %w", err)
	}
	return a.takenOver(ctx, a.opened(open, row.Observation), open)
}

func (a *Transmission) latest(ctx context.Context, ref ObservationRef) (db.Transmission, error) {
	return a.Store.LatestTransmission(ctx, db.LatestTransmissionParams{PracticeCode: ref.PracticeCode, ObservationID: ref.ObservationID})
}

// maxAttempts is how many deliveries there are at most: the first, and one after each wait.
func (a *Transmission) maxAttempts() int32 { return int32(len(a.RetryDelays) + 1) }

func (a *Transmission) opened(t db.Transmission, o db.Observation) Opened {
	return Opened{
		TransmissionID:  t.ID,
		Number:          t.Number,
		PatientID:       o.PatientID,
		ObservationType: o.ObservationType,
		Delivered:       t.Status == db.StatusTransmitted,
		AttemptsMade:    int(t.AttemptCount),
		MaxAttempts:     int(t.MaxAttempts),
		RetryDelays:     a.RetryDelays,
	}
}

// takenOver adds what an earlier workflow has done.
func (a *Transmission) takenOver(ctx context.Context, opened Opened, t db.Transmission) (Opened, error) {
	made, err := a.Store.ListAttempts(ctx, t.ID)
	if err != nil {
		return Opened{}, fmt.Errorf("load attempts: %w", err)
	}
	if t.Status == db.StatusProcessing && opened.AttemptsMade > 0 {
		opened.AttemptsMade-- // its workflow was lost in the middle of this attempt: make it again
	}
	if len(made) > 0 {
		opened.DeliveriesMade = int(made[len(made)-1].Delivery)
	}
	if t.NextRetryAt != nil {
		opened.Due = *t.NextRetryAt
	}
	return opened, nil
}

// Transform makes the FHIR resource of an observation from the reading and the patient as they are now, stores it, and
// returns when that was. A reading that makes no valid Observation is a permanent_data error, and changes nothing.
func (a *Transmission) Transform(ctx context.Context, ref ObservationRef) (time.Time, error) {
	row, err := a.load(ctx, ref)
	if err != nil {
		return time.Time{}, err
	}
	at := time.Now().UTC().Truncate(time.Second)
	_, resource, err := transform(row.Observation, row.Patient, at)
	if err != nil {
		return time.Time{}, failure(Failure{
			Class:   ecw.ClassPermanentData,
			Code:    "invalid_reading",
			Message: "Invalid FHIR resource: " + brokenFields(err),
		})
	}
	err = a.Store.SaveResource(ctx, db.SaveResourceParams{
		PracticeCode:    ref.PracticeCode,
		ID:              ref.ObservationID,
		Resource:        resource,
		ResourceVersion: row.Observation.ResourceVersion + 1,
		TransformedAt:   &at,
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("save resource: %w", err)
	}
	return at, nil
}

func (a *Transmission) load(ctx context.Context, ref ObservationRef) (db.GetObservationWithPatientRow, error) {
	row, err := a.Store.GetObservationWithPatient(ctx, db.GetObservationWithPatientParams{PracticeCode: ref.PracticeCode, ID: ref.ObservationID})
	if db.IsNotFound(err) {
		return row, failure(Failure{Class: ecw.ClassPermanentData, Code: "not_found", Message: "The observation is not in the database"})
	}
	if err != nil {
		return row, fmt.Errorf("load observation: %w", err)
	}
	return row, nil
}

// transform returns the Observation, and as it is stored.
func transform(o db.Observation, p db.Patient, at time.Time) (*fhir401.Observation, json.RawMessage, error) {
	reading := fhir.Reading{ID: o.ID.String(), Type: fhir.Type(o.ObservationType), EffectiveAt: o.EffectiveAt, Device: o.Device, Values: o.Measured}
	subject := fhir.Subject{PatientID: p.ID.String(), Display: p.FirstName + " " + p.LastName}
	resource, err := fhir.Observation(reading, subject, int(o.ResourceVersion)+1, at)
	if err != nil {
		return nil, nil, err
	}
	stored, err := fhir.Marshal(resource)
	return resource, stored, err
}

// brokenFields names what is wrong with a reading without its values, which must not stand in the history.
func brokenFields(reason error) string {
	var fields fhir.FieldErrors
	if !errors.As(reason, &fields) {
		return "the reading makes no valid Observation"
	}
	return "check the observation's " + strings.Join(fields.Names(), ", ")
}

// Attempt is one delivery that is about to begin.
type Attempt struct {
	ObservationRef
	TransmissionID uuid.UUID
	// Delivery counts every one that is begun; Number counts those that use up one of the allowed attempts.
	Delivery  int
	Number    int
	StartedAt time.Time
	// Asked means that a person wants this delivery now.
	Asked bool `json:",omitempty"`
}

// Admission says whether a delivery may begin.
type Admission = gate.Admission

// Admit asks the gate whether the delivery may begin, and if so marks the transmission as processing. It may run twice.
func (a *Transmission) Admit(ctx context.Context, at Attempt) (Admission, error) {
	admission, err := a.Gate.Admit(ctx, at.request())
	if err != nil || admission.Waits() {
		return admission, written("begin a delivery", err)
	}

	err = db.Written(a.Store.StartAttempt(ctx, db.StartAttemptParams{
		TransmissionID: at.TransmissionID,
		ObservationID:  at.ObservationID,
		Delivery:       int32(at.Delivery),
		Number:         int32(at.Number),
		StartedAt:      at.StartedAt,
	}))
	return admission, written("record the attempt's start", err)
}

// Authenticate makes sure that this worker holds a valid access token, which stays in its memory. It may run twice.
func (a *Transmission) Authenticate(ctx context.Context, at Attempt) error {
	if err := a.EHR.Authenticate(gate.Delivering(ctx, at.TransmissionID)); err != nil {
		return a.failed(ctx, begun{Request: at.request(), ref: at.ObservationRef, delivery: at.Delivery}, err)
	}
	return nil
}

func (at Attempt) request() gate.Request {
	return gate.Request{TransmissionID: at.TransmissionID, ObservationID: at.ObservationID, Asked: at.Asked}
}

// begun is a delivery that was admitted.
type begun struct {
	gate.Request
	ref      ObservationRef
	delivery int
	// marked is the patient, when this run has marked the delivery as sent; uuid.Nil: it has not.
	marked uuid.UUID
	// sentBefore means that the same delivery may have sent something in an earlier life of its workflow.
	sentBefore bool
}

// failed turns an error of the eCW client into an activity error. What our own limits held back was not sent: it goes back
// into the queue.
func (a *Transmission) failed(ctx context.Context, b begun, err error) error {
	f := failureOf(err)
	if f.Code != ecw.CodeRateLimited {
		return failure(f)
	}
	return a.holdBack(ctx, b, f, "")
}

// holdBack puts a delivery back into the queue of which nothing was sent. If the audit trail says that it leaves, it now says
// that it did not.
func (a *Transmission) holdBack(ctx context.Context, b begun, f Failure, reason string) error {
	err := a.Store.InTx(ctx, func(q *db.Queries) error {
		if b.marked != uuid.Nil {
			if err := auditFailed(ctx, q, b.ref, b.marked, f); err != nil {
				return err
			}
		}
		admission, err := a.Gate.HoldBack(ctx, q, b.Request, reason)
		if err != nil || b.sentBefore {
			f.HeldBack = &admission
			return err
		}
		f.HeldBack = &admission
		return q.UnsendAttempt(ctx, db.UnsendAttemptParams{TransmissionID: b.TransmissionID, Delivery: int32(b.delivery)})
	})
	if err != nil {
		return notSent("put the delivery back into the queue", err)
	}
	a.Gate.CallNext(ctx)
	return ofType(TypeNotSent, f)
}
