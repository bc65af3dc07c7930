package api

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/fhir"
)

// address is a postal address; every part may be empty.
type address struct {
	Line1 string `json:"line1"`
	Line2 string `json:"line2"`
	City  string `json:"city"`
	State string `json:"state"`
	Zip   string `json:"zip"`
}

// patientFields are the fields of a patient that a caller may set.
type patientFields struct {
	FirstName   string `json:"first_name"`
	LastName    string `json:"last_name"`
	DateOfBirth string `json:"date_of_birth"`
	// Gender is one of FHIR's administrative genders; null or empty means not known.
	Gender *string `json:"gender"`
	MRN    string  `json:"mrn"`
	// ExternalID links the patient to eCW; null or empty means not linked.
	ExternalID *string `json:"external_id"`
	Phone      string  `json:"phone"`
	Email      string  `json:"email"`
	Address    address `json:"address"`
	// Active is false while the patient is archived.
	Active bool `json:"active"`
}

// patientRequest is the body that creates or changes a patient.
type patientRequest struct {
	patientFields
	// ConfirmMismatch says that eCW's patient is this one although the names or the birth dates differ.
	ConfirmMismatch bool `json:"confirm_mismatch"`
}

// patient is a patient as the API shows it.
type patient struct {
	ID uuid.UUID `json:"id"`
	patientFields
	ArchivedAt *time.Time `json:"archived_at"`
	// HeldReadings is how many readings wait until the patient is unarchived.
	HeldReadings int64 `json:"held_readings"`
	// MismatchSince is when eCW began to show another person under ExternalID; null when it does not.
	MismatchSince *time.Time `json:"mismatch_since"`
	CreatedAt     time.Time  `json:"created_at"`
	UpdatedAt     time.Time  `json:"updated_at"`
}

func (s *server) createPatient(c echo.Context) error {
	ctx := c.Request().Context()
	req := patientRequest{patientFields: patientFields{Active: true}}
	if err := bind(c, &req); err != nil {
		return err
	}

	dateOfBirth, err := req.check("")
	if err != nil {
		return err
	}
	if req.MRN == "" {
		req.MRN = makeMRN()
	}

	if err := s.checkIdentities(ctx, s.Store.Queries, uuid.Nil, req.patientFields); err != nil {
		return s.naming(c, audit.PatientCreate, err)
	}

	var confirmed *string
	var differ []string
	if req.ExternalID != nil {
		asking, cancel := context.WithTimeout(ctx, linkTimeout)
		defer cancel()
		shown, err := s.readIdentity(asking, *req.ExternalID)
		if err != nil {
			return err
		}
		if confirmed, differ, err = req.judge(shown); err != nil {
			return err
		}
	}

	var row db.Patient
	err = s.Store.InTx(ctx, func(q *db.Queries) (err error) {
		row, err = q.CreatePatient(ctx, db.CreatePatientParams{
			PracticeCode: s.PracticeCode,
			Demographics: req.demographics(dateOfBirth, confirmed),
			Active:       req.Active,
		})
		if err != nil {
			return err
		}
		return audit.Record(ctx, q, s.patientEvent(c, audit.PatientCreate, row.ID, reasonOf(differ)))
	})
	if db.IsNotFound(err) {
		return s.naming(c, audit.PatientCreate, s.taken(ctx, uuid.Nil, req.patientFields))
	}
	if err != nil {
		return fmt.Errorf("store patient: %w", err)
	}

	s.logConfirmation(c, row.ID, differ)
	setLocation(c, "/api/v1/patients/"+row.ID.String()+"/")
	return c.JSON(http.StatusCreated, showPatient(row, 0))
}

