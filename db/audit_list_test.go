package db_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
)

// longTrail writes 150,000 rows over ten months: of a thousand patients, three of them in each row, and of a hundred
// people. One patient, one person and one action are rare and old, so that the test notices a plan that walks the trail from its
// newest row until it has met enough of them.
const longTrail = `
DO $$
DECLARE
    month timestamp;
BEGIN
    FOR i IN 1 .. 10 LOOP
        month := date_trunc('month', now() AT TIME ZONE 'UTC') - i * interval '1 month';
        EXECUTE format('CREATE TABLE %I PARTITION OF audit_events FOR VALUES FROM (%L) TO (%L)', 'audit_events_' || to_char(month, 'YYYY_MM'),
            to_char(month, 'YYYY-MM-DD') || ' 00:00:00+00', to_char(month + interval '1 month', 'YYYY-MM-DD') || ' 00:00:00+00');
    END LOOP;
END
$$;
INSERT INTO audit_events (recorded_at, writer, sequence, practice_code, subject, role, token_id, address, action, resource_type,
                          resource_ids, patient_ids, outcome, reason, code_before, code, key_id)
SELECT now() - n * interval '160 seconds', lpad(to_hex(n % 7), 32, '0')::uuid, n, 'FFHEDD',
       CASE WHEN n > 149000 AND n % 100 = 0 THEN 'rare' ELSE 'person ' || n % 100 END, 'nurse', '', '10.0.0.7',
       CASE WHEN n > 149000 AND n % 100 = 1 THEN 'audit.prune' ELSE (ARRAY['patient.read', 'patient.search', 'observation.send'])[1 + n % 3] END,
       'Patient', '{}',
       ARRAY[lpad(to_hex(n % 1000), 32, '0')::uuid, lpad(to_hex((n + 1) % 1000), 32, '0')::uuid,
             CASE WHEN n > 149000 AND n % 100 = 2 THEN 'ffffffff-ffff-ffff-ffff-ffffffffffff' ELSE lpad(to_hex((n + 2) % 1000), 32, '0') END::uuid],
       CASE WHEN n > 149000 AND n % 100 = 3 THEN 'refused' ELSE 'success' END, '', CASE n WHEN 1 THEN '' ELSE sha256('x') END, sha256(int8send(n)), 'k'
FROM generate_series(1, 150000) n`

// Each question to a long trail reads a bounded number of rows, whatever it asks for, and however old the answer is. The test
// does not run in parallel: the others would miss their time limits.
func TestPlansOfALongTrail(t *testing.T) {
	_, conn := migrated(t)
	for _, step := range []string{longTrail, "VACUUM ANALYZE"} {
		if _, err := conn.Exec(t.Context(), step); err != nil {
			t.Fatal(err)
		}
	}

	month := func(ago int) *time.Time { return new(time.Now().UTC().AddDate(0, -ago, 0)) }
	usual, rare := numbered(0, 17), uuid.Max
	last := &db.AuditKey{At: *month(5), Writer: numbered(0, 3), Sequence: 1}
	for name, asked := range map[string]struct {
		filter     db.AuditFilter
		page       db.Page[db.AuditKey]
		rows, most int
	}{
		"everything":             {db.AuditFilter{}, db.Page[db.AuditKey]{}, 20, 11_000},
		"in the middle":          {db.AuditFilter{}, db.Page[db.AuditKey]{After: last}, 20, 11_000},
		"back from the middle":   {db.AuditFilter{}, db.Page[db.AuditKey]{After: last, Back: true}, 20, 11_000},
		"a month":                {db.AuditFilter{From: month(4), To: month(3)}, db.Page[db.AuditKey]{}, 20, 11_000},
		"a patient":              {db.AuditFilter{PatientID: &usual}, db.Page[db.AuditKey]{}, 20, 1_500},
		"a patient in a month":   {db.AuditFilter{PatientID: &usual, From: month(4), To: month(3)}, db.Page[db.AuditKey]{}, 20, 5_000},
		"a patient, further on":  {db.AuditFilter{PatientID: &usual}, db.Page[db.AuditKey]{After: last}, 20, 1_500},
		"a rare patient":         {db.AuditFilter{PatientID: &rare}, db.Page[db.AuditKey]{}, 10, 100},
		"an unknown patient":     {db.AuditFilter{PatientID: new(uuid.New())}, db.Page[db.AuditKey]{}, 0, 100},
		"a person":               {db.AuditFilter{Subject: new("person 7")}, db.Page[db.AuditKey]{}, 20, 5_000},
		"a rare person":          {db.AuditFilter{Subject: new("rare")}, db.Page[db.AuditKey]{}, 10, 100},
		"a person and a patient": {db.AuditFilter{Subject: new("person 17"), PatientID: &usual}, db.Page[db.AuditKey]{}, 20, 3_000},
		"an action":              {db.AuditFilter{Action: new("patient.read")}, db.Page[db.AuditKey]{}, 20, 40_000},
		"a rare action":          {db.AuditFilter{Action: new("audit.prune")}, db.Page[db.AuditKey]{}, 10, 100},
		"a rare outcome":         {db.AuditFilter{Outcome: new("refused")}, db.Page[db.AuditKey]{}, 10, 100},
	} {
		t.Run(name, func(t *testing.T) {
			e := &explainer{DBTX: conn, t: t}
			asked.filter.PracticeCode, asked.page.Limit = thePractice, 20
			rows, _, err := db.New(db.Keyed(e)).ListAuditEvents(t.Context(), asked.filter, asked.page)
			if err != nil || len(rows) != asked.rows {
				t.Fatalf("%d rows, want %d (%v)", len(rows), asked.rows, err)
			}
			for _, p := range e.plans {
				if p.touched() > asked.most {
					t.Errorf("want at most %d:\n%s", asked.most, shortened(p))
				}
			}
		})
	}
}

