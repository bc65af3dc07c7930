package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	commonpb "go.temporal.io/api/common/v1"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/proxy"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/proto"

	"github.com/vantrexia/vantrexia/ecw/sandbox"
	"github.com/vantrexia/vantrexia/workflows"
)

// executions lists the runs that a query finds, the newest first. Temporal's visibility is a moment late.
func (s *system) executions(query string) []*workflowservice.DescribeWorkflowExecutionResponse {
	s.tb.Helper()
	list, err := s.temporal.ListWorkflow(s.tb.Context(), &workflowservice.ListWorkflowExecutionsRequest{Query: query})
	if err != nil {
		s.tb.Fatal(err)
	}

	var found []*workflowservice.DescribeWorkflowExecutionResponse
	for _, e := range list.GetExecutions() {
		d, err := s.temporal.DescribeWorkflowExecution(s.tb.Context(), e.GetExecution().GetWorkflowId(), e.GetExecution().GetRunId())
		if err != nil {
			s.tb.Fatal(err)
		}
		found = append(found, d)
	}

	return found
}

// awaitImport waits for the end of an import and returns its status resource.
func (s *system) awaitImport(location string) (got answer) {
	s.tb.Helper()
	eventually(s.tb, "finished", func() bool {
		got = s.do("GET", location, "").want(s.tb, http.StatusOK, "")
		return got.text("status") == "finished"
	})
	return got
}

// An import has more patients than one run takes. The workflow continues as new, so that no history grows
// long.
func TestImportOfMoreThanOneRunTakes(t *testing.T) {
	t.Parallel()
	const known, total = 1010, 1030
	s := startWith(t, setup{patients: known})
	var ids []string
	for _, p := range sandbox.Crowd(known) {
		ids = append(ids, p.FHIRID)
	}
	for i := range total - known {
		ids = append(ids, fmt.Sprintf("unknown-%d", i))
	}

	accepted := s.importPatients(ids, "Prefer", "respond-async").want(t, http.StatusAccepted, "")
	run := s.temporal.GetWorkflow(t.Context(), workflows.ImportPatientsWorkflowID(uuid.MustParse(accepted.text("id"))), "")
	if err := run.Get(t.Context(), nil); err != nil {
		t.Fatal(err)
	}

	got := s.awaitImport(accepted.header.Get("Location"))
	errors, _ := got.get("result", "errors").([]any)
	if got.get("done") != number(fmt.Sprint(total)) || got.get("result", "imported") != number(fmt.Sprint(known)) ||
		len(errors) != total-known {
		t.Errorf("%d errors, %v imported, %v done", len(errors), got.get("result", "imported"), got.get("done"))
	}

	var runs []*workflowservice.DescribeWorkflowExecutionResponse
	eventually(t, "listed", func() bool {
		runs = s.executions(fmt.Sprintf("WorkflowId = '%s'", run.GetID()))
		return len(runs) == 2 // 1000 and 30
	})
	for _, r := range runs {
		info := r.GetWorkflowExecutionInfo()
		if info.GetHistoryLength() > 200 || info.GetHistorySizeBytes() > 64<<10 {
			t.Errorf("a run has %d events of %d bytes", info.GetHistoryLength(), info.GetHistorySizeBytes())
		}
	}
}

// held is an import of three patients. The EHR holds back the reads of all three until the test calls letGo.
type held struct {
	*system
	importID uuid.UUID
	location string
	ids      []string
	letGo    func()
}

func holdImport(t *testing.T) held {
	t.Helper()
	arrived, letGo := make(chan struct{}, 10), make(chan struct{})
	h := held{letGo: sync.OnceFunc(func() { close(letGo) })}
	h.system = startWith(t, setup{watch: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/Patient/") {
				arrived <- struct{}{}
				<-letGo
			}
			next.ServeHTTP(w, r)
		})
	}})

	t.Cleanup(h.letGo) // else a test that fails would wait for ever
	_, h.ids = h.people(3)
	accepted := h.importPatients(h.ids, "Prefer", "respond-async").want(t, http.StatusAccepted, "")
	h.importID, h.location = uuid.MustParse(accepted.text("id")), accepted.header.Get("Location")
	for range h.ids {
		select {
		case <-arrived:
		case <-time.After(time.Minute):
			t.Fatal("the patients are not read")
		}
	}

	return h
}

