package audit_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring"
)

// TestRowsNamed is what the trail is for: a superuser without the keyring does something to rows, and exactly those rows are
// named, no matter whether they were sealed.
func TestRowsNamed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b, c := r.writer(), r.writer(), r.writer()
	r.write(a, 4)
	r.write(b, 4)
	r.must(a.InTx(t.Context(), func(q *db.Queries) error { return audit.Record(t.Context(), q, event(), event()) }))
	r.write(c, 2)
	const rows = 12

	type tamper struct {
		name string
		sql  string
		want []string
		// unprovable: while nothing of it is sealed, it cannot be found.
		unprovable bool
	}
	const ofA, ofB, ofC = "writer = $1", "writer = $2", "writer = $3"
	nobody := uuid.New()
	tampers := []tamper{
		{name: "first removed", sql: "DELETE FROM audit_events WHERE sequence = 1 AND " + ofA, want: []string{name(a.id, 1)}},
		{name: "middle removed", sql: "DELETE FROM audit_events WHERE sequence = 3 AND " + ofA, want: []string{name(a.id, 3)}},
		{
			name: "two removed, in two writers",
			sql:  "DELETE FROM audit_events WHERE sequence = 3 AND (" + ofA + " OR " + ofB + ")",
			want: []string{name(a.id, 3), name(b.id, 3)},
		},
		{
			name: "last removed", sql: "DELETE FROM audit_events WHERE sequence = 6 AND " + ofA,
			want: []string{name(a.id, 6)}, unprovable: true,
		},
		{
			name: "a whole writer removed", sql: "DELETE FROM audit_events WHERE " + ofC,
			want: []string{name(c.id, 1), name(c.id, 2)}, unprovable: true,
		},
		{
			name: "swapped", sql: "UPDATE audit_events SET sequence = 6 - sequence WHERE sequence IN (2, 4) AND " + ofA,
			want: []string{name(a.id, 2), name(a.id, 4)},
		},
		{
			name: "neighbours swapped", sql: "UPDATE audit_events SET sequence = 5 - sequence WHERE sequence IN (2, 3) AND " + ofA,
			want: []string{name(a.id, 2), name(a.id, 3)},
		},
		{
			name: "swapped with another writer's", want: []string{name(a.id, 2), name(b.id, 2)},
			sql: "UPDATE audit_events SET writer = CASE WHEN " + ofA + " THEN $2 ELSE $1::uuid END WHERE sequence = 2 AND (" + ofA + " OR " + ofB + ")",
		},
		{
			name: "copied to the end", want: []string{name(a.id, 7)},
			sql: copyOf("recorded_at, writer, 7", "sequence = 3 AND "+ofA),
		},
		{
			name: "copied far behind the end", want: []string{name(a.id, 4_000_000_000_000)},
			sql: copyOf("recorded_at, writer, 4000000000000", "sequence = 3 AND "+ofA),
		},
		{
			name: "copied to a writer that never was", want: []string{name(nobody, 3)},
			sql: copyOf("recorded_at, $4::uuid, sequence", "sequence = 3 AND "+ofA),
		},
		{
			name: "a second row with the number, later", want: []string{name(a.id, 3)},
			sql: copyOf("recorded_at + interval '1 second', writer, sequence", "sequence = 3 AND "+ofA),
		},
		{
			name: "a second row with the number, earlier", want: []string{name(a.id, 3)},
			sql: copyOf("recorded_at - interval '1 second', writer, sequence", "sequence = 3 AND "+ofA),
		},
		{
			name: "removed, and the row after it changed", want: []string{name(a.id, 3), name(a.id, 4)},
			sql: `WITH gone AS (DELETE FROM audit_events WHERE sequence = 3 AND ` + ofA + `)
				UPDATE audit_events SET reason = 'x' WHERE sequence = 4 AND ` + ofA,
		},
	}
	for column, to := range map[string]string{
		"recorded_at":   "recorded_at + interval '1 microsecond'",
		"practice_code": "'FFXXXX'",
		"subject":       "'018f4d9e-0000-7000-8000-00000000abce'",
		"role":          "'doctor'",
		"token_id":      "''",
		"address":       "'192.0.2.8'",
		"action":        "'patient.search'",
		"resource_type": "'Observation'",
		"resource_ids":  "ARRAY[resource_ids[2], resource_ids[1]]",
		"patient_ids":   "patient_ids[1:1]",
		"outcome":       "'refused'",
		"reason":        "''",
		"code_before":   "set_byte(code_before, 31, 255 - get_byte(code_before, 31))",
		"code":          "set_byte(code, 0, 255 - get_byte(code, 0))",
		"key_id":        "'0badc0de'",
	} {
		tampers = append(tampers, tamper{
			name: column + " changed",
			sql:  fmt.Sprintf("UPDATE audit_events SET %s = %s WHERE sequence = 3 AND %s", column, to, ofA),
			want: []string{name(a.id, 3)},
		})
	}
	tampers = append(tampers,
		tamper{
			name: "sequence changed", sql: "UPDATE audit_events SET sequence = 300 WHERE sequence = 3 AND " + ofA,
			want: []string{name(a.id, 3), name(a.id, 300)},
		},
		tamper{
			name: "writer changed", sql: "UPDATE audit_events SET writer = $4::uuid WHERE sequence = 3 AND " + ofA,
			want: []string{name(a.id, 3), name(nobody, 3)},
		},
		tamper{
			name: "an id moved between the arrays' elements", sql: "UPDATE audit_events SET resource_ids = ARRAY['firs', 'tsecond'] WHERE sequence = 3 AND " + ofA,
			want: []string{name(a.id, 3)},
		},
		tamper{
			name: "text moved to the next column", want: []string{name(a.id, 3)},
			sql: "UPDATE audit_events SET subject = subject || role, role = '' WHERE sequence = 3 AND " + ofA,
		},
		tamper{
			name: "everything of the last row changed", want: []string{name(a.id, 6)},
			sql: "UPDATE audit_events SET reason = 'x', code = sha256('x'), key_id = 'x' WHERE sequence = 6 AND " + ofA,
		},
	)

	check := func(t *testing.T, sealed int64) {
		r.save()
		for _, tc := range tampers {
			t.Run(tc.name, func(t *testing.T) {
				defer r.restore()
				if r.exec("WITH who AS (SELECT $1::uuid, $2::uuid, $3::uuid, $4::uuid) "+joinable(tc.sql), a.id, b.id, c.id, nobody) == 0 {
					t.Fatal("nothing was touched")
				}
				report := r.verify()
				want := slices.Sorted(slices.Values(tc.want))
				if tc.unprovable && sealed == 0 {
					want = nil
				}
				if got := named(report); !slices.Equal(got, want) {
					t.Errorf("names %q, want %q", got, want)
				}
				for _, f := range report.Findings {
					if f.Row == nil {
						t.Errorf("the log is untouched: %s", f)
					}
				}
			})
		}
		if report := r.untouched(); report.Rows != rows || report.Sealed != sealed {
			t.Errorf("%d rows, %d sealed", report.Rows, report.Sealed)
		}
	}
	t.Run("before they are sealed", func(t *testing.T) { check(t, 0) })
	r.seal(rows)
	t.Run("after they are sealed", func(t *testing.T) { check(t, rows) })
	r.untouched(r.published()...)
}

