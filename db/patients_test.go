package db_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring"
)

// somebody is a patient with a value that can be looked for in each field.
func somebody(mrn, ecwID string) db.CreatePatientParams {
	gender := "female"
	return db.CreatePatientParams{
		PracticeCode: "FFHEDD",
		Demographics: db.Demographics{
			FirstName:    "Jacaranda",
			LastName:     "Quillfeather",
			DateOfBirth:  time.Date(1957, 3, 21, 0, 0, 0, 0, time.UTC),
			Gender:       &gender,
			MRN:          mrn,
			ExternalID:   &ecwID,
			Phone:        "555-0142",
			Email:        "jacaranda@quill.example",
			AddressLine1: "Featherlane 12",
			AddressLine2: "Backyard",
			City:         "Quilltown",
			State:        "MA",
			Zip:          "01581",
		},
		Active: true,
	}
}

// stored creates a patient.
func stored(t *testing.T, store *db.Store, p db.CreatePatientParams) db.Patient {
	t.Helper()
	created, err := store.CreatePatient(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return created
}

func execSQL(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%v: %s", err, sql)
	}
}

// What is stored of a patient is read again as it was.
func TestAPatientIsReadAsStored(t *testing.T) {
	t.Parallel()
	store, _ := migrated(t)
	for _, p := range []db.CreatePatientParams{
		somebody("MRN-1", "ecw-1"),
		{PracticeCode: "FFHEDD", Demographics: db.Demographics{FirstName: "Zoé <&>", LastName: "\u2028Ñandú\\u0000", MRN: `"`}},
	} {
		created := stored(t, store, p)
		read, err := store.GetPatient(t.Context(), db.GetPatientParams{PracticeCode: "FFHEDD", ID: created.ID})
		if err != nil {
			t.Fatal(err)
		}
		for _, got := range []db.Patient{created, read} {
			if d := got.Demographics; d.FirstName != p.FirstName || d.LastName != p.LastName || d.MRN != p.MRN || d.Zip != p.Zip ||
				!d.DateOfBirth.Equal(p.DateOfBirth) || (d.ExternalID == nil) != (p.ExternalID == nil) || (got.ArchivedAt == nil) != p.Active {
				t.Errorf("got %+v, want %+v", got, p)
			}
		}
	}

	for name, broken := range map[string]func(*db.Demographics){
		"no name":         func(d *db.Demographics) { d.LastName = "" },
		"no MRN":          func(d *db.Demographics) { d.MRN = "" },
		"NUL":             func(d *db.Demographics) { d.City = "a\x00b" },
		"no gender of it": func(d *db.Demographics) { d.Gender = new("f") },
		"empty id":        func(d *db.Demographics) { d.ExternalID = new("") },
	} {
		p := somebody("MRN-"+name, "ecw-"+name)
		broken(&p.Demographics)
		if _, err := store.CreatePatient(t.Context(), p); err == nil || strings.Contains(err.Error(), "Quill") {
			t.Errorf("%s: %v, want it refused without a value", name, err)
		}
	}
}

