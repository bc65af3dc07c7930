package main

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/devstack"
)

// database asks a PostgreSQL cluster for its figures.
type database struct{ conn *pgx.Conn }

func openDatabase(ctx context.Context, postgres *devstack.Postgres) (*database, error) {
	conn, err := pgx.Connect(ctx, postgres.URL("postgres"))
	return &database{conn}, err
}

func (d *database) close() { _ = d.conn.Close(context.Background()) }

// databaseFigures are counters of the whole cluster.
type databaseFigures struct {
	Commits int64 // of all databases
	WAL     int64 // bytes
	Size    int64 // bytes of all databases
}

func (d *database) figures(ctx context.Context) (f databaseFigures, err error) {
	err = d.conn.QueryRow(ctx, `
		SELECT (SELECT sum(xact_commit) FROM pg_stat_database)::bigint,
		       (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint,
		       (SELECT sum(pg_database_size(oid)) FROM pg_database)::bigint`).Scan(&f.Commits, &f.WAL, &f.Size)
	return f, err
}

// version is PostgreSQL's.
func (d *database) version(ctx context.Context) (version string, err error) {
	err = d.conn.QueryRow(ctx, "SHOW server_version").Scan(&version)
	return version, err
}
