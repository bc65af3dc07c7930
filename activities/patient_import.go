package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/temporal"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/gate"
	"github.com/vantrexia/vantrexia/keyring"
	"github.com/vantrexia/vantrexia/payload"
)

// PatientImport holds the activities of the patient import workflows.
type PatientImport struct {
	Store *db.Store
	EHR   *ecw.Client
	Gate  *gate.Gate
	// MRNSystem is the system of the identifier that is the MRN; when it is empty, the identifiers' types decide.
	MRNSystem string
	// Parallel is how many chunks of patients are imported at a time.
	Parallel int
	// Start starts the transmissions of readings that came while their patient was archived.
	Start func(ctx context.Context, practice string, observationIDs []uuid.UUID) error
	// Logger writes what concerns the whole practice: that eCW is unavailable, refuses us, or answers again.
	Logger *slog.Logger
}

// ImportRef names an import of one practice.
type ImportRef struct {
	PracticeCode string
	ImportID     uuid.UUID
}

// ImportBatchQuery asks for the next items that are not done, by their number in the request.
type ImportBatchQuery struct {
	ImportRef
	After int
	Limit int
}

// ImportBatch is the numbers of the next items.
type ImportBatch struct {
	Ordinals []int32
	// Open is how many items of the import are not done, these and later ones.
	Open int
	// Parallel is how many chunks of them to import at a time.
	Parallel int
}

// NextImportItems lists what is to be imported next. Items are known by number: eCW's ids stay in the database.
func (a *PatientImport) NextImportItems(ctx context.Context, q ImportBatchQuery) (ImportBatch, error) {
	ordinals, err := a.Store.OpenImportItems(ctx, db.OpenImportItemsParams{ImportID: q.ImportID, After: int32(q.After), Batch: int32(q.Limit)})
	if err != nil {
		return ImportBatch{}, fmt.Errorf("list import items: %w", err)
	}
	open, err := a.Store.CountOpenImportItems(ctx, q.ImportID)
	if err != nil {
		return ImportBatch{}, fmt.Errorf("count import items: %w", err)
	}
	return ImportBatch{Ordinals: ordinals, Open: int(open), Parallel: a.Parallel}, nil
}

// ImportItem names one patient of an import.
type ImportItem struct {
	ImportRef
	Ordinal int32
	// Forbidden counts how often eCW has forbidden us this patient.
	Forbidden int `json:",omitempty"`
}

// maxForbidden is how often eCW may forbid us a patient before that is the patient's own error. The circuit is open then: eCW
// forbade others too, but where nothing else is sent, nobody else finds out when that is over.
const maxForbidden = 3

// Linked is what became of the import of one patient that did not fail.
type Linked struct {
	Recorded
	// Waits means that the patient was not imported: the circuit is not closed, and nothing was sent, or eCW was found to be
	// unavailable or to refuse us.
	Waits bool `json:",omitempty"`
	// Trial means that this patient was to decide whether the circuit closes.
	Trial bool `json:",omitempty"`
	// Trying means that another is tried now, which decides.
	Trying bool `json:",omitempty"`
	// Reason is why it waits: gate.ReasonUnavailable or gate.ReasonCredentials.
	Reason string `json:",omitempty"`
	// Forbidden means that eCW forbade us this patient just now.
	Forbidden bool `json:",omitempty"`
}

// LinkPatient reads one patient from eCW and creates or refreshes ours, if the circuit is closed, and reports to the circuit
// what it found. It may run twice. What a person has to decide or correct is a non-retryable error.
func (a *PatientImport) LinkPatient(ctx context.Context, item ImportItem) (_ Linked, err error) {
	defer func() { err = forKey(err) }()
	ecwID, err := a.Store.GetImportItem(ctx, db.GetImportItemParams{ImportID: item.ImportID, Ordinal: item.Ordinal})
	if err != nil {
		return Linked{}, fmt.Errorf("load import item: %w", err)
	}
	admission, err := a.Gate.AdmitImport(ctx, gate.ImportItem(item.ImportID, item.Ordinal))
	if err != nil {
		return Linked{}, err
	}
	if admission.Waits() { // unsettled: where the circuit breaker was lost, or found nobody to try, it starts again
		return Linked{
			Recorded: Recorded{CircuitUnsettled: true},
			Waits:    true,
			Trying:   admission.Trying,
			Reason:   admission.Reason,
		}, nil
	}

	began := time.Now()
	resource, unread := a.EHR.ReadPatient(gate.Importing(ctx), ecwID)
	change, err := a.report(ctx, item, began, unread)
	if err != nil {
		return Linked{}, err
	}
	linked := Linked{Recorded: Recorded{CircuitUnsettled: change.Unsettled, CircuitClosed: change.Closed}, Trial: admission.Trial}
	if unread != nil {
		return a.notRead(item, linked, change, unread)
	}
	return linked, a.link(ctx, item, resource)
}

