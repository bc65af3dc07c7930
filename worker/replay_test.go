package worker_test

import (
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	sdkworker "go.temporal.io/sdk/worker"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/vantrexia/vantrexia/ecw/sandbox"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/gate"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
	"github.com/vantrexia/vantrexia/payload"
	"github.com/vantrexia/vantrexia/workflows"
)

var record = flag.String("record", "", "write fresh histories into this folder below testdata/histories (`make histories`)")

// Some transmissions wait six hours for their next delivery: a worker of the next version must be able to go on with
// every history that an earlier version wrote. The files are recorded from the real server and never changed.
func TestEarlierHistoriesReplay(t *testing.T) {
	t.Parallel()
	files := must(filepath.Glob("testdata/histories/*/*.json"))(t)
	if len(files) == 0 {
		t.Fatal("no recorded histories: run `make histories`")
	}
	// The histories are kept in clear, so that a person can read what changed in them. A worker reads such ones too,
	// while TEMPORAL_PLAIN_PAYLOADS_UNTIL lets it.
	clear := payload.Sealing{
		Keys:       keyringtest.Shared(),
		Namespace:  client.DefaultNamespace,
		PlainUntil: time.Now().Add(time.Hour),
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			var options sdkworker.WorkflowReplayerOptions
			options.DataConverter, options.FailureConverter = clear.Converters()
			replayer := must(sdkworker.NewWorkflowReplayerWithOptions(options))(t)
			for _, w := range []any{
				workflows.Transmission,
				workflows.StartTransmissions,
				workflows.CircuitBreaker,
				workflows.ProcessPending,
				workflows.ImportPatients,
				workflows.ImportChunk,
				workflows.RefreshPatients,
				workflows.Prune,
			} {
				replayer.RegisterWorkflow(w)
			}
			if err := replayer.ReplayWorkflowHistoryFromJSONFile(nil, file); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRecordHistories runs each workflow through what it can meet, and writes the histories when -record asks for it.
func TestRecordHistories(t *testing.T) {
	if *record == "" {
		t.Skip("only with -record: it writes files")
	}
	r := newRig(t, setup{})
	r.recordTransmissions()
	newRig(t, setup{}).recordCircuit() // whose worker holds no token yet
	newRig(t, setup{}).recordWaitingImport("import-patient", "/1")
	newRig(t, setup{importParallel: 1}).recordWaitingImport("import-chunk", "/1-2")
	r.recordPending()
	r.recordImports()
	newRig(t, setup{parallel: 1}).recordQueue()
	newRig(t, setup{keep: year}).recordPrune()
}

func (r *rig) recordTransmissions() {
	delivered := r.start(r.storeReading(fhir.BloodPressure, bloodPressure))
	r.mustDeliver(delivered)
	r.save("transmission-delivered", delivered)

	atOnce := r.start(r.storeReading(fhir.Weight, `{"value": 70, "unit": "kg"}`)) // now there is a token
	r.mustDeliver(atOnce)
	r.save("transmission-delivered-at-once", atOnce)

	r.breakEHR(fault{Kind: "reset_after", Target: "create"})
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	retried := r.start(id)
	r.awaitRetry(id)
	r.save("transmission-waiting", retried)
	r.transmitNow(id)
	r.mustDeliver(retried)
	r.save("transmission-retried", retried)

	r.breakEHR(fault{Kind: "throttle", Target: "create", RetryAfter: "1s"})
	throttled := r.start(r.storeReading(fhir.BloodPressure, bloodPressure))
	r.mustDeliver(throttled)
	r.save("transmission-throttled", throttled)

	nobody := "ecw-patient-9999999"
	r.relink(&nobody)
	refused := r.start(r.storeReading(fhir.BloodPressure, bloodPressure))
	r.mustFail(refused, "permanent_data")
	r.save("transmission-refused", refused)
	r.relink(link())

	r.breakEHR(fault{Kind: "error_503", Target: "create"})
	id = r.storeReading(fhir.BloodPressure, bloodPressure)
	cancelled := r.start(id)
	r.awaitRetry(id)
	if err := r.temporal.SignalWorkflow(r.t.Context(), cancelled.GetID(), "", workflows.SignalCancel, nil); err != nil {
		r.t.Fatal(err)
	}
	r.mustFail(cancelled, workflows.ClassCancelled)
	r.save("transmission-cancelled", cancelled)
}

// recordCircuit holds two readings, lets one through in vain, then releases both.
func (r *rig) recordCircuit() {
	r.breakEHR(refuseUs)
	ids, runs := r.startHeld(2)
	r.save("transmission-held", runs[0])
	r.tryNow()
	eventually(r.t, "the trial to fail", func() bool {
		return len(r.attempts(r.transmission(ids[0]).ID)) == 2 && r.circuit().Circuit == gate.Open
	})
	breaker := r.temporal.GetWorkflow(r.t.Context(), workflows.CircuitBreakerWorkflowID(practice), "")
	r.save("circuit-breaker-open", breaker)
	r.admin(http.MethodDelete, "faults", nil, nil)
	r.transmitNow(ids[1])
	for i, name := range []string{"transmission-released", "transmission-tried"} {
		r.mustDeliver(runs[i])
		r.save(name, runs[i])
	}
	if err := breaker.Get(r.t.Context(), nil); err != nil {
		r.t.Fatal(err)
	}
	r.save("circuit-breaker", breaker)
}

// recordQueue has one wait for the only place.
func (r *rig) recordQueue() {
	r.breakEHR(fault{Kind: "slow", Target: "create", Delay: "2s"})
	first := r.start(r.storeReading(fhir.BloodPressure, bloodPressure))
	eventually(r.t, "the first to be under way", func() bool { return r.faultsLeft() == 0 })
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	queued := r.start(id)
	r.awaitHeld(id)
	r.save("transmission-queued", queued)
	r.mustDeliver(first)
	r.mustDeliver(queued)
	r.save("transmission-called", queued)
}

func (r *rig) recordPending() {
	r.storeReading(fhir.BloodPressure, bloodPressure)
	r.save("process-pending", r.finish("process-pending", workflows.ProcessPending, workflows.PendingInput{PracticeCode: practice, Wait: patience}))
}

func (r *rig) recordImports() {
	people := fhirIDs(sandbox.People())
	first, run := r.startImportOf([]string{people[0], people[1], "nobody"})
	r.finished(run)
	r.save("import-patients", run)
	id := workflows.ImportPatientsWorkflowID(first)
	r.save("import-patient", r.temporal.GetWorkflow(r.t.Context(), id+"/1", ""))
	r.save("import-patient-unknown", r.temporal.GetWorkflow(r.t.Context(), id+"/3", ""))

	second, run := r.startImportOf(append(people[:11:11], "nobody")) // in chunks of two
	r.finished(run)
	r.save("import-patients-in-chunks", run)
	id = workflows.ImportPatientsWorkflowID(second)
	r.save("import-chunk", r.temporal.GetWorkflow(r.t.Context(), id+"/1-2", ""))
	r.save("import-chunk-unknown", r.temporal.GetWorkflow(r.t.Context(), id+"/11-12", ""))
	r.save("refresh-patients", r.finish("refresh-patients", workflows.RefreshPatients, practice))
}

// finished waits for the end of a run.
func (r *rig) finished(run client.WorkflowRun) {
	r.t.Helper()
	if err := run.Get(r.t.Context(), nil); err != nil {
		r.t.Fatal(err)
	}
}

// recordWaitingImport has an import of two patients open the circuit, and go on.
func (r *rig) recordWaitingImport(name, child string) {
	r.breakEHR(refuseUs)
	importID, run := r.startImport(2)
	part := r.temporal.GetWorkflow(r.t.Context(), run.GetID()+child, "")
	eventually(r.t, "the import to wait", func() bool { return strings.Contains(r.details(run), "Waiting for eCW: 2 patients") })
	r.save(name+"s-waiting", run)
	r.save(name+"-waiting", part)
	r.admin(http.MethodDelete, "faults", nil, nil)
	r.mustImport(importID, run, 2)
	r.save(name+"s-waited", run)
	r.save(name+"-waited", part)
}

func (r *rig) recordPrune() {
	r.mustDeliver(r.start(r.storeReading(fhir.BloodPressure, bloodPressure)))
	r.growOld()
	r.save("prune", r.finish("prune", workflows.Prune, workflows.PruneInput{PracticeCode: practice}))
}

// finish runs a workflow to its end, and returns the first of its runs.
func (r *rig) finish(id string, workflow any, input any) client.WorkflowRun {
	r.t.Helper()
	options := client.StartWorkflowOptions{ID: id, TaskQueue: workflows.TaskQueue(practice)}
	run := must(r.temporal.ExecuteWorkflow(r.t.Context(), options, workflow, input))(r.t)
	first := r.temporal.GetWorkflow(r.t.Context(), id, run.GetRunID())
	r.finished(run)
	return first
}

// save writes the history of a run, as far as it has come, with its payloads in clear.
func (r *rig) save(name string, run client.WorkflowRun) {
	r.t.Helper()
	var history historypb.History
	events := r.temporal.GetWorkflowHistory(r.t.Context(), run.GetID(), run.GetRunID(), false, 0)
	for events.HasNext() {
		history.Events = append(history.Events, must(events.Next())(r.t))
	}
	r.openAll(&history)
	dir := filepath.Join("testdata", "histories", *record)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	text := must(protojson.MarshalOptions{Multiline: true}.Marshal(&history))(r.t)
	if err := os.WriteFile(filepath.Join(dir, name+".json"), text, 0o644); err != nil {
		r.t.Fatal(err)
	}
}
