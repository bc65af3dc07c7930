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
}

// Opened is a transmission that is ready to be delivered, or was delivered already.
type Opened struct {
	TransmissionID  string
	PatientID       uuid.UUID
	ObservationType string
	// Delivered is set when eCW holds the observation: nothing is left to do.
	Delivered bool
	// LeftAlone is set when the last transmission failed for good and nobody asked for another: nothing is to be done.
	LeftAlone bool `json:",omitempty"`
	// AttemptsMade and DeliveriesMade are not zero when a new workflow takes over a transmission whose workflow was lost.
	AttemptsMade   int
	DeliveriesMade int
	MaxAttempts    int
	RetryDelays    []time.Duration
}

// Open opens a transmission for an observation, or finds the one that is open or delivered. It may run twice.
func (a *Transmission) Open(ctx context.Context, ref ObservationRef) (Opened, error) {
	row, err := a.load(ctx, ref)
	if err != nil {
		return Opened{}, err
	}
	if ref.Unasked {
		last, err := a.Store.LatestTransmission(ctx, db.LatestTransmissionParams{PracticeCode: ref.PracticeCode, ObservationID: ref.ObservationID})
		if err != nil && !db.IsNotFound(err) {
			return Opened{}, fmt.Errorf("load transmission: %w", err)
		}
		if last.Status == db.StatusFailed && last.NextRetryAt == nil {
			return Opened{
				TransmissionID: last.ID, PatientID: row.Patient.ID, ObservationType: row.Observation.ObservationType,
				AttemptsMade: int(last.AttemptCount), LeftAlone: true,
			}, nil
		}
	}
	err = a.Store.OpenTransmission(ctx, db.OpenTransmissionParams{
		PracticeCode: ref.PracticeCode, ObservationID: ref.ObservationID, MaxAttempts: int32(len(a.RetryDelays) + 1),
	})
	if err != nil {
		return Opened{}, fmt.Errorf("open transmission: %w", err)
	}
	open, err := a.Store.LatestTransmission(ctx, db.LatestTransmissionParams{PracticeCode: ref.PracticeCode, ObservationID: ref.ObservationID})
	if err != nil {
		return Opened{}, fmt.Errorf("load transmission: %w", err)
	}
	made, err := a.Store.ListAttempts(ctx, open.ID)
	if err != nil {
		return Opened{}, fmt.Errorf("load attempts: %w", err)
	}
	opened := Opened{
		TransmissionID:  open.ID,
		PatientID:       row.Patient.ID,
		ObservationType: row.Observation.ObservationType,
		Delivered:       open.Status == db.StatusTransmitted,
		AttemptsMade:    int(open.AttemptCount),
		DeliveriesMade:  len(made),
		MaxAttempts:     int(open.MaxAttempts),
		RetryDelays:     a.RetryDelays,
	}
	if open.Status == db.StatusProcessing && opened.AttemptsMade > 0 {
		opened.AttemptsMade-- // its workflow was lost in the middle of this attempt: make it again
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
	resource, err := transform(row.Observation, row.Patient, at)
	if err != nil {
		return time.Time{}, failure(ecw.ClassPermanentData, Failure{Code: "invalid_reading", Message: "Invalid FHIR resource: " + brokenFields(err)})
	}
	err = a.Store.SaveResource(ctx, db.SaveResourceParams{
		ID: ref.ObservationID, Resource: resource, ResourceVersion: row.Observation.ResourceVersion + 1, TransformedAt: &at,
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("save resource: %w", err)
	}
	return at, nil
}

func (a *Transmission) load(ctx context.Context, ref ObservationRef) (db.GetObservationWithPatientRow, error) {
	row, err := a.Store.GetObservationWithPatient(ctx, db.GetObservationWithPatientParams{PracticeCode: ref.PracticeCode, ID: ref.ObservationID})
	if db.IsNotFound(err) {
		return row, failure(ecw.ClassPermanentData, Failure{Code: "not_found", Message: "The observation is not in the database"})
	}
	if err != nil {
		return row, fmt.Errorf("load observation: %w", err)
	}
	return row, nil
}

func transform(o db.Observation, p db.Patient, at time.Time) (json.RawMessage, error) {
	reading := fhir.Reading{ID: o.ID.String(), Type: fhir.Type(o.ObservationType), EffectiveAt: o.EffectiveAt, Device: o.Device, Values: o.Measured}
	subject := fhir.Subject{PatientID: p.ID.String(), Display: p.FirstName + " " + p.LastName}
	resource, err := fhir.Observation(reading, subject, int(o.ResourceVersion)+1, at)
	if err != nil {
		return nil, err
	}
	return fhir.Marshal(resource)
}

// brokenFields names what is wrong with a reading without its values, which must not stand in the history.
func brokenFields(reason error) string {
	var fields fhir.FieldErrors
	if !errors.As(reason, &fields) {
		return "the reading makes no valid Observation"
	}
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Field
	}
	return "check the observation's " + strings.Join(names, ", ")
}

// Attempt is one delivery that is about to begin.
type Attempt struct {
	TransmissionID string
	// Delivery counts every one that is begun; Number counts those that use up one of the allowed attempts.
	Delivery  int
	Number    int
	StartedAt time.Time
	// Place is the place in the queue for eCW's request limit, zero while there is none.
	Place time.Time `json:",omitzero"`
	// Asked means that a person wants this delivery now.
	Asked bool `json:",omitempty"`
}

// Admission says whether a delivery may begin.
type Admission = gate.Admission

// Authenticate asks the gate whether the delivery may begin, and if so marks the transmission as processing and makes
// sure that this worker holds a valid access token. The token stays in the worker's memory.
func (a *Transmission) Authenticate(ctx context.Context, at Attempt) (Admission, error) {
	request := gate.Request{TransmissionID: at.TransmissionID, Place: at.Place, Asked: at.Asked, Requests: a.requests(at.Delivery)}
	admission, err := a.Gate.Admit(ctx, request)
	if err != nil || admission.Held || admission.Wait > 0 {
		return admission, err
	}
	err = a.Store.StartAttempt(ctx, db.StartAttemptParams{
		TransmissionID: at.TransmissionID, Delivery: int32(at.Delivery), Number: int32(at.Number), StartedAt: at.StartedAt,
	})
	if err != nil {
		return admission, fmt.Errorf("record the attempt's start: %w", err)
	}
	if err := a.EHR.Authenticate(ctx); err != nil {
		return admission, a.failed(ctx, delivery{at.TransmissionID, at.Delivery, request.Requests, admission.Trial}, err)
	}
	return admission, nil
}

// failed turns an error of the eCW client into an activity error. What our own limit held back was not sent: it takes a
// new turn, at the end of the queue, so that the queue also pays for requests that nobody had planned. The error carries
// what a workflow must know of the admission, since a result is lost with it.
func (a *Transmission) failed(ctx context.Context, begun delivery, err error) error {
	class, f := classify(err)
	f.Trial = begun.trial
	if f.Code != ecw.CodeRateLimited {
		return failure(class, f)
	}
	turn, err := a.Gate.TakeTurn(ctx, time.Time{}, begun.requests)
	if err != nil {
		return failure(TypeNotSent, f)
	}
	f.Place = turn.Place
	if at := time.Now().Add(turn.Wait); at.After(f.RetryAt) {
		f.RetryAt = at
	}
	unsent := db.UnsendAttemptParams{TransmissionID: begun.transmissionID, Delivery: int32(begun.number)}
	err = a.Store.InTx(ctx, func(q *db.Queries) error {
		if err := q.UnsendAttempt(ctx, unsent); err != nil {
			return err
		}
		return q.QueueTransmission(ctx, db.QueueTransmissionParams{ID: begun.transmissionID, TurnComesAt: f.RetryAt})
	})
	if err != nil {
		a.Logger.WarnContext(ctx, "the transmission's wait for the request limit could not be recorded", "transmission_id", begun.transmissionID, "error", err)
	}
	return failure(TypeNotSent, f)
}

// delivery is one that was admitted.
type delivery struct {
	transmissionID string
	number         int
	requests       int // that it was planned with
	trial          bool
}

// requests is how many requests to eCW a delivery will probably take: one that may have arrived before is looked up first.
func (a *Transmission) requests(delivery int) int { return a.EHR.Requests(delivery > 1) }

// PostInput names what to deliver.
type PostInput struct {
	ObservationRef
	TransmissionID string
	Delivery       int
}

// Posted is eCW's acknowledgement.
type Posted struct {
	ECWObservationID string
	HTTPStatus       int
}

// Post creates the Observation in eCW. When anything may have been sent for this observation before, it first asks eCW
// whether it arrived, so that no reading stands twice in a chart. It must run at most once for each delivery: a failure
// that came before anything left is a not_sent error, every other one has a class of package ecw.
func (a *Transmission) Post(ctx context.Context, in PostInput) (Posted, error) {
	defer heartbeat(ctx)()
	row, err := a.Store.GetObservationWithPatient(ctx, db.GetObservationWithPatientParams{PracticeCode: in.PracticeCode, ID: in.ObservationID})
	if err != nil {
		return Posted{}, notSent(fmt.Errorf("load observation: %w", err))
	}
	earlier, err := a.Store.CountEarlierDeliveries(ctx, db.CountEarlierDeliveriesParams{
		ObservationID: in.ObservationID, TransmissionID: in.TransmissionID, Delivery: int32(in.Delivery),
	})
	if err != nil {
		return Posted{}, notSent(fmt.Errorf("count earlier deliveries: %w", err))
	}
	resource, refused := outgoing(row.Observation, row.Patient)
	if refused != nil {
		return Posted{}, refused
	}
	log := a.Logger.With("practice", in.PracticeCode, "observation_id", in.ObservationID, "transmission_id", in.TransmissionID)
	begun := delivery{transmissionID: in.TransmissionID, number: in.Delivery, requests: a.requests(in.Delivery)}
	identifier := ecw.Identifier{System: fhir.IdentifierSystem, Value: in.ObservationID.String()}
	if earlier > 0 {
		found, exists, err := a.EHR.FindDelivered(ctx, resource, identifier)
		if err != nil {
			return Posted{}, a.lookUpFailed(ctx, begun, err)
		}
		if exists {
			log.InfoContext(ctx, "Observation found in eCW, an earlier delivery had arrived", "ecw_observation_id", found.ID)
			return Posted{ECWObservationID: found.ID, HTTPStatus: found.HTTPStatus}, nil
		}
	}
	created, err := a.EHR.CreateObservation(ctx, resource, identifier)
	if err != nil {
		return Posted{}, a.failed(ctx, begun, err)
	}
	log.InfoContext(ctx, "Pushed Observation to eCW", "http_status", created.HTTPStatus, "ecw_observation_id", created.ID)
	log.DebugContext(ctx, fmt.Sprintf("Pushed Observation to eCW for patient %s (%s)", row.Patient.MRN, measurement(row.Observation.Measured)))
	return Posted{ECWObservationID: created.ID, HTTPStatus: created.HTTPStatus}, nil
}

// lookUpFailed turns an error of the look-up into an activity error. However a search is refused, that says nothing about
// the reading: what was unknown before still is.
func (a *Transmission) lookUpFailed(ctx context.Context, begun delivery, err error) error {
	class, f := classify(err)
	if class == ecw.ClassPermanentData || class == ecw.ClassPermanentCredentials && !f.RefusesUs {
		f.Message = "eCW could not be asked whether an earlier delivery arrived"
		return failure(ecw.ClassUnknown, f)
	}
	return a.failed(ctx, begun, err)
}

// outgoing is the resource as eCW gets it. What stands in the way of making it is for a person to mend.
func outgoing(o db.Observation, p db.Patient) (json.RawMessage, error) {
	if p.ECWFHIRID == nil {
		return nil, failure(ecw.ClassPermanentData, Failure{Code: "patient_not_linked",
			Message: "Patient is not linked to eClinicalWorks: set the patient's ecw_fhir_id, then transmit again"})
	}
	var stored fhir401.Observation
	if err := json.Unmarshal(o.Resource, &stored); err != nil {
		return nil, invalidResource(err)
	}
	delivery, err := fhir.ForDelivery(&stored, *p.ECWFHIRID)
	if err != nil {
		return nil, invalidResource(err)
	}
	resource, err := fhir.Marshal(delivery)
	if err != nil {
		return nil, invalidResource(err)
	}
	return resource, nil
}

func invalidResource(err error) error {
	return failure(ecw.ClassPermanentData, Failure{Code: "invalid_resource", Message: "Invalid FHIR resource: " + err.Error() + "; transform the observation again"})
}

// measurement writes a reading's values for the debug log: "systolic: 128, diastolic: 82".
func measurement(values json.RawMessage) string {
	return strings.NewReplacer(`{`, "", `}`, "", `"`, "").Replace(string(values))
}