// forKey gives an error the type by which the workflow waits for the key that a row needs and this worker lacks.
func forKey(err error) error {
	var missing *keyring.MissingKeyError
	if errors.As(err, &missing) {
		return temporal.NewApplicationError(missing.Error(), payload.TypeUnopened)
	}
	return err
}

// link creates or refreshes our patient by the resource that eCW shows.
func (a *PatientImport) link(ctx context.Context, item ImportItem, resource json.RawMessage) error {
	shown, err := fhir.ParsePatient(resource, a.MRNSystem)
	if err != nil {
		return unusable("eCW's Patient resource cannot be used: " + err.Error())
	}
	return a.store(ctx, item, shown)
}

// report tells the circuit what a read has found. When that closes the circuit, whatever waited for it goes on.
func (a *PatientImport) report(ctx context.Context, item ImportItem, began time.Time, unread error) (change gate.Change, err error) {
	ctx = context.WithoutCancel(ctx) // else the trial of a worker that stops would be nobody's
	f := failureOf(unread)
	r := gate.Report{
		TransmissionID: gate.ImportItem(item.ImportID, item.Ordinal),
		StartedAt:      began,
		Finding:        gate.FindingOf(unread),
		Message:        f.Message,
	}
	err = a.Store.InTx(ctx, func(q *db.Queries) (err error) {
		change, err = a.Gate.Report(ctx, q, r)
		return err
	})
	if err != nil {
		return gate.Change{}, fmt.Errorf("report to the circuit: %w", err)
	}
	announce(ctx, a.Logger, change, f)
	if !change.Closed {
		return change, nil
	}
	if err := a.Gate.Release(ctx, change.FailingSince); err != nil { // the CircuitBreaker does it as well
		a.Logger.WarnContext(ctx, "what waited for eCW was not released yet", "error", err)
	}
	return change, nil
}

// notRead has the patient wait when the circuit is not closed, unless eCW has refused this patient for good.
func (a *PatientImport) notRead(item ImportItem, linked Linked, change gate.Change, unread error) (Linked, error) {
	f := failureOf(unread)
	if change.Closed || !change.Unsettled || f.Class == ecw.ClassPermanentData {
		return Linked{}, readFailed(unread)
	}
	linked.Waits, linked.Reason, linked.Forbidden = true, change.Reason, f.Finding == gate.Forbids
	if linked.Forbidden && item.Forbidden+1 >= maxForbidden {
		return Linked{}, readFailed(unread)
	}
	return linked, nil
}

// ECWAnswers reports whether eCW answers anything at all, as it does when it only fails at one patient.
func (a *PatientImport) ECWAnswers(ctx context.Context, _ ImportRef) (bool, error) {
	state, err := a.Gate.State(ctx)
	if err != nil || state.Circuit != gate.Closed {
		return false, err
	}
	_, err = a.EHR.Capabilities(gate.Importing(ctx))
	found := gate.FindingOf(err)
	return found == gate.Answers || found == gate.Forbids, nil
}

// storeTries is how often a patient is stored anew because another transaction was first with the MRN or the id.
const storeTries = 3

// errOvertaken means that another transaction stored a patient with the same MRN or id in between.
var errOvertaken = errors.New("another transaction stored this patient meanwhile")

