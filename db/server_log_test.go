package db_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/devstack"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

// plainPeople is a table with people in clear, as ours were once: the server must not log what is sealed, nor what a
// later version may forget to seal.
const plainPeople = `
CREATE TABLE people (
    practice_code text NOT NULL CHECK (practice_code <> ''),
    first_name    text NOT NULL,
    last_name     text NOT NULL,
    date_of_birth date NOT NULL,
    mrn           text NOT NULL,
    UNIQUE (practice_code, mrn)
)`

// By itself PostgreSQL prints the row of a violated constraint, and may print statements and parameters. More
// people read its log than its tables, and copies of the log go to many places.
func TestNothingOfAPatientStandsInTheServersLog(t *testing.T) {
	t.Parallel()
	dir := serverDir(t)
	server := startPostgres(t, dir, 0)
	store := storeOn(t, server)

	patient := db.CreatePatientParams{
		PracticeCode: "FFHEDD",
		Demographics: db.Demographics{FirstName: "Jacaranda", LastName: "Quillfeather", MRN: "MRN-77341"},
	}
	if _, err := store.CreatePatient(t.Context(), patient); err != nil {
		t.Fatal(err)
	}
	const insert = "INSERT INTO people (practice_code, first_name, last_name, date_of_birth, mrn) VALUES ($1, $2, $3, $4, $5)"
	jane := []any{"FFHEDD", "Jacaranda", "Quillfeather", "1957-03-21", "MRN-77341"}
	for _, statement := range []string{plainPeople, insert} {
		if _, err := store.Pool().Exec(t.Context(), statement, jane[:strings.Count(statement, "$")]...); err != nil {
			t.Fatal(err)
		}
	}
	for name, statement := range map[string]struct {
		sql  string
		args []any
	}{
		"a duplicate MRN":       {insert, jane},
		"a violated CHECK":      {insert, []any{"", "Jacaranda", "Quillfeather", "1957-03-21", "MRN-77342"}},
		"a missing value":       {insert, []any{"FFHEDD", "Jacaranda", nil, "1957-03-21", "MRN-77342"}},
		"a failing statement":   {"SELECT 1 / (length($1) - length($1))", []any{"Quillfeather MRN-77341"}},
		"SQL with values in it": {"INSERT INTO people (first_name, last_name, mrn) VALUES ('Jacaranda', 'Quillfeather', 'MRN-77341')", nil},
		"JSON that is none":     {"SELECT $1::text::jsonb", []any{`{"name": Quillfeather}`}},
	} {
		if _, err := store.Pool().Exec(t.Context(), statement.sql, statement.args...); err == nil {
			t.Errorf("%s is no error", name)
		}
	}
	if _, err := store.CreatePatient(t.Context(), patient); !db.IsNotFound(err) {
		t.Errorf("a patient with an MRN that exists gives %v", err)
	}
	if err := server.Stop(); err != nil { // everything is written
		t.Fatal(err)
	}

	text, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if word := regexp.MustCompile(`Jacaranda|Quillfeather|1957-03-21|7734[12]`).FindString(line); word != "" {
			t.Errorf("the server's log holds %s: %s", word, line)
		}
	}
	for _, said := range []string{"duplicate key value", "violates check constraint", "violates not-null constraint", "division by zero"} {
		if !strings.Contains(string(text), said) {
			t.Errorf("the server's log lacks %q: the test looks at the wrong thing", said)
		}
	}
	if n := strings.Count(string(text), "duplicate key value"); n != 1 {
		t.Errorf("%d duplicates are logged, want the one that no query of ours made", n)
	}
}

// An installation whose server may log rows or parameters is told so.
func TestRevealingLogSettings(t *testing.T) {
	t.Parallel()
	_, conn := open(t)
	for _, test := range []struct {
		set  []string
		want string
	}{
		{nil, ""},
		{[]string{"log_error_verbosity = 'default'"}, "log_error_verbosity=terse"},
		{[]string{"log_parameter_max_length_on_error = -1"}, "log_parameter_max_length_on_error=0"},
		{[]string{"log_parameter_max_length = -1"}, ""},
		{[]string{"log_statement = 'all'"}, ""},
		{[]string{"log_parameter_max_length = -1", "log_statement = 'all'"}, "log_parameter_max_length=0"},
		{[]string{"log_parameter_max_length = 100", "log_min_duration_statement = 250"}, "log_parameter_max_length=0"},
	} {
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, set := range test.set {
			if _, err := tx.Exec(t.Context(), "SET LOCAL "+set); err != nil {
				t.Fatal(err)
			}
		}
		got, err := db.New(tx).RevealingLogSettings(t.Context())
		if err != nil || strings.Join(got, " ") != test.want {
			t.Errorf("with %v the wrong ones are %v, want %q (%v)", test.set, got, test.want, err)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// PostgreSQL's csvlog and jsonlog, which managed servers use, hold the row of a violated constraint whatever
// log_error_verbosity says. A server that writes them must be reported.
func TestALogWithColumnsRevealsRows(t *testing.T) {
	t.Parallel()
	dir := serverDir(t)
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
	store := storeOn(t, server)
	if _, err := store.Pool().Exec(t.Context(), plainPeople); err != nil {
		t.Fatal(err)
	}
	const insert = "INSERT INTO people (practice_code, first_name, last_name, date_of_birth, mrn) VALUES ('', $1, $2, $3, $4)"
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
	if !strings.Contains(revealed, "Quillfeather") {
		t.Error("the server's jsonlog holds no row: the test looks at the wrong thing")
	}
	if !strings.Contains(strings.Join(wrong, " "), "log_destination") {
		t.Errorf("the server's jsonlog holds the row, and of its settings only %v are named", wrong)
	}
}

// serverDir returns the directory for the data of a server of the test's own.
func serverDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "postgres")
	if err := os.Chmod(filepath.Dir(filepath.Dir(dir)), 0o711); err != nil { // for PostgreSQL in another account
		t.Fatal(err)
	}
	return dir
}

// storeOn returns a migrated store on a server of the test's own.
func storeOn(t *testing.T, server *devstack.Postgres) *db.Store {
	t.Helper()
	store, err := db.Open(t.Context(), server.URL("postgres"), keyringtest.Shared())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	if _, err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return store
}
