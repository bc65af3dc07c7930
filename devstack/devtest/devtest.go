// Package devtest gives a test package its own PostgreSQL and Temporal: real servers, started when the first
// test asks and shared by all tests of the package, each of which gets a database and a namespace of its own.
//
//	var stack devtest.Stack
//
//	func TestMain(m *testing.M) { os.Exit(stack.Run(m)) }
//
//	func TestDelivery(t *testing.T) {
//		t.Parallel()
//		pool, err := pgxpool.New(t.Context(), stack.Postgres(t))
//		...
//	}
package devtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/devstack"
)

// Stack holds the servers of one test package. Its methods may be called from parallel tests. The zero value
// is ready to use. The fields may be set before the first test runs.
type Stack struct {
	// Migrate is run once, on the database that every test's database is a copy of. nil leaves them empty. It
	// finds the role for AsRuntime, and has to give it its rights.
	Migrate func(ctx context.Context, url string) error
	// SearchAttributes maps the name of each to its type, for every namespace.
	SearchAttributes map[string]string
	// DynamicConfig maps keys of Temporal's dynamic configuration to values.
	DynamicConfig map[string]any

	mu       sync.Mutex
	dir      string
	postgres *devstack.Postgres
	temporal *devstack.Temporal
	names    atomic.Int64
}

// Run runs the tests, stops what they started, whether they pass or fail, and returns the exit code.
func (s *Stack) Run(m *testing.M) int {
	code := m.Run()
	if err := s.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "devtest:", err)
		return max(code, 1)
	}
	return code
}

// startTimeout is long enough to install PostgreSQL, and for a machine where every package starts servers.
const startTimeout = 10 * time.Minute

// template is the database that Migrate was run on.
const template = "migrated"

// Postgres returns the connection URL of a new database, which is dropped when the test ends.
func (s *Stack) Postgres(tb testing.TB) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), startTimeout)
	defer cancel()

	server, err := s.startPostgres(ctx)
	if err != nil {
		tb.Fatal(err)
	}

	name := s.name()
	if err := execute(ctx, server, "CREATE DATABASE "+name+" TEMPLATE "+template); err != nil {
		tb.Fatal(err)
	}

	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // the test's own is over
		defer cancel()
		if err := execute(ctx, server, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			tb.Error(err)
		}
	})
	return server.URL(name)
}

// runtimeRole is the account of API and workers.
const runtimeRole = "vantrexia_runtime"

// AsRuntime returns the URL of Postgres for the account that API and workers have in an installation, which
// owns nothing: what it may not do fails in tests too.
func AsRuntime(tb testing.TB, owner string) string {
	tb.Helper()
	u, err := url.Parse(owner)
	if err != nil {
		tb.Fatal(err)
	}
	u.User = url.UserPassword(runtimeRole, runtimeRole)
	return u.String()
}

// Temporal returns the server's address and the name of a new namespace.
func (s *Stack) Temporal(tb testing.TB) (address, namespace string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), startTimeout)
	defer cancel()

	server, err := s.startTemporal(ctx)
	if err != nil {
		tb.Fatal(err)
	}

	namespace = s.name()
	if err := register(ctx, server.Address(), namespace, s.SearchAttributes); err != nil {
		tb.Fatal(err)
	}
	return server.Address(), namespace
}

// name returns a name that no other test has.
func (s *Stack) name() string { return fmt.Sprintf("test_%d", s.names.Add(1)) }

func (s *Stack) startPostgres(ctx context.Context) (*devstack.Postgres, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.postgres != nil {
		return s.postgres, nil
	}

	dir, err := s.directory()
	if err != nil {
		return nil, err
	}

	server, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{
		Dir: filepath.Join(dir, "postgres"), Install: true, Output: os.Stderr,
	})
	if err != nil {
		return nil, err
	}

	if err := s.migrate(ctx, server); err != nil {
		return nil, errors.Join(err, server.Stop())
	}

	s.postgres = server
	return server, nil
}

func (s *Stack) migrate(ctx context.Context, server *devstack.Postgres) error {
	if err := server.CreateDatabase(ctx, template); err != nil {
		return err
	}
	if s.Migrate == nil {
		return nil
	}
	if err := execute(ctx, server, "CREATE ROLE "+runtimeRole+" LOGIN PASSWORD '"+runtimeRole+"'"); err != nil {
		return err
	}
	if err := s.Migrate(ctx, server.URL(template)); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

func (s *Stack) startTemporal(ctx context.Context) (*devstack.Temporal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.temporal != nil {
		return s.temporal, nil
	}

	root, err := devstack.Root()
	if err != nil {
		return nil, err
	}

	dir, err := s.directory()
	if err != nil {
		return nil, err
	}

	server, err := devstack.StartTemporal(ctx, devstack.TemporalConfig{
		Binary:        filepath.Join(root, "bin", "temporaldev"),
		Dir:           filepath.Join(dir, "temporal"),
		InMemory:      true,
		Headless:      true,
		DynamicConfig: s.dynamicConfig(),
	})
	if err != nil {
		return nil, err
	}

	s.temporal = server
	return server, nil
}

// directory returns the directory of the servers, and makes it first if need be. The caller holds s.mu.
func (s *Stack) directory() (string, error) {
	if s.dir != "" {
		return s.dir, nil
	}
	dir, err := os.MkdirTemp("", "vantrexia-test-")
	if err != nil {
		return "", err
	}
	s.dir = dir
	return dir, os.Chmod(dir, 0o711) // PostgreSQL may run in another account than ours
}

func (s *Stack) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()

	var errs []error
	if s.temporal != nil {
		errs = append(errs, s.temporal.Stop())
	}
	if s.postgres != nil {
		errs = append(errs, s.postgres.Stop())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

func execute(ctx context.Context, server *devstack.Postgres, statement string) error {
	conn, err := pgx.Connect(ctx, server.URL("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}
