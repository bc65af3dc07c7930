package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/workflows"
)

type batchRequest struct {
	Observations []json.RawMessage `json:"observations"`
}

// batchAnswer has a result for each item, in the request's order. The valid items are stored even when others
// are not.
type batchAnswer struct {
	Created  int         `json:"created"`
	Existing int         `json:"existing"`
	Rejected int         `json:"rejected"`
	Results  []batchItem `json:"results"`
}

// batchItem is the answer that a request with this item alone would have got.
type batchItem struct {
	Index  int        `json:"index"`
	Status int        `json:"status"`
	ID     *uuid.UUID `json:"id"`
	Error  *Error     `json:"error"`
}

func (s *server) createObservations(c echo.Context) error {
	var req batchRequest
	if err := bind(c, &req); err != nil {
		return err
	}

	ctx, key := c.Request().Context(), idempotencyKey(c)
	answer := batchAnswer{Results: make([]batchItem, len(req.Observations))}
	var created []uuid.UUID
	for i, raw := range req.Observations {
		if ctx.Err() != nil { // the caller hung up, and will send the batch again
			s.startMany(ctx, created)
			return &cutShort{stored: answer.Created}
		}

		// A hang-up does not cancel the item under way, so that it is known whether it is stored. The
		// database's timeout bounds it.
		item, err := s.createOne(context.WithoutCancel(ctx), key.item(i), raw)
		if err != nil {
			s.startMany(ctx, created) // what is stored by now starts; the rest comes with the repeated request
			return err
		}

		item.Index = i
		switch item.Status {
		case http.StatusCreated:
			answer.Created++
			created = append(created, *item.ID)
		case http.StatusOK:
			answer.Existing++
		default:
			answer.Rejected++
		}

		answer.Results[i] = item
	}

	s.startMany(ctx, created)
	return c.JSON(http.StatusOK, answer)
}

// createOne stores one item. It returns an error only when the database is away: the batch then ends, instead
// of waiting for the database a thousand times.
func (s *server) createOne(ctx context.Context, key string, raw json.RawMessage) (batchItem, error) {
	if !isObject(raw) {
		refused := malformed("The item is not a JSON object: send a reading as POST /api/v1/observations/ takes it.")
		return batchItem{Status: refused.Status, Error: refused}, nil
	}

	var stored db.Observation
	var created bool
	err := checkObject(s.contract.doc.Components.Schemas["Reading"].Value, raw)
	if err == nil {
		stored, created, err = s.takeReading(ctx, key, raw)
	}

	var refused *Error
	switch {
	case err == nil && created:
		return batchItem{Status: http.StatusCreated, ID: &stored.ID}, nil
	case err == nil:
		return batchItem{Status: http.StatusOK, ID: &stored.ID}, nil
	case errors.As(err, &refused):
		return batchItem{Status: refused.Status, Error: refused}, nil
	case db.IsUnavailable(err):
		return batchItem{}, err
	}

	s.Logger.ErrorContext(ctx, "reading of a batch not stored", "error", err)
	return batchItem{Status: http.StatusInternalServerError, Error: internalError()}, nil
}

// startMany starts one workflow that starts the transmissions of a batch, so that the answer does not wait
// for a thousand starts. When Temporal is away the readings wait for the scheduled sweep.
func (s *server) startMany(ctx context.Context, ids []uuid.UUID) {
	if len(ids) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	batch := workflows.Batch{PracticeCode: s.PracticeCode, ObservationIDs: ids}
	_, err := s.Temporal.ExecuteWorkflow(ctx, workflows.BatchStart(s.PracticeCode, uuid.New()).Options(), workflows.StartTransmissions,
		batch)
	if err != nil {
		s.Logger.WarnContext(ctx, "transmissions of a batch not started yet", "readings", len(ids), "error", fmt.Sprint(err))
	}
}