// store links or refreshes our patient by what eCW shows, or refuses with a non-retryable error. A refusal comes after what
// it stored is committed: that the patient's readings are held.
func (a *PatientImport) store(ctx context.Context, item ImportItem, shown fhir.Demographics) error {
	for range storeTries {
		var refused error
		err := a.Store.InTx(ctx, func(q *db.Queries) (err error) {
			refused, err = link(ctx, q, item, shown)
			return err
		})
		if err == nil {
			a.startReleased(ctx, item)
			return refused
		}
		if !errors.Is(err, errOvertaken) && !db.IsUniqueViolation(err) {
			return err
		}
	}
	return errOvertaken
}

// startReleased starts the readings that waited while the patient was archived: an import makes a patient active. What it
// cannot start the sweep starts.
func (a *PatientImport) startReleased(ctx context.Context, item ImportItem) {
	ids, err := a.Store.ListReleased(ctx, db.ListReleasedParams{ImportID: item.ImportID, Ordinal: item.Ordinal})
	if err == nil && len(ids) > 0 {
		err = a.Start(ctx, item.PracticeCode, ids)
	}
	if err != nil {
		a.Logger.WarnContext(ctx, "readings of a patient who was unarchived are not started yet", "readings", len(ids), "error", err)
	}
}

// link decides under a lock which patient of ours eCW shows, so that it decides on what is stored.
func link(ctx context.Context, q *db.Queries, item ImportItem, shown fhir.Demographics) (refused, err error) {
	linked, err := q.LockLinkedPatient(ctx, db.FindLinkedPatientParams{PracticeCode: item.PracticeCode, ExternalID: &shown.ID})
	if err == nil {
		return refresh(ctx, q, item, shown, linked)
	}
	if !db.IsNotFound(err) {
		return nil, fmt.Errorf("look for the linked patient: %w", err)
	}

	theirs, refused := demographics(shown, "")
	if refused != nil {
		return refused, nil
	}
	namesake, err := q.LockPatientByMRN(ctx, db.FindPatientByMRNParams{PracticeCode: item.PracticeCode, MRN: shown.MRN})
	switch {
	case db.IsNotFound(err):
		return nil, add(ctx, q, item, theirs)
	case err != nil:
		return nil, fmt.Errorf("look for the patient with the MRN: %w", err)
	case namesake.ExternalID != nil && *namesake.ExternalID == shown.ID: // somebody else has linked the patient meanwhile
		return nil, errOvertaken
	case namesake.ExternalID != nil:
		return mrnTaken(namesake.ID), nil
	}
	if differ := identity(namesake).Differences(shown.Identity()); len(differ) > 0 {
		return mismatch("Patient %s has this MRN, but another %s than eCW shows: compare both records, correct the one that is wrong "+
			"and import again; if they are one person, link the patient with confirm_mismatch", namesake.ID, differ), nil
	}
	return nil, takeOver(ctx, q, item, theirs, namesake, db.OutcomeImported)
}

// refresh takes over what eCW shows of a patient who is linked. When eCW shows another person, it holds the patient's
// readings and changes nothing else: one of the two records is wrong, and only a person can say which.
func refresh(ctx context.Context, q *db.Queries, item ImportItem, shown fhir.Demographics, linked db.Patient) (refused, err error) {
	confirmed := linked.MismatchConfirmed != nil && *linked.MismatchConfirmed == shown.Identity().Fingerprint()
	if differ := identity(linked).Contradictions(shown.Identity()); len(differ) > 0 && !confirmed {
		if err := hold(ctx, q, item, linked); err != nil {
			return nil, err
		}
		return mismatch("eCW shows another %[2]s under this id than patient %[1]s has, whose readings are held: compare both records, then "+
			"correct the patient, link it to the right external_id, or send confirm_mismatch", linked.ID, differ), nil
	}

	theirs, refused := demographics(shown, linked.MRN)
	if refused != nil {
		return refused, nil
	}
	holder, err := q.FindPatientByMRN(ctx, db.FindPatientByMRNParams{PracticeCode: item.PracticeCode, MRN: shown.MRN})
	if err == nil && holder.ID != linked.ID {
		return mrnTaken(holder.ID), nil
	}
	if err != nil && !db.IsNotFound(err) {
		return nil, fmt.Errorf("look for the patient with the MRN: %w", err)
	}
	return nil, takeOver(ctx, q, item, theirs, linked, db.OutcomeSkipped)
}

