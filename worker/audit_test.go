package worker_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw/sandbox"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/workflows"
)

// What the rows of one delivery say.
const (
	sent      = "observation.send success"
	delivered = "observation.delivered success"
)

// audited lists what the audit trail says about a resource, the oldest first, and checks what is the same in all of its rows.
func (r *rig) audited(resourceType, id string, patient uuid.UUID) (said []string) {
	r.t.Helper()
	rows := must(r.sql.Query(r.t.Context(), `
		SELECT practice_code, subject, resource_type, patient_ids, trim(action || ' ' || outcome || ' ' || reason)
		FROM audit_events
		WHERE resource_ids = ARRAY[$1]
		ORDER BY recorded_at`, id))(r.t)
	defer rows.Close()
	for rows.Next() {
		var of, subject, typ, what string
		var patients []uuid.UUID
		if err := rows.Scan(&of, &subject, &typ, &patients, &what); err != nil {
			r.t.Fatal(err)
		}
		if of != practice || subject != audit.System || typ != resourceType || !slices.Equal(patients, []uuid.UUID{patient}) {
			r.t.Errorf("%s: of practice %s, by %s, about %s of the patients %v", what, of, subject, typ, patients)
		}
		said = append(said, what)
	}
	if err := rows.Err(); err != nil {
		r.t.Fatal(err)
	}
	return said
}

func (r *rig) wantAudited(id uuid.UUID, want ...string) {
	r.t.Helper()
	if got := r.audited("Observation", id.String(), r.patient.ID); !slices.Equal(got, want) {
		r.t.Errorf("the audit trail says %q, want %q", got, want)
	}
}

// wantOneSuccess checks that the audit trail says once that eCW has a reading, and not before that it leaves.
func (r *rig) wantOneSuccess(id uuid.UUID) {
	r.t.Helper()
	said := r.audited("Observation", id.String(), r.patient.ID)
	arrived := slices.DeleteFunc(slices.Clone(said), func(what string) bool { return what != delivered })
	if len(arrived) != 1 || said[0] != sent || said[len(said)-1] != delivered {
		r.t.Errorf("the audit trail says %q, want that it was sent, and once that it was delivered", said)
	}
}

// wantTrail checks that the whole audit trail is as it was written.
func (r *rig) wantTrail() {
	r.t.Helper()
	sealer := audit.Sealer{Store: r.store, Keys: r.keys, PracticeCode: practice, Logger: r.log}
	must(sealer.Seal(r.t.Context()))(r.t)
	report := must(audit.Verify(r.t.Context(), r.store, r.keys, practice, nil))(r.t)
	for _, finding := range report.Findings {
		r.t.Error(finding)
	}
}

// blockAudit has the database refuse rows of one action, until the returned function is called.
func (r *rig) blockAudit(action audit.Action) (unblock func()) {
	r.t.Helper()
	r.exec("ALTER TABLE audit_events ADD CONSTRAINT blocked CHECK (action <> '" + string(action) + "') NOT VALID")
	return func() {
		r.t.Helper()
		r.exec("ALTER TABLE audit_events DROP CONSTRAINT blocked")
	}
}

// ways are how a first delivery begins.
func ways() map[string]func(*rig) {
	return map[string]func(*rig){
		"with a pass":     func(r *rig) { r.authenticate(); r.manyPlaces() },
		"asking the gate": func(r *rig) { r.authenticate(); r.onePlace() },
		"step by step":    func(*rig) {},
	}
}

func TestADeliveryHasARowWhenItLeavesAndOneWhenItArrives(t *testing.T) {
	t.Parallel()
	for name, prepare := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{})
			prepare(r)
			id := r.storeReading(fhir.BloodPressure, bloodPressure)
			r.mustDeliver(r.start(id))
			r.wantAudited(id, sent, delivered)
			r.wantTrail()
		})
	}
}

// Each delivery of a reading has its rows, one that only found an earlier one has its outcome.
func TestEachDeliveryOfAReadingIsAudited(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fault string
		want  []string
	}{
		"it is refused, and sent again":  {"error_503", []string{sent, "observation.delivered failure unknown/transient", sent, delivered}},
		"it arrived, and is found there": {"reset_after", []string{sent, "observation.delivered failure unknown/reset", delivered}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{ignoreIfNoneExist: true, delays: soon()})
			r.breakEHR(fault{Kind: test.fault, Target: "create", Count: 1})
			id := r.storeReading(fhir.BloodPressure, bloodPressure)
			r.mustDeliver(r.start(id))
			r.wantAudited(id, test.want...)
			r.wantTrail()
		})
	}
}

