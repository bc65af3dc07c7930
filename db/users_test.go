package db_test

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

const usersPractice = "FFHEDD"

func addUser(t *testing.T, store *db.Store, email string) db.User {
	t.Helper()
	user, err := store.CreateUser(t.Context(), db.CreateUserParams{
		PracticeCode: usersPractice,
		Email:        email,
		FirstName:    "Nora",
		LastName:     "Canary-Lind",
		Role:         "nurse",
	})
	if err != nil {
		t.Fatal(err)
	}
	return user
}

func findByEmail(store *db.Store, email string) (db.User, error) {
	return store.FindUser(context.Background(), db.FindUserParams{PracticeCode: usersPractice, Email: email})
}

// storedIn is all rows of a table as text.
func storedIn(t *testing.T, conn *pgx.Conn, table string) string {
	t.Helper()
	var all string
	err := conn.QueryRow(t.Context(), "SELECT coalesce(string_agg(t::text, ' '), '') FROM "+table+" t").Scan(&all)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// hexText is how PostgreSQL shows the bytes of a text.
func hexText(text string) string { return hex.EncodeToString([]byte(text)) }

// The database of an installation whose columns were in clear.
func TestAccountsInClearAreSealed(t *testing.T) {
	t.Parallel()
	store, conn := open(t)
	if _, err := store.MigrateTo(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	id := uuid.New()
	_, err := conn.Exec(t.Context(), `INSERT INTO users
		(id, practice_code, email, email_key, first_name, last_name, role, totp_secret, totp_enabled)
		VALUES ($1, $2, 'nora@example.com', 'k', 'Nora', 'Canary-Lind', 'nurse', 'CANARYSECRET', true),
		       (gen_random_uuid(), $2, 'omar@example.com', 'l', 'Omar', 'Canary-Lind', 'nurse', NULL, false)`, id, usersPractice)
	if err != nil {
		t.Fatal(err)
	}

	if _, err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := store.CheckMigrated(t.Context()); err != nil {
		t.Error(err)
	}

	user, err := findByEmail(store, "nora@example.com")
	if err != nil || user.ID != id || user.LastName != "Canary-Lind" || *user.TOTPSecret != "CANARYSECRET" || !user.TOTPEnabled {
		t.Errorf("found %+v (%v)", user, err)
	}
	if user, err := findByEmail(store, "omar@example.com"); err != nil || user.TOTPSecret != nil {
		t.Errorf("found %+v (%v)", user, err)
	}
	_, err = store.CreateUser(t.Context(), db.CreateUserParams{PracticeCode: usersPractice, Email: "nora@example.com", Role: "nurse"})
	if !db.IsNotFound(err) {
		t.Errorf("a second account with the e-mail: %v", err)
	}

	stored := storedIn(t, conn, "users")
	for _, canary := range []string{"nora@example.com", "Canary-Lind", "CANARYSECRET"} {
		if strings.Contains(stored, canary) || strings.Contains(stored, hexText(canary)) {
			t.Errorf("users holds %s", canary)
		}
	}
}

func TestAProfileOpensInItsOwnRowOnly(t *testing.T) {
	t.Parallel()
	store, conn := migrated(t)
	nora, omar := addUser(t, store, "nora@example.com"), addUser(t, store, "omar@example.com")
	_, err := conn.Exec(t.Context(), `UPDATE users
		SET profile = (SELECT other.profile FROM users other WHERE other.id <> users.id)`)
	if err != nil {
		t.Fatal(err)
	}

	for _, user := range []db.User{nora, omar} {
		_, err := store.GetUser(t.Context(), db.GetUserParams{PracticeCode: usersPractice, ID: user.ID})
		if !errors.Is(err, keyring.ErrCorrupt) || !strings.Contains(err.Error(), "users.profile of "+user.ID.String()) {
			t.Errorf("an exchanged profile: %v", err)
		}
	}
}

func TestAMissingKeyOfAProfileIsNamed(t *testing.T) {
	t.Parallel()
	url := stack.Postgres(t)
	theirs, err := db.Open(t.Context(), url, keyringtest.Shared())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(theirs.Close)
	if _, err := theirs.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	user := addUser(t, theirs, "nora@example.com")

	ours := openKeyed(t, url, newKeys(t))
	_, err = ours.GetUser(t.Context(), db.GetUserParams{PracticeCode: usersPractice, ID: user.ID})
	var missing *keyring.MissingKeyError
	if !errors.As(err, &missing) || missing.ID != keyOf(keyringtest.Shared(), keyring.Columns) {
		t.Errorf("without the key: %v", err)
	}
}

// An e-mail is found, and refused a second time, before, during and after the index's key is rotated, also by a
// process that has not read the new key yet.
func TestEmailsAreFoundWhileTheIndexIsRotated(t *testing.T) {
	t.Parallel()
	url := stack.Postgres(t)
	before := newKeys(t)
	during, _, err := keyring.Rotate(before, keyring.Indexes, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	old := openKeyed(t, url, before)
	if _, err := old.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	both := openKeyed(t, url, during)

	addUser(t, old, "before@example.com")
	addUser(t, both, "during@example.com")
	addUser(t, old, "behind@example.com")
	emails := []string{"before@example.com", "during@example.com", "behind@example.com"}
	for name, store := range map[string]*db.Store{"the process with the old key": old, "the one with both": both} {
		for _, email := range emails {
			checkTaken(t, name, store, email)
		}
	}

	// Writing an account gives its e-mail the hash of the new key, as re-encryption does.
	for _, email := range emails {
		user, err := findByEmail(both, email)
		if err != nil {
			t.Fatal(err)
		}
		err = both.UpdateUser(t.Context(), db.UpdateUserParams{
			PracticeCode: usersPractice,
			ID:           user.ID,
			Email:        email,
			FirstName:    user.FirstName,
			LastName:     user.LastName,
			Role:         user.Role,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	retired, err := keyring.New(before)
	if err != nil {
		t.Fatal(err)
	}
	left, err := keyring.Retire(during, keyring.Indexes, keyOf(retired, keyring.Indexes))
	if err != nil {
		t.Fatal(err)
	}
	after := openKeyed(t, url, left)
	for _, email := range emails {
		checkTaken(t, "the process with the new key", after, email)
	}
}

func checkTaken(t *testing.T, name string, store *db.Store, email string) {
	t.Helper()
	if user, err := findByEmail(store, email); err != nil || user.Email != email {
		t.Errorf("%s does not find %s: %v", name, email, err)
	}
	_, err := store.CreateUser(t.Context(), db.CreateUserParams{PracticeCode: usersPractice, Email: email, Role: "nurse"})
	if !db.IsNotFound(err) {
		t.Errorf("%s stores %s again: %v", name, email, err)
	}
}

func TestAccountsAreListedByEmail(t *testing.T) {
	t.Parallel()
	store, _ := migrated(t)
	for _, email := range []string{"c@example.com", "a@example.com", "d@example.com", "b@example.com"} {
		addUser(t, store, email)
	}
	try := db.CountFailureParams{PracticeCode: usersPractice, Email: "c@example.com", Most: 1, LockSeconds: 60}
	if err := store.HoldSignIn(t.Context(), db.FindUserParams{PracticeCode: usersPractice, Email: try.Email}); err != nil {
		t.Fatal(err)
	}
	if _, err := store.CountFailure(t.Context(), try); err != nil {
		t.Fatal(err)
	}

	page, count, err := store.ShowUsers(t.Context(), db.ShowUsersParams{PracticeCode: usersPractice, Most: 2, Skip: 1})
	if err != nil || count != 4 || len(page) != 2 {
		t.Fatalf("%d of %d accounts: %v", len(page), count, err)
	}
	if page[0].User.Email != "b@example.com" || page[1].User.Email != "c@example.com" {
		t.Errorf("the order is %s, %s", page[0].User.Email, page[1].User.Email)
	}
	if page[0].LockedUntil != nil || page[1].LockedUntil == nil {
		t.Errorf("the locks are %v, %v", page[0].LockedUntil, page[1].LockedUntil)
	}

	for _, beyond := range []db.ShowUsersParams{
		{PracticeCode: usersPractice, Most: 2, Skip: 9},
		{PracticeCode: usersPractice, Most: 2, Email: "z@example.com"},
	} {
		if page, _, err := store.ShowUsers(t.Context(), beyond); err != nil || len(page) != 0 {
			t.Errorf("beyond the end: %d accounts (%v)", len(page), err)
		}
	}
}

func TestASignInAtTheProviderIsKeptSealed(t *testing.T) {
	t.Parallel()
	store, conn := migrated(t)
	err := store.BeginOIDC(t.Context(), db.BeginOIDCParams{
		StateHash:    []byte("state"),
		BrowserHash:  []byte("browser"),
		PracticeCode: usersPractice,
		Nonce:        "canary-nonce",
		CodeVerifier: "canary-verifier",
		ReturnTo:     "/docs",
		LastsSeconds: 60,
	})
	if err != nil {
		t.Fatal(err)
	}

	if stored := storedIn(t, conn, "oidc_sign_ins"); strings.Contains(stored, hexText("canary")) || strings.Contains(stored, "canary") {
		t.Error("the secrets are in clear")
	}
	begun, err := store.UseOIDC(t.Context(), db.UseOIDCParams{
		StateHash:    []byte("state"),
		BrowserHash:  []byte("browser"),
		PracticeCode: usersPractice,
	})
	if err != nil || begun != (db.OIDCSignIn{Nonce: "canary-nonce", CodeVerifier: "canary-verifier", ReturnTo: "/docs"}) {
		t.Errorf("%+v (%v)", begun, err)
	}
}

func newKeys(t *testing.T) []byte {
	t.Helper()
	content, err := keyring.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// keyOf is the id of a keyset's oldest key.
func keyOf(ring *keyring.Keyring, set keyring.Keyset) string {
	at := slices.IndexFunc(ring.Keys(), func(k keyring.Key) bool { return k.Keyset == set })
	return ring.Keys()[at].ID
}

// openKeyed opens a database with the keys of a keyring file's content.
func openKeyed(t *testing.T, url string, content []byte) *db.Store {
	t.Helper()
	keys, err := keyring.New(content)
	if err != nil {
		t.Fatal(err)
	}
	store, err := db.Open(t.Context(), url, keys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store
}
