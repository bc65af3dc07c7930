package workflows

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
	"github.com/vantrexia/vantrexia/payload"
)

// intake stands in for the activities of the patient import.
type intake struct {
	env     *testsuite.TestWorkflowEnvironment
	items   int
	waits   []activities.Linked // before link
	link    []error
	answers []bool // when eCW is asked whether it answers at all
	// search is what becomes of a search for several patients; nil: eCW shows all of them.
	search []searchResult

	mu        sync.Mutex
	batches   []int
	searches  [][]int32 // whom each was for
	searched  []time.Time
	read      []int32 // who was read singly
	links     []time.Time
	forbidden []int // as each read was told
	failures  []activities.ImportFailure
	finished  int
	breakers  int // CircuitBreakers that were started
}

var testImport = activities.ImportRef{PracticeCode: "FFHEDD", ImportID: uuid.MustParse("d4e5f6a7-b8c9-0123-defa-234567890123")}

func newIntake() *intake {
	i := &intake{env: newEnvironment()}
	i.env.RegisterActivity(i.NextImportItems)
	i.env.RegisterActivity(i.LinkPatients)
	i.env.RegisterActivity(i.LinkPatient)
	i.env.RegisterActivity(i.ECWAnswers)
	i.env.RegisterActivity(i.RecordImportError)
	i.env.RegisterActivity(i.FinishImport)
	i.env.RegisterWorkflow(ImportChunk)
	i.env.RegisterWorkflowWithOptions(i.breaker, workflow.RegisterOptions{Name: "CircuitBreaker"})
	return i
}

func (i *intake) NextImportItems(_ context.Context, q activities.ImportBatchQuery) (activities.ImportBatch, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.batches = append(i.batches, q.After)
	batch := activities.ImportBatch{Parallel: 3, Open: i.items - q.After}
	for n := q.After + 1; n <= i.items && len(batch.Ordinals) < q.Limit; n++ {
		batch.Ordinals = append(batch.Ordinals, int32(n))
	}
	return batch, nil
}

func (i *intake) LinkPatients(_ context.Context, chunk activities.ImportChunk) (activities.Searched, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.searches = append(i.searches, chunk.Ordinals)
	i.searched = append(i.searched, i.env.Now())
	if len(i.search) == 0 {
		return activities.Searched{}, nil
	}
	result := i.search[0]
	i.search = i.search[1:]
	return result(chunk)
}

func (i *intake) LinkPatient(_ context.Context, item activities.ImportItem) (activities.Linked, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.forbidden = append(i.forbidden, item.Forbidden)
	i.links = append(i.links, i.env.Now())
	i.read = append(i.read, item.Ordinal)
	if len(i.waits) > 0 {
		next := i.waits[0]
		i.waits = i.waits[1:]
		return next, nil
	}
	return activities.Linked{}, take(&i.link)
}

func (i *intake) ECWAnswers(context.Context, activities.ImportRef) (bool, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return take(&i.answers), nil
}

