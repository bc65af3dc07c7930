package audit_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

// TestUntouched: whatever happens to connections, transactions, clocks and keys, a trail that nobody has touched is whole.
func TestUntouched(t *testing.T) {
	t.Parallel()
	r := newRig(t)

	content, err := keyring.Generate()
	r.must(err)
	old, err := keyring.New(content)
	r.must(err)
	content, _, err = keyring.Rotate(content, keyring.Audit, time.Now().Add(-time.Second))
	r.must(err)
	rotated, err := keyring.New(content)
	r.must(err)
	r.keys, r.sealer.Keys = rotated, rotated

	var committed atomic.Int64
	stop := make(chan struct{})
	var writers, others sync.WaitGroup
	for _, keys := range []*keyring.Keyring{old, rotated} { // a process that has not read the new file yet goes on with the old key
		store := r.open(r.url, keys)
		for n := range 12 {
			writers.Go(func() {
				for range 25 {
					rows := 1 + rand.IntN(3)
					err := store.InTx(t.Context(), func(q *db.Queries) error {
						for range rows {
							if err := audit.Record(t.Context(), q, event()); err != nil {
								return err
							}
						}
						if n%3 == 0 && rand.IntN(3) == 0 {
							return errors.New("rolled back")
						}
						return nil
					})
					if err == nil {
						committed.Add(int64(rows))
					}
				}
			})
		}
	}
	ended := 0
	others.Go(func() { // connections end at any moment, also when they commit
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				tag, _ := r.admin.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
					WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle' ORDER BY random() LIMIT 1`)
				ended += int(tag.RowsAffected())
			}
		}
	})
	others.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				_, _ = r.sealer.Seal(t.Context()) // its connection is ended as well
			}
		}
	})
	writers.Wait()
	close(stop)
	others.Wait()

	_, err = r.sealer.Seal(t.Context())
	r.must(err)
	report := r.untouched(r.published()...)
	if report.Rows < committed.Load() || committed.Load() == 0 {
		t.Errorf("%d rows, of %d that were committed for certain", report.Rows, committed.Load())
	}
	if report.Sealed != report.Rows || report.Outside == 0 {
		t.Errorf("%d of %d rows are sealed, %d checkpoints from outside", report.Sealed, report.Rows, report.Outside)
	}
	if ended == 0 {
		t.Error("no connection was ended")
	}
	t.Logf("%d rows, %d of them committed for certain, %d seals, %d connections ended", report.Rows, committed.Load(), report.Leaves, ended)
}

// TestClockSetBack: rows of one writer may go back in time, as a clock does.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.addMonths(2025, 3, 4)
	at := time.Date(2025, 4, 1, 0, 1, 0, 0, time.UTC)
	w := r.writer()
	r.write(w, 1)
	r.insertPast(uuid.New(), at, at.Add(-2*time.Minute), at.Add(time.Minute), at.Add(-4*time.Minute), at.Add(-3*time.Minute))
	r.seal(6)
	report := r.untouched(r.published()...)
	if report.Leaves != 5 { // a seal is of one month
		t.Errorf("%d seals", report.Leaves)
	}
}

const (
	sealerURL     = "TEST_AUDIT_SEALER_URL"
	sealerFile    = "TEST_AUDIT_SEALER_FILE"
	sealerKeyring = "TEST_AUDIT_SEALER_KEYRING"
)

// sealForEver is a process that seals all the time, until it is killed.
func sealForEver() {
	content, err := os.ReadFile(os.Getenv(sealerKeyring))
	if err != nil {
		panic(err)
	}
	keys, err := keyring.New(content)
	if err != nil {
		panic(err)
	}
	store, err := db.Open(context.Background(), os.Getenv(sealerURL), keys)
	if err != nil {
		panic(err)
	}
	s := audit.Sealer{
		Store:        store,
		Keys:         keys,
		PracticeCode: practice,
		Checkpoints:  os.Getenv(sealerFile),
		Logger:       slog.New(slog.DiscardHandler),
	}
	fmt.Println("begins")
	for {
		if rows, err := s.Seal(context.Background()); err != nil || rows > 0 {
			fmt.Println(rows, err)
		}
	}
}

