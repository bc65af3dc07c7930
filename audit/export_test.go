package audit

import (
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring"
)

// Leaf gives tests what the log holds of a seal.
func Leaf(s db.AuditSeal) []byte { return leaf(s) }

// Sign gives tests a signed checkpoint.
func (c Checkpoint) Sign(keys *keyring.Keyring) (string, error) {
	signed, _, err := c.sign(keys)
	return signed, err
}
