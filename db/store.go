// Package db holds all SQL: the migrations of the schema, the queries, the code that sqlc makes of them, and
// the connection pool. All times are stored and returned in UTC.
package db

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vantrexia/vantrexia/keyring"
)

//go:generate go tool -modfile=../tools/go.mod sqlc generate

// The states of a transmission, as the API reference names them. A failed one with a next_retry_at waits for
// that moment. A failed one without it is final until a person transmits it again.
const (
	StatusPending     = "pending"
	StatusProcessing  = "processing"
	StatusTransmitted = "transmitted"
	StatusFailed      = "failed"
)

// The outcomes of one patient's import. A skipped one was linked already, and is up to date.
const (
	OutcomeImported = "imported"
	OutcomeSkipped  = "skipped"
	OutcomeError    = "error"
)

const (
	// statementTimeout cuts a statement that is stuck: every query here reads or writes a few indexed rows.
	statementTimeout = 15 * time.Second
	// lockTimeout is how long a statement waits for a row or a table that another transaction holds. Our own
	// transactions hold theirs for milliseconds.
	lockTimeout    = 5 * time.Second
	connectTimeout = 5 * time.Second
	// pingTimeout ends a ping to a host that vanished, which does not even refuse.
	pingTimeout = 2 * time.Second
	// unansweredTimeout ends a connection to a host that vanished, which acknowledges nothing. It is longer
	// than any statement may take.
	unansweredTimeout = 20 * time.Second
	// restedFor is how long a connection rests before it is tried again. No server dies and comes back in
	// less.
	restedFor = 100 * time.Millisecond
)

// Store is the database: every query, and transactions over several of them.
type Store struct {
	*Queries
	pool        *pgxpool.Pool
	keys        *keyring.Keyring
	directories directories
}

// keyed is a connection whose queries seal what they write, and open what they read, with these keys.
type keyed struct {
	DBTX
	keys  *keyring.Keyring
	trail *chain // of the transaction's connection; nil outside of transactions
}

// ring returns the keys with which columns are sealed.
func (q *Queries) ring() *keyring.Keyring { return q.db.(keyed).keys }

// NewStore returns a store with a pool for the given URL, without connecting: the database may be away, now
// and later, and every query tries again. Parameters of pgxpool in the URL, such as pool_max_conns, win over
// what is set here. Personal data is stored sealed with the keys. The caller closes the store.
func NewStore(ctx context.Context, url string, keys *keyring.Keyring) (*Store, error) {
	cfg, err := poolConfig(url)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL cannot be read, it should look like "+
			"postgres://user:password@host:5432/database?sslmode=verify-full: %w", err)
	}

	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open database pool: %w", err)
	}
	return &Store{Queries: New(keyed{DBTX: pool, keys: keys}), pool: pool, keys: keys}, nil
}

// maxConns is the same on every machine. pgxpool's own default is the number of cores: on a node of 64 cores
// each process would take 64 connections, and a server takes 100 in all.
const maxConns = 10

func poolConfig(url string) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	asked, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}

	if _, set := asked.RuntimeParams["pool_max_conns"]; !set {
		cfg.MaxConns = maxConns
	}
	cfg.MaxConnLifetimeJitter = cfg.MaxConnLifetime / 10 // so that not all are renewed at once

	// A connection that rested is tried before it is used, which hides a restart of the server.
	cfg.ShouldPing = func(_ context.Context, c pgxpool.ShouldPingParams) bool { return c.IdleDuration > restedFor }
	cfg.PingTimeout = pingTimeout

	dialer := &net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{
			Enable:   true,
			Idle:     10 * time.Second,
			Interval: 5 * time.Second,
			Count:    2,
		},
		ControlContext: limitUnanswered,
	}
	cfg.ConnConfig.DialFunc = dialer.DialContext
	cfg.ConnConfig.ConnectTimeout = connectTimeout

	params := cfg.ConnConfig.RuntimeParams
	params["application_name"] = "vantrexia"
	params["statement_timeout"] = milliseconds(statementTimeout)
	params["lock_timeout"] = milliseconds(lockTimeout)
	params["idle_in_transaction_session_timeout"] = milliseconds(statementTimeout)

	cfg.AfterConnect = scanTimesInUTC
	return cfg, nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// Open is NewStore for a caller that needs the database at once: it fails when the database does not answer.
func Open(ctx context.Context, url string, keys *keyring.Keyring) (*Store, error) {
	store, err := NewStore(ctx, url, keys)
	if err != nil {
		return nil, err
	}
	if err := store.Ping(ctx); err != nil {
		store.Close()
		return nil, err
	}
	return store, nil
}

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.pool.Ping(ctx); err != nil {
		return fmt.Errorf("the database does not answer, check that it runs and that DATABASE_URL is right: %w", err)
	}
	return nil
}

