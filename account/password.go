package account

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"
)

// The parameters of argon2id, as OWASP's Password Storage Cheat Sheet has them: 19 MiB, 2 passes, 1 lane.
const (
	argonMemory = 19 * 1024 // KiB
	argonPasses = 2
	argonLanes  = 1
	saltBytes   = 16
	hashBytes   = 32
)

// mostHashes is how many hashes are computed at a time. Each takes a core and 19 MiB: a hundred sign-ins at
// once wait for each other, and leave the rest of the host its memory.
const mostHashes = 2

// hasher computes hashes of passwords. The text of a hash is a PHC string, which names its parameters.
type hasher struct {
	turns chan struct{}
	// nobody is compared with when there is no account, so that it takes the same time.
	nobody string
}

func newHasher() (*hasher, error) {
	none := make([]byte, saltBytes+hashBytes)
	if _, err := rand.Read(none); err != nil {
		return nil, err
	}
	return &hasher{
		turns:  make(chan struct{}, mostHashes),
		nobody: phc(none[:saltBytes], none[saltBytes:]),
	}, nil
}

// hash returns the PHC string of a password with a new salt.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, saltBytes)
	if _, err := rand.Read(salt); err != nil {
		return "", err
	}
	key, err := h.compute(ctx, password, params{argonMemory, argonPasses, argonLanes, salt, hashBytes})
	if err != nil {
		return "", err
	}
	return phc(salt, key), nil
}

// matches reports whether the password is that of the hash. It computes a hash whatever it is given; nil
// stands for somebody who has no password, and matches nothing.
func (h *hasher) matches(ctx context.Context, hash *string, password string) (bool, error) {
	text := h.nobody
	if hash != nil {
		text = *hash
	}

	want, parsed, err := parsePHC(text)
	if err != nil {
		return false, err
	}

	got, err := h.compute(ctx, password, parsed)
	return err == nil && subtle.ConstantTimeCompare(got, want) == 1 && hash != nil, err
}

type params struct {
	memory, passes uint32
	lanes          uint8
	salt           []byte
	length         uint32
}

// compute waits for a turn first.
func (h *hasher) compute(ctx context.Context, password string, p params) ([]byte, error) {
	select {
	case h.turns <- struct{}{}:
		defer func() { <-h.turns }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return argon2.IDKey([]byte(normalisePassword(password)), p.salt, p.passes, p.memory, p.lanes, p.length), nil
}

// normalisePassword makes one text of what keyboards send differently, in NFKC (NIST SP 800-63B §5.1.1.2).
func normalisePassword(password string) string { return norm.NFKC.String(password) }

// phc writes a hash as the password hashing competition's string format has it.
func phc(salt, key []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonPasses, argonLanes,
		b64.EncodeToString(salt), b64.EncodeToString(key))
}

var errPHC = errors.New("a stored password hash cannot be read: reset the person's password")

func parsePHC(text string) (key []byte, p params, err error) {
	parts := strings.Split(text, "$")
	if len(parts) != 6 || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return nil, p, errPHC
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memory, &p.passes, &p.lanes); err != nil {
		return nil, p, errPHC
	}

	var saltErr, keyErr error
	p.salt, saltErr = base64.RawStdEncoding.DecodeString(parts[4])
	key, keyErr = base64.RawStdEncoding.DecodeString(parts[5])
	p.length = uint32(len(key))
	if saltErr != nil || keyErr != nil || len(key) == 0 || p.passes == 0 || p.lanes == 0 {
		return nil, p, errPHC
	}
	return key, p, nil
}

// temporaryLetters are those that are not taken for another one when they are read out.
const temporaryLetters = "abcdefghjkmnpqrstuvwxyz23456789"

// NewPassword makes a random password of about 99 bits that can be read out: five groups of four.
func NewPassword() (string, error) {
	var b strings.Builder
	for i := range 20 {
		if i > 0 && i%4 == 0 {
			b.WriteByte('-')
		}
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(temporaryLetters))))
		if err != nil {
			return "", err
		}
		b.WriteByte(temporaryLetters[n.Int64()])
	}
	return b.String(), nil
}
