package db_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring"
)

// vault is a database, of which there are stores with several keyrings.
type vault struct {
	*testing.T
	url  string
	conn *pgx.Conn
}

func newVault(t *testing.T) *vault {
	t.Helper()
	v := &vault{T: t, url: stack.Postgres(t)}
	var err error
	if v.conn, err = pgx.Connect(t.Context(), v.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.conn.Close(context.Background()) })
	if _, err := v.with(generated(t)).Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.conn.Exec(t.Context(), "DELETE FROM keyring_mark"); err != nil { // each test has a keyring of its own
		t.Fatal(err)
	}
	return v
}

// with returns a store with a keyring.
func (v *vault) with(content []byte) *db.Store {
	v.Helper()
	keys, err := keyring.New(content)
	if err != nil {
		v.Fatal(err)
	}
	store, err := db.Open(v.Context(), v.url, keys)
	if err != nil {
		v.Fatal(err)
	}
	v.Cleanup(store.Close)
	return store
}

func (v *vault) exec(sql string, args ...any) {
	v.Helper()
	if _, err := v.conn.Exec(v.Context(), sql, args...); err != nil {
		v.Fatal(err)
	}
}

func (v *vault) number(sql string, args ...any) (n int) {
	v.Helper()
	if err := v.conn.QueryRow(v.Context(), sql, args...).Scan(&n); err != nil {
		v.Fatal(err)
	}
	return n
}

