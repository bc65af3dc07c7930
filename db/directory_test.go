package db_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

// listed are the ids of all patients who pass a filter, read in pages of a size.
func listed(t *testing.T, store *db.Store, f db.PatientFilter, order db.PatientOrder, descending bool, size int) (ids []uuid.UUID) {
	t.Helper()
	page := db.Page[db.PatientKey]{Limit: size}
	for {
		rows, _, err := store.ListPatients(t.Context(), f, order, descending, page)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range rows {
			ids = append(ids, p.ID)
		}
		if len(rows) < size {
			return ids
		}
		page.After = new(rows[len(rows)-1].Key())
	}
}

// Whatever was changed, by whatever process, the pages of a list hold what a directory that is read anew holds, in
// that order.
func TestADirectoryKeepsUp(t *testing.T) {
	t.Parallel()
	url := stack.Postgres(t)
	open := func() *db.Store {
		t.Helper()
		store, err := db.Open(t.Context(), url, keyringtest.Shared())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(store.Close)
		return store
	}
	writer, reader := open(), open()
	if _, err := writer.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}

	var all []db.Patient
	yes, no := true, false
	for n := range 60 {
		switch n % 3 {
		case 0:
			all = append(all, stored(t, writer, somebody(fmt.Sprintf("MRN-%d", n), fmt.Sprintf("ecw-%d", n))))
		case 1:
			p := all[rand.IntN(len(all))]
			p.LastName, p.FirstName = string(rune('A'+rand.IntN(26))), string(rune('a'+rand.IntN(26)))
			update(t, writer, p)
		case 2:
			archive := db.SetArchivedParams{PracticeCode: "FFHEDD", ID: all[rand.IntN(len(all))].ID, Archived: n%2 == 0}
			if _, err := writer.SetArchived(t.Context(), archive); err != nil {
				t.Fatal(err)
			}
		}

		fresh := open()
		for _, f := range []db.PatientFilter{{}, {Active: &yes}, {Active: &no}, {Search: new("QUILL")}, {MRN: new("MRN-0")}} {
			f.PracticeCode = "FFHEDD"
			for _, order := range []db.PatientOrder{db.ByLastName, db.ByPatientCreation} {
				want, got := listed(t, fresh, f, order, false, 100), listed(t, reader, f, order, false, 7)
				if !slices.Equal(got, want) {
					t.Fatalf("change %d: listed are %v, want %v", n, got, want)
				}
				back := listed(t, reader, f, order, true, 3)
				slices.Reverse(back)
				if !slices.Equal(back, want) {
					t.Fatalf("change %d: backwards are listed %v, want %v", n, back, want)
				}
			}
		}
		fresh.Close()
	}
}

// A transaction that commits late is seen by the next list, although its row is older than what was read before.
func TestADirectorySeesALateCommit(t *testing.T) {
	t.Parallel()
	store, _ := migrated(t)
	late, goOn := make(chan struct{}), make(chan struct{})
	var group errgroup.Group
	group.Go(func() error {
		return store.InTx(context.WithoutCancel(t.Context()), func(q *db.Queries) error {
			_, err := q.CreatePatient(t.Context(), somebody("MRN-late", "ecw-late"))
			close(late)
			<-goOn
			return err
		})
	})
	<-late
	stored(t, store, somebody("MRN-early", "ecw-early"))
	all := db.PatientFilter{PracticeCode: "FFHEDD"}
	if n := len(listed(t, store, all, db.ByLastName, false, 10)); n != 1 {
		t.Errorf("%d patients are listed before the commit", n)
	}
	close(goOn)
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := len(listed(t, store, all, db.ByLastName, false, 10)); n != 2 {
		t.Errorf("%d patients are listed after the commit, want both", n)
	}
}

