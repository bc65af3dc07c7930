package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/fhir"
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

// add adds the result of the next item.
func (a *batchAnswer) add(item batchItem) {
	switch item.Status {
	case http.StatusCreated:
		a.Created++
	case http.StatusOK:
		a.Existing++
	default:
		a.Rejected++
	}

	item.Index = len(a.Results)
	a.Results = append(a.Results, item)
}

// createdIDs are those of the readings that are new.
func (a *batchAnswer) createdIDs() (ids []uuid.UUID) {
	for _, item := range a.Results {
		if item.Status == http.StatusCreated {
			ids = append(ids, *item.ID)
		}
	}
	return ids
}

// chunkSize is how many items are stored in one transaction. With more, the round trips to the database hardly
// count any less, and a caller who hangs up is noticed later.
const chunkSize = 200

func (s *server) createObservations(c echo.Context) error {
	var req batchRequest
	if err := bind(c, &req); err != nil {
		return err
	}

	ctx, key, by := c.Request().Context(), idempotencyKey(c), callerOf(c)
	items := make([]sentReading, len(req.Observations))
	for i, raw := range req.Observations {
		items[i] = sentReading{key: key.item(i), by: by, raw: raw}
	}

	answer := batchAnswer{Results: make([]batchItem, 0, len(items))}
	var failed error
	for chunk := range slices.Chunk(items, chunkSize) {
		if ctx.Err() != nil { // the caller hung up, and will send the batch again
			failed = &cutShort{stored: answer.Created}
			break
		}

		// A hang-up does not cancel the chunk under way, so that it is known whether it is stored. The
		// database's timeouts bound it.
		if failed = s.storeChunk(context.WithoutCancel(ctx), chunk, &answer); failed != nil {
			break
		}
	}

	s.startMany(ctx, answer.createdIDs()) // after a failure too: the rest comes with the repeated request
	s.recordRefusedItems(c, answer.Results)
	if failed != nil {
		return failed
	}
	return c.JSON(http.StatusOK, answer)
}

// endsBatch reports whether the other items would fail as well: the database is away, or the audit trail cannot be
// written. The batch then ends, instead of waiting again and again.
func endsBatch(err error) bool { return db.IsUnavailable(err) || isAudit(err) }

// storeChunk stores some items of a batch, and adds their results to the answer. It returns an error only when
// that error ends the batch.
func (s *server) storeChunk(ctx context.Context, chunk []sentReading, answer *batchAnswer) error {
	results, err := s.storeTogether(ctx, chunk)
	if err == nil {
		for _, result := range results {
			answer.add(result)
		}
		return nil
	}
	if endsBatch(err) {
		return err
	}

	// One item failed, or met another request. Nothing of the chunk is stored. One by one, the others are.
	s.Logger.DebugContext(ctx, "readings of a batch are stored one by one", "readings", len(chunk), "error", err)
	for _, item := range chunk {
		result, err := s.storeOne(ctx, item)
		if err != nil {
			return err
		}
		answer.add(result)
	}
	return nil
}