func (i *intake) breaker(workflow.Context, string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.breakers++
	return nil
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

// testChunk is a chunk of the given patients.
func testChunk(ordinals ...int32) ImportChunkInput {
	return ImportChunkInput{ImportRef: testImport, First: ordinals[0], Ordinals: ordinals}
}

// one runs the import of one patient.
func (i *intake) one(t *testing.T) {
	t.Helper()
	i.chunk(t, 7)
}

// chunk runs the import of a chunk.
func (i *intake) chunk(t *testing.T, ordinals ...int32) {
	t.Helper()
	i.env.ExecuteWorkflow(ImportChunk, testChunk(ordinals...))
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

// A worker that lacks the key has done nothing: the patients wait until one has it, and are still read together.
func TestImportWaitsForTheKey(t *testing.T) {
	t.Parallel()
	unopened := temporal.NewApplicationError("the key is missing", payload.TypeUnopened)
	refused := func(activities.ImportChunk) (activities.Searched, error) { return activities.Searched{}, unopened }

	i := newIntake()
	i.search = append(slices.Repeat([]searchResult{refused}, 2*importAttempts), hides(2))
	i.link = append(slices.Repeat([]error{unopened}, 2*importAttempts), nil)
	i.chunk(t, 1, 2, 3)
	if len(i.searches) != 2*importAttempts+1 || len(i.links) != 2*importAttempts+1 || len(i.failures) != 0 {
		t.Errorf("searched %d times, read singly %d times, recorded %+v", len(i.searches), len(i.links), i.failures)
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
	next := continued[ImportPatientsInput](t, i)
	if want := (ImportPatientsInput{ImportRef: testImport, After: importBatch, Chunk: 100}); next != want || i.finished != 0 {
		t.Fatalf("goes on with %+v, want %+v", next, want)
	}
	var patients int
	for _, ordinals := range i.searches {
		patients += len(ordinals)
	}
	if len(i.searches) != 10 || patients != importBatch || len(i.links) != 0 {
		t.Errorf("%d patients with %d searches, %d single reads", patients, len(i.searches), len(i.links))
	}

	last := newIntake()
	last.items = importBatch + 50
	last.env.ExecuteWorkflow(ImportPatients, next)
	if err := last.env.GetWorkflowError(); err != nil || last.finished != 1 || len(last.searches) != 1 || len(last.searches[0]) != 50 {
		t.Errorf("the last run ended with %v, finished %d times, after %v", err, last.finished, last.searches)
	}

	rest := newIntake()
	rest.items = importBatch + 1
	rest.env.ExecuteWorkflow(ImportPatients, ImportPatientsInput{ImportRef: testImport, After: importBatch + 1})
	if err := rest.env.GetWorkflowError(); err != nil || rest.finished != 1 || len(rest.links)+len(rest.searches) != 0 {
		t.Errorf("a run without patients ended with %v, finished %d times", err, rest.finished)
	}
}

// continued is the input of the next run of a workflow that has continued as new.
func continued[T any](t *testing.T, i *intake) (next T) {
	t.Helper()
	var again *workflow.ContinueAsNewError
	if err := i.env.GetWorkflowError(); !errors.As(err, &again) {
		t.Fatalf("ended with %v after %d reads", err, len(i.links)+len(i.searches))
	}
	if err := converter.GetDefaultDataConverter().FromPayloads(again.Input, &next); err != nil {
		t.Fatal(err)
	}
	return next
}

func TestChunkSize(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ patients, parallel, want int }{
		{1, 10, 1}, {10, 10, 1}, {11, 10, 2}, {142, 10, 15}, {1000, 10, 100}, {2000, 10, 100}, {10_000, 10, 100},
		{5, 1, 5}, {142, 1, 100}, {2000, 200, 10}, {0, 10, 1}, {7, 0, 7},
	} {
		if got := chunkSize(tc.patients, tc.parallel); got != tc.want {
			t.Errorf("%d patients, %d at a time: chunks of %d, want %d", tc.patients, tc.parallel, got, tc.want)
		}
	}
}

func TestImportThatIsCancelledIsClosed(t *testing.T) {
	t.Parallel()
	i := newIntake()
	i.items = 20
	i.search = slices.Repeat([]searchResult{showsNobody}, 3)
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

// searchResult is what becomes of a search for several patients.
type searchResult func(activities.ImportChunk) (activities.Searched, error)

func showsNobody(c activities.ImportChunk) (activities.Searched, error) {
	return activities.Searched{Left: c.Ordinals}, nil
}

func waitsForTheCircuit(c activities.ImportChunk) (activities.Searched, error) {
	return activities.Searched{Left: c.Ordinals, Waits: true}, nil
}

func fails(c activities.ImportChunk) (activities.Searched, error) {
	return activities.Searched{Left: c.Ordinals, Failed: true}, nil
}

// hides leaves some patients out.
func hides(ordinals ...int32) searchResult {
	return func(activities.ImportChunk) (activities.Searched, error) {
		return activities.Searched{Left: ordinals}, nil
	}
}

// However the search for a chunk ends, every patient is read once: by a search or singly.
func TestImportOfAChunk(t *testing.T) {
	t.Parallel()
	broken := func(activities.ImportChunk) (activities.Searched, error) {
		return activities.Searched{}, temporal.NewNonRetryableApplicationError("the database is away", "internal", nil)
	}
	for _, tc := range []struct {
		name   string
		search []searchResult
		asked  [][]int32 // by the searches
		singly []int32
	}{
		{"eCW shows all", nil, [][]int32{{1, 2, 3}}, nil},
		{"eCW hides one", []searchResult{hides(2)}, [][]int32{{1, 2, 3}}, []int32{2}},
		{"eCW hides two", []searchResult{hides(2, 3)}, [][]int32{{1, 2, 3}}, []int32{2, 3}},
		{"eCW shows nobody", []searchResult{showsNobody}, [][]int32{{1, 2, 3}}, []int32{1, 2, 3}},
		{"the circuit is open", []searchResult{waitsForTheCircuit}, [][]int32{{1, 2, 3}, {2, 3}}, []int32{1}},
		{
			"the circuit is open twice",
			[]searchResult{waitsForTheCircuit, waitsForTheCircuit},
			[][]int32{{1, 2, 3}, {2, 3}},
			[]int32{1, 2, 3}, // the last is one alone
		},
		{"the search fails once", []searchResult{fails}, [][]int32{{1, 2, 3}, {2, 3}}, []int32{1}},
		{"the search fails again", []searchResult{fails, fails}, [][]int32{{1, 2, 3}, {2, 3}}, []int32{1, 2, 3}},
		{"it fails after an outage", []searchResult{waitsForTheCircuit, fails}, [][]int32{{1, 2, 3}, {2, 3}}, []int32{1, 2, 3}},
		{"a fault of ours", []searchResult{broken}, [][]int32{{1, 2, 3}}, []int32{1, 2, 3}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			i := newIntake()
			i.search = tc.search
			i.link = []error{nil}
			i.chunk(t, 1, 2, 3)
			if !reflect.DeepEqual(i.searches, tc.asked) || !slices.Equal(i.read, tc.singly) || len(i.failures) != 0 {
				t.Errorf("searched for %v, read %v singly, recorded %+v", i.searches, i.read, i.failures)
			}
		})
	}
}

// One patient at whom eCW alone fails, and one whom it forbids us, do not stop the others of their chunk.
func TestImportOfAChunkWithBadPatients(t *testing.T) {
	t.Parallel()
	i := newIntake()
	i.search = []searchResult{fails, fails}
	i.link = append(slices.Repeat([]error{unavailable()}, importAttempts), refusal(ecw.ClassPermanentData, activities.Failure{Message: "no"}), nil)
	i.answers = []bool{true}
	i.chunk(t, 1, 2, 3)
	if len(i.failures) != 2 || i.failures[0].Ordinal != 1 || i.failures[1].Ordinal != 2 || i.read[len(i.read)-1] != 3 {
		t.Errorf("read %v, recorded %+v", i.read, i.failures)
	}
}

// A search that eCW's limit stops is repeated when the limit permits it, for whoever is left, and nobody is read singly.
func TestImportOfAChunkWaitsForECWsLimit(t *testing.T) {
	t.Parallel()
	i := newIntake()
	at := i.env.Now().Add(40 * time.Second)
	throttled := func(left ...int32) searchResult {
		return func(activities.ImportChunk) (activities.Searched, error) {
			return activities.Searched{Left: left, RetryAt: at}, nil
		}
	}
	i.search = []searchResult{throttled(1, 2, 3), throttled(2, 3)}
	i.chunk(t, 1, 2, 3)
	if want := [][]int32{{1, 2, 3}, {1, 2, 3}, {2, 3}}; !reflect.DeepEqual(i.searches, want) || len(i.links) != 0 {
		t.Fatalf("searched for %v, read %v singly", i.searches, i.read)
	}
	if i.searched[1].Before(at) || i.searched[2].Sub(i.searched[1]) < throttlePause {
		t.Errorf("searched at %v, want not before %s", i.searched, at)
	}
}

// The counts of one patient do not go over to the next, whether it waited or was forbidden.
func TestThePatientsOfAChunkWaitByThemselves(t *testing.T) {
	t.Parallel()
	i := newIntake()
	i.search = []searchResult{showsNobody}
	forbidden := held()
	forbidden.Forbidden = true
	i.waits = []activities.Linked{forbidden, held(), {}, forbidden}
	i.chunk(t, 1, 2)
	if want := []int32{1, 1, 1, 2, 2}; !slices.Equal(i.read, want) || !slices.Equal(i.forbidden, []int{0, 1, 1, 0, 1}) {
		t.Fatalf("read %v, forbidden before %v", i.read, i.forbidden)
	}
	if first, second, third := i.waited(0), i.waited(1), i.waited(3); first != 35*time.Second || second != 65*time.Second || third != first {
		t.Errorf("waited %s, %s and %s", first, second, third)
	}
}

// A chunk with a long history goes on where it was.
func TestAChunkContinuesAsNew(t *testing.T) {
	t.Parallel()
	i := newIntake()
	i.search = []searchResult{hides(2, 3)}
	i.link = []error{nil}
	i.env.SetContinueAsNewSuggested(true)
	i.env.ExecuteWorkflow(ImportChunk, testChunk(1, 2, 3))
	want := testChunk(1, 2, 3)
	want.Ordinals, want.Singly = []int32{2, 3}, true
	next := continued[ImportChunkInput](t, i)
	if !reflect.DeepEqual(next, want) {
		t.Errorf("goes on with %+v, want %+v", next, want)
	}
	rest := newIntake()
	rest.link = []error{nil}
	rest.env.ExecuteWorkflow(ImportChunk, next)
	if err := rest.env.GetWorkflowError(); err != nil || len(rest.searches) != 0 || !slices.Equal(rest.read, []int32{2, 3}) {
		t.Errorf("the next run ended with %v: searched for %v, read %v", err, rest.searches, rest.read)
	}
}

// held is the answer of a circuit that is not closed.
func held() activities.Linked {
	return activities.Linked{Recorded: activities.Recorded{CircuitUnsettled: true}, Waits: true, Reason: gate.ReasonCredentials}
}

func unavailable() error {
	f := activities.Failure{Code: "http_503", HTTPStatus: 503, Message: "eCW is unavailable", Finding: gate.Unavailable}
	return temporal.NewApplicationErrorWithOptions(f.Message, string(ecw.ClassRetryable), temporal.ApplicationErrorOptions{Details: []any{f}})
}

// waited is how long after a read the next one came.
func (i *intake) waited(read int) time.Duration {
	return i.links[read+1].Sub(i.links[read]).Round(time.Second)
}

// However long the circuit is open, the patient waits, longer and longer up to some minutes, and is imported in the end.
func TestImportOfAPatientWaitsForTheCircuit(t *testing.T) {
	t.Parallel()
	i := newIntake()
	i.waits = slices.Repeat([]activities.Linked{held()}, 600) // two days
	i.one(t)
	if len(i.links) != 601 || len(i.failures) != 0 {
		t.Fatalf("asked %d times, recorded %+v", len(i.links), i.failures)
	}
	if i.breakers == 0 {
		t.Error("no CircuitBreaker was started")
	}
	for n, want := range []time.Duration{30, 60, 120, 240, 300, 300} {
		want = want*time.Second + trialCheck
		if wait := i.waited(n); wait != want {
			t.Errorf("wait %d was %s, want %s", n+1, wait, want)
		}
	}
}

// The one that was tried in vain leaves the next trial to the others; those that wait for a trial's outcome ask again soon.
func TestImportOfAPatientLeavesTheNextTrialToOthers(t *testing.T) {
	t.Parallel()
	tried, trying := held(), held()
	tried.Trial, trying.Trying = true, true
	i := newIntake()
	i.waits = []activities.Linked{tried, trying}
	i.one(t)
	if first, second := i.waited(0), i.waited(1); first != 65*time.Second || second != trialCheck {
		t.Errorf("waited %s and %s", first, second)
	}
}

// Fewer patients than open the circuit find eCW unavailable: whether it fails at them alone, eCW is asked.
func TestImportOfAPatientWhileECWAnswersNobody(t *testing.T) {
	t.Parallel()
	i := newIntake()
	i.link = append(slices.Repeat([]error{unavailable()}, 3*importAttempts), nil)
	i.answers = []bool{false}
	i.one(t)
	if len(i.links) != 3*importAttempts+1 || len(i.failures) != 0 {
		t.Errorf("asked %d times, recorded %+v", len(i.links), i.failures)
	}
}

func TestImportOfAPatientAtWhomECWAloneFails(t *testing.T) {
	t.Parallel()
	i := newIntake()
	i.link = []error{unavailable()}
	i.answers = []bool{false, true}
	i.one(t)
	if len(i.links) != 2*importAttempts || len(i.failures) != 1 || i.failures[0].Reason != "eCW is unavailable" {
		t.Errorf("asked %d times, recorded %+v", len(i.links), i.failures)
	}
}

// The history of one that waits stays short, and the next run goes on where this one was.
func TestImportOfAPatientContinuesAsNew(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*intake){
		"the circuit is open":    func(i *intake) { i.waits = slices.Repeat([]activities.Linked{held()}, 1000) },
		"eCW's limit is used up": func(i *intake) { i.link = []error{refusal(ecw.ClassThrottled, activities.Failure{HTTPStatus: 429})} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := newIntake()
			start(i)
			i.env.RegisterDelayedCallback(func() { i.env.SetContinueAsNewSuggested(true) }, time.Hour)
			in := testChunk(7)
			in.Gap, in.Told = time.Minute, true
			i.env.ExecuteWorkflow(ImportChunk, in)
			next, want := continued[ImportChunkInput](t, i), in
			if len(i.waits) > 0 {
				want.Gap = longestTrialGap
			}
			if !reflect.DeepEqual(next, want) || len(i.failures) != 0 {
				t.Errorf("goes on with %+v, want %+v; recorded %+v", next, want, i.failures)
			}
		})
	}
}