// TestSealerKilled: 200 writers go on while the sealers, two processes, are killed again and again. In the end each row is
// sealed once.
func TestSealerKilled(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	self, err := os.Executable()
	r.must(err)
	ring := keyringtest.File(t)

	const writers, kills = 200, 4
	store := r.open(r.withParam("pool_max_conns", "40"), r.keys)
	killed := make(chan struct{})
	var rows atomic.Int64
	var all, sealers sync.WaitGroup
	for range writers {
		all.Go(func() {
			for !isDone(killed) {
				if err := audit.RecordNow(t.Context(), store, event()); err != nil {
					t.Error(err)
					return
				}
				rows.Add(1)
				time.Sleep(time.Duration(rand.IntN(400)) * time.Millisecond)
			}
		})
	}
	for range 2 {
		sealers.Go(func() {
			for n := range kills {
				sealer := exec.Command(self)
				sealer.Env = append(os.Environ(), sealerURL+"="+r.url, sealerFile+"="+r.sealer.Checkpoints, sealerKeyring+"="+ring)
				out, err := sealer.StdoutPipe()
				if err == nil {
					err = sealer.Start()
				}
				if err != nil {
					t.Error(err)
					return
				}
				said := bufio.NewReader(out)
				for range 1 + n%2*3 { // it begins, or it has sealed some times
					_, _ = said.ReadString('\n')
				}
				time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
				_ = sealer.Process.Kill()
				_ = sealer.Wait()
			}
		})
	}
	sealers.Wait()
	close(killed)
	all.Wait()
	early := len(r.published())

	// The server may not have noticed yet that the last one was killed.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, err := r.sealer.Seal(t.Context())
		r.must(err)
		var open int
		r.must(r.admin.QueryRow(t.Context(), `SELECT count(*) FROM audit_events e WHERE NOT EXISTS (
			SELECT FROM audit_seals s WHERE s.writer = e.writer AND e.sequence BETWEEN s.first_sequence AND s.last_sequence)`).Scan(&open))
		if open == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d rows are not sealed", open)
		}
	}

	var sealed int64
	r.must(r.admin.QueryRow(t.Context(), "SELECT sum(last_sequence - first_sequence + 1)::bigint FROM audit_seals").Scan(&sealed))
	if sealed != rows.Load() {
		t.Errorf("%d rows in seals, want %d", sealed, rows.Load())
	}
	report := r.untouched(r.published()...)
	if report.Rows != rows.Load() || report.Sealed != report.Rows || report.Outside == 0 {
		t.Errorf("%+v", report)
	}
	var newest string
	r.must(r.admin.QueryRow(t.Context(), "SELECT note FROM audit_checkpoints ORDER BY size DESC LIMIT 1").Scan(&newest))
	if list := r.published(); list[len(list)-1] != newest {
		t.Errorf("the file ends with %s, the database with %s", list[len(list)-1], newest)
	}
	if early < 2 {
		t.Errorf("the sealers that were killed have published %d checkpoints", early)
	}
	t.Logf("%d rows, %d seals, %d checkpoints in the file; sealers that were killed have written %d", report.Rows, report.Leaves, report.Outside, early)
}

func isDone(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestNobodyWaitsForTheSealer: rows are written while the sealer's transaction is open, and another sealer does nothing.
func TestNobodyWaitsForTheSealer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer()
	r.write(w, 3)

	lock, err := pgx.Connect(t.Context(), r.url)
	r.must(err)
	defer lock.Close(context.Background())
	holder, err := lock.Begin(t.Context())
	r.must(err)
	_, err = holder.Exec(t.Context(), "LOCK TABLE audit_checkpoints IN EXCLUSIVE MODE") // the sealer's last statement waits
	r.must(err)
	result := make(chan error, 1)
	go func() {
		rows, err := r.sealer.Seal(t.Context())
		if err == nil && rows != 3 {
			err = fmt.Errorf("sealed %d rows", rows)
		}
		result <- err
	}()
	deadline := time.Now().Add(30 * time.Second)
	for waiting := 0; waiting == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the sealer does not wait for the lock")
		}
		r.must(r.admin.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()").
			Scan(&waiting))
	}

	begun := time.Now()
	r.write(w, 5)
	r.write(r.writer(), 5)
	other := r.sealer
	rows, err := other.Seal(t.Context())
	if took := time.Since(begun); err != nil || rows != 0 || took > 2*time.Second {
		t.Errorf("sealed %d rows beside the other sealer, %v; after %s", rows, err, took)
	}
	select {
	case err := <-result:
		t.Errorf("the sealer did not wait: %v", err)
	default:
	}
	r.must(holder.Rollback(t.Context()))
	r.must(<-result)
	r.seal(10)
	r.untouched(r.published()...)
}

