package ecw

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// readRequest prepares a GET below the FHIR base URL.
func (c *Client) readRequest(op, path string, query url.Values) request {
	req := c.fhirRequest(op, http.MethodGet, path, query)
	req.limit = maxReadBody
	return req
}

// judgeRead reads the answer to a GET into v. Anything but a resource of that type is an [*Error].
func (c *Client) judgeRead(res *response, op, resourceType string, v any) error {
	if res.status != http.StatusOK {
		return wordedForRead(refusal(op, res, res.status, res.issues(), c.now()))
	}
	var head struct {
		ResourceType string `json:"resourceType"`
	}
	if res.bodyErr != nil {
		return res.bodyErr
	}
	isFHIR := res.isJSON() && json.Unmarshal(res.body, &head) == nil
	if isFHIR && head.ResourceType == "OperationOutcome" {
		if bad, is := firstError(res.issues()); is {
			return wordedForRead(issueError(op, res, bad, c.now()))
		}
	}
	var err error
	if isFHIR = isFHIR && head.ResourceType == resourceType; isFHIR {
		err = json.Unmarshal(res.body, v)
	}
	switch {
	case errors.Is(err, errTooLarge):
		return &Error{Class: ClassRetryable, Op: op, Code: "response_too_large", HTTPStatus: res.status,
			Message: fmt.Sprintf("a list in eCW's answer has more than %d elements and was not read", maxElements)}
	case err != nil, !isFHIR:
		return &Error{Class: ClassRetryable, Op: op, Code: "malformed_response", HTTPStatus: res.status,
			Message: "eCW's answer is not a " + resourceType + "; check ECW_FHIR_BASE_URL and any proxy in between"}
	}
	return nil
}

// wordedForRead replaces the messages that speak of an Observation.
func wordedForRead(e *Error) *Error {
	if e.Class == ClassPermanentData {
		e.Message = "eCW refuses the request (" + e.Code + "); check ECW_FHIR_BASE_URL and ECW_PRACTICE_CODE"
	}
	return e
}
