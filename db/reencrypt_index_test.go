package db_test

import (
	"fmt"
	"testing"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring"
)

// fill stores 450 names, of which every tenth is empty, and returns their owner.
func (v *vault) fill(store *db.Store) (owner uuid.UUID) {
	v.Helper()
	v.exec(`
CREATE TABLE made (
    owner        uuid,
    ordinal      integer,
    name         bytea,
    name_index_a bytea UNIQUE,
    name_index_b bytea UNIQUE,
    PRIMARY KEY (owner, ordinal)
)`)
	owner = uuid.New()
	for i := range 450 {
		name := fmt.Sprint("name ", i)
		if i%10 == 0 {
			name = ""
		}
		sealed, index, err := store.SealMade(fmt.Sprintf("%s/%d", owner, i), name)
		if err != nil {
			v.Fatal(err)
		}
		v.exec("INSERT INTO made VALUES ($1, $2, $3, $4, $5)", owner, i, sealed, index.A, index.B)
	}
	return owner
}

func reencryptMade(t *testing.T, store *db.Store) int64 {
	t.Helper()
	n, err := store.ReencryptMade(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// While the key of the indexes is rotated, every row gets the hash under the new key beside that under the old one,
// and is found by both. A row without a value gets none. Once the old key is retired, its hashes are in nobody's way:
// the next rotation uses their column.
func TestReencryptFillsBlindIndexes(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	content := generated(t)
	store := v.with(content)
	owner := v.fill(store)
	found := func(store *db.Store) int {
		_, index, err := store.SealMade("", "name 7")
		if err != nil {
			t.Fatal(err)
		}
		return v.number("SELECT count(*) FROM made WHERE name_index_a = $1 OR name_index_b = $2", index.A, index.B)
	}

	if n := reencryptMade(t, store); n != 0 {
		t.Errorf("without a rotation %d rows are changed", n)
	}
	for turn := range 3 {
		before := store
		known, used, retired := rotated(t, content, keyring.Indexes)
		store = v.with(used)
		if n := found(v.with(known)); n != 1 {
			t.Errorf("turn %d, before the new key is used: %d rows are found", turn, n)
		}
		if n := found(store); n != 1 {
			t.Errorf("turn %d, before the rows have its hash: %d rows are found", turn, n)
		}
		if n := reencryptMade(t, store); n != 405 {
			t.Errorf("turn %d: %d rows are changed, want those with a name", turn, n)
		}
		if n := v.number("SELECT count(*) FROM made WHERE name_index_a IS NOT NULL AND name_index_b IS NOT NULL"); n != 405 {
			t.Errorf("turn %d: %d rows have both hashes", turn, n)
		}
		if n := reencryptMade(t, store); n != 0 {
			t.Errorf("turn %d, a second time: %d rows are changed", turn, n)
		}
		content, store = retired, v.with(retired)
		if found(before) != 1 || found(store) != 1 {
			t.Errorf("turn %d: found are %d with the old key, %d with the new one", turn, found(before), found(store))
		}
	}

	_, used, retired := rotated(t, content, keyring.Columns)
	if n := reencryptMade(t, v.with(used)); n != 450 {
		t.Errorf("%d rows are sealed anew", n)
	}
	var sealed []byte
	if err := v.conn.QueryRow(t.Context(), "SELECT name FROM made WHERE ordinal = 7").Scan(&sealed); err != nil {
		t.Fatal(err)
	}
	keys, err := keyring.New(retired)
	if err != nil {
		t.Fatal(err)
	}
	cell := keyring.Cell{Table: "made", Column: "name", Practice: thePractice, Row: owner.String() + "/7"}
	if plain, err := keys.Open(cell, sealed); err != nil || string(plain) != "name 7" {
		t.Errorf("%s, %v", plain, err)
	}
}
