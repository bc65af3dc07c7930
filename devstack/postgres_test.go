package devstack_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/devstack"
)

// postgres starts the cluster in dir and stops it when the test ends.
func postgres(t *testing.T, dir string) *devstack.Postgres {
	t.Helper()
	p, err := devstack.StartPostgres(t.Context(), devstack.PostgresConfig{Dir: dir, Install: true, Output: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Stop() })
	return p
}

func query(t *testing.T, url, statement string, into ...any) {
	t.Helper()
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()

	if into == nil {
		_, err = conn.Exec(ctx, statement)
	} else {
		err = conn.QueryRow(ctx, statement).Scan(into...)
	}
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// remember stores a row and returns the check that it is still there.
func remember(t *testing.T, p *devstack.Postgres) (recall func(*devstack.Postgres)) {
	t.Helper()
	if err := p.CreateDatabase(t.Context(), "kept"); err != nil {
		t.Fatal(err)
	}

	query(t, p.URL("kept"), "CREATE TABLE reading AS SELECT 128 AS systolic")
	return func(p *devstack.Postgres) {
		t.Helper()
		var systolic int
		query(t, p.URL("kept"), "SELECT systolic FROM reading", &systolic)
		if systolic != 128 {
			t.Errorf("systolic is %d", systolic)
		}
	}
}

func TestPostgresKeepsItsDataOverARestart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(tempDir(t), ".local", "postgres") // neither exists
	p := postgres(t, dir)
	recall := remember(t, p)
	if err := p.CreateDatabase(t.Context(), "kept"); err != nil {
		t.Errorf("creating it again: %v", err)
	}

	var encoding, zone, upper string
	query(t, p.URL("kept"), "SELECT current_setting('server_encoding'), current_setting('timezone'), upper('é')", &encoding, &zone, &upper)
	if encoding != "UTF8" || zone != "UTC" || upper != "É" {
		t.Errorf("encoding %s, time zone %s, upper case %s", encoding, zone, upper)
	}

	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}

	if err := p.Stop(); err != nil {
		t.Errorf("stopped again: %v", err)
	}

	recall(postgres(t, dir))
	if _, err := os.Stat(filepath.Join(dir, "data")); err != nil {
		t.Errorf("the data is not where it was asked for: %v", err)
	}
}

func TestPostgresRecoversFromACrash(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(tempDir(t), "postgres")
	p := postgres(t, dir)
	recall := remember(t, p)
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	recall(postgres(t, dir))
}

func TestPostgresRefusesASecondStartOnItsDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(tempDir(t), "postgres")
	postgres(t, dir)
	_, err := devstack.StartPostgres(t.Context(), devstack.PostgresConfig{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "in use by another vantrexia") {
		t.Errorf("error is %v", err)
	}
}

func TestPostgresIgnoresAStalePidFile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(tempDir(t), "postgres")
	p := postgres(t, dir)
	recall := remember(t, p)
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}

	// After a restart of the machine the number in the file may be another process's: here, this test's.
	pidFile := filepath.Join(dir, "data", "postmaster.pid")
	if err := os.WriteFile(pidFile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}

	recall(postgres(t, dir))
}

func TestPostgresBeginsAgainAfterAnInterruptedSetUp(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(tempDir(t), "postgres")
	if err := os.MkdirAll(filepath.Join(dir, "data.new", "base"), 0o700); err != nil {
		t.Fatal(err)
	}
	postgres(t, dir)
}

func TestPostgresNamesATakenPort(t *testing.T) {
	t.Parallel()
	port := takePort(t)
	_, err := devstack.StartPostgres(t.Context(), devstack.PostgresConfig{Dir: tempDir(t), Port: port})
	checkPortError(t, err, port)
}

func TestPostgresReportsALostPassword(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(tempDir(t), "postgres")
	p := postgres(t, dir)
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(filepath.Join(dir, "password"), []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}

	_, err := devstack.StartPostgres(t.Context(), devstack.PostgresConfig{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "refuses the password") {
		t.Errorf("error is %v", err)
	}
}

// As root in a checkout that only root can enter, the data moves to where the server's account can reach it.
func TestPostgresRunsForRootInAClosedDirectory(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("root only")
	}

	closed := filepath.Join(tempDir(t), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}

	dir := filepath.Join(closed, "postgres")
	p := postgres(t, dir)
	data, err := os.ReadFile(filepath.Join(dir, "moved"))
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		_ = p.Stop()
		moved := filepath.Dir(strings.TrimSpace(string(data)))
		_ = os.RemoveAll(moved)
		_ = os.Remove(filepath.Dir(moved)) // unless a checkout on this machine has its cluster there
	})

	recall := remember(t, p)
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}

	p = postgres(t, dir)
	recall(p)
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}

	// A person deletes the directory to get a new cluster.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}

	p = postgres(t, dir)
	var databases int
	query(t, p.URL("postgres"), "SELECT count(*) FROM pg_database WHERE datname = 'kept'", &databases)
	if databases != 0 {
		t.Error("the data of the deleted cluster is still there")
	}

	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
}

func TestPostgresGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := tempDir(t)
	if _, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{Dir: dir}); !errors.Is(err, context.Canceled) {
		t.Fatalf("error is %v", err)
	}
	postgres(t, dir) // the cancelled start left nothing that would stop this one
}

// tempDir is t.TempDir, open to the account that PostgreSQL runs in when the tests are run by root.
func tempDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

func takePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().(*net.TCPAddr).Port
}

func checkPortError(t *testing.T, err error, port int) {
	t.Helper()
	var taken *devstack.PortError
	if !errors.As(err, &taken) || taken.Port != port {
		t.Fatalf("error is %v", err)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error has several lines: %v", err)
	}
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

// TestNoArgumentHoldsThePassword: every account of the machine sees the arguments of all processes.
func TestNoArgumentHoldsThePassword(t *testing.T) {
	t.Parallel()
	p := postgres(t, tempDir(t))
	at, err := url.Parse(p.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	password, _ := at.User.Password()
	seen := append(p.DumpArgs(t.Context(), "postgres"), p.CommandLine())
	for _, argument := range seen {
		if argument == "" || strings.Contains(argument, password) {
			t.Errorf("the argument %q", argument)
		}
	}

	dump, err := p.Dump(t.Context(), "postgres")
	if err != nil || !strings.Contains(string(dump), "PostgreSQL database dump complete") {
		t.Errorf("%v: %s", err, dump)
	}
}