// updatePatient changes the fields that the body names, and leaves the others (RFC 7396). Only external_id and
// gender may be null: the other fields always have a value.
func (s *server) updatePatient(c echo.Context) error {
	ctx := c.Request().Context()
	row, err := s.loadPatient(c)
	if err != nil {
		return err
	}

	change, err := newPatientChange(row, body(c))
	if err != nil {
		return err
	}

	// The patient is not locked while eCW is asked, because eCW may take long. Another request may change the
	// link meanwhile; then eCW is asked again.
	asking, cancel := context.WithTimeout(ctx, linkTimeout)
	defer cancel()

	for range patchTries {
		if err := s.checkIdentities(ctx, s.Store.Queries, row.ID, change.want.patientFields); err != nil {
			return s.naming(c, audit.PatientUpdate, err)
		}

		var shown *shownIdentity
		if change.needsECW() {
			if shown, err = s.readIdentity(asking, *change.want.ExternalID); err != nil {
				return err
			}
		}

		var updated db.Patient
		var differ []string
		err = s.Store.InTx(ctx, func(q *db.Queries) error {
			if change, err = s.lockForChange(ctx, q, row.ID, body(c)); err != nil {
				return err
			}
			if updated, differ, err = s.patchPatient(ctx, q, change, shown); err != nil {
				return err
			}
			return audit.Record(ctx, q, s.patientEvent(c, audit.PatientUpdate, row.ID, reasonOf(differ)))
		})

		switch {
		case errors.Is(err, errRelinked):
			continue
		case db.IsUniqueViolation(err):
			return s.naming(c, audit.PatientUpdate, s.taken(ctx, row.ID, change.want.patientFields))
		case err != nil:
			return s.naming(c, audit.PatientUpdate, err)
		}

		s.logConfirmation(c, row.ID, differ)
		if change.row.ArchivedAt != nil && updated.ArchivedAt == nil {
			s.startHeld(ctx, row.ID)
		}
		return s.answerPatient(c, updated)
	}

	return conflict("patient_changed", "Somebody else is changing the link of patient %s. Nothing was changed. "+
		"Look at the patient, then try again.", row.ID)
}

// patchTries is how often a change is tried when another request changes the link at the same time.
const patchTries = 3

// errRelinked means that another request changed the link while eCW was asked about the former one.
var errRelinked = errors.New("the patient was linked elsewhere meanwhile")

// lockForChange reads the patient and locks the row. Of two requests at the same time, the second waits and
// then changes what the first one stored, so neither undoes the other's fields.
func (s *server) lockForChange(ctx context.Context, q *db.Queries, id uuid.UUID, patch []byte) (patientChange, error) {
	row, err := q.LockPatient(ctx, db.LockPatientParams{PracticeCode: s.PracticeCode, ID: id})
	if db.IsNotFound(err) {
		return patientChange{}, notFound("patient", id.String())
	}
	if err != nil {
		return patientChange{}, fmt.Errorf("load patient: %w", err)
	}
	return newPatientChange(row, patch)
}

// patchPatient writes a change of a patient who is locked. shown is what eCW shows under the id that the
// change wants; nil when eCW was not asked. differ names the fields that differ from it and were confirmed.
func (s *server) patchPatient(ctx context.Context, q *db.Queries, change patientChange, shown *shownIdentity) (
	updated db.Patient, differ []string, err error,
) {
	row, want := change.row, change.want
	if err := s.checkIdentities(ctx, q, row.ID, want.patientFields); err != nil {
		return updated, nil, err
	}

	since, confirmed := row.MismatchSince, row.MismatchConfirmed
	switch {
	case want.ExternalID == nil:
		since, confirmed = nil, nil
	case change.needsECW() && (shown == nil || shown.id != *want.ExternalID):
		return updated, nil, errRelinked
	case change.needsECW():
		since = nil
		if confirmed, differ, err = want.judge(shown); err != nil {
			return updated, nil, err
		}
	}

	updated, err = q.UpdatePatient(ctx, db.UpdatePatientParams{
		PracticeCode:  s.PracticeCode,
		ID:            row.ID,
		Demographics:  want.demographics(change.dateOfBirth, confirmed),
		Active:        want.Active,
		MismatchSince: since,
	})
	if err != nil {
		return updated, nil, fmt.Errorf("store patient: %w", err)
	}
	return updated, differ, nil
}

