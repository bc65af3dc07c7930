package db_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/db"
)

// PostgreSQL's csvlog and jsonlog, which managed servers use, hold the row of a violated constraint whatever
// log_error_verbosity says: a server that writes them has to be found out.
func TestALogWithColumnsRevealsRows(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "postgres")
	if err := os.Chmod(filepath.Dir(filepath.Dir(dir)), 0o711); err != nil { // PostgreSQL may run in another account than ours
		t.Fatal(err)
	}
	server := startPostgres(t, dir, 0)
	conn, err := pgx.Connect(t.Context(), server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range []string{"logging_collector = on", "log_destination = 'stderr,jsonlog'"} {
		if _, err := conn.Exec(t.Context(), "ALTER SYSTEM SET "+set); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}

	server = startPostgres(t, dir, 0)
	store, err := db.Open(t.Context(), server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	if _, err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	const insert = "INSERT INTO patients (practice_code, first_name, last_name, birth_date, mrn) VALUES ('', $1, $2, $3, $4)"
	if _, err := store.Pool().Exec(t.Context(), insert, "Jacaranda", "Quillfeather", "1957-03-21", "MRN-77341"); err == nil {
		t.Fatal("a violated CHECK is no error")
	}
	wrong, err := store.RevealingLogSettings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Stop(); err != nil { // everything is written
		t.Fatal(err)
	}

	var revealed string
	if err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".json") && strings.Contains(path, "log") {
			text, _ := os.ReadFile(path)
			revealed += string(text)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(revealed, "Quillfeather") && !strings.Contains(strings.Join(wrong, " "), "log_destination") {
		t.Errorf("the server's jsonlog holds the row, and of its settings only %v are named", wrong)
	}
}