// Close waits for the connections in use, then closes them all.
func (s *Store) Close() { s.pool.Close() }

// InTx runs fn in one transaction, which is rolled back when fn returns an error.
func (s *Store) InTx(ctx context.Context, fn func(*Queries) error) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()

	trail, err := chainOf(conn.Conn())
	if err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return fn(New(keyed{tx, s.keys, &trail})) })
	if err == nil || !trail.written {
		keepChain(conn.Conn(), trail)
	}
	return err
}

// ErrForgotten means that the database does not know the row that was to be written, or knows it as finished:
// it was restored, or another writer came first. Nothing was written.
var ErrForgotten = errors.New("the database does not know this transmission as one that is under way")

// Written returns the error of a write that must find its row: [ErrForgotten] when it found none.
func Written(rows int64, err error) error {
	if err == nil && rows == 0 {
		return ErrForgotten
	}
	return err
}

// IsNotFound reports whether a query for one row found none.
func IsNotFound(err error) bool { return errors.Is(err, pgx.ErrNoRows) }

// The error codes of PostgreSQL that are looked at one by one, and the first digits of those that are looked
// at as a class.
const (
	uniqueViolation  = "23505"
	checkViolation   = "23514"
	queryCanceled    = "57014" // by statement_timeout
	lockNotAvailable = "55P03" // by lock_timeout
	undefinedTable   = "42P01"
	unknownDatabase  = "3D000"

	insufficientPrivilege = "42501"

	classConnectionException   = "08"
	classInvalidAuthorization  = "28"
	classInsufficientResources = "53"
	classOperatorIntervention  = "57P" // shutting down, starting up, a session ended by an administrator
)

// IsUniqueViolation reports whether a row was refused because another row has the same unique key.
func IsUniqueViolation(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == uniqueViolation
}

// IsUnavailable reports whether asking again later may help: the database is down, starts, shuts down, has no
// connection left, or was too slow. If the connection was lost in the middle of a write, the write may have
// happened.
func IsUnavailable(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	var pg *pgconn.PgError
	if errors.As(err, &pg) && !errors.As(err, &connect) {
		return pg.Code == queryCanceled ||
			pg.Code == lockNotAvailable ||
			strings.HasPrefix(pg.Code, classConnectionException) ||
			strings.HasPrefix(pg.Code, classInsufficientResources) ||
			strings.HasPrefix(pg.Code, classOperatorIntervention)
	}
	return pgconn.SafeToRetry(err) ||
		errors.As(err, &connect) ||
		errors.As(err, &network) ||
		errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF)
}

// IsSealed reports whether stored data does not open: a key is missing, or a row was changed.
func IsSealed(err error) bool {
	var missing *keyring.MissingKeyError
	return errors.As(err, &missing) || errors.Is(err, keyring.ErrCorrupt)
}

// Cause says in plain words why a statement failed, for places that must not keep the error itself: that
// names the host and the user of the database, or repeats what was to be stored.
func Cause(err error) string {
	var pg *pgconn.PgError
	var missing *keyring.MissingKeyError
	switch {
	case errors.As(err, &missing):
		return missing.Error()
	case errors.Is(err, keyring.ErrCorrupt):
		return err.Error() // the place of a value, and no value
	case IsRefused(err):
		return "the database refuses us, check DATABASE_URL"
	case IsUnavailable(err):
		return "the database does not answer"
	case errors.As(err, &pg):
		return "the database refused a statement, see its log (SQLSTATE " + pg.Code + ")"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "it was cut off before it had ended"
	case errors.Is(err, ErrForgotten):
		return ErrForgotten.Error()
	case errors.Is(err, errClocks):
		return ErrAudit.Error() + ": " + errClocks.Error()
	}
	return "it failed inside Vantrexia, set LOG_LEVEL=debug to see why"
}

// IsRefused reports whether the server answered and will never let us in: the password, the user or the
// database is wrong.
func IsRefused(err error) bool {
	var connect *pgconn.ConnectError
	var pg *pgconn.PgError
	return errors.As(err, &connect) && errors.As(err, &pg) &&
		(strings.HasPrefix(pg.Code, classInvalidAuthorization) || pg.Code == unknownDatabase)
}

func scanTimesInUTC(_ context.Context, conn *pgx.Conn) error {
	conn.TypeMap().RegisterType(&pgtype.Type{
		Name:  "timestamptz",
		OID:   pgtype.TimestamptzOID,
		Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC},
	})
	return nil
}