func TestImportThatIsCancelledWhileItWaits(t *testing.T) {
	t.Parallel()
	i := newIntake()
	i.items = 20
	i.search = slices.Repeat([]searchResult{waitsForTheCircuit}, 3)
	i.waits = slices.Repeat([]activities.Linked{held()}, 1000)
	var cancelled time.Time
	i.env.RegisterDelayedCallback(func() {
		cancelled = i.env.Now()
		i.env.CancelWorkflow()
	}, time.Hour)
	i.env.ExecuteWorkflow(ImportPatients, ImportPatientsInput{ImportRef: testImport})
	if err := i.env.GetWorkflowError(); !temporal.IsCanceledError(err) || i.finished != 1 || len(i.failures) != 0 {
		t.Errorf("ended with %v, finished %d times, recorded %+v", err, i.finished, i.failures)
	}
	if late := i.env.Now().Sub(cancelled); late > time.Second {
		t.Errorf("it ended %s after it was cancelled", late)
	}
}

// eCW forbids a patient again and again, and the circuit is open between: each read is told how often that was, so that one of
// them is the last.
func TestAPatientThatIsForbiddenIsCounted(t *testing.T) {
	t.Parallel()
	i := newIntake()
	forbidden := activities.Linked{Waits: true, Forbidden: true, Trial: true, Reason: gate.ReasonCredentials}
	held := activities.Linked{Waits: true, Reason: gate.ReasonCredentials}
	i.waits = []activities.Linked{forbidden, held, forbidden}
	i.one(t)
	if want := []int{0, 1, 1, 2}; !slices.Equal(i.forbidden, want) {
		t.Errorf("the reads are told %v, want %v", i.forbidden, want)
	}
}
