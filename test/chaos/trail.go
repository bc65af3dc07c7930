package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/devstack"
	"github.com/vantrexia/vantrexia/keyring"
)

// checkpoints is the file to which all processes append the checkpoints of the audit trail.
func (s *system) checkpoints() string { return filepath.Join(s.dir, "checkpoints") }

// checkTrail verifies the audit trail. Nobody has touched it, so however often processes and PostgreSQL were killed, nothing may
// be found; and each delivery is in it once.
func (s *system) checkTrail(ctx context.Context) (problems []string, err error) {
	published, err := os.ReadFile(s.checkpoints()) // first: what is sealed meanwhile has checkpoints of its own
	if err != nil {
		return nil, err
	}
	keys, err := keyring.Open(filepath.Join(s.dir, ".local", "keyring.json"))
	if err != nil {
		return nil, err
	}
	store, err := db.Open(ctx, s.database, keys)
	if err != nil {
		return nil, err
	}
	defer store.Close()

	report, err := audit.Verify(ctx, store, keys, devstack.SandboxPractice, audit.ReadCheckpoints(string(published)))
	if err != nil {
		return nil, fmt.Errorf("verify the audit trail: %w", err)
	}
	for _, finding := range report.Findings {
		problems = append(problems, "audit trail: "+finding.String())
	}
	s.log.Info("the audit trail is verified", "rows", report.Rows, "sealed", report.Sealed, "seals", report.Leaves,
		"checkpoints", report.Checkpoints, "outside", report.Outside, "findings", len(report.Findings))

	miscounted, err := s.miscounted(ctx)
	return append(problems, miscounted...), err
}

// miscounted compares the rows about deliveries with the transmissions.
func (s *system) miscounted(ctx context.Context) (problems []string, err error) {
	conn, err := pgx.Connect(ctx, s.database)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()

	rows, err := conn.Query(ctx, `
		SELECT *
		FROM (
			SELECT
				t.number,
				t.status,
				(SELECT count(*) FROM transmission_attempts a WHERE a.transmission_id = t.id AND a.sent_at IS NOT NULL) AS attempts,
				count(*) FILTER (WHERE e.action = $1) AS sent,
				count(*) FILTER (WHERE e.action = $2 AND e.outcome = 'success') AS delivered
			FROM transmissions t
			LEFT JOIN audit_events e ON e.resource_ids = ARRAY[t.observation_id::text]
			GROUP BY t.id
		) t
		WHERE delivered <> (status = 'transmitted')::integer
		   OR sent < attempts
		ORDER BY number
		LIMIT 20`, string(audit.ObservationSend), string(audit.ObservationDelivered))
	if err != nil {
		return nil, err
	}
	var number, status string
	var attempts, sent, delivered int
	_, err = pgx.ForEachRow(rows, []any{&number, &status, &attempts, &sent, &delivered}, func() error {
		problems = append(problems, fmt.Sprintf("audit trail: %s is %s, after %d attempts that were sent; it has %d rows that say sent, and %d "+
			"that say delivered", number, status, attempts, sent, delivered))
		return nil
	})
	return problems, err
}