func generated(t *testing.T) []byte {
	t.Helper()
	content, err := keyring.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// rotated returns a keyring with another key in the keyset: before processes use it, and since. retired is without
// the old key.
func rotated(t *testing.T, content []byte, set keyring.Keyset) (known, used, retired []byte) {
	t.Helper()
	old := keyIn(t, content, set)
	later := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	known, _, err := keyring.Rotate(content, set, later)
	if err != nil {
		t.Fatal(err)
	}
	used = []byte(strings.Replace(string(known), later.Format(time.RFC3339Nano), time.Now().UTC().Format(time.RFC3339Nano), 1))
	if retired, err = keyring.Retire(used, set, old); err != nil {
		t.Fatal(err)
	}
	return known, used, retired
}

// keyIn returns the id of the key that is in use.
func keyIn(t *testing.T, content []byte, set keyring.Keyset) string {
	t.Helper()
	keys, err := keyring.New(content)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys.Keys() {
		if key.Keyset == set && key.InUse {
			return key.ID
		}
	}
	t.Fatalf("no key of %s is in use", set)
	return ""
}

func get(t *testing.T, store *db.Store, id uuid.UUID) db.Observation {
	t.Helper()
	o, err := store.GetObservation(t.Context(), db.GetObservationParams{PracticeCode: thePractice, ID: id})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// transformed stores a reading and a resource of it.
func transformed(t *testing.T, store *db.Store, value string) db.Observation {
	t.Helper()
	o, at := reading(t, store, `{"value":`+value+`,"unit":"kg"}`), time.Now()
	err := store.SaveResource(t.Context(), db.SaveResourceParams{
		PracticeCode:    thePractice,
		ID:              o.ID,
		Resource:        resourceOf(value),
		ResourceVersion: 1,
		TransformedAt:   &at,
	})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func resourceOf(value string) []byte {
	return []byte(`{"resourceType":"Observation",  "valueQuantity":{"value":` + value + `}}`)
}

// clear makes rows as version 10 has stored them, and returns their ids.
func (v *vault) clear(store *db.Store, n int) (ids []uuid.UUID) {
	v.Helper()
	patient := reading(v.T, store, `{}`).PatientID
	for i := range n {
		id := uuid.New()
		ids = append(ids, id)
		v.exec(`
INSERT INTO observations (id, practice_code, patient_id, observation_type, effective_at, device, measured, plain_resource,
                          resource_version, transformed_at)
VALUES ($1, $2, $3, 'weight', now(), 'CANARY-7250', '{"unit": "kg", "value": 81.60}', $4, 1, now())`,
			id, thePractice, patient, string(resourceOf(fmt.Sprint(i))))
	}
	return ids
}

// What is stored of readings and of the devices of API keys shows nothing of them.
func TestWhatIsSealedDoesNotShow(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	store := v.with(generated(t))
	o := transformed(t, store, "81.60")
	request := db.Request{Key: "canary-key", Body: []byte("canary-body")}
	remember := db.RememberRequestParams{PracticeCode: thePractice, Request: request, ObservationID: o.ID}
	if _, err := store.RememberRequest(t.Context(), remember); err != nil {
		t.Fatal(err)
	}
	key := v.apiKey(store, "SCALE-*")

	for _, table := range []string{"observations", "idempotency_keys", "api_keys"} {
		for _, canary := range []string{"SCALE", "81.60", "kg", "valueQuantity", "canary"} {
			// The text of bytes is hexadecimal, so those of the canary are looked for as well.
			found := v.number("SELECT count(*) FROM "+table+` t
				WHERE position($1::text IN t::text) + position(encode(convert_to($1, 'UTF8'), 'hex') IN t::text) > 0`, canary)
			if found > 0 {
				t.Errorf("%s shows in %s", canary, table)
			}
		}
	}
	if got := get(t, store, o.ID); string(got.Resource) != string(resourceOf("81.60")) || got.Device != "SCALE-1" {
		t.Errorf("it comes back as %s of %s", got.Resource, got.Device)
	}
	if key.Devices[0] != "SCALE-*" {
		t.Errorf("the key comes back for %v", key.Devices)
	}
}

func (v *vault) apiKey(store *db.Store, devices ...string) db.APIKey {
	v.Helper()
	hash := uuid.New()
	key, err := store.CreateAPIKey(v.Context(), db.CreateAPIKeyParams{
		PracticeCode: thePractice,
		Name:         "gateway",
		Role:         "service",
		Devices:      devices,
		KeyHash:      hash[:],
		CreatedBy:    "tests",
	})
	if err != nil {
		v.Fatal(err)
	}
	return key
}

// Ciphertexts that were exchanged between two rows do not open.
func TestExchangedCiphertextsDoNotOpen(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	store := v.with(generated(t))
	for _, column := range []string{"reading", "resource"} {
		one, other := transformed(t, store, "81.60"), transformed(t, store, "82.10")
		v.exec("UPDATE observations o SET "+column+" = x."+column+` FROM observations x
			WHERE o.id <> x.id AND o.id IN ($1, $2) AND x.id IN ($1, $2)`, one.ID, other.ID)
		for _, id := range []uuid.UUID{one.ID, other.ID} {
			_, err := store.GetObservation(t.Context(), db.GetObservationParams{PracticeCode: thePractice, ID: id})
			if !errors.Is(err, keyring.ErrCorrupt) || !strings.Contains(err.Error(), "observations."+column+" of "+id.String()) {
				t.Errorf("%s: %v", column, err)
			}
			ask := db.GetUndeliveredParams{PracticeCode: thePractice, ID: id}
			if _, err := store.GetUndelivered(t.Context(), ask); !errors.Is(err, keyring.ErrCorrupt) {
				t.Errorf("%s, before a delivery: %v", column, err)
			}
		}
	}
	o := transformed(t, store, "81.60")
	v.exec("UPDATE observations SET reading = resource WHERE id = $1", o.ID)
	_, err := store.GetObservation(t.Context(), db.GetObservationParams{PracticeCode: thePractice, ID: o.ID})
	if !errors.Is(err, keyring.ErrCorrupt) {
		t.Errorf("a resource as a reading: %v", err)
	}

	narrow, wide := v.apiKey(store, "SCALE-1"), v.apiKey(store)
	v.exec("UPDATE api_keys SET devices = (SELECT devices FROM api_keys WHERE id = $2) WHERE id = $1", narrow.ID, wide.ID)
	found, err := store.FindAPIKey(t.Context(), db.FindAPIKeyParams{PracticeCode: thePractice, KeyHash: narrow.KeyHash})
	if !errors.Is(err, keyring.ErrCorrupt) {
		t.Errorf("an API key with the devices of another: %+v, %v", found, err)
	}
}

// Rows that stand in clear are read, take a resource and are found as others, and are the same once they are sealed.
func TestRowsInClear(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	store := v.with(generated(t))
	ids := v.clear(store, 450)
	key := uuid.New()
	v.exec(`INSERT INTO api_keys (id, practice_code, name, role, prefix, key_hash, created_by, plain_devices)
		VALUES ($1, $2, 'gateway', 'service', 'vtx_', '', 'tests', '{CANARY-*}')`, key, thePractice)

	check := func(t *testing.T) {
		for _, i := range []int{1, 449} {
			got := get(t, store, ids[i])
			if got.Device != "CANARY-7250" || !strings.Contains(string(got.Measured), "81.60") ||
				string(got.Resource) != string(resourceOf(fmt.Sprint(i))) {
				t.Errorf("a row comes back as %+v", got)
			}
		}
		found, err := store.FindReadings(t.Context(), db.FindReadingsParams{PracticeCode: thePractice, IDs: append(ids[:2:2], uuid.New())})
		if err != nil || len(found) != 2 || !strings.Contains(string(found[ids[0]]), "81.60") {
			t.Errorf("it finds %s, %v", found, err)
		}
		row, err := store.GetAPIKey(t.Context(), db.GetAPIKeyParams{PracticeCode: thePractice, ID: key})
		if err != nil || row.Devices[0] != "CANARY-*" {
			t.Errorf("the API key is %+v, %v", row, err)
		}
	}
	check(t)

	at := time.Now()
	err := store.SaveResource(t.Context(), db.SaveResourceParams{
		PracticeCode:    thePractice,
		ID:              ids[0],
		Resource:        resourceOf("99"),
		ResourceVersion: 2,
		TransformedAt:   &at,
	})
	if err != nil || string(get(t, store, ids[0]).Resource) != string(resourceOf("99")) {
		t.Errorf("a new resource: %v", err)
	}

	if n, err := store.CountClear(t.Context()); err != nil || n != 451 {
		t.Errorf("%d rows are in clear, %v", n, err)
	}
	var last, total int64
	n, err := store.SealClear(t.Context(), func(done, of int64) { last, total = done, of })
	if err != nil || n != 451 || last != 451 || total != 451 {
		t.Errorf("%d rows are sealed, progress %d of %d: %v", n, last, total, err)
	}
	const inClear = `
SELECT count(*)
FROM observations
WHERE device IS NOT NULL OR measured IS NOT NULL OR plain_resource IS NOT NULL OR reading IS NULL`
	if n := v.number(inClear); n != 0 {
		t.Errorf("%d rows are still in clear", n)
	}
	check(t)
}

// While others hold rows, and deliver and prune them, the background seals the others, and comes back.
func TestSealingLeavesHeldRowsToOthers(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	store := v.with(generated(t))
	ids := v.clear(store, 250)
	tx, err := v.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "UPDATE observations SET posted_by = 'x' WHERE id = ANY ($1)", ids[:100]); err != nil {
		t.Fatal(err)
	}

	var work errgroup.Group
	work.Go(func() error {
		n, err := store.SealClear(t.Context(), func(int64, int64) {})
		if err == nil && n != 250 {
			err = fmt.Errorf("%d rows were sealed", n)
		}
		return err
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if n, err := store.CountClear(t.Context()); err != nil || n == 100 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the others are not sealed")
		}
	}
	if _, err := store.SealClear(t.Context(), func(int64, int64) {}); !errors.Is(err, db.ErrSealing) {
		t.Errorf("a second process: %v, want %v", err, db.ErrSealing)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := work.Wait(); err != nil {
		t.Error(err)
	}
}

// After a rotation everything is sealed anew while writes go on, over interruptions. Then nothing needs the old key.
func TestReencryptWhileWritesGoOn(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	content := generated(t)
	before := v.with(content)
	var ids []uuid.UUID
	first := transformed(t, before, "81.60")
	ids = append(ids, first.ID)
	v.exec(`
INSERT INTO observations (id, practice_code, patient_id, observation_type, effective_at, device, measured)
SELECT gen_random_uuid(), practice_code, patient_id, observation_type, effective_at, 'D' || n, '{"value": 1}'
FROM observations, generate_series(1, 700) n`)
	if n, err := before.SealClear(t.Context(), func(int64, int64) {}); err != nil || n != 700 {
		t.Fatalf("%d rows, %v", n, err)
	}
	key := v.apiKey(before, "SCALE-1")
	_, used, retired := rotated(t, content, keyring.Columns)
	store, old := v.with(used), keyIn(t, content, keyring.Columns)
	if rows := rowsOf(t, store, old); rows != 704 { // two columns of the first, and its patient
		t.Fatalf("%d values need the old key, want 704", rows)
	}

	ctx, stop := context.WithCancel(t.Context())
	interrupted := func(done, total int64) {
		if done >= 200 {
			stop()
		}
	}
	n, err := store.Reencrypt(ctx, interrupted)
	if !errors.Is(err, context.Canceled) || n == 0 || n > 401 {
		t.Fatalf("interrupted after %d rows: %v", n, err)
	}

	writes, end := context.WithCancel(t.Context())
	var work errgroup.Group
	work.Go(func() error {
		for writes.Err() == nil {
			ids = append(ids, transformed(t, store, "82.10").ID)
			at := time.Now()
			err := store.SaveResource(t.Context(), db.SaveResourceParams{
				PracticeCode: thePractice, ID: first.ID, Resource: resourceOf("81.60"), ResourceVersion: 1, TransformedAt: &at,
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	_, err = store.Reencrypt(t.Context(), func(int64, int64) {})
	end()
	if err := errors.Join(err, work.Wait()); err != nil {
		t.Fatal(err)
	}

	if rows := rowsOf(t, store, old); rows != 0 {
		t.Errorf("%d values still need the old key", rows)
	}
	if n, err := store.Reencrypt(t.Context(), func(int64, int64) {}); err != nil || n != 0 {
		t.Errorf("a second time: %d rows, %v", n, err)
	}
	without := v.with(retired)
	for _, id := range ids {
		get(t, without, id)
	}
	if _, err := without.GetAPIKey(t.Context(), db.GetAPIKeyParams{PracticeCode: thePractice, ID: key.ID}); err != nil {
		t.Error(err)
	}
	var missing *keyring.MissingKeyError
	_, err = before.GetObservation(t.Context(), db.GetObservationParams{PracticeCode: thePractice, ID: first.ID})
	if !errors.As(err, &missing) || !strings.Contains(db.Cause(err), keyIn(t, retired, keyring.Columns)) {
		t.Errorf("without the new key: %v", err)
	}
}

// rowsOf returns how many values need a key.
func rowsOf(t *testing.T, store *db.Store, key string) (rows int64) {
	t.Helper()
	uses, err := store.Uses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, use := range uses {
		if use.Key == key {
			rows += use.Rows
		}
	}
	return rows
}

// A row that cannot be opened keeps nobody from sealing the others, and is named.
func TestReencryptPassesByWhatDoesNotOpen(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	content := generated(t)
	before := v.with(content)
	broken, good := transformed(t, before, "81.60"), transformed(t, before, "81.60")
	v.exec("UPDATE observations SET reading = reading || '\\x00' WHERE id = $1", broken.ID)
	_, used, retired := rotated(t, content, keyring.Columns)
	store := v.with(used)
	n, err := store.Reencrypt(t.Context(), func(int64, int64) {})
	if n != 3 || !errors.Is(err, keyring.ErrCorrupt) || !strings.Contains(err.Error(), broken.ID.String()) {
		t.Errorf("%d rows, %v", n, err)
	}
	get(t, v.with(retired), good.ID)
	if rowsOf(t, store, keyIn(t, content, keyring.Columns)) == 0 {
		t.Error("nothing needs the old key, although a row has it")
	}
}

// A repeated request is known before, during and after a rotation of the key of the hashes, alone and in a batch,
// and so is another body under its key.
func TestRequestsAreKnownWhileKeysRotate(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	content := generated(t)
	known, used, retired := rotated(t, content, keyring.Indexes)
	phases := []*db.Store{v.with(content), v.with(known), v.with(used)}
	request := func(i int) db.Request {
		return db.Request{Key: fmt.Sprintf("key-%d", i), Body: fmt.Appendf(nil, "body-%d", i)}
	}

	var ids []uuid.UUID
	for i, store := range phases {
		o := reading(t, store, `{}`)
		ids = append(ids, o.ID)
		remember := db.RememberRequestsParams{
			PracticeCode:   thePractice,
			Requests:       []db.Request{request(i)},
			ObservationIDs: []uuid.UUID{o.ID},
		}
		if n, err := store.RememberRequests(t.Context(), remember); err != nil || n != 1 {
			t.Fatalf("%d are remembered, %v", n, err)
		}
	}
	wantKnown := func(name string, store *db.Store, want ...int) {
		t.Helper()
		var all []db.Request
		for i := range phases {
			all = append(all, request(i))
			again := request(i)
			found, err := store.FindRequest(t.Context(), db.FindRequestParams{PracticeCode: thePractice, Request: again})
			if is := slices.Contains(want, i); is != (err == nil) || is && (!found.SameBody || found.Observation.ID != ids[i]) {
				t.Errorf("%s, request %d: %+v, %v", name, i, found, err)
			}
			again.Body = []byte("another")
			found, err = store.FindRequest(t.Context(), db.FindRequestParams{PracticeCode: thePractice, Request: again})
			if err == nil && found.SameBody {
				t.Errorf("%s, request %d: another body is the same", name, i)
			}
		}
		found, err := store.FindRequests(t.Context(), db.FindRequestsParams{PracticeCode: thePractice, Requests: all})
		if err != nil || len(found) != len(want) {
			t.Errorf("%s, together: %v, %v", name, found, err)
		}
		for _, i := range want {
			if f := found[request(i).Key]; !f.SameBody || f.ObservationID != ids[i] {
				t.Errorf("%s, together, request %d: %+v", name, i, f)
			}
		}
	}
	wantKnown("the new key is not known", phases[0], 0, 1)
	wantKnown("the new key is known", phases[1], 0, 1, 2)
	wantKnown("the new key is used", phases[2], 0, 1, 2)
	wantKnown("the old key is retired", v.with(retired), 2)
	if rows := rowsOf(t, phases[2], keyIn(t, content, keyring.Indexes)); rows != 5 { // two hashes of two requests, and the first patient's MRN
		t.Errorf("%d hashes need the old key, want 5", rows)
	}
}

// Every column that holds bytes is sealed and known to the re-encryption, or holds no sealed value.
func TestEverySealedColumnIsKnown(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	others := []string{
		// Hashes of random texts, which nobody can guess.
		"api_keys.key_hash", "refresh_tokens.token_hash", "oidc_sign_ins.state_hash", "oidc_sign_ins.browser_hash",
		// Codes and hashes of the audit trail, whose rows hold no values.
		"audit_events.code", "audit_events.code_before", "audit_seals.digests", "audit_hashes.hash",
	}
	rows, err := v.conn.Query(t.Context(), `
SELECT c.relname || '.' || a.attname
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE a.atttypid = 'bytea'::regtype AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace AND a.attnum > 0
ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	columns, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	known := append(db.KnownColumns(), others...)
	slices.Sort(known)
	if !slices.Equal(columns, known) {
		t.Errorf("the columns of bytes are\n%v\nand known are\n%v", columns, known)
	}
}

func BenchmarkSealAReading(b *testing.B) {
	content, err := keyring.Generate()
	if err != nil {
		b.Fatal(err)
	}
	keys, err := keyring.New(content)
	if err != nil {
		b.Fatal(err)
	}
	plain, err := json.Marshal(map[string]any{"device": "BP-OMRON-7250", "measured": json.RawMessage(`{"systolic":142,"diastolic":92}`)})
	if err != nil {
		b.Fatal(err)
	}
	cell := keyring.Cell{Table: "observations", Column: "reading", Practice: thePractice, Row: uuid.NewString()}
	for b.Loop() {
		sealed, err := keys.Seal(cell, plain)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := keys.Open(cell, sealed); err != nil {
			b.Fatal(err)
		}
	}
}
