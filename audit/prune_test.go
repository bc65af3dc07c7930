package audit_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
)

// pruneRig has a trail of three months of 2019, of which one writer has rows in all, and rows of now.
func pruneRig(t *testing.T) (r *rig, across, early, late uuid.UUID) {
	r = newRig(t)
	r.addMonths(2019, 1, 2, 3)
	across, early, late = uuid.New(), uuid.New(), uuid.New()
	at := time.Date(2019, 1, 31, 23, 58, 0, 0, time.UTC)
	r.insertPast(across, at, at.Add(3*time.Minute), at.Add(time.Minute), at.Add(4*time.Minute), at.AddDate(0, 1, 3))
	r.insertPast(early, at.Add(-time.Hour), at.Add(-time.Minute))
	r.insertPast(late, at.AddDate(0, 0, 10), at.AddDate(0, 0, 11))
	r.write(r.writer(), 2)
	return r, across, early, late
}

const aYear = 366

// drop drops the oldest month, and reports which.
func (r *rig) drop(days int32) string {
	r.Helper()
	month, err := r.store.DropAuditMonth(r.Context(), days)
	if db.IsNotFound(err) {
		return ""
	}
	r.must(err)
	return audit.MonthName(month)
}

// TestPrune drops months as the product does, the oldest first and never one that is not sealed.
func TestPrune(t *testing.T) {
	t.Parallel()
	r, across, early, late := pruneRig(t)
	if got := r.drop(7 * aYear); got != "" {
		t.Fatalf("dropped %s, which is not sealed", got)
	}
	r.seal(11)
	r.untouched(r.published()...)
	if got := r.drop(20 * aYear); got != "" {
		t.Fatalf("dropped %s, which is to be kept for 20 years", got)
	}

	if got := r.drop(7 * aYear); got != "2019-01" {
		t.Fatalf("dropped %q first", got)
	}
	want := []string{name(across, 1), name(across, 3), name(early, 1), name(early, 2)}
	slices.Sort(want)
	if got := named(r.verify(r.published()...)); !slices.Equal(got, want) {
		t.Errorf("nothing says that the month was pruned, and so its rows are missing: names %q, want %q", got, want)
	}

	w := r.writer()
	pruned := event()
	pruned.Action, pruned.ResourceIDs, pruned.Patients = audit.AuditPrune, []string{"2019-01"}, nil
	r.must(audit.RecordNow(t.Context(), w.Store, pruned))
	if report := r.untouched(r.published()...); report.PrunedBefore != time.Date(2019, 2, 1, 0, 0, 0, 0, time.UTC) {
		t.Errorf("pruned before %s", report.PrunedBefore)
	}
	r.seal(1)

	// A row of the next month is not excused.
	r.save()
	r.exec("DELETE FROM audit_events WHERE writer = $1 AND sequence = 2", across)
	r.exec("DELETE FROM audit_events WHERE writer = $1", late)
	want = []string{name(across, 2), name(late, 1), name(late, 2)}
	slices.Sort(want)
	if got := named(r.verify(r.published()...)); !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
	r.restore()

	for _, month := range []string{"2019-02", "2019-03", ""} {
		if got := r.drop(7 * aYear); got != month {
			t.Fatalf("dropped %q, want %q", got, month)
		}
	}
}

// TestPruneSixYears: months of the last six years are kept whatever is asked for.
func TestPruneSixYears(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	now := time.Now().UTC()
	young := time.Date(now.Year()-6, now.Month(), 1, 0, 0, 0, 0, time.UTC)
	r.addMonths(young.Year(), int(young.Month()))
	r.insertPast(uuid.New(), young)
	r.seal(1)
	for _, days := range []int32{0, -1, 1, 365, -1 << 31} {
		if got := r.drop(days); got != "" {
			t.Fatalf("dropped %s for %d days", got, days)
		}
	}
}

// TestPruneMadeUp: a row that only says that a month was pruned excuses nothing, if it is not genuine or if the month is
// too young.
func TestPruneMadeUp(t *testing.T) {
	t.Parallel()
	r, across, early, late := pruneRig(t)
	r.seal(11)
	w := r.writer()
	recent := event()
	recent.Action, recent.ResourceIDs = audit.AuditPrune, []string{audit.MonthName(time.Now())}
	r.must(audit.RecordNow(t.Context(), w.Store, recent)) // somebody who can write rows, but not drop young months
	r.write(w, 1)
	r.exec("UPDATE audit_events SET action = 'audit.prune', resource_ids = '{2019-03}' WHERE writer = $1 AND sequence = 2", w.id)
	for _, month := range []string{"01", "02", "03"} {
		r.exec("DROP TABLE audit_events_2019_" + month)
	}

	want := []string{name(w.id, 2)}
	for writer, rows := range map[uuid.UUID]int64{across: 5, early: 2, late: 2} {
		for n := range rows {
			want = append(want, name(writer, n+1))
		}
	}
	slices.Sort(want)
	if got := named(r.verify(r.published()...)); !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
}