func TestAPersonEndsTheImportOfOnePatient(t *testing.T) {
	t.Parallel()
	h := holdImport(t)
	if err := h.temporal.TerminateWorkflow(t.Context(), workflows.ImportPatientsWorkflowID(h.importID)+"/2", "", "a test"); err != nil {
		t.Fatal(err)
	}

	h.letGo()
	got := h.awaitImport(h.location)
	if n, _ := got.get("result", "imported").(json.Number).Int64(); got.get("done") != number("3") || n < 2 {
		t.Errorf("got %s", got.body)
	}

	// The read of the second patient may have ended before it was interrupted. Both outcomes are right.
	if reason := got.text("result", "errors", 0, "reason"); reason != "" &&
		(got.text("result", "errors", 0, "ecw_fhir_id") != h.ids[1] || !strings.Contains(reason, "interrupted")) {
		t.Errorf("got %s", got.body)
	}
}

// A person may end the whole import in several ways. Its status does not stay "running", and does not change
// after it is "finished".
func TestAPersonEndsAnImport(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(client.Client, context.Context, string) error{
		"terminate": func(c client.Client, ctx context.Context, id string) error {
			return c.TerminateWorkflow(ctx, id, "", "a test")
		},
		"cancel": func(c client.Client, ctx context.Context, id string) error { return c.CancelWorkflow(ctx, id, "") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := holdImport(t)
			if err := end(h.temporal, t.Context(), workflows.ImportPatientsWorkflowID(h.importID)); err != nil {
				t.Fatal(err)
			}

			got := h.awaitImport(h.location)
			errors, _ := got.get("result", "errors").([]any)
			if got.get("done") != number("3") || len(errors) != 3 ||
				!strings.Contains(got.text("result", "errors", 0, "reason"), "interrupted") {
				t.Errorf("got %s", got.body)
			}

			h.letGo() // the results of these reads come too late
			eventually(t, "the reads ended", func() bool { return h.stats().Requests["GET Patient/{id}"]["200"] == 3 })
			if again := h.do("GET", h.location, ""); string(again.body) != string(got.body) {
				t.Errorf("a finished import changed to %s", again.body)
			}
		})
	}
}

// openAll opens the payloads of a message in place.
func (s *system) openAll(message proto.Message) {
	s.tb.Helper()
	open := func(_ *proxy.VisitPayloadsContext, found []*commonpb.Payload) ([]*commonpb.Payload, error) {
		return sealing(s.namespace).Decode(found)
	}
	options := proxy.VisitPayloadsOptions{Visitor: open, SkipSearchAttributes: true}
	if err := proxy.VisitPayloads(s.tb.Context(), message, options); err != nil {
		s.tb.Fatal(err)
	}
}

// The histories of an import name no patient: items have numbers.
func TestImportHistoriesNameNobody(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	people, ids := s.people(11) // chunks of two
	got := s.importPatients(append(ids, "ecw-patient-nobody"), "Prefer", "respond-async").want(t, http.StatusAccepted, "")
	s.awaitImport(got.header.Get("Location"))
	var raw strings.Builder
	root := workflows.ImportPatientsWorkflowID(uuid.MustParse(got.text("id")))
	eventually(t, "listed", func() bool {
		return len(s.executions(fmt.Sprintf("WorkflowId STARTS_WITH '%s' AND ExecutionStatus != 'Running'", root))) == 7
	})
	for _, e := range s.executions(fmt.Sprintf("WorkflowId STARTS_WITH '%s'", root)) {
		execution := e.GetWorkflowExecutionInfo().GetExecution()
		events := s.temporal.GetWorkflowHistory(t.Context(), execution.GetWorkflowId(), execution.GetRunId(), false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			event, err := events.Next()
			if err != nil {
				t.Fatal(err)
			}
			opened := proto.Clone(event)
			s.openAll(opened)
			for _, form := range []proto.Message{event, opened} {
				text, err := proto.Marshal(form)
				if err != nil {
					t.Fatal(err)
				}
				raw.Write(text)
			}
		}
	}

	private := []string{"ecw-patient-nobody"}
	for _, p := range people {
		private = append(private, p.FHIRID, p.MRN, p.LastName, p.BirthDate, p.Mobile, p.Street, p.Email)
	}

	for _, word := range private {
		if word != "" && strings.Contains(raw.String(), word) {
			t.Errorf("the histories hold %q", word)
		}
	}

	if !strings.Contains(raw.String(), "not found in eCW") || !strings.Contains(raw.String(), got.text("id")) {
		t.Error("the histories lack what they should hold, so they prove nothing")
	}
}
