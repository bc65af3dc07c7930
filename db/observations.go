package db

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/keyring"
)

// Observation is a reading, and the FHIR resource that was made of it. What was measured, by which device, and
// the resource are stored sealed.
type Observation struct {
	ID              uuid.UUID // from [fhir.ReadingID]
	PracticeCode    string
	PatientID       uuid.UUID
	ObservationType string
	EffectiveAt     time.Time
	Device          string          // its name; empty when it is not known
	Measured        json.RawMessage // an object, whose numbers have the digits that were sent
	CreatedAt       time.Time
	PostedBy        string // the subject of who sent it first
	Resource        []byte // JSON; nil until the reading was transformed
	ResourceVersion int32
	TransformedAt   *time.Time
}

// sealedReading is what the column reading holds.
type sealedReading struct {
	Device   string          `json:"device"`
	Measured json.RawMessage `json:"measured"`
}

// observationCell is the place of a column of an observation.
func observationCell(column, practice string, id uuid.UUID) keyring.Cell {
	return keyring.Cell{Table: "observations", Column: column, Practice: practice, Row: id.String()}
}

func (q *Queries) sealReading(practice string, id uuid.UUID, device string, measured json.RawMessage) ([]byte, error) {
	plain, err := json.Marshal(sealedReading{device, measured})
	if err != nil {
		return nil, fmt.Errorf("the values of the reading %s are no JSON", id) // the error of json would repeat them
	}
	return q.ring().Seal(observationCell("reading", practice, id), plain)
}

func (q *Queries) openReading(practice string, id uuid.UUID, sealed []byte) (sealedReading, error) {
	cell := observationCell("reading", practice, id)
	plain, err := q.ring().Open(cell, sealed)
	if err != nil {
		return sealedReading{}, err
	}

	var opened sealedReading
	if json.Unmarshal(plain, &opened) != nil {
		return sealedReading{}, fmt.Errorf("%s is no reading", cell)
	}
	return opened, nil
}

// openObservation opens the sealed columns. Of a row that is not sealed yet they stand in clear.
func (q *Queries) openObservation(o sealedObservation) (Observation, error) {
	opened := Observation{
		ID:              o.ID,
		PracticeCode:    o.PracticeCode,
		PatientID:       o.PatientID,
		ObservationType: o.ObservationType,
		EffectiveAt:     o.EffectiveAt,
		CreatedAt:       o.CreatedAt,
		PostedBy:        o.PostedBy,
		Resource:        o.PlainResource,
		ResourceVersion: o.ResourceVersion,
		TransformedAt:   o.TransformedAt,
	}

	reading, err := q.openEither(o.PracticeCode, o.ID, o.Reading, o.Device, o.Measured)
	if err != nil {
		return Observation{}, err
	}
	opened.Device, opened.Measured = reading.Device, reading.Measured

	if o.Resource != nil {
		opened.Resource, err = q.ring().Open(observationCell("resource", o.PracticeCode, o.ID), o.Resource)
	}
	return opened, err
}

// openEither opens a reading, which stands in clear when it is not sealed yet.
func (q *Queries) openEither(practice string, id uuid.UUID, sealed []byte, device *string, measured []byte) (sealedReading, error) {
	if sealed != nil {
		return q.openReading(practice, id, sealed)
	}
	return sealedReading{*device, measured}, nil // the row has one of the two forms
}

// CreateObservationParams is a reading to store, and the request that brought it.
type CreateObservationParams struct {
	ID              uuid.UUID // from [fhir.ReadingID]
	PracticeCode    string
	PatientID       uuid.UUID
	ObservationType string
	EffectiveAt     time.Time
	Device          string
	Measured        json.RawMessage
	PostedBy        string
	Request         Request // a request without a key is not remembered
}

// CreateObservation stores a reading, and with it the request that brought it. It returns no row
// ([IsNotFound]) when the reading is stored already, or when the practice has no patient with this id:
// [Queries.GetObservation] knows which. A key that is known already is a unique violation, and stores nothing.
func (q *Queries) CreateObservation(ctx context.Context, arg CreateObservationParams) (Observation, error) {
	sealed, err := q.sealReading(arg.PracticeCode, arg.ID, arg.Device, arg.Measured)
	if err != nil {
		return Observation{}, err
	}

	params := createObservationParams{
		ID:              arg.ID,
		PracticeCode:    arg.PracticeCode,
		ObservationType: arg.ObservationType,
		EffectiveAt:     arg.EffectiveAt,
		Reading:         sealed,
		PostedBy:        arg.PostedBy,
		PatientID:       arg.PatientID,
	}
	if arg.Request.Key != "" {
		params.Key = q.keyDigests(arg.PracticeCode, arg.Request.Key)[0]
		params.RequestHash = q.bodyDigests(arg.PracticeCode, arg.Request.Body)[0]
	}
	row, err := q.createObservation(ctx, params)
	if err != nil {
		return Observation{}, err
	}

	return Observation{
		ID:              arg.ID,
		PracticeCode:    arg.PracticeCode,
		PatientID:       arg.PatientID,
		ObservationType: arg.ObservationType,
		EffectiveAt:     row.EffectiveAt,
		Device:          arg.Device,
		Measured:        arg.Measured,
		CreatedAt:       row.CreatedAt,
		PostedBy:        arg.PostedBy,
	}, nil
}

