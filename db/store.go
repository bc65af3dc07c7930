// Package db is the only home of SQL: the schema's migrations, the queries, the code sqlc makes of them, and the
// connection pool. All times are stored and returned in UTC.
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
)

//go:generate go tool -modfile=../tools/go.mod sqlc generate

// The states of a transmission, as the API reference names them. A failed one with a next_retry_at waits for that
// moment; a failed one without is final until a person transmits it again.
const (
	StatusPending     = "pending"
	StatusProcessing  = "processing"
	StatusTransmitted = "transmitted"
	StatusFailed      = "failed"
)

// A statement that runs longer than this is stuck, not slow: every query here reads or writes a few indexed rows.
const statementTimeout = 15 * time.Second

// Store is the database: every query, and transactions over several of them.
type Store struct {
	*Queries
	pool *pgxpool.Pool
}

// Open makes a pool for the given URL and checks that the database answers. The caller closes the store.
func Open(ctx context.Context, url string) (*Store, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL cannot be read, it should look like postgres://user:password@host:5432/database: %w", err)
	}
	timeout := strconv.FormatInt(statementTimeout.Milliseconds(), 10)
	params := cfg.ConnConfig.RuntimeParams
	params["application_name"] = "vantrexia"
	params["statement_timeout"] = timeout
	params["idle_in_transaction_session_timeout"] = timeout
	cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	cfg.AfterConnect = scanTimesInUTC

	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open database pool: %w", err)
	}
	store := &Store{Queries: New(pool), pool: pool}
	if err := store.Ping(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	return store, nil
}

// Ping tells whether the database answers.
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
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return fn(New(tx)) })
}

// IsNotFound tells whether a query for one row found none.
func IsNotFound(err error) bool { return errors.Is(err, pgx.ErrNoRows) }

// IsUniqueViolation tells whether a row was refused because another one holds the same unique key.
func IsUniqueViolation(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23505"
}

// IsUnavailable tells whether the database could not be asked: it is down, starting, shutting down or has no connection
// left. What was to be written may have been, if the connection was lost in the middle.
func IsUnavailable(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	var pg *pgconn.PgError
	if errors.As(err, &pg) && !errors.As(err, &connect) {
		// Classes 08 (connection exception), 53 (insufficient resources) and 57P (operator intervention).
		return strings.HasPrefix(pg.Code, "08") || strings.HasPrefix(pg.Code, "53") || strings.HasPrefix(pg.Code, "57P")
	}
	return errors.As(err, &connect) || errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func scanTimesInUTC(_ context.Context, conn *pgx.Conn) error {
	conn.TypeMap().RegisterType(&pgtype.Type{
		Name: "timestamptz", OID: pgtype.TimestamptzOID, Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC},
	})
	return nil
}