// shortened leaves the months out in which a plan found nothing.
func shortened(p plan) string {
	var lines []string
	for line := range strings.Lines(p.String()) {
		if !strings.Contains(line, ": 0 rows and 0 left out") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// The whole trail comes row by row, in batches, each row once.
func TestTheTrailIsReadInBatches(t *testing.T) {
	t.Parallel()
	store, conn := migrated(t)
	patient := uuid.New()
	const rows = 2_500
	_, err := conn.Exec(t.Context(), `
		INSERT INTO audit_events (recorded_at, writer, sequence, practice_code, subject, role, token_id, address, action, resource_type,
		                          resource_ids, patient_ids, outcome, reason, code_before, code, key_id)
		SELECT date_trunc('second', now()) - n / 900 * interval '1 second', lpad(to_hex(n % 3), 32, '0')::uuid, n, 'FFHEDD', 's', '', '', '', 'patient.read', '',
		       '{}', ARRAY[$1::uuid], 'success', '', CASE n WHEN 1 THEN '' ELSE sha256('x') END, sha256('x'), 'k'
		FROM generate_series(1, $2) n`, patient, rows) // many of the same moment
	if err != nil {
		t.Fatal(err)
	}

	for name, filter := range map[string]db.AuditFilter{
		"all":        {PracticeCode: thePractice},
		"of patient": {PracticeCode: thePractice, PatientID: &patient},
	} {
		var before *db.AuditEvent
		count := 0
		for e, err := range store.AuditEvents(t.Context(), filter) {
			if err != nil {
				t.Fatal(err)
			}
			if before != nil && !comesAfter(e.Key(), before.Key()) {
				t.Fatalf("%s: %+v follows %+v", name, e.Key(), before.Key())
			}
			before, count = &e, count+1
		}
		if count != rows {
			t.Errorf("%s: %d rows, want %d", name, count, rows)
		}
	}

	for range store.AuditEvents(t.Context(), db.AuditFilter{PracticeCode: thePractice}) {
		break // a reader may stop
	}
	gone, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, err := range store.AuditEvents(gone, db.AuditFilter{PracticeCode: thePractice}) {
		if err != nil {
			return
		}
		cancel()
	}
	t.Error("nobody said that the reading was broken off")
}

// comesAfter reports whether a row is older than another in the trail's order.
func comesAfter(a, b db.AuditKey) bool {
	if !a.At.Equal(b.At) {
		return a.At.Before(b.At)
	}
	if a.Writer != b.Writer {
		return fmt.Sprint(a.Writer) < fmt.Sprint(b.Writer)
	}
	return a.Sequence < b.Sequence
}