// demographics are the fields as they are stored. confirmed is the fingerprint of a confirmed mismatch.
func (f *patientFields) demographics(dateOfBirth time.Time, confirmed *string) db.Demographics {
	return db.Demographics{
		FirstName:         f.FirstName,
		LastName:          f.LastName,
		DateOfBirth:       dateOfBirth,
		Gender:            f.Gender,
		MRN:               f.MRN,
		ExternalID:        f.ExternalID,
		Phone:             f.Phone,
		Email:             f.Email,
		AddressLine1:      f.Address.Line1,
		AddressLine2:      f.Address.Line2,
		City:              f.Address.City,
		State:             f.Address.State,
		Zip:               f.Address.Zip,
		MismatchConfirmed: confirmed,
	}
}

// patientChange is a patient as stored, and as a request wants to have it.
type patientChange struct {
	row         db.Patient
	want        patientRequest
	dateOfBirth time.Time // of want
}

func newPatientChange(row db.Patient, patch []byte) (patientChange, error) {
	change := patientChange{row: row, want: patientRequest{patientFields: fieldsOf(row)}}
	// Copies: encoding/json would write through the pointers into the row.
	change.want.ExternalID, change.want.Gender = copyOf(row.ExternalID), copyOf(row.Gender)
	err := unmarshal(patch, &change.want)
	if err == nil {
		err = change.want.clearNulls(patch)
	}
	if err == nil {
		change.dateOfBirth, err = change.want.check(row.MRN)
	}
	return change, err
}

func copyOf(text *string) *string {
	if text == nil {
		return nil
	}
	copied := *text
	return &copied
}

// clearNulls empties the texts that a patch sets to null (RFC 7396), which encoding/json leaves as they are.
func (f *patientFields) clearNulls(patch []byte) error {
	var sent, sentAddress map[string]json.RawMessage
	if err := unmarshal(patch, &sent); err != nil {
		return err
	}
	if part := sent["address"]; isNull(part) {
		f.Address = address{}
	} else if part != nil {
		if err := unmarshal(part, &sentAddress); err != nil {
			return err
		}
	}

	clearNull(sent, map[string]*string{"phone": &f.Phone, "email": &f.Email})
	clearNull(sentAddress, map[string]*string{
		"line1": &f.Address.Line1,
		"line2": &f.Address.Line2,
		"city":  &f.Address.City,
		"state": &f.Address.State,
		"zip":   &f.Address.Zip,
	})
	return nil
}

func clearNull(sent map[string]json.RawMessage, texts map[string]*string) {
	for name, text := range texts {
		if isNull(sent[name]) {
			*text = ""
		}
	}
}

func isNull(value json.RawMessage) bool { return string(value) == "null" }

// needsECW reports whether eCW must be asked who is linked: the change sets the link, changes the name or
// birth date of a linked patient, or confirms a mismatch.
func (p patientChange) needsECW() bool {
	if p.want.ExternalID == nil {
		return false
	}
	stored := fieldsOf(p.row)
	return stored.ExternalID == nil || *stored.ExternalID != *p.want.ExternalID ||
		len(stored.identity().Differences(p.want.identity())) > 0 ||
		p.want.ConfirmMismatch && p.row.MismatchSince != nil
}

// check trims the texts, and checks what a schema cannot. ownMRN is the MRN that the patient has.
func (f *patientFields) check(ownMRN string) (dateOfBirth time.Time, err error) {
	a := &f.Address
	for _, text := range []*string{&f.FirstName, &f.LastName, &f.MRN, &f.Phone, &f.Email, &a.Line1, &a.Line2, &a.City, &a.State, &a.Zip} {
		*text = strings.TrimSpace(*text)
	}
	for _, text := range []**string{&f.ExternalID, &f.Gender} {
		if *text != nil && **text == "" {
			*text = nil
		}
	}

	var b broken
	dateOfBirth, err = time.Parse(time.DateOnly, f.DateOfBirth)
	if err != nil || dateOfBirth.After(time.Now()) || dateOfBirth.Year() < 1850 {
		b.add("date_of_birth", "is not a past date such as 1957-03-21")
	}
	if fhir.IsMadeMRN(f.MRN) && f.MRN != ownMRN {
		b.add("mrn", "begins with %s, as only the MRNs do that are made here: send the practice's own number, or leave mrn out",
			fhir.MadeMRNPrefix)
	}
	if f.Email != "" && !fhir.IsEmail(f.Email) {
		b.add("email", "is not an e-mail address such as jane.doe@example.com: it has one @, and no space or hidden character")
	}
	return dateOfBirth, b.err()
}