// Lists and changes go on at once (the race detector looks on).
func TestADirectoryIsUsedByMany(t *testing.T) {
	t.Parallel()
	store, _ := migrated(t)
	var group errgroup.Group
	for n := range 8 {
		group.Go(func() error {
			for i := range 20 {
				if n%2 == 0 {
					if _, err := store.CreatePatient(t.Context(), somebody(fmt.Sprintf("MRN-%d-%d", n, i), fmt.Sprintf("ecw-%d-%d", n, i))); err != nil {
						return err
					}
				}
				f := db.PatientFilter{PracticeCode: "FFHEDD", Search: new("jac")}
				if _, _, err := store.ListPatients(t.Context(), f, db.ByLastName, false, db.Page[db.PatientKey]{Limit: 5}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := len(listed(t, store, db.PatientFilter{PracticeCode: "FFHEDD"}, db.ByPatientCreation, false, 50)); n != 80 {
		t.Errorf("%d patients are listed, want 80", n)
	}
}

// namesOf20000 are people as a practice has them.
func namesOf20000() []db.Patient {
	patients := manyPatients(20_000)
	syllables := strings.Fields("an ber cor del é fa gon har is jo ka lee mar nor ö per qui ra sen tor ul van wil xi yo zu")
	word := func() string {
		text := ""
		for range 2 + rand.IntN(3) {
			text += syllables[rand.IntN(len(syllables))]
		}
		return strings.ToUpper(text[:1]) + text[1:]
	}
	for i := range patients {
		patients[i].FirstName, patients[i].LastName = word(), word()
		patients[i].Phone, patients[i].City, patients[i].AddressLine1 = "+1 508 555 0142", "Westborough", "112 Turnpike Road"
	}
	return patients
}

// BenchmarkPatientList measures lists of a practice with 20,000 patients: go test ./db -bench PatientList -run xxx
func BenchmarkPatientList(b *testing.B) {
	url := stack.Postgres(b)
	open := func() *db.Store {
		store, err := db.Open(b.Context(), url, keyringtest.Shared())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(store.Close)
		return store
	}
	store := open()
	if _, err := store.Migrate(b.Context()); err != nil {
		b.Fatal(err)
	}
	if err := store.InsertPatients(b.Context(), namesOf20000()); err != nil {
		b.Fatal(err)
	}
	list := func(b *testing.B, s *db.Store, f db.PatientFilter) []db.Patient {
		f.PracticeCode = thePractice
		rows, _, err := s.ListPatients(b.Context(), f, db.ByLastName, false, db.Page[db.PatientKey]{Limit: 21})
		if err != nil {
			b.Fatal(err)
		}
		return rows
	}

	b.Run("first fill", func(b *testing.B) {
		var kept []*db.Store
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for b.Loop() {
			fresh := open()
			list(b, fresh, db.PatientFilter{})
			kept = append(kept, fresh)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(kept))/20_000, "B/patient")
		for _, s := range kept {
			s.Close()
		}
	})

	list(b, store, db.PatientFilter{})
	b.Run("warm, all just written", func(b *testing.B) {
		for b.Loop() {
			list(b, store, db.PatientFilter{})
		}
	})
	if _, err := store.Pool().Exec(b.Context(), "UPDATE patients SET updated_at = updated_at - interval '1 hour'"); err != nil {
		b.Fatal(err)
	}
	if _, err := store.Pool().Exec(b.Context(), "VACUUM ANALYZE patients"); err != nil {
		b.Fatal(err)
	}
	b.Run("warm", func(b *testing.B) {
		for b.Loop() {
			list(b, store, db.PatientFilter{})
		}
	})
	for _, text := range []string{"ma", "vanber", "mrn-19999"} {
		b.Run("search "+text, func(b *testing.B) {
			for b.Loop() {
				list(b, store, db.PatientFilter{Search: &text})
			}
		})
	}
	b.Run("after one change", func(b *testing.B) {
		id := list(b, store, db.PatientFilter{})[0].ID
		for b.Loop() {
			b.StopTimer()
			if _, err := store.Pool().Exec(b.Context(), "UPDATE patients SET updated_at = clock_timestamp() WHERE id = $1", id); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			list(b, store, db.PatientFilter{})
		}
	})
	b.Run("after all have changed", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			if _, err := store.Pool().Exec(b.Context(), "UPDATE patients SET updated_at = clock_timestamp()"); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			began := time.Now()
			list(b, store, db.PatientFilter{})
			b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms/last")
		}
	})
}

// An accent is one character or two, as the keyboard has it (Unicode's normal forms C and D): both are found by both.
func TestASearchFindsBothFormsOfAnAccent(t *testing.T) {
	t.Parallel()
	store, _ := migrated(t)
	one, two := somebody("MRN-1", "ecw-1"), somebody("MRN-2", "ecw-2")
	one.LastName, two.LastName = "Pe\u00f1a", "Pen\u0303a"
	stored(t, store, one)
	stored(t, store, two)
	for _, text := range []string{"PE\u00d1A", "PEN\u0303A", "pe", "Pe\u00f1"} {
		f := db.PatientFilter{PracticeCode: "FFHEDD", Search: &text}
		if ids := listed(t, store, f, db.ByLastName, false, 5); len(ids) != 2 {
			t.Errorf("%q finds %d patients, want 2", text, len(ids))
		}
	}
}
