package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/workflows"
)

// defaultImportWait leaves a client with the usual timeout of 30 s enough time to get the answer.
const defaultImportWait = 20 * time.Second

type importRequest struct {
	ECWPatientIDs []string `json:"ecw_patient_ids"`
}

// importResult has the form that the tutorial prescribes.
type importResult struct {
	Imported int64             `json:"imported"`
	Skipped  int64             `json:"skipped"`
	Errors   []importError     `json:"errors"`
	Patients []importedPatient `json:"patients"`
}

type importError struct {
	ECWFHIRID string `json:"ecw_fhir_id"`
	Reason    string `json:"reason"`
}

type importedPatient struct {
	VantrexiaID uuid.UUID `json:"vantrexia_id"`
	ECWFHIRID   *string   `json:"ecw_fhir_id"`
	Name        string    `json:"name"`
	MRN         string    `json:"mrn"`
}

// importStatus is where an import stands. Result is null until it is finished.
type importStatus struct {
	ID         uuid.UUID     `json:"id"`
	Status     string        `json:"status"` // running or finished
	Done       int64         `json:"done"`
	Total      int64         `json:"total"`
	CreatedAt  time.Time     `json:"created_at"`
	FinishedAt *time.Time    `json:"finished_at"`
	Result     *importResult `json:"result"`
}

func (s *server) importPatients(c echo.Context) error {
	var req importRequest
	if err := bind(c, &req); err != nil {
		return err
	}

	ctx := c.Request().Context()
	created, err := s.storeImport(c, req.ECWPatientIDs)
	if err != nil {
		return err
	}

	run, err := s.startImport(c, created.ID)
	if err != nil {
		return err
	}
	if async(c) {
		c.Response().Header().Set("Preference-Applied", "respond-async")
	} else {
		s.awaitImport(ctx, run)
	}

	status, err := s.loadImport(ctx, created.ID)
	if err != nil {
		return err
	}
	if status.Result != nil { // it shows patients, whom the row of the request does not name
		if err := s.showing(c, s.importEvent(c, audit.ImportRead, status)); err != nil {
			return err
		}
	}
	if status.Result != nil && !async(c) {
		return c.JSON(http.StatusOK, status.Result)
	}

	setLocation(c, "/api/v1/patients/imports/"+created.ID.String()+"/")
	return c.JSON(http.StatusAccepted, status)
}

// async reports whether the client prefers not to wait (RFC 7240 §4.1).
func async(c echo.Context) bool {
	return slices.ContainsFunc(c.Request().Header.Values("Prefer"), func(value string) bool {
		return strings.Contains(strings.ToLower(value), "respond-async")
	})
}

// awaitImport returns when the workflow has ended, or after ImportWait. An error only ends the wait: the
// outcome is read from the database.
func (s *server) awaitImport(ctx context.Context, run client.WorkflowRun) {
	wait, cancel := context.WithTimeout(ctx, s.ImportWait)
	defer cancel()
	if err := run.Get(wait, nil); err != nil && wait.Err() == nil {
		s.Logger.WarnContext(ctx, "import not awaited", "workflow_id", run.GetID(), "error", err)
	}
}

// importEvent is the row of something that concerns an import, and the patients that it shows.
func (s *server) importEvent(c echo.Context, action audit.Action, shown importStatus) audit.Event {
	var patients []uuid.UUID
	if shown.Result != nil {
		for _, p := range shown.Result.Patients {
			patients = append(patients, p.VantrexiaID)
		}
	}
	return s.eventOf(callerOf(c), action, importResource, textOf(shown.ID), patients...)
}

func (s *server) storeImport(c echo.Context, ids []string) (created db.PatientImport, err error) {
	ctx := c.Request().Context()
	err = s.Store.InTx(ctx, func(q *db.Queries) error {
		if created, err = q.CreateImport(ctx, db.CreateImportParams{PracticeCode: s.PracticeCode}); err != nil {
			return err
		}
		err := q.AddImportItems(ctx, db.AddImportItemsParams{
			PracticeCode: s.PracticeCode,
			ImportID:     created.ID,
			ECWFHIRIDs:   ids,
		})
		if err != nil {
			return err
		}
		return audit.Record(ctx, q, s.importEvent(c, audit.ImportCreate, importStatus{ID: created.ID}))
	})
	if err != nil {
		return created, fmt.Errorf("store import: %w", err)
	}
	return created, nil
}

