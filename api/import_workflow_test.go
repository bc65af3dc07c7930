package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/protobuf/proto"

	"github.com/vantrexia/vantrexia/ecw/sandbox"
	"github.com/vantrexia/vantrexia/workflows"
)

// executions are the runs that a list query finds, the newest first; visibility lags a little behind.
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

// More patients than one run takes: the workflow continues as new, and no history grows long.
func TestImportOfMoreThanOneRunTakes(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	const total = 230
	var ids []string
	for _, p := range sandbox.People() {
		ids = append(ids, p.FHIRID)
	}
	known := len(ids)
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
	if got.get("done") != number(fmt.Sprint(total)) || got.get("result", "imported") != number(fmt.Sprint(known)) || len(errors) != total-known {
		t.Errorf("%d errors, %v imported, %v done", len(errors), got.get("result", "imported"), got.get("done"))
	}
	var runs []*workflowservice.DescribeWorkflowExecutionResponse
	eventually(t, "listed", func() bool {
		runs = s.executions(fmt.Sprintf("WorkflowId = '%s'", run.GetID()))
		return len(runs) == 2 // 200 and 30
	})
	for _, r := range runs {
		info := r.GetWorkflowExecutionInfo()
		if info.GetHistoryLength() > 2000 || info.GetHistorySizeBytes() > 1<<20 {
			t.Errorf("a run has %d events of %d bytes", info.GetHistoryLength(), info.GetHistorySizeBytes())
		}
	}
}

// stopped is an import of three patients of whom the second is being read when the test acts; the read ends afterwards.
func stopped(t *testing.T) (s *system, importID uuid.UUID, location string, ids []string) {
	t.Helper()
	s = start(t, nothing)
	s.fault(`{"kind":"slow","target":"read","delay":"1s","for":"1m"}`)
	_, ids = s.people(3)
	accepted := s.importPatients(ids, "Prefer", "respond-async").want(t, http.StatusAccepted, "")
	importID = uuid.MustParse(accepted.text("id"))
	eventually(t, "a child", func() bool {
		_, err := s.temporal.DescribeWorkflowExecution(t.Context(), workflows.ImportPatientsWorkflowID(importID)+"/2", "")
		if _, missing := err.(*serviceerror.NotFound); err != nil && !missing {
			t.Fatal(err)
		}
		return err == nil
	})
	return s, importID, accepted.header.Get("Location"), ids
}

func TestAPersonEndsTheImportOfOnePatient(t *testing.T) {
	t.Parallel()
	s, importID, location, ids := stopped(t)
	if err := s.temporal.TerminateWorkflow(t.Context(), workflows.ImportPatientsWorkflowID(importID)+"/2", "", "a test"); err != nil {
		t.Fatal(err)
	}
	got := s.awaitImport(location)
	if got.get("result", "imported") != number("2") || got.text("result", "errors", 0, "ecw_fhir_id") != ids[1] || !strings.Contains(got.text("result", "errors", 0, "reason"), "interrupted") {
		t.Errorf("got %s", got.body)
	}
}

// However a person ends the whole import, its status does not stay "running".
func TestAPersonEndsAnImport(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"terminate", "cancel"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s, importID, location, _ := stopped(t)
			end := func() error {
				return s.temporal.CancelWorkflow(t.Context(), workflows.ImportPatientsWorkflowID(importID), "")
			}
			if how == "terminate" {
				end = func() error {
					return s.temporal.TerminateWorkflow(t.Context(), workflows.ImportPatientsWorkflowID(importID), "", "a test")
				}
			}
			if err := end(); err != nil {
				t.Fatal(err)
			}
			got := s.awaitImport(location)
			errors, _ := got.get("result", "errors").([]any)
			if got.get("done") != number("3") || len(errors) != 3 || !strings.Contains(got.text("result", "errors", 0, "reason"), "interrupted") {
				t.Errorf("got %s", got.body)
			}
			time.Sleep(1200 * time.Millisecond) // the reads that were under way have ended by now
			if again := s.do("GET", location, ""); string(again.body) != string(got.body) {
				t.Errorf("a finished import changed to %s", again.body)
			}
		})
	}
}

// The histories of an import name nobody: items are known by number.
func TestImportHistoriesNameNobody(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	people, ids := s.people(2)
	got := s.importPatients(append(ids, "ecw-patient-nobody"), "Prefer", "respond-async").want(t, http.StatusAccepted, "")
	s.awaitImport(got.header.Get("Location"))
	var raw strings.Builder
	root := workflows.ImportPatientsWorkflowID(uuid.MustParse(got.text("id")))
	eventually(t, "listed", func() bool {
		return len(s.executions(fmt.Sprintf("WorkflowId STARTS_WITH '%s' AND ExecutionStatus != 'Running'", root))) == 5
	})
	for _, e := range s.executions(fmt.Sprintf("WorkflowId STARTS_WITH '%s'", root)) {
		execution := e.GetWorkflowExecutionInfo().GetExecution()
		events := s.temporal.GetWorkflowHistory(t.Context(), execution.GetWorkflowId(), execution.GetRunId(), false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			event, err := events.Next()
			if err != nil {
				t.Fatal(err)
			}
			text, err := proto.Marshal(event)
			if err != nil {
				t.Fatal(err)
			}
			raw.Write(text)
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
