package account

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"hash/crc32"
	"math/big"
	"regexp"
	"strings"
)

// The form of an API key: vtx_, 256 random bits, and a checksum, both in base 62. The checksum lets us and
// scanners for leaked secrets tell a key from a mistyped one without a database.
const (
	keyMark        = "vtx_"
	keyRandomBytes = 32
	keyRandomChars = 43 // 62^43 > 2^256
	keySumChars    = 6  // 62^6 > 2^32
	shownKeyChars  = len(keyMark) + 6
)

var keyForm = regexp.MustCompile(`^` + keyMark + `[0-9A-Za-z]{49}$`)

// newKey makes an API key.
func newKey() (string, error) {
	random := make([]byte, keyRandomBytes)
	if _, err := rand.Read(random); err != nil {
		return "", err
	}
	body := base62(new(big.Int).SetBytes(random), keyRandomChars)
	return keyMark + body + keySum(body), nil
}

// base62 writes a number with leading zeros.
func base62(n *big.Int, chars int) string {
	text := n.Text(62)
	return strings.Repeat("0", chars-len(text)) + text
}

func keySum(body string) string {
	return base62(big.NewInt(int64(crc32.ChecksumIEEE([]byte(keyMark+body)))), keySumChars)
}

// IsAPIKey reports whether a bearer token is meant to be an API key.
func IsAPIKey(text string) bool { return strings.HasPrefix(text, keyMark) }

// wellFormed reports whether the text may be a key of ours.
func wellFormed(text string) bool {
	if !keyForm.MatchString(text) {
		return false
	}
	body := text[len(keyMark) : len(text)-keySumChars]
	return text == keyMark+body+keySum(body)
}

func keyHash(text string) []byte {
	hash := sha256.Sum256([]byte(text))
	return hash[:]
}

// maxDevices is how many devices a key may name.
const maxDevices = 100

// checkDevices returns what is wrong with the devices that a key may post for, or "".
func checkDevices(devices []string) string {
	if len(devices) > maxDevices {
		return fmt.Sprintf("names more than %d devices: use beginnings of names that end in *", maxDevices)
	}
	for _, device := range devices {
		name := strings.TrimSuffix(device, "*")
		if strings.TrimSpace(name) == "" || strings.Contains(name, "*") {
			return fmt.Sprintf("%q is not the name of a device, nor the beginning of one with * at its end", device)
		}
	}
	return ""
}

// MayPost reports whether the caller may post readings of a device. Most callers may for any.
func (c Caller) MayPost(device string) bool {
	if len(c.Devices) == 0 {
		return true
	}
	for _, allowed := range c.Devices {
		beginning, isBeginning := strings.CutSuffix(allowed, "*")
		if device == allowed || isBeginning && strings.HasPrefix(device, beginning) {
			return true
		}
	}
	return false
}
