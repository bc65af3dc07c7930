package ecw

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
)

// ReadPatient returns the FHIR Patient with that id, the resource as eCW sent it. One that does not exist, or no longer,
// is an [*Error] of [ClassPermanentData] with Code "not_found"; an id that cannot be one has Code "invalid_id" and is
// not asked for. Op is "read" or "token".
func (c *Client) ReadPatient(ctx context.Context, id string) (json.RawMessage, error) {
	if !isPatientID(id) {
		return nil, &Error{Class: ClassPermanentData, Op: OpRead, Code: "invalid_id",
			Message: "the id is not one of a FHIR resource; use the id that eCW's patient list shows"}
	}
	res, err := c.authorized(ctx, c.readRequest(OpRead, "/Patient/"+id, nil))
	if err != nil {
		return nil, err
	}
	// A page that is not even JSON does not come from the FHIR server, so it says nothing about the patient.
	if res.status == http.StatusGone || res.status == http.StatusNotFound && res.isJSON() {
		return nil, &Error{Class: ClassPermanentData, Op: OpRead, Code: "not_found", HTTPStatus: res.status,
			Message: "Patient not found in eCW; check the id"}
	}
	var patient struct {
		ID string `json:"id"`
	}
	if err := c.judgeRead(res, OpRead, "Patient", &patient); err != nil {
		return nil, err
	}
	if patient.ID != id {
		// Linking somebody else's chart would be worse than any failure.
		return nil, &Error{Class: ClassPermanentData, Op: OpRead, Code: "other_patient", HTTPStatus: res.status,
			Message: "eCW answered with another patient than asked for; look at the chart"}
	}
	return res.body, nil
}

// isPatientID keeps out what is a path or an operation of FHIR's ("..", "_history").
func isPatientID(id string) bool {
	return idForm.MatchString(id) && strings.Trim(id, ".") != "" && !strings.HasPrefix(id, "_")
}
