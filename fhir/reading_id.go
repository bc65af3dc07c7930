package fhir

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/text/unicode/norm"
)

// ReadingID is the id of a reading, computed from its practice, patient, type, time (in microseconds) and
// device, which may be empty. Space around the device's name and the way in which its accents are coded make no
// difference. The same reading always gets the same id. So if the database was restored to an earlier state and a
// gateway sends a reading again, the reading that is already in the chart is recognised. The id is a UUID of
// version 8 (RFC 9562 §5.8) made with SHA-256.
func ReadingID(practice string, patientID uuid.UUID, r Reading) uuid.UUID {
	hash := sha256.New()
	for _, part := range []string{
		practice,
		patientID.String(),
		string(r.Type),
		r.EffectiveAt.UTC().Truncate(time.Microsecond).Format("2006-01-02T15:04:05.000000Z"),
		norm.NFC.String(strings.TrimSpace(r.Device)),
	} {
		// The length comes first, so that no two lists of parts give the same bytes.
		hash.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		hash.Write([]byte(part))
	}

	var id uuid.UUID
	copy(id[:], hash.Sum(nil))
	id[6] = id[6]&0x0f | 0x80 // version 8
	id[8] = id[8]&0x3f | 0x80 // variant of RFC 9562

	return id
}
