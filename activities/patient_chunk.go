package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
)

// ImportChunk names some patients of an import, who are read with one request.
type ImportChunk struct {
	ImportRef
	Ordinals []int32
}

// Searched is what became of a search for the patients of a chunk.
type Searched struct {
	Recorded
	// Left are the patients who are not done. When nothing below is set, a search does not help them.
	Left []int32 `json:",omitempty"`
	// RetryAt is set when eCW's limit or ours stopped the search: it may be repeated then.
	RetryAt time.Time `json:",omitzero"`
	// Waits means that the circuit is not closed, and nothing was sent.
	Waits bool `json:",omitempty"`
	// Failed means that eCW failed at the search or refused us. Whether that is so for everything, a single read shows:
	// an EHR that cannot search for a list must not open the circuit.
	Failed bool `json:",omitempty"`
}

// LinkPatients searches eCW for the patients of a chunk that are not done, and creates or refreshes ours whom it shows. It may
// run twice: who is done is not asked for again. What is wrong with one patient stops no other, and is left to LinkPatient.
func (a *PatientImport) LinkPatients(ctx context.Context, chunk ImportChunk) (_ Searched, err error) {
	defer heartbeat(ctx)()
	defer func() { err = forKey(err) }()
	items, err := a.Store.ListOpenImportItems(ctx, db.ListOpenImportItemsParams{ImportID: chunk.ImportID, Ordinals: chunk.Ordinals})
	if err != nil {
		return Searched{}, fmt.Errorf("list import items: %w", err)
	}
	if len(items) == 0 {
		return Searched{}, nil
	}
	state, err := a.Gate.State(ctx)
	if err != nil {
		return Searched{}, err
	}
	if state.Circuit != gate.Closed {
		return Searched{Left: ordinals(items), Waits: true}, nil
	}

	began := time.Now()
	shown, failed := a.EHR.ReadPatients(gate.Importing(ctx), fhirIDs(items))
	if failed != nil && ctx.Err() != nil { // the worker stops: another one searches
		return Searched{}, readFailed(failed)
	}
	found, err := a.searched(ctx, ImportItem{ImportRef: chunk.ImportRef, Ordinal: items[0].Ordinal}, began, failed)
	if err != nil {
		return Searched{}, err
	}
	found.Left, err = a.linkShown(ctx, chunk.ImportRef, items, shown)
	return found, err
}

// searched says what the end of a search means. Only an answer is reported to the circuit.
func (a *PatientImport) searched(ctx context.Context, first ImportItem, began time.Time, failed error) (Searched, error) {
	if failed == nil {
		change, err := a.report(ctx, first, began, nil)
		return Searched{Recorded: Recorded{CircuitUnsettled: change.Unsettled, CircuitClosed: change.Closed}}, err
	}
	f := failureOf(failed)
	switch {
	case f.Class == ecw.ClassThrottled:
		return Searched{RetryAt: f.RetryAt}, nil
	case f.Finding == gate.Unavailable, f.Finding == gate.Refuses:
		return Searched{Failed: true}, nil
	}
	return Searched{}, nil
}

// linkShown links the patients that eCW has shown, each in a transaction of its own, and returns those that are left. A
// search may show less of a patient than a read does, so one who is refused is left to a single read. So is one who cannot be
// stored; two of these in a row mean that the database is in trouble.
func (a *PatientImport) linkShown(
	ctx context.Context, ref ImportRef, items []db.ListOpenImportItemsRow, shown map[string]json.RawMessage,
) (left []int32, err error) {
	troubled := false
	for _, row := range items {
		resource, found := shown[row.ECWFHIRID]
		if !found {
			left = append(left, row.Ordinal)
			continue
		}
		err := a.link(ctx, ImportItem{ImportRef: ref, Ordinal: row.Ordinal}, resource)
		if err != nil {
			left = append(left, row.Ordinal)
		}
		stored := err == nil || isRefusal(err)
		if !stored && (troubled || ctx.Err() != nil) {
			return nil, err
		}
		troubled = !stored
	}
	return left, nil
}

// isRefusal reports whether an error of link is about what eCW shows, and not a fault of ours.
func isRefusal(err error) bool {
	var refused *temporal.ApplicationError
	return errors.As(err, &refused) && refused.NonRetryable()
}

func ordinals(items []db.ListOpenImportItemsRow) (list []int32) {
	for _, row := range items {
		list = append(list, row.Ordinal)
	}
	return list
}

func fhirIDs(items []db.ListOpenImportItemsRow) (list []string) {
	for _, row := range items {
		list = append(list, row.ECWFHIRID)
	}
	return list
}