// startImport starts the workflow. When that fails it deletes the import, because nothing would ever finish
// it.
func (s *server) startImport(c echo.Context, id uuid.UUID) (client.WorkflowRun, error) {
	ctx := c.Request().Context()
	start, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()

	options := workflows.ImportStart(s.PracticeCode, id).Options()
	input := workflows.ImportPatientsInput{
		ImportRef: activities.ImportRef{PracticeCode: s.PracticeCode, ImportID: id},
		Request:   requestOf(c),
	}
	run, err := s.Temporal.ExecuteWorkflow(start, options, workflows.ImportPatients, input)
	if err != nil {
		s.Logger.WarnContext(ctx, "import not started", "import_id", id, "error", err)
		if err := s.Store.DeleteImport(context.WithoutCancel(ctx), id); err != nil {
			return nil, fmt.Errorf("take the import back: %w", err)
		}
		err = temporalUnavailable("Nothing was imported: try again in a moment.")
		s.recordFailure(ctx, s.importEvent(c, audit.ImportCreate, importStatus{ID: id}), err)
		return nil, err
	}
	return run, nil
}

func (s *server) getImport(c echo.Context) error {
	status, err := s.loadImport(c.Request().Context(), idParam(c))
	if err != nil {
		return err
	}
	if err := s.showing(c, s.importEvent(c, audit.ImportRead, status)); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, status)
}

func (s *server) loadImport(ctx context.Context, id uuid.UUID) (importStatus, error) {
	row, err := s.Store.GetImport(ctx, db.GetImportParams{PracticeCode: s.PracticeCode, ID: id})
	if db.IsNotFound(err) {
		return importStatus{}, notFound("import", id.String())
	}
	if err != nil {
		return importStatus{}, fmt.Errorf("load import: %w", err)
	}
	if row.FinishedAt == nil && s.importAbandoned(ctx, id) {
		if row, err = s.Store.FinishImport(ctx, id); err != nil {
			return importStatus{}, fmt.Errorf("close import: %w", err)
		}
	}
	return s.importStatus(ctx, row)
}

// importAbandoned reports whether the workflow of an import has ended or is gone, because a person ended it
// or its namespace was lost. It returns false while Temporal does not answer.
func (s *server) importAbandoned(ctx context.Context, id uuid.UUID) bool {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	found, err := s.Temporal.DescribeWorkflowExecution(ctx, workflows.ImportPatientsWorkflowID(id), "")
	var gone *serviceerror.NotFound
	if err != nil {
		return errors.As(err, &gone)
	}
	return found.GetWorkflowExecutionInfo().GetStatus() != enums.WORKFLOW_EXECUTION_STATUS_RUNNING
}

func (s *server) importStatus(ctx context.Context, row db.PatientImport) (importStatus, error) {
	counts, err := s.Store.CountImportItems(ctx, row.ID)
	if err != nil {
		return importStatus{}, fmt.Errorf("count import items: %w", err)
	}

	status := importStatus{
		ID:         row.ID,
		Status:     "running",
		Done:       counts.Done,
		Total:      counts.Total,
		CreatedAt:  row.CreatedAt,
		FinishedAt: row.FinishedAt,
	}
	if row.FinishedAt != nil {
		result, err := s.importResult(ctx, row.ID)
		if err != nil {
			return status, err
		}
		status.Status, status.Result = "finished", &result
	}
	return status, nil
}

func (s *server) importResult(ctx context.Context, id uuid.UUID) (importResult, error) {
	counts, err := s.Store.CountImportItems(ctx, id)
	if err != nil {
		return importResult{}, fmt.Errorf("count import items: %w", err)
	}

	patients, err := s.Store.ListImportedPatients(ctx, id)
	if err != nil {
		return importResult{}, fmt.Errorf("list imported patients: %w", err)
	}

	failures, err := s.Store.ListImportErrors(ctx, id)
	if err != nil {
		return importResult{}, fmt.Errorf("list import errors: %w", err)
	}

	result := importResult{
		Imported: counts.Imported,
		Skipped:  counts.Skipped,
		Errors:   make([]importError, len(failures)),
		Patients: make([]importedPatient, len(patients)),
	}
	for i, p := range patients {
		result.Patients[i] = importedPatient{
			VantrexiaID: p.ID,
			ECWFHIRID:   p.ExternalID,
			Name:        p.Name(),
			MRN:         p.MRN,
		}
	}

	for i, f := range failures {
		result.Errors[i] = importError{ECWFHIRID: f.ECWFHIRID, Reason: f.Reason}
	}

	return result, nil
}