// storeTogether stores items in one transaction, and returns the results that storeOne would have given them
// one after another. An error means that nothing is stored.
func (s *server) storeTogether(ctx context.Context, items []sentReading) ([]batchItem, error) {
	known, err := s.earlierItems(ctx, items)
	if err != nil {
		return nil, err
	}

	results := make([]batchItem, len(items))
	sent := make([]patientReading, len(items))
	var readings []chunkReading
	now := time.Now()
	for i, item := range items {
		reading, result := s.readItem(ctx, item, known, now)
		sent[i] = reading
		if result != nil {
			results[i] = *result
		} else {
			readings = append(readings, chunkReading{patientReading: reading, item: i})
		}
	}

	readings, err = s.withKnownPatient(ctx, readings, results)
	if err != nil {
		return nil, err
	}

	repeated := slices.ContainsFunc(results, func(result batchItem) bool { return result.Status == http.StatusOK })
	if len(readings) == 0 && !repeated {
		return results, nil
	}

	err = s.Store.InTx(ctx, func(q *db.Queries) error {
		if len(readings) > 0 {
			if err := s.insertReadings(ctx, q, readings, results); err != nil {
				return err
			}
			if err := s.rememberItems(ctx, q, items, readings, results); err != nil {
				return err
			}
		}
		return audit.Record(ctx, q, s.batchEvents(items[0].by, results, sent)...)
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// batchEvents are the rows of a chunk: one of the readings that are new, one of those that were stored before, and one of
// those that were stored with other values.
func (s *server) batchEvents(by account.Caller, results []batchItem, sent []patientReading) (events []audit.Event) {
	for _, kind := range []struct {
		status int
		reason string
	}{{http.StatusCreated, ""}, {http.StatusOK, reasonRepeated}} {
		var ids, about []uuid.UUID
		for i, result := range results {
			if result.Status == kind.status {
				ids, about = append(ids, *result.ID), append(about, sent[i].patientID)
			}
		}
		if len(ids) == 0 {
			continue
		}
		e := s.eventOf(by, audit.ObservationCreate, observationResource, textOf(distinct(ids)...), about...)
		e.Reason = kind.reason
		events = append(events, e)
	}

	var ids, about []uuid.UUID
	for i, result := range results {
		if result.Error != nil && result.Error.Code == codeConflictingReading {
			ids, about = append(ids, sent[i].id), append(about, sent[i].patientID)
		}
	}
	if len(ids) > 0 {
		events = append(events, s.conflictEvent(by, textOf(distinct(ids)...), about...))
	}
	return events
}

// recordRefusedItems writes a row for each kind of refusal among the items.
func (s *server) recordRefusedItems(c echo.Context, results []batchItem) {
	for _, result := range results {
		if result.Error != nil && result.Error.refusal != "" {
			s.recordRefusal(c, result.Error)
		}
	}
}

// chunkReading is the reading of a chunk's item.
type chunkReading struct {
	patientReading
	item int // its place in the chunk
}

// earlierItems returns the requests that used the items' keys before, by their keys.
func (s *server) earlierItems(ctx context.Context, items []sentReading) (map[string]db.FoundRequest, error) {
	if items[0].key == "" { // then none has a key
		return nil, nil
	}

	requests := make([]db.Request, len(items))
	for i, item := range items {
		requests[i] = item.request()
	}

	known, err := s.Store.FindRequests(ctx, db.FindRequestsParams{PracticeCode: s.PracticeCode, Requests: requests})
	if err != nil {
		return nil, fmt.Errorf("look up idempotency keys: %w", err)
	}
	return known, nil
}

// readItem returns an item's reading, or its result when the reading is not to be stored; of one that was stored before,
// the patient too.
func (s *server) readItem(ctx context.Context, item sentReading, known map[string]db.FoundRequest, now time.Time) (
	patientReading, *batchItem,
) {
	err := s.checkItem(item.raw)
	if request, ok := known[item.key]; ok && err == nil {
		if request.SameBody {
			existing := storedItem(request.ObservationID, false)
			var req observationRequest
			if err := unmarshal(item.raw, &req); err != nil {
				refused := s.refusedItem(ctx, err)
				return patientReading{}, &refused
			}
			return patientReading{patientID: req.PatientID}, &existing
		}
		err = keyReused()
	}

	var reading patientReading
	if err == nil {
		reading, err = s.decodeReading(item, now)
	}
	if err != nil {
		refused := s.refusedItem(ctx, err)
		return patientReading{}, &refused
	}
	return reading, nil
}

// withKnownPatient returns the readings whose patient is known, and writes the results of the others.
func (s *server) withKnownPatient(ctx context.Context, readings []chunkReading, results []batchItem) ([]chunkReading, error) {
	if len(readings) == 0 {
		return nil, nil
	}

	ids := make([]uuid.UUID, len(readings))
	for i, r := range readings {
		ids[i] = r.patientID
	}
	patients, err := s.Store.ListKnown(ctx, db.ListKnownParams{PracticeCode: s.PracticeCode, IDs: ids})
	if err != nil {
		return nil, fmt.Errorf("load patients: %w", err)
	}

	known := make(map[uuid.UUID]bool, len(patients))
	for _, id := range patients {
		known[id] = true
	}
	return slices.DeleteFunc(readings, func(r chunkReading) bool {
		if !known[r.patientID] {
			results[r.item] = s.refusedItem(ctx, unknownPatient())
		}
		return !known[r.patientID]
	}), nil
}

// insertReadings stores the readings that are not stored yet, and writes the result of each. A reading that
// stands twice in the chunk is new the first time.
func (s *server) insertReadings(ctx context.Context, q *db.Queries, readings []chunkReading, results []batchItem) error {
	ids, err := q.CreateObservations(ctx, createParams(s.PracticeCode, readings))
	if err != nil {
		return fmt.Errorf("store readings: %w", err)
	}

	created := make(map[uuid.UUID]bool, len(ids))
	for _, id := range ids {
		created[id] = true
	}
	var others []chunkReading
	for _, r := range readings {
		if created[r.id] {
			results[r.item] = storedItem(r.id, true)
			delete(created, r.id)
		} else {
			others = append(others, r)
		}
	}
	if len(others) == 0 {
		return nil
	}

	stored, err := q.FindReadings(ctx, db.FindReadingsParams{
		PracticeCode: s.PracticeCode,
		IDs:          createParams(s.PracticeCode, others).IDs,
	})
	if err != nil {
		return fmt.Errorf("find the stored readings: %w", err)
	}
	for _, other := range others {
		switch measured, known := stored[other.id]; {
		case !known:
			return fmt.Errorf("the reading %s is not new, and is not stored", other.id)
		case fhir.SameValues(other.Type, measured, other.Values):
			results[other.item] = storedItem(other.id, false)
		default:
			results[other.item] = s.refusedItem(ctx, conflictingReading(other.id))
		}
	}
	return nil
}

func createParams(practice string, readings []chunkReading) db.CreateObservationsParams {
	params := db.CreateObservationsParams{PracticeCode: practice}
	for _, r := range readings {
		params.PostedBy = r.by // all of a batch have one sender
		params.IDs = append(params.IDs, r.id)
		params.PatientIDs = append(params.PatientIDs, r.patientID)
		params.ObservationTypes = append(params.ObservationTypes, string(r.Type))
		params.EffectiveAt = append(params.EffectiveAt, r.EffectiveAt)
		params.Devices = append(params.Devices, r.Device)
		params.Measured = append(params.Measured, r.Values)
	}
	return params
}

// rememberItems stores which observation each of the readings' keys stands for, unless its item was refused.
func (s *server) rememberItems(ctx context.Context, q *db.Queries, items []sentReading, readings []chunkReading, results []batchItem) error {
	params := db.RememberRequestsParams{PracticeCode: s.PracticeCode}
	for _, r := range readings {
		item, id := items[r.item], results[r.item].ID
		if item.key == "" || id == nil {
			continue
		}
		params.Requests = append(params.Requests, item.request())
		params.ObservationIDs = append(params.ObservationIDs, *id)
	}
	if len(params.Requests) == 0 {
		return nil
	}

	added, err := q.RememberRequests(ctx, params)
	if err != nil {
		return fmt.Errorf("remember idempotency keys: %w", err)
	}
	if int(added) != len(params.Requests) {
		return errKeyTaken
	}
	return nil
}

// storeOne stores one item by itself. It returns an error only when that error ends the batch.
func (s *server) storeOne(ctx context.Context, item sentReading) (batchItem, error) {
	if err := s.checkItem(item.raw); err != nil {
		return s.refusedItem(ctx, err), nil
	}

	stored, created, err := s.takeReading(ctx, item)
	if err != nil && endsBatch(err) {
		return batchItem{}, err
	}
	if err != nil {
		return s.refusedItem(ctx, err), nil
	}
	return storedItem(stored.ID, created), nil
}

// checkItem checks an item against the contract, as the body of a request with this item alone is checked.
func (s *server) checkItem(raw json.RawMessage) error {
	if !isObject(raw) {
		return malformed("The item is not a JSON object: send a reading as POST /api/v1/observations/ takes it.")
	}
	return checkObject(s.contract.doc.Components.Schemas["Reading"].Value, raw)
}

func storedItem(id uuid.UUID, created bool) batchItem {
	if created {
		return batchItem{Status: http.StatusCreated, ID: &id}
	}
	return batchItem{Status: http.StatusOK, ID: &id}
}

// refusedItem is the result of an item that is not stored. An error that is not an *Error is our fault.
func (s *server) refusedItem(ctx context.Context, err error) batchItem {
	var refused *Error
	if !errors.As(err, &refused) {
		s.Logger.ErrorContext(ctx, "reading of a batch not stored", "error", err)
		refused = internalError()
	}
	return batchItem{Status: refused.Status, Error: refused}
}

// startMany starts one workflow that starts the transmissions of a batch, so that the answer does not wait
// for a thousand starts. It leaves out the readings of archived patients. When Temporal is away the readings wait
// for the scheduled sweep.
func (s *server) startMany(ctx context.Context, ids []uuid.UUID) {
	if len(ids) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	if ids = s.withoutArchived(ctx, ids); len(ids) == 0 {
		return
	}
	batch := workflows.Batch{PracticeCode: s.PracticeCode, ObservationIDs: ids}
	_, err := s.Temporal.ExecuteWorkflow(ctx, workflows.BatchStart(s.PracticeCode, uuid.New()).Options(), workflows.StartTransmissions,
		batch)
	if err != nil {
		s.Logger.WarnContext(ctx, "transmissions of a batch not started yet", "readings", len(ids), "error", fmt.Sprint(err))
	}
}
