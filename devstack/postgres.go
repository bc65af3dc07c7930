package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// superuser owns the cluster and everything in it.
const superuser = "vantrexia"

// PostgresConfig says where and how the cluster runs.
type PostgresConfig struct {
	// Dir holds the cluster and is created when it is missing. A cluster that is there already is used as it
	// is.
	Dir string
	// Port on 127.0.0.1; 0 picks a free one.
	Port int
	// Durable makes a commit survive a power cut. Without it, a commit survives only the death of the
	// server's processes, and the server is several times faster, which suits tests.
	Durable bool
	// Install lets the system's package manager install a missing PostgreSQL, if it can do so without a
	// question.
	Install bool
	// TLSDir holds the server's certificate as `vantrexia certs` makes it. With it the server takes connections with TLS
	// only, by the rules of HBAFile.
	TLSDir string
	// HBAFile is PostgreSQL's pg_hba.conf. Empty: initdb's.
	HBAFile string
	// Output takes lines for a person about steps that take long. nil discards them.
	Output io.Writer
	// Logger logs starts and stops. nil discards them.
	Logger *slog.Logger
}

// Postgres is a private PostgreSQL cluster that runs.
type Postgres struct {
	port      int
	password  string
	authority string // the file of its certificate's authority; empty: it speaks no TLS
	binaries  string // the directory of pg_dump
	process   *process
	lock      *os.File
	logger    *slog.Logger
}

// StartPostgres makes the cluster if there is none, starts it, and returns when it answers. The error is a
// *PortError when the port is taken. ctx bounds the start only. The caller must Stop the cluster.
func StartPostgres(ctx context.Context, cfg PostgresConfig) (_ *Postgres, err error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Output == nil {
		cfg.Output = io.Discard
	}

	ctx, cancel := context.WithTimeout(ctx, installTimeout)
	defer cancel()

	c, err := openCluster(ctx, cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL: %w", err)
	}
	defer func() {
		if err != nil {
			_ = c.lock.Close()
		}
	}()

	if err := c.stopLeftover(cfg.Logger); err != nil {
		return nil, fmt.Errorf("PostgreSQL: stop what an earlier run left behind: %w", err)
	}

	if err := checkPort(cfg.Port); err != nil {
		return nil, fmt.Errorf("PostgreSQL: %w", err)
	}

	if err := c.prepare(ctx, cfg); err != nil {
		return nil, fmt.Errorf("PostgreSQL: %w", err)
	}

	if err := c.takeFiles(cfg); err != nil {
		return nil, fmt.Errorf("PostgreSQL: %w", err)
	}

	p, err := c.start(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL: %w", err)
	}

	cfg.Logger.Debug("PostgreSQL is ready", "port", p.port, "data", c.data, "version", c.binaries.major)
	return p, nil
}

// installTimeout bounds a start that has to download PostgreSQL first.
const installTimeout = 10 * time.Minute

