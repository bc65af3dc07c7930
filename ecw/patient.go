package ecw

import (
	"context"
	"encoding/json"
	"net/http"
)

// ReadPatient returns the FHIR Patient with that id, as eCW sent it. The error is an [*Error] with Op "read"
// or "token". If the patient does not exist or was deleted, it is of [ClassPermanentData] with Code
// "not_found". If id cannot be a FHIR id, nothing is sent and the Code is "invalid_id".
func (c *Client) ReadPatient(ctx context.Context, id string) (json.RawMessage, error) {
	if !isID(id) {
		return nil, &Error{
			Class:   ClassPermanentData,
			Op:      OpRead,
			Code:    "invalid_id",
			Message: "the id is not one of a FHIR resource; use the id that eCW's patient list shows",
		}
	}

	res, err := c.authorized(ctx, c.readRequest(OpRead, "/Patient/"+id, nil))
	if err != nil {
		return nil, err
	}

	// A 404 that is not JSON does not come from the FHIR server, so it says nothing about the patient.
	if res.status == http.StatusGone || res.status == http.StatusNotFound && res.isJSON() {
		return nil, res.failed(ClassPermanentData, OpRead, "not_found", "Patient not found in eCW; check the id")
	}

	var patient struct {
		ID string `json:"id"`
	}

	if err := c.judgeRead(res, OpRead, "Patient", &patient); err != nil {
		return nil, err
	}

	if patient.ID != id {
		// To link another patient's chart would be worse than any failure.
		return nil, res.failed(ClassPermanentData, OpRead, "other_patient",
			"eCW answered with another patient than asked for; look at the chart")
	}

	return res.body, nil
}