// copyOf copies a row, whose time, writer and number are given.
func copyOf(place, where string) string {
	const rest = "practice_code, subject, role, token_id, address, action, resource_type, resource_ids, patient_ids, outcome, reason, " +
		"code_before, code, key_id"
	return "INSERT INTO audit_events (recorded_at, writer, sequence, " + rest + ") SELECT " + place + ", " + rest + " FROM audit_events WHERE " + where
}

// joinable continues a WITH.
func joinable(sql string) string {
	if rest, ok := strings.CutPrefix(sql, "WITH "); ok {
		return ", " + rest
	}
	return sql
}

// TestRemovedBetweenSeals: one row is removed before it is sealed, and those around it are sealed without it.
func TestRemovedBetweenSeals(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer()
	r.write(w, 5)
	r.exec("DELETE FROM audit_events WHERE sequence = 3")
	r.seal(4)

	if got, want := named(r.verify(r.published()...)), []string{name(w.id, 3)}; !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
}

// TestChangedBeforeSealed: a seal is of what the sealer finds, so a row that was changed before does not fit its code.
func TestChangedBeforeSealed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer()
	r.write(w, 5)
	r.exec("UPDATE audit_events SET subject = 'x' WHERE sequence = 3")
	r.seal(5)
	r.write(w, 2)

	if got, want := named(r.verify(r.published()...)), []string{name(w.id, 3)}; !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
}

