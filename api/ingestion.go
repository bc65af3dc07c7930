package api

import (
	"encoding/json"
	"errors"
	"slices"

	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/fhir"
)

// door is an ingestion endpoint of the Vantrexia platform: it takes the readings of one type, under the
// platform's names. Behind it they are the readings of POST /api/v1/observations/.
//
// The platform's documentation shows the names for blood pressure. Those of the other types could not be read,
// so they are ours.
type door struct {
	path   string // under /api/v1/ingestion/
	typ    fhir.Type
	fields []doorField
}

// doorField is a field of a door, and its name in fhir.Reading.Values.
type doorField struct{ name, value string }

// doors are all of them. The contract has what each field takes.
func doors() []door {
	quantity := []doorField{{"value", "value"}, {"unit", "unit"}}
	return []door{
		{"blood-pressure", fhir.BloodPressure, []doorField{{"systolic", "systolic"}, {"diastolic", "diastolic"}, {"pulse", "heart_rate"}}},
		{"weight", fhir.Weight, quantity},
		{"oxygen-saturation", fhir.OxygenSaturation, quantity},
		{"glucose", fhir.BloodGlucose, slices.Concat(quantity, []doorField{{"method", "method"}, {"meal", "meal"}})},
		{"heart-rate", fhir.HeartRate, quantity},
		{"temperature", fhir.Temperature, quantity},
		{"respiratory-rate", fhir.RespiratoryRate, quantity},
	}
}

// ingest stores a reading that came through the door.
func (s *server) ingest(d door) echo.HandlerFunc {
	return func(c echo.Context) error {
		raw, err := d.reading(body(c))
		if err != nil {
			return err
		}

		status, stored, err := s.postReading(c, raw)
		if err != nil {
			return d.inItsWords(err)
		}

		answer, err := d.answer(stored)
		if err != nil {
			return err
		}
		return c.JSON(status, answer)
	}
}

// reading writes a body of the door as POST /api/v1/observations/ takes it, with every number as it was sent.
// It has the type, so an Idempotency-Key does not stand for the same number of another type.
func (d door) reading(body []byte) (json.RawMessage, error) {
	var sent map[string]json.RawMessage
	if err := unmarshal(body, &sent); err != nil {
		return nil, err
	}

	values := map[string]json.RawMessage{}
	for _, field := range d.fields {
		if raw, ok := sent[field.name]; ok && string(raw) != "null" {
			values[field.value] = raw
		}
	}

	return json.Marshal(map[string]any{
		"patient_id":       sent["patient_id"],
		"observation_type": d.typ,
		"effective_at":     sent["measured_at"],
		"device":           sent["device_id"],
		"values":           values,
	})
}

// answer shows a stored reading in the platform's form. Alerts are the platform's own: this project judges no
// value, so it raises none.
func (d door) answer(stored observation) (map[string]any, error) {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(stored.Values, &values); err != nil {
		return nil, err
	}

	status := db.StatusPending // also until the first transmission begins
	if stored.FHIRStatus != nil {
		status = *stored.FHIRStatus
	}

	answer := map[string]any{
		"id":               stored.ID,
		"patient_id":       stored.PatientID,
		"observation_type": stored.ObservationType,
		"device_id":        stored.Device,
		"measured_at":      stored.EffectiveAt,
		"fhir_status":      status,
		"alert_triggered":  false,
		"alert_details":    nil,
		"created_at":       stored.CreatedAt,
	}
	for _, field := range d.fields {
		answer[field.name] = values[field.value] // null if it is not there
	}
	return answer, nil
}

// inItsWords names the wrong fields of an error as the door does.
func (d door) inItsWords(err error) error {
	var refused *Error
	if !errors.As(err, &refused) || len(refused.Fields) == 0 {
		return err
	}

	names := map[string]string{"effective_at": "measured_at", "device": "device_id"}
	for _, field := range d.fields {
		names["values."+field.value] = field.name
	}

	renamed := broken(slices.Clone(refused.Fields))
	for i, field := range renamed {
		if name, ok := names[field.Field]; ok {
			renamed[i].Field = name
		}
	}
	return renamed.err()
}
