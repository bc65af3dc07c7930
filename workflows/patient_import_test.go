package workflows

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/ecw"
)

// intake stands in for the activities of the patient import.
type intake struct {
	env   *testsuite.TestWorkflowEnvironment
	items int
	link  []error

	mu       sync.Mutex
	batches  []int
	links    []time.Time
	failures []activities.ImportFailure
	finished int
}

var testImport = activities.ImportRef{PracticeCode: "FFHEDD", ImportID: uuid.MustParse("d4e5f6a7-b8c9-0123-defa-234567890123")}

func newIntake() *intake {
	var suite testsuite.WorkflowTestSuite
	i := &intake{env: suite.NewTestWorkflowEnvironment()}
	i.env.SetTestTimeout(30 * time.Second)
	i.env.RegisterActivity(i.NextImportItems)
	i.env.RegisterActivity(i.LinkPatient)
	i.env.RegisterActivity(i.RecordImportError)
	i.env.RegisterActivity(i.FinishImport)
	i.env.RegisterWorkflow(ImportPatient)
	return i
}

func (i *intake) NextImportItems(_ context.Context, q activities.ImportBatchQuery) (activities.ImportBatch, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.batches = append(i.batches, q.After)
	batch := activities.ImportBatch{Parallel: 3}
	for n := q.After + 1; n <= i.items && len(batch.Ordinals) < q.Limit; n++ {
		batch.Ordinals = append(batch.Ordinals, int32(n))
	}
	return batch, nil
}

func (i *intake) LinkPatient(context.Context, activities.ImportItem) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.links = append(i.links, i.env.Now())
	return take(&i.link)
}

func (i *intake) RecordImportError(_ context.Context, f activities.ImportFailure) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.failures = append(i.failures, f)
	return nil
}

func (i *intake) FinishImport(context.Context, activities.ImportRef) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.finished++
	return nil
}

// one runs the import of one patient.
func (i *intake) one(t *testing.T) {
	t.Helper()
	i.env.ExecuteWorkflow(ImportPatient, activities.ImportItem{ImportRef: testImport, Ordinal: 7})
	if err := i.env.GetWorkflowError(); !i.env.IsWorkflowCompleted() || err != nil {
		t.Fatalf("ended with %v", err)
	}
}

func retryable(message string) error {
	return temporal.NewApplicationErrorWithOptions(message, string(ecw.ClassRetryable), temporal.ApplicationErrorOptions{Details: []any{activities.Failure{Message: message}}})
}

func TestImportOfAPatientWhileECWIsDown(t *testing.T) {
	t.Parallel()
	i := newIntake()
	i.link = []error{retryable("eCW is unavailable")}
	i.one(t)
	if len(i.links) != importAttempts || len(i.failures) != 1 || i.failures[0].Reason != "eCW is unavailable" || i.failures[0].Ordinal != 7 {
		t.Errorf("asked %d times, recorded %+v", len(i.links), i.failures)
	}
}

func TestImportOfAPatientAfterAShortTrouble(t *testing.T) {
	t.Parallel()
	i := newIntake()
	i.link = []error{retryable("eCW is unavailable"), temporal.NewApplicationError("the database is away", "db"), nil}
	i.one(t)
	if len(i.links) != 3 || len(i.failures) != 0 {
		t.Errorf("asked %d times, recorded %+v", len(i.links), i.failures)
	}
}

// What went wrong with us is not told in words that may hold a patient's data.
func TestImportOfAPatientThatFailsInsideVantrexia(t *testing.T) {
	t.Parallel()
	i := newIntake()
	i.link = []error{temporal.NewApplicationError("invalid input: Jane", "db")}
	i.one(t)
	if len(i.failures) != 1 || !strings.Contains(i.failures[0].Reason, "inside Vantrexia") || strings.Contains(i.failures[0].Reason, "Jane") {
		t.Errorf("recorded %+v", i.failures)
	}
}

// eCW's limit is no fault of the patient: however often it is used up, the import waits for the moment that eCW names.
func TestImportOfAPatientWaitsForECWsLimit(t *testing.T) {
	t.Parallel()
	i := newIntake()
	at := i.env.Now().Add(40 * time.Second)
	throttled := refusal(ecw.ClassThrottled, activities.Failure{Code: "throttled", HTTPStatus: 429, RetryAt: at})
	i.link = append(slices.Repeat([]error{throttled}, 3*importAttempts), nil)
	i.one(t)
	if len(i.failures) != 0 || len(i.links) != 3*importAttempts+1 {
		t.Errorf("asked %d times, recorded %+v", len(i.links), i.failures)
	}
	for n, moment := range i.links[1:] {
		if moment.Before(at) || moment.Sub(i.links[n]) < throttlePause {
			t.Errorf("asked again at %s, after %s", moment, i.links[n])
		}
	}
}

func TestImportTakesABatchAndContinuesAsNew(t *testing.T) {
	t.Parallel()
	i := newIntake()
	i.items = importBatch + 1
	i.env.ExecuteWorkflow(ImportPatients, ImportPatientsInput{ImportRef: testImport})
	err := i.env.GetWorkflowError()
	if err == nil || !strings.Contains(err.Error(), "continue as new") || len(i.links) != importBatch || i.finished != 0 {
		t.Fatalf("ended with %v after %d patients", err, len(i.links))
	}

	rest := newIntake()
	rest.items = importBatch + 1
	rest.env.ExecuteWorkflow(ImportPatients, ImportPatientsInput{ImportRef: testImport, After: importBatch + 1})
	if err := rest.env.GetWorkflowError(); err != nil || rest.finished != 1 || len(rest.links) != 0 {
		t.Errorf("the last run ended with %v, finished %d times", err, rest.finished)
	}
}

func TestImportThatIsCancelledIsClosed(t *testing.T) {
	t.Parallel()
	i := newIntake()
	i.items = 20
	i.link = []error{retryable("eCW is unavailable")}
	i.env.RegisterDelayedCallback(i.env.CancelWorkflow, 5*time.Second)
	i.env.ExecuteWorkflow(ImportPatients, ImportPatientsInput{ImportRef: testImport})
	if err := i.env.GetWorkflowError(); !temporal.IsCanceledError(err) || i.finished != 1 || len(i.failures) != 0 {
		t.Errorf("ended with %v, finished %d times, recorded %+v", err, i.finished, i.failures)
	}
	if len(i.links) > 3*importAttempts {
		t.Errorf("%d reads for 3 patients at a time", len(i.links))
	}
}