// makeMRN makes the MRN of a patient for whom none was given: VTX- and two groups of five letters and digits,
// without those that are easily misread. It is random, because a database that was restored from a backup would
// give the numbers of a sequence out again.
func makeMRN() string {
	text := rand.Text() // 26 characters of base32, which has no 0, 1, 8 and 9
	return fhir.MadeMRNPrefix + text[:5] + "-" + text[5:10]
}

// checkIdentities refuses an MRN or an eCW id that another patient has. self is the id of the patient to
// change, or zero.
func (s *server) checkIdentities(ctx context.Context, q *db.Queries, self uuid.UUID, fields patientFields) error {
	holder, err := q.FindPatientByMRN(ctx, db.FindPatientByMRNParams{PracticeCode: s.PracticeCode, MRN: fields.MRN})
	if refused := held("mrn", self, holder.ID, err); refused != nil || fields.ExternalID == nil {
		return refused
	}
	holder, err = q.FindLinkedPatient(ctx, db.FindLinkedPatientParams{PracticeCode: s.PracticeCode, ExternalID: fields.ExternalID})
	return held("external_id", self, holder.ID, err)
}

// held returns an error when the search for the patient with a field has found somebody else.
func held(field string, self, holder uuid.UUID, err error) error {
	switch {
	case db.IsNotFound(err) || err == nil && holder == self:
		return nil
	case err != nil:
		return fmt.Errorf("find the patient with the same %s: %w", field, err)
	}
	refused := conflict("patient_exists", "Patient %s has this %s already: change that patient instead.", holder, field)
	refused.holder = holder
	return refused
}

// naming writes the row of an answer that names a patient: who has an MRN is told to whoever sends it. It returns what is
// to be answered.
func (s *server) naming(c echo.Context, action audit.Action, err error) error {
	var refused *Error
	if !errors.As(err, &refused) || refused.holder == uuid.Nil {
		return err
	}
	e := s.patientEvent(c, action, refused.holder, refused.Code)
	e.Outcome = audit.Failure
	if failed := audit.RecordNow(c.Request().Context(), s.Store, e); failed != nil {
		return failed
	}
	return err
}

// taken explains a write that the database refused: another patient with the MRN or the eCW id was stored
// since checkIdentities looked.
func (s *server) taken(ctx context.Context, self uuid.UUID, fields patientFields) error {
	if err := s.checkIdentities(ctx, s.Store.Queries, self, fields); err != nil {
		return err
	}
	return conflict("patient_exists", "Another patient had this mrn or external_id a moment ago: send the request again.")
}

func (s *server) getPatient(c echo.Context) error {
	row, err := s.loadPatient(c)
	if err != nil {
		return err
	}
	if err := s.showing(c, s.patientEvent(c, audit.PatientRead, row.ID, "")); err != nil {
		return err
	}
	return s.answerPatient(c, row)
}

// patientEvent is the row of something that concerns one patient.
func (s *server) patientEvent(c echo.Context, action audit.Action, id uuid.UUID, reason string) audit.Event {
	e := s.eventOf(callerOf(c), action, patientResource, textOf(id), id)
	e.Reason = reason
	return e
}

// reasonOf is the reason of a change with which a person confirmed a mismatch in some fields.
func reasonOf(differ []string) string {
	if len(differ) > 0 {
		return "mismatch_confirmed"
	}
	return ""
}

// answerPatient answers with a patient who is stored. The audit trail knows of it already.
func (s *server) answerPatient(c echo.Context, row db.Patient) error {
	held, err := s.heldReadings(c.Request().Context(), []db.Patient{row})
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, showPatient(row, held[row.ID]))
}

func (s *server) loadPatient(c echo.Context) (db.Patient, error) {
	id := idParam(c)
	row, err := s.Store.GetPatient(c.Request().Context(), db.GetPatientParams{PracticeCode: s.PracticeCode, ID: id})
	if db.IsNotFound(err) {
		return row, notFound("patient", id.String())
	}
	if err != nil {
		return row, fmt.Errorf("load patient: %w", err)
	}
	return row, nil
}

