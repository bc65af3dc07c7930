package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/db"
)

// requestKey is the header Idempotency-Key behind the subject of its sender; empty means that the client sent none.
type requestKey string

// idempotencyKey returns the key of a request. It is the sender's own: two gateways that count their requests send
// the same keys, and neither may have its readings refused because of the other.
func idempotencyKey(c echo.Context) requestKey {
	sent := c.Request().Header.Get("Idempotency-Key")
	if sent == "" {
		return ""
	}
	return requestKey(callerOf(c).Subject + itemMark + sent)
}

// itemMark separates the sender from the header, and a batch's key from the number of an item. It is a control
// character, which the contract refuses in the header: no request can send the key of an item.
const itemMark = "\x1f"

// item is the key of one item of a batch.
func (k requestKey) item(index int) string {
	if k == "" {
		return ""
	}
	return string(k) + itemMark + strconv.Itoa(index)
}

// earlier returns the observation that a request with this key stored before, or nil.
func (s *server) earlier(ctx context.Context, key string, body []byte) (*db.Observation, error) {
	if key == "" {
		return nil, nil
	}

	known, err := s.Store.FindRequest(ctx, db.FindRequestParams{
		PracticeCode: s.PracticeCode,
		Request:      db.Request{Key: key, Body: body},
	})
	if db.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up idempotency key: %w", err)
	}

	if !known.SameBody {
		return nil, keyReused()
	}
	return &known.Observation, nil
}

// keyReused is the answer to a request whose key was used before with another body.
func keyReused() error {
	return &Error{
		Status: http.StatusUnprocessableEntity,
		Code:   "idempotency_key_reused",
		Detail: "This Idempotency-Key was used before with another body: use a new key for a new reading.",
	}
}

// errKeyTaken means that another request took the key a moment before. Nothing was stored.
var errKeyTaken = errors.New("the idempotency key was just taken")

// remember stores which observation the key stands for.
func (s *server) remember(ctx context.Context, q *db.Queries, key string, body []byte, observationID uuid.UUID) error {
	added, err := q.RememberRequest(ctx, db.RememberRequestParams{
		PracticeCode:  s.PracticeCode,
		Request:       db.Request{Key: key, Body: body},
		ObservationID: observationID,
	})
	if err != nil {
		return fmt.Errorf("remember idempotency key: %w", err)
	}
	if added == 0 {
		return errKeyTaken
	}
	return nil
}
