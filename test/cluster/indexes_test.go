package main

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/devstack"
)

// TestVisibilityIndexes empties the indexes that nobody needs, and fills them again as Temporal had made them.
func TestVisibilityIndexes(t *testing.T) {
	if os.Getenv("TEST_CLUSTER") == "" {
		t.Skip("`make test-cluster` runs this: it takes Temporal's schema tool as published")
	}

	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()

	dir := t.TempDir()
	ports, err := devstack.ChoosePorts(postgresName)
	if err != nil {
		t.Fatal(err)
	}
	postgres, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{
		Dir:     filepath.Join(dir, "postgres"),
		Port:    ports[postgresName],
		Install: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = postgres.Stop() })

	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	cfg := devstack.TemporalServerConfig{Root: root, Dir: dir, Postgres: postgres}
	setUp := func(indexes string) map[string]string {
		t.Helper()
		if err := devstack.SetUpTemporalSchema(ctx, cfg, "VISIBILITY_INDEXES="+indexes); err != nil {
			t.Fatal(err)
		}
		return visibilityIndexes(t, postgres)
	}

	all := setUp("all")
	if len(all) < 70 {
		t.Fatalf("Temporal makes %d indexes; the test expects the 70 and more of its version", len(all))
	}
	for range 2 { // a second run changes nothing
		documented := setUp("documented")
		filled := map[string]bool{}
		for name, definition := range documented {
			if all[name] == "" {
				t.Errorf("%s is an index that Temporal does not make", name)
			}
			if !strings.HasSuffix(definition, "WHERE false") {
				filled[name] = true
			}
		}
		if len(documented) != len(all) || len(filled) != 21 || !filled["by_status"] || !filled["by_keyword_10"] {
			t.Errorf("of %d indexes these are filled: %v", len(documented), filled)
		}
	}
	for range 2 {
		if again := setUp("all"); !maps.Equal(again, all) {
			t.Errorf("the indexes are not as Temporal had made them: %v", again)
		}
	}
}

func visibilityIndexes(t *testing.T, postgres *devstack.Postgres) map[string]string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), postgres.URL("temporal_visibility"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()

	rows, err := conn.Query(t.Context(), "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'executions_visibility'")
	if err != nil {
		t.Fatal(err)
	}
	definitions := map[string]string{}
	var name, definition string
	if _, err := pgx.ForEachRow(rows, []any{&name, &definition}, func() error {
		definitions[name] = definition
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return definitions
}

// checkAttributes finds a search attribute of ours in a column whose index is emptied.
func checkAttributes(t *testing.T, postgres *devstack.Postgres) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), postgres.URL("temporal_visibility"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()

	var known, unindexed int
	err = conn.QueryRow(t.Context(), `
		SELECT
		    count(*) FILTER (WHERE num_nonnulls(
		        keyword01, keyword02, keyword03, keyword04, keyword05, keyword06, keyword07, keyword08, keyword09, keyword10,
		        int01, int02, int03, datetime01, datetime02, datetime03) > 0),
		    count(*) FILTER (WHERE num_nonnulls(
		        bool01, bool02, bool03, double01, double02, double03, text01, text02, text03, keywordlist01, keywordlist02, keywordlist03) > 0)
		FROM executions_visibility`).Scan(&known, &unindexed)
	if err != nil {
		t.Fatal(err)
	}
	if known == 0 || unindexed > 0 {
		t.Errorf("%d workflows have attributes in indexed columns, and %d in others", known, unindexed)
	}
}