// TestAddedRowIsNotTheOneTaken: of two rows with a number, the one that was written is not blamed.
func TestAddedRowIsNotTheOneTaken(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer()
	r.write(w, 3)
	for _, shift := range []string{"-1", "1"} {
		r.save()
		r.exec(copyOf("recorded_at + "+shift+" * interval '1 second', writer, sequence", "sequence = 2"))
		report := r.verify()
		var added time.Time
		r.must(r.admin.QueryRow(t.Context(), `SELECT recorded_at FROM audit_events e WHERE sequence = 2 AND NOT EXISTS (
			SELECT FROM saved_audit_events s WHERE s.recorded_at = e.recorded_at)`).Scan(&added))
		if len(report.Findings) != 1 || !report.Findings[0].Row.RecordedAt.Equal(added) {
			t.Errorf("%s: %v, want the one of %s", shift, report.Findings, added)
		}
		r.restore()
	}
}

// TestMonthRemoved removes a partition, which names all of its rows and no other.
func TestMonthRemoved(t *testing.T) {
	t.Parallel()
	for how, sql := range map[string]string{
		"drop":   "DROP TABLE audit_events_2025_03",
		"detach": "ALTER TABLE audit_events DETACH PARTITION audit_events_2025_03",
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.addMonths(2025, 2, 3, 4)
			first, second := uuid.New(), uuid.New()
			at := time.Date(2025, 2, 28, 23, 59, 0, 0, time.UTC)
			r.insertPast(first, at, at.Add(2*time.Minute), at.Add(3*time.Minute), at.AddDate(0, 1, 4))
			r.insertPast(second, at.AddDate(0, 0, 10), at.AddDate(0, 0, 11))
			r.seal(6)
			r.untouched(r.published()...)

			r.exec(sql)
			want := []string{name(first, 2), name(first, 3), name(second, 1), name(second, 2)}
			slices.Sort(want)
			if got := named(r.verify(r.published()...)); !slices.Equal(got, want) {
				t.Errorf("names %q, want %q", got, want)
			}
		})
	}
}

// addMonths makes partitions of the past.
func (r *rig) addMonths(year int, months ...int) {
	r.Helper()
	for _, m := range months {
		month := time.Date(year, time.Month(m), 1, 0, 0, 0, 0, time.UTC)
		r.exec(fmt.Sprintf("CREATE TABLE audit_events_%s PARTITION OF audit_events FOR VALUES FROM ('%s') TO ('%s')",
			month.Format("2006_01"), month.Format(time.RFC3339), month.AddDate(0, 1, 0).Format(time.RFC3339)))
	}
}

// TestKeyMissing: a keyring that lacks a key cannot check, and says so; it does not say that rows were changed.
func TestKeyMissing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer()
	r.write(w, 2)

	content, err := keyring.Generate()
	r.must(err)
	other, err := keyring.New(content)
	r.must(err)
	report, err := audit.Verify(t.Context(), r.store, other, practice, nil)
	r.must(err)
	if got, want := named(report), []string{name(w.id, 1), name(w.id, 2)}; !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
	for _, f := range report.Findings {
		if !strings.Contains(f.What, "KEYRING_FILE") {
			t.Errorf("does not say what to do: %s", f)
		}
	}
}