// TestPublishedLater: a sealer that died between its commit and the file has left a checkpoint that the next one publishes.
func TestPublishedLater(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer()
	r.write(w, 1)
	dead := r.sealer
	dead.Checkpoints = ""
	_, err := dead.Seal(t.Context())
	r.must(err)

	r.seal(0)
	r.seal(0)
	if got := r.published(); len(got) != 1 {
		t.Fatalf("published %d checkpoints", len(got))
	}
	if report := r.untouched(r.published()...); report.Outside != 1 {
		t.Errorf("%+v", report)
	}
}

// TestCheckpointsEmptied: the file knows of a log that the database does not vouch for any more.
func TestCheckpointsEmptied(t *testing.T) {
	t.Parallel()
	r, _ := sealedRig(t)
	r.exec("TRUNCATE audit_checkpoints")
	r.seal(0)
	if log := r.log.String(); !strings.Contains(log, "level=ERROR") || !strings.Contains(log, "does not continue") {
		t.Errorf("%s", log)
	}
}

// TestFileOfCheckpoints: lines that were cut off anywhere hide nothing but themselves.
func TestFileOfCheckpoints(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer()
	r.write(w, 1)
	r.seal(1)
	whole, err := os.ReadFile(r.sealer.Checkpoints)
	r.must(err)

	for cut := range len(whole) - 1 { // without its last newline it is whole
		if list := audit.ReadCheckpoints(string(whole[:cut]) + string(whole)); len(list) != 1 || list[0] != audit.ReadCheckpoints(string(whole))[0] {
			t.Fatalf("cut after %d bytes: %q", cut, list)
		}
	}
	r.must(os.WriteFile(r.sealer.Checkpoints, whole[:len(whole)-10], 0o600))
	r.seal(0)
	r.write(w, 1)
	r.seal(1)
	if list := r.published(); len(list) != 2 {
		t.Errorf("%q", list)
	}
	r.untouched(r.published()...)
}

// TestFileCannotBeWritten: the database is sealed all the same, and the warning names the setting.
func TestFileCannotBeWritten(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.sealer.Checkpoints = filepath.Join(t.TempDir(), "missing", "checkpoints")
	w := r.writer()
	r.write(w, 1)
	r.seal(1)
	if log := r.log.String(); !strings.Contains(log, "level=WARN") || !strings.Contains(log, "AUDIT_CHECKPOINTS_FILE") {
		t.Errorf("%s", log)
	}
	r.must(os.Mkdir(filepath.Dir(r.sealer.Checkpoints), 0o700))
	r.seal(0)
	if report := r.untouched(r.published()...); report.Outside != 1 {
		t.Errorf("%+v", report)
	}
}

// TestSealerMisled: what somebody does to the newest seal does not keep the sealer from sealing what follows.
func TestSealerMisled(t *testing.T) {
	t.Parallel()
	r, w := sealedRig(t)
	r.exec("UPDATE audit_seals SET sealed_at = now() + interval '10 years' WHERE leaf = 4")
	r.write(w, 2)
	r.seal(2)

	r.exec("DELETE FROM audit_seals WHERE leaf = 5") // its hashes are left
	r.write(w, 1)
	if _, err := r.sealer.Seal(t.Context()); err == nil || !strings.Contains(err.Error(), "audit verify") {
		t.Errorf("does not say what to do: %v", err)
	}
}

// TestRunSealsAtTheEnd: a process that ends in order leaves nothing unsealed.
func TestRunSealsAtTheEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.write(r.writer(), 2)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.sealer.Run(ctx)
	if report := r.untouched(r.published()...); report.Sealed != 2 {
		t.Errorf("%+v\n%s", report, r.log)
	}
}
