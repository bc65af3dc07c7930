package audit

import (
	"encoding/csv"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
)

// CSV writes rows of the trail as RFC 4180 has it, with a header. No cell is a formula to a spreadsheet.
type CSV struct{ w *csv.Writer }

// NewCSV returns a CSV that has written the header. What is written last reaches w with Flush.
func NewCSV(w io.Writer) (*CSV, error) {
	c := &CSV{csv.NewWriter(w)}
	c.w.UseCRLF = true
	return c, c.w.Write([]string{
		"recorded_at", "subject", "subject_name", "role", "action", "outcome", "reason", "resource_type", "resource_ids", "patient_ids",
		"address", "token_id", "id",
	})
}

// Write writes a row. The name is that of its subject.
func (c *CSV) Write(e db.AuditEvent, name string) error {
	row := []string{
		e.RecordedAt.Format(time.RFC3339Nano), e.Subject, name, e.Role, e.Action, e.Outcome, e.Reason, e.ResourceType,
		strings.Join(e.ResourceIDs, " "), joinUUIDs(e.PatientIDs), e.Address, e.TokenID, ID(e),
	}
	for i, cell := range row {
		row[i] = defuse(cell)
	}
	return c.w.Write(row)
}

// Flush writes what is buffered, and returns the first error of all writes.
func (c *CSV) Flush() error {
	c.w.Flush()
	return c.w.Error()
}

// defuse puts an apostrophe before a text that a spreadsheet would compute. Names, reasons and subjects are what somebody
// chose.
func defuse(cell string) string {
	if strings.ContainsAny(cell[:min(len(cell), 1)], "\t\r\n") || strings.IndexAny(strings.TrimSpace(cell), "=+-@＝＋－＠") == 0 {
		return "'" + cell
	}
	return cell
}

func joinUUIDs(ids []uuid.UUID) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = id.String()
	}
	return strings.Join(texts, " ")
}

// ID names a row of the trail: its writer, and its number among the writer's rows.
func ID(e db.AuditEvent) string { return e.Writer.String() + "." + strconv.FormatInt(e.Sequence, 10) }