// add creates a patient whom we did not have.
func add(ctx context.Context, q *db.Queries, item ImportItem, shown db.Demographics) error {
	patient, err := q.CreatePatient(ctx, db.CreatePatientParams{PracticeCode: item.PracticeCode, Demographics: shown, Active: true})
	if db.IsNotFound(err) {
		return errOvertaken
	}
	if err != nil {
		return fmt.Errorf("store patient: %w", err)
	}
	if err := audit.Record(ctx, q, ofPatient(item, patient.ID)); err != nil {
		return err
	}
	return finish(ctx, q, item, db.OutcomeImported, patient.ID)
}

// takeOver writes what eCW shows over a patient whom this transaction has locked. The audit trail has a row when that
// changes anything.
func takeOver(ctx context.Context, q *db.Queries, item ImportItem, shown db.Demographics, before db.Patient, outcome string) error {
	after, err := q.TakeOverDemographics(ctx, db.TakeOverDemographicsParams{
		ImportID:     item.ImportID,
		PracticeCode: item.PracticeCode,
		ID:           before.ID,
		Demographics: shown,
	})
	if err != nil {
		return fmt.Errorf("store patient %s: %w", before.ID, err)
	}
	if !isUnchanged(before, after) {
		if err := audit.Record(ctx, q, ofPatient(item, before.ID)); err != nil {
			return err
		}
	}
	return finish(ctx, q, item, outcome, before.ID)
}

// isUnchanged reports whether a patient is as before, but for the time of the last write.
func isUnchanged(before, after db.Patient) bool {
	after.UpdatedAt = before.UpdatedAt
	return reflect.DeepEqual(before, after)
}

// hold holds the readings of a patient whom eCW shows as somebody else.
func hold(ctx context.Context, q *db.Queries, item ImportItem, p db.Patient) error {
	if p.MismatchSince != nil {
		return nil
	}
	rows, err := q.HoldForMismatch(ctx, db.HoldForMismatchParams{PracticeCode: p.PracticeCode, ID: p.ID})
	if err != nil {
		return fmt.Errorf("hold the patient's readings: %w", err)
	}
	if rows != 1 {
		return fmt.Errorf("hold the readings of patient %s: %d rows were written, want 1", p.ID, rows)
	}
	held := ofPatient(item, p.ID)
	held.Outcome, held.Reason = audit.Failure, codeMismatch
	return audit.Record(ctx, q, held)
}

func finish(ctx context.Context, q *db.Queries, item ImportItem, outcome string, patient uuid.UUID) error {
	done := db.FinishImportItemParams{ImportID: item.ImportID, Ordinal: item.Ordinal, Outcome: &outcome, PatientID: &patient}
	if err := q.FinishImportItem(ctx, done); err != nil {
		return fmt.Errorf("record import: %w", err)
	}
	return nil
}

// identity is by what a patient of ours is compared with eCW's.
func identity(p db.Patient) fhir.Identity {
	return fhir.Identity{LastName: p.LastName, BirthDate: p.DateOfBirth.Format(time.DateOnly)}
}

// codeMismatch says that eCW shows another person than we have.
const codeMismatch = "patient_mismatch"

// mismatch words a refusal; format takes our patient's id and the names of the fields that differ, never their values.
func mismatch(format string, patient uuid.UUID, differ []string) error {
	return failure(Failure{
		Class:   ecw.ClassPermanentData,
		Code:    codeMismatch,
		Message: fmt.Sprintf(format, patient, strings.Join(differ, " and ")),
	})
}

func mrnTaken(holder uuid.UUID) error {
	return unusable(fmt.Sprintf("Patient %s has this patient's MRN and is not the same in eCW: correct the MRN of one of them", holder))
}