// patientQuery says which patients a list shows, and in which order; nil and empty fields leave that open.
type patientQuery struct {
	Search     *string
	MRN        *string
	ExternalID *string
	Active     *bool
	Mismatch   *bool
	Ordering   string
}

func (s *server) listPatients(c echo.Context) error {
	return s.answerPatients(c, patientQuery{
		Search:     queryText(c, "search"),
		MRN:        queryText(c, "mrn"),
		ExternalID: queryText(c, "external_id"),
		Active:     queryBool(c, "active"),
		Mismatch:   queryBool(c, "mismatch"),
		Ordering:   parameter(c, "ordering"),
	})
}

// answerPatients answers with a page of the patients that a query asks for.
func (s *server) answerPatients(c echo.Context, query patientQuery) error {
	ordering := cmp.Or(query.Ordering, string(db.ByLastName))
	p, err := queryListPage[db.PatientKey](c, "patients "+ordering)
	if err != nil {
		return err
	}

	ctx := c.Request().Context()
	filter := db.PatientFilter{
		PracticeCode: s.PracticeCode,
		Search:       query.Search,
		MRN:          query.MRN,
		ExternalID:   query.ExternalID,
		Active:       query.Active,
		Mismatch:     query.Mismatch,
	}
	column, descending := strings.CutPrefix(ordering, "-")
	rows, count, err := s.Store.ListPatients(ctx, filter, db.PatientOrder(column), descending, p.Page)
	if err != nil {
		return fmt.Errorf("list patients: %w", err)
	}

	held, err := s.heldReadings(ctx, rows)
	if err != nil {
		return err
	}

	show := func(row db.Patient) patient { return showPatient(row, held[row.ID]) }
	answer, err := newList(c, p, count, rows, show, db.Patient.Key)
	if err != nil {
		return err
	}

	ids := make([]uuid.UUID, len(answer.Results))
	for i, shown := range answer.Results {
		ids[i] = shown.ID
	}
	if err := s.showing(c, s.eventOf(callerOf(c), audit.PatientSearch, patientResource, textOf(ids...), ids...)); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, answer)
}

// heldReadings returns how many readings wait until the patient is unarchived, of each patient who has any.
func (s *server) heldReadings(ctx context.Context, patients []db.Patient) (map[uuid.UUID]int64, error) {
	var archived []uuid.UUID
	for _, p := range patients {
		if p.ArchivedAt != nil {
			archived = append(archived, p.ID)
		}
	}
	if len(archived) == 0 {
		return nil, nil
	}

	rows, err := s.Store.CountHeldReadings(ctx, db.CountHeldReadingsParams{PracticeCode: s.PracticeCode, PatientIDs: archived})
	if err != nil {
		return nil, fmt.Errorf("count held readings: %w", err)
	}
	held := make(map[uuid.UUID]int64, len(rows))
	for _, row := range rows {
		held[row.PatientID] = row.Held
	}
	return held, nil
}

// showPatient shows a patient; held is how many readings wait until the patient is unarchived.
func showPatient(p db.Patient, held int64) patient {
	return patient{
		ID:            p.ID,
		patientFields: fieldsOf(p),
		ArchivedAt:    p.ArchivedAt,
		HeldReadings:  held,
		MismatchSince: p.MismatchSince,
		CreatedAt:     p.CreatedAt,
		UpdatedAt:     p.UpdatedAt,
	}
}

func fieldsOf(p db.Patient) patientFields {
	return patientFields{
		FirstName:   p.FirstName,
		LastName:    p.LastName,
		DateOfBirth: p.DateOfBirth.Format(time.DateOnly),
		Gender:      p.Gender,
		MRN:         p.MRN,
		ExternalID:  p.ExternalID,
		Phone:       p.Phone,
		Email:       p.Email,
		Active:      p.ArchivedAt == nil,
		Address: address{
			Line1: p.AddressLine1,
			Line2: p.AddressLine2,
			City:  p.City,
			State: p.State,
			Zip:   p.Zip,
		},
	}
}
