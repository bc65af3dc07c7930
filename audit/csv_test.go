package audit_test

import (
	"encoding/csv"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
)

// A spreadsheet computes no cell, and a program reads back what was recorded.
func TestCSVHoldsNoFormula(t *testing.T) {
	t.Parallel()
	writer, patient, other := uuid.New(), uuid.New(), uuid.New()
	row := db.AuditEvent{
		RecordedAt:   time.Date(2026, 2, 6, 10, 31, 7, 481223000, time.UTC),
		Writer:       writer,
		Sequence:     42,
		Subject:      "=HYPERLINK(\"https://evil.example\")",
		Role:         "nurse",
		TokenID:      "\t1+1",
		Address:      "10.0.0.7",
		Action:       "patient.search",
		ResourceType: "Patient",
		ResourceIDs:  []string{"-1", "b"},
		PatientIDs:   []uuid.UUID{patient, other},
		Outcome:      "success",
		Reason:       " @SUM(1)\r\n\"quoted\", and more",
	}
	var out strings.Builder
	to, err := audit.NewCSV(&out)
	if err != nil {
		t.Fatal(err)
	}
	if err := to.Write(row, "＋1"); err != nil {
		t.Fatal(err)
	}
	if err := to.Flush(); err != nil {
		t.Fatal(err)
	}

	if strings.Contains(strings.ReplaceAll(out.String(), "\r\n", ""), "\n") {
		t.Error("a line does not end with CRLF")
	}
	rows, err := csv.NewReader(strings.NewReader(out.String())).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"2026-02-06T10:31:07.481223Z", "'=HYPERLINK(\"https://evil.example\")", "'＋1", "nurse", "patient.search", "success",
		"' @SUM(1)\n\"quoted\", and more", "Patient", "'-1 b", patient.String() + " " + other.String(), "10.0.0.7", "'\t1+1",
		writer.String() + ".42",
	}
	if len(rows) != 2 || len(rows[0]) != len(want) || rows[0][0] != "recorded_at" || rows[0][12] != "id" {
		t.Fatalf("the rows are %q", rows)
	}
	if !slices.Equal(rows[1], want) {
		t.Errorf("the row is %q\nwant %q", rows[1], want)
	}
	for i, cell := range rows[1] {
		if strings.ContainsRune("=+-@\t\r＝＋－＠", []rune(strings.TrimSpace(cell) + " ")[0]) {
			t.Errorf("the cell %s may be a formula: %q", rows[0][i], cell)
		}
	}
}