// A ciphertext opens in its own row only.
func TestExchangedPatientsAreNotRead(t *testing.T) {
	t.Parallel()
	for _, exchange := range []struct {
		table, column string
		read          func(*db.Store, db.Patient) error
	}{
		{"patients", "demographics", func(s *db.Store, p db.Patient) error {
			_, err := s.GetPatient(t.Context(), db.GetPatientParams{PracticeCode: "FFHEDD", ID: p.ID})
			return err
		}},
		{"patients", "demographics", func(s *db.Store, p db.Patient) error {
			_, _, err := s.ListPatients(t.Context(), db.PatientFilter{PracticeCode: "FFHEDD"}, db.ByLastName, false, db.Page[db.PatientKey]{Limit: 9})
			return err
		}},
		{"patient_charts", "ecw_patient_id", func(s *db.Store, p db.Patient) error {
			_, err := s.ListCharts(t.Context(), p.ID)
			return err
		}},
		{"patient_import_items", "ecw_fhir_id", func(s *db.Store, p db.Patient) error {
			created, err := s.CreateImport(t.Context(), db.CreateImportParams{PracticeCode: "FFHEDD"})
			if err != nil {
				t.Fatal(err)
			}
			items := db.AddImportItemsParams{PracticeCode: "FFHEDD", ImportID: created.ID, ECWFHIRIDs: []string{"a", "b"}}
			if err := s.AddImportItems(t.Context(), items); err != nil {
				t.Fatal(err)
			}
			const swap = `
UPDATE patient_import_items i
SET ecw_fhir_id = other.ecw_fhir_id
FROM patient_import_items other
WHERE other.ordinal = 3 - i.ordinal`
			if _, err := s.Pool().Exec(t.Context(), swap); err != nil {
				t.Fatal(err)
			}
			_, err = s.GetImportItem(t.Context(), db.GetImportItemParams{ImportID: created.ID, Ordinal: 1})
			return err
		}},
	} {
		store, conn := migrated(t)
		first := stored(t, store, somebody("MRN-1", "ecw-1"))
		stored(t, store, somebody("MRN-2", "ecw-2"))
		execSQL(t, conn, "UPDATE patient_charts SET sent_to = true")
		if exchange.table != "patient_import_items" {
			execSQL(t, conn, "UPDATE "+exchange.table+" a SET "+exchange.column+" = b."+exchange.column+" FROM "+exchange.table+" b WHERE a.id <> b.id")
		}
		err := exchange.read(store, first)
		if !errors.Is(err, keyring.ErrCorrupt) || !strings.Contains(err.Error(), exchange.table+"."+exchange.column) {
			t.Errorf("%s: %v, want it refused", exchange.table, err)
		}
	}
}

// A missing key is named, and nothing is read without it.
func TestAMissingKeyOfPatientsIsNamed(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	old := generated(t)
	_, used, retired := rotated(t, old, keyring.Columns)
	p := stored(t, v.with(old), somebody("MRN-1", "ecw-1"))

	read := func(s *db.Store) error {
		_, err := s.GetPatient(t.Context(), db.GetPatientParams{PracticeCode: "FFHEDD", ID: p.ID})
		return err
	}
	if err := read(v.with(used)); err != nil {
		t.Errorf("with both keys: %v", err)
	}
	err := read(v.with(retired))
	var missing *keyring.MissingKeyError
	if !errors.As(err, &missing) || missing.ID != keyIn(t, old, keyring.Columns) {
		t.Fatalf("without the old key: %v, want it named", err)
	}
	if said := db.Cause(err); !strings.Contains(said, missing.ID) || !strings.Contains(said, "escrow") {
		t.Errorf("the cause is %q", said)
	}
}

// While the key of the indexes is rotated, some processes have the old key only and others both, and each finds what
// the others have stored. Nobody stores an MRN or an eCW id a second time.
func TestAnMRNIsFoundWhileTheIndexIsRotated(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	content := generated(t)
	known, used, retired := rotated(t, content, keyring.Indexes)
	phases := []*db.Store{v.with(content), v.with(known), v.with(used)}

	var all []db.Patient
	check := func(name string, s *db.Store) {
		t.Helper()
		for _, p := range all {
			findPatient(t, name, s, p)
			for _, again := range []db.CreatePatientParams{
				{PracticeCode: p.PracticeCode, Demographics: p.Demographics},
				somebody(p.MRN, "other"),
				somebody("other", *p.ExternalID),
			} {
				if _, err := s.CreatePatient(t.Context(), again); !db.IsNotFound(err) {
					t.Errorf("%s: a duplicate of %s is stored: %v", name, p.MRN, err)
				}
			}
		}
	}
	for i, s := range phases {
		all = append(all, stored(t, s, somebody(fmt.Sprintf("MRN-%d", i), fmt.Sprintf("ecw-%d", i))))
	}
	for i, s := range phases {
		check(fmt.Sprintf("phase %d", i), s)
	}

	// One of them is relinked to and fro by a process that knows the old key only, which takes its new hashes away.
	moved := all[2]
	moved.ExternalID = new("ecw-moved")
	moved = update(t, phases[0], moved)
	moved.ExternalID = all[2].ExternalID
	if moved = update(t, phases[1], moved); *moved.ChartID != *all[2].ChartID {
		t.Errorf("linked again the chart is %s, was %s", moved.ChartID, all[2].ChartID)
	}

	if _, err := phases[2].Reencrypt(t.Context(), func(int64, int64) {}); err != nil {
		t.Fatal(err)
	}
	check("with the old key and the new one", phases[2])
	check("without the old key", v.with(retired))
	if again := update(t, v.with(retired), all[0]); *again.ChartID != *all[0].ChartID {
		t.Errorf("written under the new key the chart is %s, was %s", again.ChartID, all[0].ChartID)
	}
}