// start starts the server and waits until it answers.
func (c *cluster) start(ctx context.Context, cfg PostgresConfig) (*Postgres, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()

	for {
		p, err := c.attempt(ctx, cfg)
		if err == nil || ctx.Err() != nil || !transient(err, cfg.Port) {
			return p, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// errEnded means that the server ended while it started.
var errEnded = errors.New("the server ended while it started")

// transient reports whether another attempt may succeed: another process may have taken the free port, or the
// sessions of a killed server may not have ended yet.
func transient(err error, port int) bool {
	if !errors.Is(err, errEnded) {
		return false
	}
	text := err.Error()
	return port == 0 && strings.Contains(text, "Address already in use") ||
		strings.Contains(text, "pre-existing shared memory block")
}

func (c *cluster) attempt(ctx context.Context, cfg PostgresConfig) (*Postgres, error) {
	port := cfg.Port
	if port == 0 {
		var err error
		if port, err = freePort(); err != nil {
			return nil, err
		}
	}

	cmd := exec.Command(filepath.Join(c.binaries.dir, "postgres"), serverArgs(c.data, port, cfg)...)
	c.confine(cmd)
	// SIGINT is PostgreSQL's "fast" stop: sessions are ended, everything is written.
	child, err := startProcess(cmd, filepath.Join(c.dir, "log"), os.O_TRUNC, syscall.SIGINT)
	if err != nil {
		return nil, err
	}

	p := &Postgres{
		port:     port,
		password: c.password,
		binaries: c.binaries.dir,
		process:  child,
		lock:     c.lock,
		logger:   cfg.Logger,
	}
	if cfg.TLSDir != "" {
		p.authority = filepath.Join(cfg.TLSDir, "ca.pem")
	}
	if err := p.awaitReady(ctx); err != nil {
		err = child.explain(err)
		_ = p.endProcess()
		return nil, err
	}
	return p, nil
}

func serverArgs(data string, port int, cfg PostgresConfig) []string {
	settings := []string{
		"listen_addresses=" + loopback,
		"port=" + strconv.Itoa(port),
		"unix_socket_directories=", // a socket's path has a limit of some hundred bytes, which a checkout may exceed
		"timezone=UTC",
		"log_timezone=UTC",
		"max_connections=200", // packages are tested side by side, and each test has a pool
	}
	if !cfg.Durable {
		settings = append(settings, "fsync=off", "full_page_writes=off", "max_wal_size=1GB")
	}
	if cfg.TLSDir != "" {
		settings = append(settings, "ssl=on", "ssl_cert_file="+tlsCertFile, "ssl_key_file="+tlsKeyFile)
	}
	if cfg.HBAFile != "" {
		settings = append(settings, "hba_file="+filepath.Join(data, hbaFile)) // not relative to data, unlike the two above
	}

	args := []string{"-D", data}
	for _, setting := range append(settings, PrivateLog()...) {
		args = append(args, "-c", setting)
	}

	return args
}

// awaitReady returns when a session can be opened.
func (p *Postgres) awaitReady(ctx context.Context) error {
	for {
		err := p.ping(ctx)
		if err == nil {
			return nil
		}

		pause := 20 * time.Millisecond
		var refused *pgconn.PgError
		strange := errors.As(err, &refused) && refused.Code == "28P01" // invalid_password
		if strange {
			pause = time.Second // another server may listen on this port, and ours may be about to end
		}

		select {
		case <-p.process.done:
			return fmt.Errorf("%w (%v)", errEnded, p.process.err)
		case <-ctx.Done():
			return fmt.Errorf("it does not answer on port %d: %w", p.port, err)
		case <-time.After(pause):
		}

		if strange {
			return errors.New("it refuses the password in its directory: restore that file, or delete the directory to start afresh")
		}
	}
}

func (p *Postgres) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.URL("postgres"))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// URL returns the connection URL of a database in the cluster. It holds the password: keep it out of logs.
func (p *Postgres) URL(database string) string {
	return p.urlOf(database, url.UserPassword(superuser, p.password))
}

func (p *Postgres) urlOf(database string, user *url.Userinfo) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     user,
		Host:     address(p.port),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	if p.authority != "" {
		u.RawQuery = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {p.authority}}.Encode()
	}
	return u.String()
}

// Port returns the port on 127.0.0.1.
func (p *Postgres) Port() int { return p.port }

// CreateDatabase creates an empty database; one of that name that exists already is left as it is.
func (p *Postgres) CreateDatabase(ctx context.Context, name string) error {
	conn, err := pgx.Connect(ctx, p.URL("postgres"))
	if err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	defer func() { _ = conn.Close(ctx) }()

	_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "42P04" { // duplicate_database
		return nil
	}
	if err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	return nil
}

// Dump returns all of a database as pg_dump writes it: SQL, with each table's rows as text after a COPY.
func (p *Postgres) Dump(ctx context.Context, database string) ([]byte, error) {
	cmd := p.dumpCommand(ctx, database)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	dump, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("pg_dump: %w: %s", err, complaint.String())
	}
	return dump, nil
}

// dumpCommand gives the password in the environment: every account of the machine sees arguments.
func (p *Postgres) dumpCommand(ctx context.Context, database string) *exec.Cmd {
	program := filepath.Join(p.binaries, "pg_dump")
	if _, err := os.Stat(program); err != nil { // some distributions have the clients in a directory of their own
		program = "pg_dump"
	}
	cmd := exec.CommandContext(ctx, program, "--dbname", p.urlOf(database, url.User(superuser)))
	cmd.Env = append(os.Environ(), "PGPASSWORD="+p.password)
	return cmd
}

// PID is the process id of the postmaster, whose children the sessions are.
func (p *Postgres) PID() int { return p.process.cmd.Process.Pid }

// Done is closed when the server has ended, whether it was stopped or died.
func (p *Postgres) Done() <-chan struct{} { return p.process.done }

// Stop ends the sessions, writes everything to disk, and returns when the server has ended. It may be called
// twice.
func (p *Postgres) Stop() error {
	err := p.endProcess()
	p.logger.Debug("PostgreSQL has stopped")
	if closeErr := p.lock.Close(); closeErr != nil && !errors.Is(closeErr, os.ErrClosed) {
		err = errors.Join(err, closeErr)
	}
	return err
}

func (p *Postgres) endProcess() error {
	return p.process.stop(stopStep{syscall.SIGINT, 20 * time.Second}, stopStep{syscall.SIGQUIT, 5 * time.Second})
}

// Kill ends the server as a crash would. The next StartPostgres on the directory recovers what was committed.
func (p *Postgres) Kill() error {
	return errors.Join(p.process.kill(), p.lock.Close())
}