// CreateObservationsParams are readings to store, as columns of the same length.
type CreateObservationsParams struct {
	PracticeCode     string
	PostedBy         string
	IDs              []uuid.UUID // from [fhir.ReadingID]
	PatientIDs       []uuid.UUID
	ObservationTypes []string
	EffectiveAt      []time.Time
	Devices          []string
	Measured         []json.RawMessage
}

// CreateObservations stores many readings, and returns the ids of those that are new; [Queries.FindReadings]
// finds the others. Of two that are the same reading the first is stored.
func (q *Queries) CreateObservations(ctx context.Context, arg CreateObservationsParams) ([]uuid.UUID, error) {
	sealed := make([][]byte, len(arg.IDs))
	for i, id := range arg.IDs {
		var err error
		if sealed[i], err = q.sealReading(arg.PracticeCode, id, arg.Devices[i], arg.Measured[i]); err != nil {
			return nil, err
		}
	}

	return q.createObservations(ctx, createObservationsParams{
		PracticeCode:     arg.PracticeCode,
		PostedBy:         arg.PostedBy,
		IDs:              arg.IDs,
		PatientIDs:       arg.PatientIDs,
		ObservationTypes: arg.ObservationTypes,
		EffectiveAt:      arg.EffectiveAt,
		Readings:         sealed,
	})
}

// FindReadingsParams names readings.
type FindReadingsParams = findReadingsParams

// FindReadings returns what was measured in those of the readings that are stored, by their ids.
func (q *Queries) FindReadings(ctx context.Context, arg FindReadingsParams) (map[uuid.UUID]json.RawMessage, error) {
	rows, err := q.findReadings(ctx, arg)
	if err != nil {
		return nil, err
	}

	measured := make(map[uuid.UUID]json.RawMessage, len(rows))
	for _, row := range rows {
		reading, err := q.openEither(arg.PracticeCode, row.ID, row.Reading, row.Device, row.Measured)
		if err != nil {
			return nil, err
		}
		measured[row.ID] = reading.Measured
	}
	return measured, nil
}

// GetObservationParams names an observation.
type GetObservationParams = getObservationParams

// GetObservation returns an observation.
func (q *Queries) GetObservation(ctx context.Context, arg GetObservationParams) (Observation, error) {
	row, err := q.getObservation(ctx, arg)
	if err != nil {
		return Observation{}, err
	}
	return q.openObservation(row)
}

// GetObservationWithPatientParams names an observation.
type GetObservationWithPatientParams = getObservationWithPatientParams

// GetObservationWithPatientRow is an observation and its patient.
type GetObservationWithPatientRow struct {
	Observation Observation
	Patient     Patient
}

// GetObservationWithPatient returns an observation and its patient.
func (q *Queries) GetObservationWithPatient(
	ctx context.Context, arg GetObservationWithPatientParams,
) (GetObservationWithPatientRow, error) {
	row, err := q.getObservationWithPatient(ctx, arg)
	if err != nil {
		return GetObservationWithPatientRow{}, err
	}
	opened, err := q.openObservation(row.SealedObservation)
	if err != nil {
		return GetObservationWithPatientRow{}, err
	}
	patient, err := q.openPatient(row.SealedPatient, nil)
	return GetObservationWithPatientRow{opened, patient}, err
}

// SaveResourceParams is the resource that was made of a reading.
type SaveResourceParams = saveResourceParams

// SaveResource stores the resource that was made of a reading.
func (q *Queries) SaveResource(ctx context.Context, arg SaveResourceParams) (err error) {
	arg.Resource, err = q.ring().Seal(observationCell("resource", arg.PracticeCode, arg.ID), arg.Resource)
	if err != nil {
		return err
	}
	return q.saveResource(ctx, arg)
}

// GetUndeliveredParams names an observation.
type GetUndeliveredParams = getUndeliveredParams

// GetUndeliveredRow is an observation and its patient.
type GetUndeliveredRow struct {
	Observation Observation
	Patient     Patient
	Known       bool // something was done for it before
	Shut        bool // nothing may leave for eCW now
}

// GetUndelivered returns an observation and its patient, for the first delivery.
func (q *Queries) GetUndelivered(ctx context.Context, arg GetUndeliveredParams) (GetUndeliveredRow, error) {
	row, err := q.getUndelivered(ctx, arg)
	if err != nil {
		return GetUndeliveredRow{}, err
	}
	opened, err := q.openObservation(row.SealedObservation)
	if err != nil {
		return GetUndeliveredRow{}, err
	}
	patient, err := q.openPatient(row.SealedPatient, nil)
	return GetUndeliveredRow{opened, patient, row.Known, row.Shut}, err
}

// BeginDeliveryParams is a first delivery that is about to leave.
type BeginDeliveryParams = beginDeliveryParams

// BeginDeliveryRow is a transmission that was opened.
type BeginDeliveryRow = beginDeliveryRow

// BeginDelivery opens the transmission of an observation for which nothing was done yet, stores its resource,
// and marks its first delivery as sent. It returns no row ([IsNotFound]), and nothing is sent, when the pass has
// lapsed, when a transmission exists, or when the patient was linked to another chart, or turned out to be
// somebody else, while the delivery waited for its pass.
func (q *Queries) BeginDelivery(ctx context.Context, arg BeginDeliveryParams) (row BeginDeliveryRow, err error) {
	arg.Resource, err = q.ring().Seal(observationCell("resource", arg.PracticeCode, arg.ObservationID), arg.Resource)
	if err != nil {
		return row, err
	}
	return q.beginDelivery(ctx, arg)
}