// demographics checks that eCW says enough to tell one person from another. ownMRN is that of our patient, if one is linked.
func demographics(p fhir.Demographics, ownMRN string) (ours db.Demographics, refused error) {
	dateOfBirth, err := time.Parse(time.DateOnly, p.BirthDate)
	switch {
	case err != nil:
		return ours, unusable("The patient has no complete birth date in eCW: complete it there")
	case p.MRN == "":
		return ours, unusable(noMRN(p.IdentifierSystems))
	case fhir.IsMadeMRN(p.MRN) && p.MRN != ownMRN: // it may be that of somebody else here, by whom it was never checked
		return ours, unusable("The patient's MRN in eCW begins with " + fhir.MadeMRNPrefix +
			", as only the MRNs do that are made here: correct it there")
	case p.FirstName == "" || p.LastName == "":
		return ours, unusable("The patient has no full name in eCW: complete it there")
	}

	line1, further := "", p.Address.Lines
	if len(further) > 0 {
		line1, further = further[0], further[1:]
	}
	return db.Demographics{
		FirstName:    p.FirstName,
		LastName:     p.LastName,
		DateOfBirth:  dateOfBirth,
		Gender:       known(p.Gender),
		MRN:          p.MRN,
		ExternalID:   &p.ID,
		Phone:        p.Phone,
		Email:        p.Email,
		AddressLine1: line1,
		AddressLine2: strings.Join(further, ", "),
		City:         p.Address.City,
		State:        p.Address.State,
		Zip:          p.Address.PostalCode,
	}, nil
}

// known is nil for an empty text.
func known(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// noMRN names the systems of the identifiers that the patient has instead: one of them may be the MRN's. They are URIs of
// registries, not patient data.
func noMRN(systems []string) string {
	if len(systems) == 0 {
		return "The patient has no MRN in eCW: add it there"
	}
	return "None of the patient's identifiers is known to be the MRN: set ECW_MRN_SYSTEM to the system of the MRN, or add an MRN in eCW. " +
		"The identifiers are of " + strings.Join(systems, ", ")
}

// ImportFailure is why one patient was not imported. The reason holds no patient data.
type ImportFailure struct {
	ImportItem
	Reason string
}

// RecordImportError ends an item that could not be imported.
func (a *PatientImport) RecordImportError(ctx context.Context, f ImportFailure) error {
	outcome := db.OutcomeError
	err := a.Store.FinishImportItem(ctx, db.FinishImportItemParams{ImportID: f.ImportID, Ordinal: f.Ordinal, Outcome: &outcome, Reason: f.Reason})
	if err != nil {
		return fmt.Errorf("record import error: %w", err)
	}
	return nil
}

// FinishImport marks the import as done.
func (a *PatientImport) FinishImport(ctx context.Context, ref ImportRef) error {
	// One that is not there was taken back by the API, which did not know that its workflow had started.
	if _, err := a.Store.FinishImport(ctx, ref.ImportID); err != nil && !db.IsNotFound(err) {
		return fmt.Errorf("finish import: %w", err)
	}
	return nil
}

// OpenRefresh makes an import of every patient that is linked already.
func (a *PatientImport) OpenRefresh(ctx context.Context, practice string) (ImportRef, error) {
	ref := ImportRef{PracticeCode: practice}
	var unopened []error
	err := a.Store.InTx(ctx, func(q *db.Queries) error {
		created, err := q.CreateImport(ctx, db.CreateImportParams{PracticeCode: practice, Refresh: true})
		if err != nil {
			return err
		}
		ref.ImportID = created.ID
		unopened, err = q.AddLinkedPatients(ctx, db.AddLinkedPatientsParams{PracticeCode: practice, ImportID: created.ID})
		if err != nil {
			return err
		}
		return audit.Record(ctx, q, audit.Event{
			PracticeCode: practice,
			Subject:      audit.System,
			Action:       audit.ImportCreate,
			ResourceType: "import",
			ResourceIDs:  []string{created.ID.String()},
			Reason:       "refresh",
		})
	})
	if err != nil {
		return ref, fmt.Errorf("open refresh: %w", err)
	}
	for _, why := range unopened {
		a.Logger.ErrorContext(ctx, "a linked patient cannot be decrypted, and is not refreshed: restore the row from a copy of the database",
			"error", why)
	}
	return ref, nil
}

// readFailed turns an error of the eCW client into an activity error that Temporal retries when that may help. The wait
// for eCW's limit is the workflow's.
func readFailed(err error) error {
	var e *ecw.Error
	if !errors.As(err, &e) {
		return err
	}
	f := failureOf(err)
	if f.Class == ecw.ClassRetryable {
		return retryable(f)
	}
	return failure(f)
}

func unusable(message string) error {
	return failure(Failure{Class: ecw.ClassPermanentData, Code: "invalid_patient", Message: message})
}
