package worker_test

import (
	"errors"
	"strings"
	"testing"

	"go.temporal.io/sdk/temporal"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring"
	"github.com/vantrexia/vantrexia/payload"
	"github.com/vantrexia/vantrexia/worker"
)

// An import whose rows need a key that the worker lacks waits for the key, by the same type of error as one whose input
// needs it: no patient is recorded as failed.
func TestAnImportWaitsForTheKeyOfItsRows(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true})
	importID, _ := r.startImport(2)
	other := must(keyring.New(must(keyring.Generate())(t)))(t)
	lacking := must(db.Open(t.Context(), r.sql.Config().ConnString(), other))(t)
	t.Cleanup(lacking.Close)

	do := &activities.PatientImport{Store: lacking, EHR: r.ehr, Gate: r.gate, Start: worker.Start(r.temporal), Logger: r.log}
	ref := activities.ImportRef{PracticeCode: practice, ImportID: importID}
	_, together := do.LinkPatients(t.Context(), activities.ImportChunk{ImportRef: ref, Ordinals: []int32{1, 2}})
	_, singly := do.LinkPatient(t.Context(), activities.ImportItem{ImportRef: ref, Ordinal: 1})
	for _, err := range []error{together, singly} {
		var app *temporal.ApplicationError
		if !errors.As(err, &app) || app.Type() != payload.TypeUnopened || !strings.Contains(err.Error(), r.keys.Keys()[0].ID) {
			t.Errorf("%v, want an error of type %s that names the key %s", err, payload.TypeUnopened, r.keys.Keys()[0].ID)
		}
	}
}
