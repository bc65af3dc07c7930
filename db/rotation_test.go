package db_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring"
)

// Through two rotations of the indexes, processes with older and newer keyrings create patients, and change their MRNs
// and eCW ids, at once and beside the re-encryption. No two patients have one MRN or one eCW id, and each is found.
func TestRotationsUnderLoadKeepPatientsUnique(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	content := generated(t)
	for turn := range 2 {
		known, used, retired := rotated(t, content, keyring.Indexes)
		for phase, contents := range [][][]byte{
			{content, known},
			{content, known, used},
			{used, known},
			{used, used, nil}, // nil: the re-encryption
			{used, retired},
		} {
			name := fmt.Sprintf("turn %d, phase %d", turn, phase)
			var stores []*db.Store
			var work errgroup.Group
			for i, c := range contents {
				if c == nil {
					store := v.with(contents[0])
					work.Go(func() error {
						_, err := store.Reencrypt(t.Context(), func(int64, int64) {})
						return err
					})
					continue
				}
				store := v.with(c)
				stores = append(stores, store)
				for j := range 2 {
					work.Go(func() error { return v.churn(store, rand.New(rand.NewPCG(uint64(turn*100+phase*10+i), uint64(j)))) })
				}
			}
			if err := work.Wait(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if phase == 3 { // what was written by processes that had not read the new key
				if _, err := stores[0].Reencrypt(t.Context(), func(int64, int64) {}); err != nil {
					t.Fatal(err)
				}
				if n := rowsOf(t, stores[0], keyIn(t, content, keyring.Indexes)); n != 0 {
					t.Errorf("%s: %d rows need the old key", name, n)
				}
			}
			for _, store := range stores {
				v.unique(name, store)
			}
		}
		content = retired
	}
}

// Two who want each other's MRN at once wait in a circle, which PostgreSQL ends for one of them.
const uniqueViolation, deadlock = "23505", "40P01"

// churn creates patients, and gives patients another MRN and eCW id, of a few that many want.
func (v *vault) churn(store *db.Store, random *rand.Rand) error {
	some := func() db.CreatePatientParams {
		return somebody(fmt.Sprint("MRN-", random.IntN(12)), fmt.Sprint("ecw-", random.IntN(12)))
	}
	for range 40 {
		if _, err := store.CreatePatient(v.Context(), some()); err != nil && !db.IsNotFound(err) {
			return fmt.Errorf("create: %w", err)
		}
		p, err := store.FindPatientByMRN(v.Context(), db.FindPatientByMRNParams{PracticeCode: thePractice, MRN: some().MRN})
		if db.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("find: %w", err)
		}
		err = store.InTx(v.Context(), func(q *db.Queries) error {
			if _, err := q.LockPatient(v.Context(), db.LockPatientParams{PracticeCode: thePractice, ID: p.ID}); err != nil {
				return err
			}
			_, err := q.UpdatePatient(v.Context(), db.UpdatePatientParams{
				PracticeCode: thePractice,
				ID:           p.ID,
				Demographics: some().Demographics,
				Active:       true,
			})
			return err
		})
		var answer *pgconn.PgError
		if err != nil && (!errors.As(err, &answer) || !slices.Contains([]string{uniqueViolation, deadlock}, answer.Code)) {
			return fmt.Errorf("update: %w", err)
		}
	}
	return nil
}

// unique wants no MRN and no eCW id twice, and each patient to be found.
func (v *vault) unique(name string, store *db.Store) {
	v.Helper()
	filter := db.PatientFilter{PracticeCode: thePractice}
	patients, _, err := store.ListPatients(v.Context(), filter, db.ByLastName, false, db.Page[db.PatientKey]{Limit: 100})
	if err != nil {
		v.Fatalf("%s: %v", name, err)
	}
	seen := map[string]uuid.UUID{}
	for _, p := range patients {
		findPatient(v.T, name, store, p)
		for _, value := range []string{p.MRN, *p.ExternalID} {
			if other, twice := seen[value]; twice {
				v.Errorf("%s: %s belongs to %s and to %s", name, value, other, p.ID)
			}
			seen[value] = p.ID
		}
	}
	if len(patients) == 0 {
		v.Errorf("%s: there are no patients", name)
	}
}