func TestWhatEndsWithoutADeliveryIsAudited(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.breakEHR(fault{Kind: "error_503", Target: "create"})
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(id)
	r.awaitRetry(id)
	r.cancel(id)
	r.mustFail(run, workflows.ClassCancelled)
	r.wantAudited(id, sent, "observation.delivered failure unknown/transient", "observation.delivered failure cancelled/cancelled")
}

// Record runs again when nobody knows whether it has written.
func TestAnOutcomeThatIsRecordedTwiceHasOneRow(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		query string
		fault fault
		want  []string
	}{
		"a success": {query: "RecordOutcome", want: []string{sent, delivered}},
		"a failure": {
			query: "RecordOutcome",
			fault: fault{Kind: "error_503", Target: "create", Count: 1},
			want:  []string{sent, "observation.delivered failure unknown/transient", sent, delivered},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{idle: true, delays: soon()})
			cut := r.cutAnswer(test.query, "commit")
			r.worker = r.startWorker(r.temporal)
			if test.fault.Kind != "" {
				r.breakEHR(test.fault)
			}
			id := r.storeReading(fhir.BloodPressure, bloodPressure)
			r.mustDeliver(r.start(id))
			if !cut.Load() {
				t.Fatal("no answer was lost")
			}
			r.wantAudited(id, test.want...)
			r.wantTrail()
		})
	}
}

// What cannot be written into the audit trail does not leave, and is not lost.
func TestNothingLeavesWhatTheAuditTrailDoesNotTake(t *testing.T) {
	t.Parallel()
	for name, prepare := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{})
			prepare(r)
			unblock := r.blockAudit(audit.ObservationSend)
			id := r.storeReading(fhir.BloodPressure, bloodPressure)
			run := r.start(id)
			eventually(t, "Post to fail", func() bool { return strings.Contains(r.rawHistory(run), "mark the delivery as sent") })
			if received, _ := r.creates(id); received != 0 {
				t.Errorf("it was sent %d times", received)
			}
			if row := r.transmission(id); row.Status == db.StatusTransmitted {
				t.Errorf("recorded as %+v", row)
			}

			unblock()
			r.transmitNow(id)
			r.mustDeliver(run)
			r.wantOnce(id)
			r.wantAudited(id, sent, delivered)
		})
	}
}

// eCW has the reading, and that cannot be written into the audit trail: it is written later, and nothing is sent again.
func TestAnOutcomeThatTheAuditTrailDoesNotTakeIsRecordedLater(t *testing.T) {
	t.Parallel()
	for name, prepare := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{ignoreIfNoneExist: true})
			prepare(r)
			unblock := r.blockAudit(audit.ObservationDelivered)
			id := r.storeReading(fhir.BloodPressure, bloodPressure)
			run := r.start(id)
			if shown := r.awaitActivityFailure(run.GetID()); !strings.Contains(shown, "Record: ") {
				t.Errorf("what fails is %s", shown)
			}
			if row := r.transmission(id); row.Status != db.StatusProcessing {
				t.Errorf("recorded as %+v", row)
			}

			unblock()
			r.mustDeliver(run)
			r.wantOnce(id)
			if received, _ := r.creates(id); received != 1 {
				t.Errorf("it was sent %d times", received)
			}
			r.wantAudited(id, sent, delivered)
		})
	}
}

