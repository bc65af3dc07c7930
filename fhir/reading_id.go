package fhir

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/google/uuid"
)

// ReadingID says what a reading is: the same patient of a practice, type, time (in microseconds) and device always give the
// same id, so that a reading that a restored database has forgotten, and a gateway sends again, is known in the chart. It
// is a UUID of version 8 (RFC 9562 §5.8) over SHA-256.
func ReadingID(practice string, patientID uuid.UUID, r Reading) uuid.UUID {
	hash := sha256.New()
	for _, part := range []string{
		practice,
		patientID.String(),
		string(r.Type),
		r.EffectiveAt.UTC().Truncate(time.Microsecond).Format("2006-01-02T15:04:05.000000Z"),
		r.Device,
	} {
		// With its length in front, so that no two readings spell the same.
		hash.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		hash.Write([]byte(part))
	}

	var id uuid.UUID
	copy(id[:], hash.Sum(nil))
	id[6] = id[6]&0x0f | 0x80 // version 8
	id[8] = id[8]&0x3f | 0x80 // variant of RFC 9562

	return id
}
