package devstack_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/devstack"
)

// parentIn makes the test binary a parent that starts both servers in that directory and then waits to be
// killed.
const parentIn = "DEVSTACK_TEST_PARENT_IN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(parentIn); dir != "" {
		if err := beParent(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func beParent(dir string) error {
	ctx := context.Background()
	binary, err := temporaldev()
	if err != nil {
		return err
	}

	postgres, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{Dir: filepath.Join(dir, "postgres")})
	if err != nil {
		return err
	}

	temporal, err := devstack.StartTemporal(ctx, devstack.TemporalConfig{Binary: binary, Dir: filepath.Join(dir, "temporal")})
	if err != nil {
		return err
	}

	fmt.Println("started", temporal.UIURL())
	<-postgres.Done()
	return errors.New("PostgreSQL has ended")
}

func TestServersDoNotOutliveAKilledParent(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), parentIn+"="+dir)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}

	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	line, _ := bufio.NewReader(stdout).ReadString('\n')
	var ui string
	if _, err := fmt.Sscanf(line, "started %s", &ui); err != nil {
		t.Fatalf("the parent says %q", line)
	}

	pid := postmaster(t, filepath.Join(dir, "postgres"))
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}

	_ = cmd.Wait() // "signal: killed"

	await(t, "Temporal's end", func() bool { return !answers(strings.TrimPrefix(ui, "http://")) })
	if runtime.GOOS == "linux" {
		await(t, "PostgreSQL's end", func() bool { return !alive(pid) })
	}

	// Elsewhere the next start ends it, and on Linux it must not mind that it has ended.
	postgres(t, filepath.Join(dir, "postgres"))
}

func TestPostgresStopsALeftoverOfItself(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(tempDir(t), "postgres")
	first := postgres(t, dir)
	recall := remember(t, first)
	devstack.Abandon(first)
	recall(postgres(t, dir))
	select {
	case <-first.Done():
	default:
		t.Error("the first server still runs")
	}

	if conn, err := pgx.Connect(t.Context(), first.URL("postgres")); err == nil {
		_ = conn.Close(t.Context())
		t.Error("the first server still answers")
	}
}

// postmaster returns the id of the server's process.
func postmaster(t *testing.T, dir string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