// findPatient wants a patient to be found in each way.
func findPatient(t *testing.T, name string, s *db.Store, p db.Patient) {
	t.Helper()
	byMRN, err := s.FindPatientByMRN(t.Context(), db.FindPatientByMRNParams{PracticeCode: p.PracticeCode, MRN: p.MRN})
	if err != nil || byMRN.ID != p.ID {
		t.Errorf("%s: by %s is found %s, %v", name, p.MRN, byMRN.ID, err)
	}
	byID, err := s.FindLinkedPatient(t.Context(), db.FindLinkedPatientParams{PracticeCode: p.PracticeCode, ExternalID: p.ExternalID})
	if err != nil || byID.ID != p.ID {
		t.Errorf("%s: by %s is found %s, %v", name, *p.ExternalID, byID.ID, err)
	}
	asked := db.ListLinkedIDsParams{PracticeCode: p.PracticeCode, ExternalIDs: []string{"nobody", *p.ExternalID}}
	if linked, err := s.ListLinkedIDs(t.Context(), asked); err != nil || len(linked) != 1 || linked[*p.ExternalID] != p.ID {
		t.Errorf("%s: of a list is found %v, %v", name, linked, err)
	}
}

// update writes a patient again as it is.
func update(t *testing.T, store *db.Store, p db.Patient) (updated db.Patient) {
	t.Helper()
	err := store.InTx(t.Context(), func(q *db.Queries) (err error) {
		if _, err = q.LockPatient(t.Context(), db.LockPatientParams{PracticeCode: p.PracticeCode, ID: p.ID}); err != nil {
			return err
		}
		updated, err = q.UpdatePatient(t.Context(), db.UpdatePatientParams{
			PracticeCode:  p.PracticeCode,
			ID:            p.ID,
			Demographics:  p.Demographics,
			Active:        p.ArchivedAt == nil,
			MismatchSince: p.MismatchSince,
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return updated
}

// A chart is made once for each id of eCW that a patient is linked to, and only those to which something was sent are
// looked in.
func TestChartsOfAPatient(t *testing.T) {
	t.Parallel()
	store, conn := migrated(t)
	p := stored(t, store, somebody("MRN-1", "ecw-1"))
	first := *p.ChartID
	link := func(ecwID *string) {
		t.Helper()
		p.ExternalID = ecwID
		p = update(t, store, p)
	}

	link(new("ecw-2"))
	second := *p.ChartID
	link(nil)
	if p.ChartID != nil {
		t.Errorf("without a link the chart is %s", p.ChartID)
	}
	link(new("ecw-1"))
	if *p.ChartID != first || second == first || count(t, conn, "patient_charts") != 2 {
		t.Errorf("linked again the chart is %s, was %s; there are %d", p.ChartID, first, count(t, conn, "patient_charts"))
	}

	o, err := store.CreateObservation(t.Context(), db.CreateObservationParams{
		ID:              uuid.New(),
		PracticeCode:    "FFHEDD",
		PatientID:       p.ID,
		ObservationType: "weight",
		EffectiveAt:     time.Now(),
		Measured:        json.RawMessage(`{}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	sent := transmission(t, store, db.Observation(o))
	start := db.StartAttemptParams{TransmissionID: sent.ID, ObservationID: o.ID, Delivery: 1, Number: 1, StartedAt: time.Now()}
	if err := db.Written(store.StartAttempt(t.Context(), start)); err != nil {
		t.Fatal(err)
	}
	mark := db.MarkSentParams{TransmissionID: sent.ID, ObservationID: o.ID, Delivery: 1, SentAt: time.Now(), ChartID: second}
	if err := db.Written(store.MarkSent(t.Context(), mark)); !errors.Is(err, db.ErrForgotten) {
		t.Errorf("sent into a former chart: error %v", err)
	}
	link(new("ecw-2"))
	if err := db.Written(store.MarkSent(t.Context(), mark)); err != nil {
		t.Fatal(err)
	}
	link(new("ecw-1"))
	charts, err := store.ListCharts(t.Context(), p.ID)
	if err != nil || len(charts) != 1 || charts[0] != (db.Chart{ID: second, ECWPatientID: "ecw-2"}) {
		t.Errorf("the charts are %+v, %v", charts, err)
	}
	earlier, err := store.EarlierSends(t.Context(), o.ID)
	if err != nil || len(earlier) != 1 || *earlier[0].ECWPatientID != "ecw-2" {
		t.Errorf("the sends are %+v, %v", earlier, err)
	}
}

// The daily refresh takes every linked patient once who is not archived, and an import an id once that is given twice.
func TestImportItemsAreOnce(t *testing.T) {
	t.Parallel()
	store, conn := migrated(t)
	patients := manyPatients(2_500)
	if err := store.InsertPatients(t.Context(), patients); err != nil {
		t.Fatal(err)
	}
	execSQL(t, conn, "UPDATE patients SET archived_at = now() WHERE id = $1", patients[7].ID)
	stored(t, store, db.CreatePatientParams{
		PracticeCode: thePractice,
		Demographics: db.Demographics{FirstName: "Not", LastName: "Linked", MRN: "MRN"},
	})

	refresh, err := store.CreateImport(t.Context(), db.CreateImportParams{PracticeCode: thePractice, Refresh: true})
	if err != nil {
		t.Fatal(err)
	}
	linked := db.AddLinkedPatientsParams{PracticeCode: thePractice, ImportID: refresh.ID}
	if _, err := store.AddLinkedPatients(t.Context(), linked); err != nil {
		t.Fatal(err)
	}
	ordinals := make([]int32, 3_000)
	for i := range ordinals {
		ordinals[i] = int32(i + 1)
	}
	items, err := store.ListOpenImportItems(t.Context(), db.ListOpenImportItemsParams{ImportID: refresh.ID, Ordinals: ordinals})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, item := range items {
		seen[item.ECWFHIRID] = true
	}
	if len(items) != 2_499 || len(seen) != 2_499 || seen[*patients[7].ExternalID] {
		t.Errorf("the refresh has %d items of %d patients", len(items), len(seen))
	}

	asked, err := store.CreateImport(t.Context(), db.CreateImportParams{PracticeCode: thePractice})
	if err != nil {
		t.Fatal(err)
	}
	twice := db.AddImportItemsParams{PracticeCode: thePractice, ImportID: asked.ID, ECWFHIRIDs: []string{"a", "b", "a", "c"}}
	if err := store.AddImportItems(t.Context(), twice); err != nil {
		t.Fatal(err)
	}
	items, err = store.ListOpenImportItems(t.Context(), db.ListOpenImportItemsParams{ImportID: asked.ID, Ordinals: ordinals})
	want := []db.ListOpenImportItemsRow{{1, "a"}, {2, "b"}, {4, "c"}}
	if err != nil || len(items) != 3 || items[0] != want[0] || items[1] != want[1] || items[2] != want[2] {
		t.Errorf("the items are %+v, %v, want %+v", items, err, want)
	}
}

// plainDatabase is a used database of migration 10: two patients, one of whom was linked elsewhere before, a delivered
// reading in the former chart, and an import.
const plainDatabase = `
INSERT INTO patients (id, practice_code, first_name, last_name, date_of_birth, gender, mrn, external_id, phone, email, address_line1,
                      address_line2, city, state, zip, mismatch_confirmed, archived_at)
VALUES ('00000000-0000-4000-8000-000000000001', 'FFHEDD', 'Jacaranda', 'Quillfeather', '1957-03-21', 'female', 'MRN-77341', 'ecw-present-1',
        '555-0142', 'jacaranda@quill.example', 'Featherlane 12', 'Backyard', 'Quilltown', 'MA', '01581', 'fingerprint-1', NULL),
       ('00000000-0000-4000-8000-000000000002', 'FFHEDD', 'Unlinkedia', 'Quillfeather', '1957-03-22', NULL, 'MRN-77342', NULL,
        '', '', '', '', '', '', '', NULL, now());
INSERT INTO observations (id, practice_code, patient_id, observation_type, effective_at, device, measured)
VALUES ('00000000-0000-4000-8000-000000000003', 'FFHEDD', '00000000-0000-4000-8000-000000000001', 'weight', now(), '', '{}');
INSERT INTO transmissions (id, number, practice_code, observation_id, status, max_attempts, ecw_observation_id, ecw_patient_id)
VALUES ('00000000-0000-4000-8000-000000000004', 'TXN-2026-00001', 'FFHEDD', '00000000-0000-4000-8000-000000000003', 'transmitted', 6,
        'obs-1', 'ecw-former-1');
INSERT INTO transmission_attempts (transmission_id, delivery, number, started_at, sent_at, ecw_patient_id)
VALUES ('00000000-0000-4000-8000-000000000004', 1, 1, now(), now(), 'ecw-former-1'),
       ('00000000-0000-4000-8000-000000000004', 2, 2, now(), NULL, NULL);
INSERT INTO patient_charts (patient_id, ecw_patient_id) VALUES ('00000000-0000-4000-8000-000000000001', 'ecw-former-1');
INSERT INTO patient_imports (id, practice_code) VALUES ('00000000-0000-4000-8000-000000000005', 'FFHEDD');
INSERT INTO patient_import_items (import_id, ordinal, ecw_fhir_id)
SELECT '00000000-0000-4000-8000-000000000005', n, 'ecw-item-' || n FROM generate_series(1, 2500) n`

// A used database is sealed by a migration: everything is read as before, and nothing is left in clear.
func TestAUsedDatabaseIsSealed(t *testing.T) {
	t.Parallel()
	store, conn := open(t)
	if _, err := store.MigrateTo(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	execSQL(t, conn, plainDatabase)
	if !bytes.Contains(dump(t, conn), []byte("Quillfeather")) {
		t.Fatal("the dump of the plain database holds no name: the test looks at the wrong thing")
	}
	if _, err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}

	jane := uuid.MustParse("00000000-0000-4000-8000-000000000001")
	p, err := store.FindPatientByMRN(t.Context(), db.FindPatientByMRNParams{PracticeCode: "FFHEDD", MRN: "MRN-77341"})
	if err != nil {
		t.Fatal(err)
	}
	want := somebody("MRN-77341", "ecw-present-1").Demographics
	if d := p.Demographics; p.ID != jane || d.FirstName != want.FirstName || d.LastName != want.LastName || !d.DateOfBirth.Equal(want.DateOfBirth) ||
		*d.Gender != *want.Gender || d.Phone != want.Phone || d.Email != want.Email || d.AddressLine1 != want.AddressLine1 ||
		d.AddressLine2 != want.AddressLine2 || d.City != want.City || d.State != want.State || d.Zip != want.Zip ||
		*d.ExternalID != *want.ExternalID || *d.MismatchConfirmed != "fingerprint-1" {
		t.Errorf("the patient is %+v", p)
	}
	second, err := store.FindPatientByMRN(t.Context(), db.FindPatientByMRNParams{PracticeCode: "FFHEDD", MRN: "MRN-77342"})
	if err != nil || second.ExternalID != nil || second.ChartID != nil || second.Gender != nil || second.ArchivedAt == nil {
		t.Errorf("the second patient is %+v, %v", second, err)
	}
	for _, taken := range []db.CreatePatientParams{somebody("MRN-77341", "other"), somebody("other", "ecw-present-1")} {
		if _, err := store.CreatePatient(t.Context(), taken); !db.IsNotFound(err) {
			t.Errorf("a duplicate is stored: %v", err)
		}
	}

	charts, err := store.ListCharts(t.Context(), jane)
	if err != nil || len(charts) != 1 || charts[0].ECWPatientID != "ecw-former-1" || charts[0].ID == *p.ChartID {
		t.Errorf("the charts are %+v, %v", charts, err)
	}
	filter := db.TransmissionFilter{PracticeCode: "FFHEDD", FormerChart: true}
	log, _, err := store.ListTransmissions(t.Context(), filter, db.ByCreation, true, db.Page[db.TransmissionKey]{Limit: 5})
	if err != nil || len(log) != 1 || *log[0].ECWPatientID != "ecw-former-1" || log[0].PatientName != "Jacaranda Quillfeather" {
		t.Errorf("in a former chart are %+v, %v", log, err)
	}
	earlier, err := store.EarlierSends(t.Context(), log[0].Transmission.ObservationID)
	if err != nil || len(earlier) != 1 || *earlier[0].ECWPatientID != "ecw-former-1" {
		t.Errorf("the sends are %+v, %v", earlier, err)
	}
	item := db.GetImportItemParams{ImportID: uuid.MustParse("00000000-0000-4000-8000-000000000005"), Ordinal: 2_500}
	if id, err := store.GetImportItem(t.Context(), item); err != nil || id != "ecw-item-2500" {
		t.Errorf("the import's item is %q, %v", id, err)
	}

	written := dump(t, conn)
	for _, canary := range []string{"Jacaranda", "Unlinkedia", "Quill", "1957-03", "555-0142", "Feather", "Backyard", "MRN-7734",
		"fingerprint", "ecw-present", "ecw-former", "ecw-item"} {
		if bytes.Contains(written, []byte(canary)) || bytes.Contains(written, []byte(hex.EncodeToString([]byte(canary)))) {
			t.Errorf("the dump holds %s", canary)
		}
	}
}

// dump returns what a dump of the database holds, and the files of its tables.
func dump(t *testing.T, conn *pgx.Conn) []byte {
	t.Helper()
	execSQL(t, conn, "CHECKPOINT")
	rows, err := conn.Query(t.Context(), `
SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1`) // partitions, not their parents
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}

	var written bytes.Buffer
	for _, table := range tables {
		if _, err := conn.PgConn().CopyTo(t.Context(), &written, "COPY "+table+" TO STDOUT"); err != nil {
			t.Fatal(err)
		}
		var file []byte
		if err := conn.QueryRow(t.Context(), "SELECT pg_read_binary_file(pg_relation_filepath($1::regclass))", table).Scan(&file); err != nil {
			t.Fatal(err)
		}
		written.Write(file)
	}
	return written.Bytes()
}

// A patient whose row does not open is named, and keeps nobody else from being refreshed. A missing key is another matter:
// then nobody is added, and the refresh waits for the key.
func TestTheRefreshPassesByWhoDoesNotOpen(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	content := generated(t)
	store := v.with(content)
	stored(t, store, somebody("MRN-1", "ecw-1"))
	broken := stored(t, store, somebody("MRN-2", "ecw-2"))
	v.exec("UPDATE patients SET demographics = demographics || '\\x00' WHERE id = $1", broken.ID)

	add := func(s *db.Store) (db.AddLinkedPatientsParams, []error, error) {
		created, err := s.CreateImport(t.Context(), db.CreateImportParams{PracticeCode: thePractice, Refresh: true})
		if err != nil {
			t.Fatal(err)
		}
		refresh := db.AddLinkedPatientsParams{PracticeCode: thePractice, ImportID: created.ID}
		unopened, err := s.AddLinkedPatients(t.Context(), refresh)
		return refresh, unopened, err
	}
	refresh, unopened, err := add(store)
	if err != nil || len(unopened) != 1 || !strings.Contains(unopened[0].Error(), broken.ID.String()) {
		t.Errorf("not opened are %v, %v", unopened, err)
	}
	if n := v.number("SELECT count(*) FROM patient_import_items WHERE import_id = $1", refresh.ImportID); n != 1 {
		t.Errorf("%d patients are refreshed, want 1", n)
	}

	_, _, retired := rotated(t, content, keyring.Columns)
	var missing *keyring.MissingKeyError
	if _, _, err := add(v.with(retired)); !errors.As(err, &missing) {
		t.Errorf("without the key: %v", err)
	}
}
