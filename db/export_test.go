package db

import (
	"context"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pressly/goose/v3"

	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

// Pool gives tests the pool, for statements that no query of ours has.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// StoreOn is a store on a connection of a test's own, with the keys of all tests.
func StoreOn(d DBTX) *Store {
	return &Store{Queries: New(Keyed(d)), keys: keyringtest.Shared()}
}

// MigrateTo brings the schema to a version.
func (s *Store) MigrateTo(ctx context.Context, version int64) ([]*goose.MigrationResult, error) {
	provider, err := s.migrationProvider()
	if err != nil {
		return nil, err
	}
	defer provider.Close()
	return provider.UpTo(ctx, version)
}

// InsertPatients stores many patients at once, with their ids, times and charts.
func (s *Store) InsertPatients(ctx context.Context, patients []Patient) error {
	var ids, chartIDs []uuid.UUID
	var sealed, mrnA, mrnB, externalA, externalB, charts [][]byte
	for _, p := range patients {
		text, err := s.sealDemographics(p.PracticeCode, p.ID, p.Demographics)
		if err != nil {
			return err
		}
		chart, err := s.ring().Seal(chartCell(p.PracticeCode, *p.ChartID), []byte(*p.ExternalID))
		if err != nil {
			return err
		}
		ids, sealed = append(ids, p.ID), append(sealed, text)
		chartIDs, charts = append(chartIDs, *p.ChartID), append(charts, chart)
		mrn, external := s.mrnIndex(p.PracticeCode, p.MRN), s.externalIDIndex(p.PracticeCode, p.ExternalID)
		mrnA, mrnB = append(mrnA, mrn.A), append(mrnB, mrn.B)
		externalA, externalB = append(externalA, external.A), append(externalB, external.B)
	}

	_, err := s.db.Exec(ctx, `
WITH made AS (
    SELECT *
    FROM unnest($2::uuid[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bytea[], $8::uuid[], $9::bytea[])
        made (id, demographics, mrn_a, mrn_b, external_a, external_b, chart_id, chart)
), stored AS (
    INSERT INTO patients (
        id, practice_code, demographics, mrn_index_a, mrn_index_b, external_id_index_a, external_id_index_b, chart_id
    )
    SELECT id, $1, demographics, mrn_a, mrn_b, external_a, external_b, chart_id
    FROM made
)
INSERT INTO patient_charts (id, practice_code, patient_id, ecw_patient_id, external_id_index_a, external_id_index_b, sent_to)
SELECT chart_id, $1, id, chart, external_a, external_b, true
FROM made`, patients[0].PracticeCode, ids, sealed, mrnA, mrnB, externalA, externalB, chartIDs, charts)
	return err
}

// InsertFormerChart gives a patient a chart to which readings were sent.
func (s *Store) InsertFormerChart(ctx context.Context, p Patient, c Chart) error {
	chart, err := s.ring().Seal(chartCell(p.PracticeCode, c.ID), []byte(c.ECWPatientID))
	if err != nil {
		return err
	}
	index := s.externalIDIndex(p.PracticeCode, &c.ECWPatientID)
	_, err = s.db.Exec(ctx, `
INSERT INTO patient_charts (id, practice_code, patient_id, ecw_patient_id, external_id_index_a, external_id_index_b, sent_to)
VALUES ($1, $2, $3, $4, $5, $6, true)`, c.ID, p.PracticeCode, p.ID, chart, index.A, index.B)
	return err
}

// Keyed gives a test's connection the keys of all tests.
func Keyed(conn DBTX) DBTX { return keyed{DBTX: conn, keys: keyringtest.Shared()} }

// KnownColumns are the columns that the re-encryption knows, as table.column.
func KnownColumns() (columns []string) {
	for _, table := range sealedTables() {
		for _, column := range table.columns {
			columns = append(columns, table.name+"."+column.name)
			for _, index := range column.indexes {
				columns = append(columns, table.name+"."+index.name+"_a", table.name+"."+index.name+"_b")
			}
		}
	}
	for _, digest := range digestColumns() {
		columns = append(columns, digest.table+"."+digest.column)
	}
	return columns
}

// LookAtReadings is the query by which readings are found that are to be sealed: the next ones after a key.
func (s *Store) LookAtReadings(after []string, onlyClear bool) (query string, args []any) {
	tables := sealedTables()
	readings := tables[slices.IndexFunc(tables, func(t sealedTable) bool { return t.name == "observations" })]
	var asked statement
	query = readings.look(&asked, s, after, onlyClear)
	return query, asked.args
}

// Explained runs a query for the sake of its plan.
func (q *Queries) Explained(query string, args ...any) error {
	rows, err := q.db.Query(context.Background(), query, args...)
	if err == nil {
		rows.Close()
	}
	return err
}
