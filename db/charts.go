package db

import (
	"context"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/keyring"
)

// Chart is a chart in eCW that a patient is or was linked to.
type Chart struct {
	ID uuid.UUID
	// ECWPatientID is the id of the Patient resource.
	ECWPatientID string
}

// Chart returns the patient's present chart; ok is false when the patient is not linked.
func (p Patient) Chart() (c Chart, ok bool) {
	if p.ChartID == nil || p.ExternalID == nil {
		return c, false
	}
	return Chart{ID: *p.ChartID, ECWPatientID: *p.ExternalID}, true
}

func chartCell(practice string, id uuid.UUID) keyring.Cell {
	return keyring.Cell{Table: "patient_charts", Column: "ecw_patient_id", Practice: practice, Row: id.String()}
}

// newChart makes the id of a chart and seals the id of eCW for it; without one there is no chart.
func (q *Queries) newChart(practice string, ecwPatientID *string) (id *uuid.UUID, sealed []byte, err error) {
	if ecwPatientID == nil {
		return nil, nil, nil
	}
	made, err := uuid.NewRandom()
	if err != nil {
		return nil, nil, err
	}
	sealed, err = q.ring().Seal(chartCell(practice, made), []byte(*ecwPatientID))
	return &made, sealed, err
}

// openChart returns the id in eCW of a chart; nil for none.
func (q *Queries) openChart(practice string, id *uuid.UUID, sealed []byte) (*string, error) {
	if id == nil {
		return nil, nil
	}
	plain, err := q.ring().Open(chartCell(practice, *id), sealed)
	if err != nil {
		return nil, err
	}
	text := string(plain)
	return &text, nil
}

// ListCharts lists every chart that readings of the patient were sent to.
func (q *Queries) ListCharts(ctx context.Context, patient uuid.UUID) ([]Chart, error) {
	rows, err := q.listCharts(ctx, patient)
	if err != nil {
		return nil, err
	}
	charts := make([]Chart, len(rows))
	for i, row := range rows {
		id, err := q.openChart(row.PracticeCode, &row.ID, row.ECWPatientID)
		if err != nil {
			return nil, err
		}
		charts[i] = Chart{ID: row.ID, ECWPatientID: *id}
	}
	return charts, nil
}

// ChartAttempt is an attempt and its chart.
type ChartAttempt struct {
	TransmissionAttempt
	// ECWPatientID is the Patient's id in eCW: of the chart that it was sent to, or in which an earlier delivery was
	// found; nil when nothing was sent.
	ECWPatientID *string
}

// Chart returns the delivery's chart; ok is false when nothing was sent.
func (d ChartAttempt) Chart() (c Chart, ok bool) {
	if d.ChartID == nil || d.ECWPatientID == nil {
		return c, false
	}
	return Chart{ID: *d.ChartID, ECWPatientID: *d.ECWPatientID}, true
}

// ListChartAttempts lists the attempts of a transmission with their charts.
func (q *Queries) ListChartAttempts(ctx context.Context, transmission uuid.UUID) ([]ChartAttempt, error) {
	rows, err := q.listChartAttempts(ctx, transmission)
	if err != nil {
		return nil, err
	}
	deliveries := make([]ChartAttempt, len(rows))
	for i, row := range rows {
		deliveries[i], err = q.openDelivery(row.PracticeCode, row.TransmissionAttempt, row.ECWPatientID)
		if err != nil {
			return nil, err
		}
	}
	return deliveries, nil
}

// EarlierSends lists the deliveries of an observation that may have reached eCW, each with its chart; the newest
// comes first.
func (q *Queries) EarlierSends(ctx context.Context, observation uuid.UUID) ([]ChartAttempt, error) {
	rows, err := q.earlierSends(ctx, observation)
	if err != nil {
		return nil, err
	}
	deliveries := make([]ChartAttempt, len(rows))
	for i, row := range rows {
		deliveries[i], err = q.openDelivery(row.PracticeCode, row.TransmissionAttempt, row.ECWPatientID)
		if err != nil {
			return nil, err
		}
	}
	return deliveries, nil
}

func (q *Queries) openDelivery(practice string, a TransmissionAttempt, sealed []byte) (ChartAttempt, error) {
	id, err := q.openChart(practice, a.ChartID, sealed)
	return ChartAttempt{TransmissionAttempt: a, ECWPatientID: id}, err
}

// GetTransmissionParams names a transmission by its number.
type GetTransmissionParams = getTransmissionParams

// GetTransmissionRow is a line of the transmission log.
type GetTransmissionRow struct {
	Transmission Transmission
	// ECWPatientID is the Patient's id in eCW in whose chart the reading stands; nil when it stands in none.
	ECWPatientID    *string
	PatientID       uuid.UUID
	ObservationType string
	PatientName     string
}

// GetTransmission returns a line of the transmission log.
func (q *Queries) GetTransmission(ctx context.Context, arg GetTransmissionParams) (GetTransmissionRow, error) {
	row, err := q.getTransmission(ctx, arg)
	if err != nil {
		return GetTransmissionRow{}, err
	}
	return q.openTransmission(transmissionLine{
		Transmission:    row.Transmission,
		PatientID:       row.PatientID,
		ObservationType: row.ObservationType,
		Demographics:    row.Demographics,
		Chart:           row.ECWPatientID,
	})
}

// transmissionLine is a line of the log as it is stored. Its fields are in the order of the list's columns.
type transmissionLine struct {
	Transmission
	PatientID       uuid.UUID
	ObservationType string
	Demographics    []byte
	Chart           []byte
}

func (q *Queries) openTransmission(line transmissionLine) (GetTransmissionRow, error) {
	d, err := q.openDemographics(line.PracticeCode, line.PatientID, line.Demographics)
	if err != nil {
		return GetTransmissionRow{}, err
	}
	chart, err := q.openChart(line.PracticeCode, line.ChartID, line.Chart)
	if err != nil {
		return GetTransmissionRow{}, err
	}
	return GetTransmissionRow{
		Transmission:    line.Transmission,
		ECWPatientID:    chart,
		PatientID:       line.PatientID,
		ObservationType: line.ObservationType,
		PatientName:     d.Name(),
	}, nil
}