// An import has a row for each patient whom it changes, and none for those who are as they were.
func TestAnImportIsAudited(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	importID, run := r.startImport(3)
	r.mustImport(importID, run, 3)
	imported := "patient.import success import " + importID.String()
	want := func(person sandbox.Person, want ...string) {
		t.Helper()
		patient := must(r.store.FindLinkedPatient(t.Context(), db.FindLinkedPatientParams{PracticeCode: practice, ExternalID: &person.FHIRID}))(t)
		if got := r.audited("Patient", patient.ID.String(), patient.ID); !slices.Equal(got, want) {
			t.Errorf("of %s the audit trail says %q, want %q", person.FHIRID, got, want)
		}
	}
	people := sandbox.Crowd(3)
	first := must(r.store.GetPatient(t.Context(), db.GetPatientParams{PracticeCode: practice, ID: r.patient.ID}))(t)
	if first.Gender == nil { // which the rig's patient did not have
		t.Fatal("eCW shows nothing new of the first patient")
	}
	for _, person := range people {
		want(person, imported)
	}

	again, run := r.startImport(3)
	r.mustImport(again, run, 3)
	for _, person := range people {
		want(person, imported)
	}

	// eCW shows another person under the id of the second.
	second := must(r.store.FindLinkedPatient(t.Context(), db.FindLinkedPatientParams{PracticeCode: practice, ExternalID: &people[1].FHIRID}))(t)
	changed := second.Demographics
	changed.DateOfBirth = changed.DateOfBirth.AddDate(0, 1, 0)
	must(r.store.UpdatePatient(t.Context(), db.UpdatePatientParams{PracticeCode: practice, ID: second.ID, Demographics: changed, Active: true}))(t)
	_, run = r.startImport(3)
	if err := run.Get(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	want(people[1], imported, "patient.import failure patient_mismatch")
	want(people[2], imported)
	r.wantTrail()
}

// Readings go in batches, each of which has a row; a month of the trail goes when all of it is old and sealed.
func TestThePruneIsAudited(t *testing.T) {
	t.Parallel()
	keep := year
	keep.Audit = audit.Keep
	r := newRig(t, setup{keep: keep})
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.mustDeliver(r.start(id))
	r.growOld()
	r.exec("DROP TABLE audit_events_" + time.Now().UTC().AddDate(0, audit.MonthsAhead, 0).Format("2006_01"))

	// A month of which one row is not sealed, one that is empty, and one that is too young.
	month := func(at time.Time) {
		r.exec("CREATE TABLE audit_events_" + at.Format("2006_01") + " PARTITION OF audit_events FOR VALUES FROM ('" +
			at.Format("2006-01-02") + "Z') TO ('" + at.AddDate(0, 1, 0).Format("2006-01-02") + "Z')")
	}
	this := time.Date(time.Now().UTC().Year(), time.Now().UTC().Month(), 1, 0, 0, 0, 0, time.UTC)
	old, older, young := this.AddDate(-7, -2, 0), this.AddDate(-7, -3, 0), this.AddDate(-6, -6, 0)
	month(older)
	month(old)
	month(young)
	writer := uuid.New()
	r.exec(`
		INSERT INTO audit_events (
			recorded_at, writer, sequence, practice_code, subject, role, token_id, address, action, resource_type, resource_ids,
			patient_ids, outcome, reason, code_before, code, key_id
		)
		SELECT $1, $2, 1, '', '', '', '', '', 'test', '', '{}', '{}', 'success', '', '', sha256(''), 'k'`, old.AddDate(0, 0, 3), writer)

	deleted, _ := r.prune()
	if deleted["observations"] != 1 || deleted["audit_events"] != 1 {
		t.Errorf("deleted are %v", deleted)
	}
	r.wantAudited(id, sent, delivered, "observation.prune success 1 acknowledged before "+time.Now().UTC().AddDate(0, 0, -365).Format(time.DateOnly))
	r.exec(`INSERT INTO audit_seals (leaf, writer, first_sequence, last_sequence, recorded_from, recorded_to, digests)
		VALUES (0, $1, 1, 1, $2, $2, sha256(''))`, writer, old.AddDate(0, 0, 3))
	if deleted, _ := r.prune(); deleted["audit_events"] != 1 {
		t.Errorf("deleted are %v", deleted)
	}
	if deleted, _ := r.prune(); deleted["audit_events"] != 0 {
		t.Errorf("deleted are %v", deleted)
	}

	var pruned []string
	var kept, ahead bool
	err := r.sql.QueryRow(t.Context(), `
		SELECT
			(SELECT array_agg(resource_ids[1] ORDER BY recorded_at) FROM audit_events WHERE action = 'audit.prune'),
			to_regclass($1) IS NOT NULL,
			to_regclass($2) IS NOT NULL`,
		"audit_events_"+young.Format("2006_01"), "audit_events_"+this.AddDate(0, audit.MonthsAhead, 0).Format("2006_01")).
		Scan(&pruned, &kept, &ahead)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{older.Format("2006-01"), old.Format("2006-01")}; !slices.Equal(pruned, want) || !kept || !ahead {
		t.Errorf("the trail says that %v were pruned, want %v; the young month is there: %t; there is room ahead: %t", pruned, want, kept, ahead)
	}
}
