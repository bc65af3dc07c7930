package db_test

import (
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/devstack"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

// The server is killed while connections rest in the pool and one waits for an answer, and is started again.
// Every query after that gets its answer at the first try.
func TestPoolSurvivesTheDeathOfTheServer(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "postgres")
	if err := os.Chmod(filepath.Dir(filepath.Dir(dir)), 0o711); err != nil { // for PostgreSQL in another account
		t.Fatal(err)
	}
	server := startPostgres(t, dir, 0)

	store, err := db.NewStore(t.Context(), server.URL("postgres"), keyringtest.Shared())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	askTogether(t, store)
	resting := store.Pool().Stat().TotalConns()

	busy, begun := make(chan error), make(chan struct{})
	go func() {
		conn, err := store.Pool().Acquire(t.Context())
		close(begun)
		if err == nil {
			defer conn.Release()
			_, err = conn.Exec(t.Context(), "SELECT pg_sleep(60)")
		}
		busy <- err
	}()
	<-begun

	port := server.Port()
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-busy; !db.IsUnavailable(err) {
		t.Errorf("the query under way ended with %v", err)
	}
	if err := store.Ping(t.Context()); !db.IsUnavailable(err) || db.IsRefused(err) {
		t.Errorf("asked meanwhile: %v", err)
	}

	startPostgres(t, dir, port)
	time.Sleep(150 * time.Millisecond) // this server may be back sooner than the pool looks at connections that rested
	askTogether(t, store)
	if resting < 5 {
		t.Errorf("only %d connections were in the pool", resting)
	}
}

func startPostgres(t *testing.T, dir string, port int) *devstack.Postgres {
	t.Helper()
	server, err := devstack.StartPostgres(t.Context(), devstack.PostgresConfig{
		Dir:     dir,
		Port:    port,
		Install: true,
		Output:  os.Stderr,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	return server
}

// askTogether uses every connection that the pool may have.
func askTogether(t *testing.T, store *db.Store) {
	t.Helper()
	var group errgroup.Group
	for range 2 * store.Pool().Config().MaxConns {
		group.Go(func() error {
			_, err := store.Pool().Exec(t.Context(), "SELECT pg_sleep(0.05)")
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

// A transaction that holds a row for ever does not hold up the others for ever.
func TestWaitForALockIsCut(t *testing.T) {
	t.Parallel()
	store, conn := migrated(t)
	patient := reading(t, store, `{}`).PatientID

	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT FROM patients FOR UPDATE"); err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	err = store.InTx(t.Context(), func(q *db.Queries) error {
		_, err := q.LockPatient(t.Context(), db.LockPatientParams{PracticeCode: "FFHEDD", ID: patient})
		return err
	})
	if took := time.Since(began); !db.IsUnavailable(err) || took < 4*time.Second || took > 14*time.Second {
		t.Errorf("ended after %s with %v", took, err)
	}

	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := store.LockPatient(t.Context(), db.LockPatientParams{PracticeCode: "FFHEDD", ID: patient}); err != nil {
		t.Error(err)
	}
}

func TestStatementThatNeverEndsIsCut(t *testing.T) {
	t.Parallel()
	store, _ := open(t)

	began := time.Now()
	_, err := store.Pool().Exec(t.Context(), "SELECT pg_sleep(60)")
	if took := time.Since(began); !db.IsUnavailable(err) || took < 14*time.Second || took > 40*time.Second {
		t.Errorf("ended after %s with %v", took, err)
	}

	if err := store.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// A refusal, which stays however long one waits, is told from an outage, which passes.
func TestRefusedIsNotAway(t *testing.T) {
	t.Parallel()
	right, err := url.Parse(stack.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	change := func(change func(*url.URL)) string {
		u := *right
		change(&u)
		return u.String()
	}

	for name, c := range map[string]struct {
		url     string
		refused bool
	}{
		"wrong password":   {change(func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), "wrong") }), true},
		"unknown user":     {change(func(u *url.URL) { u.User = url.UserPassword("nobody", "wrong") }), true},
		"unknown database": {change(func(u *url.URL) { u.Path = "/nosuch" }), true},
		"nobody listens":   {change(func(u *url.URL) { u.Host = "127.0.0.1:1" }), false},
		"unknown host":     {change(func(u *url.URL) { u.Host = "nosuch.invalid:5432" }), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, err := db.NewStore(t.Context(), c.url, keyringtest.Shared())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(store.Close)
			if err := store.Ping(t.Context()); err == nil || db.IsRefused(err) != c.refused || !db.IsUnavailable(err) {
				t.Errorf("%v: refused %t, want %t", err, db.IsRefused(err), c.refused)
			}
		})
	}
}

func TestPoolTakesTheSizeOfTheURL(t *testing.T) {
	t.Parallel()
	for parameters, want := range map[string]int32{"": 10, "?pool_max_conns=3": 3, "?pool_max_conns=25": 25} {
		store, err := db.NewStore(t.Context(), "postgres://u:p@127.0.0.1:1/db"+parameters, keyringtest.Shared())
		if err != nil {
			t.Fatal(err)
		}
		if got := store.Pool().Config().MaxConns; got != want {
			t.Errorf("%q: %d connections, want %d", parameters, got, want)
		}
		store.Close()
	}
}
