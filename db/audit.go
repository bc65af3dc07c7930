package db

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/vantrexia/vantrexia/keyring"
)

// The outcomes of an audited action.
const (
	AuditSuccess = "success"
	AuditRefused = "refused" // the caller may not do it
	AuditFailure = "failure" // it was begun and did not succeed
)

// ErrAudit means that a row of the audit trail could not be written, so that nothing may be done or shown.
var ErrAudit = errors.New("the audit trail cannot be written")

// errClocks keeps a row from being written into the past or the future.
var errClocks = errors.New("the clock of this machine and the database's are more than five minutes apart: set them right")

// NewAuditEvent is a row to write. Package audit says what its fields hold.
type NewAuditEvent struct {
	PracticeCode string
	Subject      string
	Role         string
	TokenID      string
	Address      string
	Action       string
	ResourceType string
	ResourceIDs  []string
	PatientIDs   []uuid.UUID
	Outcome      string
	Reason       string
}

// chain is how far a writer has come: a connection to the database, which writes one row after the other. A new
// connection is a new writer, so no two of them ever continue the same chain.
type chain struct {
	writer   uuid.UUID
	sequence int64
	code     []byte // of the row before; empty before the first one
	written  bool   // this transaction has written, or has tried to
}

// auditChain is where a connection keeps its chain.
const auditChain = "vantrexia audit chain"

// chainOf takes the connection's chain, or begins one. A transaction that has written rows and was not committed does not put
// it back, and the connection becomes a new writer: a row that was never committed has a number and a valid code as well, and
// somebody who can read the database's files must find no place to put it.
func chainOf(conn *pgx.Conn) (chain, error) {
	data := conn.PgConn().CustomData()
	if known, ok := data[auditChain].(chain); ok {
		delete(data, auditChain)
		return known, nil
	}
	writer, err := uuid.NewV7()
	return chain{writer: writer, code: []byte{}}, err
}

// keepChain puts a chain back.
func keepChain(conn *pgx.Conn, c chain) {
	c.written = false
	conn.PgConn().CustomData()[auditChain] = c
}

// AddAuditEvents writes rows of the audit trail, in a transaction: that of the action which they are about. All errors
// wrap [ErrAudit].
func (q *Queries) AddAuditEvents(ctx context.Context, events ...NewAuditEvent) error {
	k := q.db.(keyed)
	if k.trail == nil {
		return fmt.Errorf("%w: it is written in transactions only", ErrAudit)
	}
	for _, e := range events {
		if err := q.addAuditEventTo(ctx, k.trail, e); err != nil {
			return fmt.Errorf("%w: %w", ErrAudit, err)
		}
	}
	return nil
}

func (q *Queries) addAuditEventTo(ctx context.Context, trail *chain, e NewAuditEvent) error {
	row := AuditEvent{
		RecordedAt:   time.Now().UTC().Truncate(time.Microsecond), // as precise as PostgreSQL is
		Writer:       trail.writer,
		Sequence:     trail.sequence + 1,
		PracticeCode: e.PracticeCode,
		Subject:      e.Subject,
		Role:         e.Role,
		TokenID:      e.TokenID,
		Address:      e.Address,
		Action:       e.Action,
		ResourceType: e.ResourceType,
		ResourceIDs:  append([]string{}, e.ResourceIDs...),
		PatientIDs:   append([]uuid.UUID{}, e.PatientIDs...),
		Outcome:      e.Outcome,
		Reason:       e.Reason,
		CodeBefore:   trail.code,
	}
	row.Code, row.KeyID = q.ring().AuditCode(row.coded())

	trail.written = true
	added, err := q.addAuditEvent(ctx, addAuditEventParams(row))
	if lacksPartition(err) {
		return fmt.Errorf("it has no table for %s: run `vantrexia migrate`, and see why the daily prune does not make them: %w",
			row.RecordedAt.Format("2006-01"), err)
	}
	if err != nil {
		return err
	}
	if added == 0 {
		return errClocks
	}
	trail.sequence, trail.code = row.Sequence, row.Code
	return nil
}

// lacksPartition reports whether no partition takes the row.
func lacksPartition(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == checkViolation && pg.ConstraintName == ""
}

// coded is what the row's code is computed of: all of the row, and so the code of the writer's row before it.
func (e AuditEvent) coded() []byte {
	var b []byte
	text := func(s string) { b = append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...) }

	text("audit event")
	text(string(e.CodeBefore))
	b = binary.BigEndian.AppendUint64(b, uint64(e.RecordedAt.UnixMicro()))
	b = append(b, e.Writer[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Sequence))
	for _, s := range []string{e.PracticeCode, e.Subject, e.Role, e.TokenID, e.Address, e.Action, e.ResourceType} {
		text(s)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.ResourceIDs)))
	for _, id := range e.ResourceIDs {
		text(id)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.PatientIDs)))
	for _, id := range e.PatientIDs {
		b = append(b, id[:]...)
	}
	text(e.Outcome)
	text(e.Reason)
	return b
}

// Genuine reports whether the row is as it was written. It returns a *[keyring.MissingKeyError] when the keyring lacks the
// key.
func (e AuditEvent) Genuine(keys *keyring.Keyring) (bool, error) {
	return keys.CheckAuditCode(e.KeyID, e.Code, e.coded())
}

// Digest is the SHA-256 of the row, for a seal.
func (e AuditEvent) Digest() [sha256.Size]byte {
	return sha256.Sum256(slices.Concat(e.coded(), e.Code, []byte(e.KeyID)))
}

// InSnapshot runs fn in a transaction that reads the database as it is at one moment, for as long as that takes.
func (s *Store) InSnapshot(ctx context.Context, fn func(*Queries) error) error {
	snapshot := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	return pgx.BeginTxFunc(ctx, s.pool, snapshot, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"); err != nil {
			return err
		}
		return fn(New(keyed{DBTX: tx, keys: s.keys}))
	})
}
