package ecw

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
)

const (
	// minKeyBits is the smallest size that RFC 7518 §3.3 allows for RS384, and the one eCW's registration asks
	// for.
	minKeyBits = 2048
	// newKeyBits is the size of the keys that we make: NIST SP 800-57 part 1, table 4, has 2048 bits acceptable
	// up to 2030, and 3072 beyond.
	newKeyBits = 3072
)

var (
	errNoKeyID      = errors.New("the key has no id; set ECW_KEY_ID, for example vantrexia-ecw-key-1")
	errKeyDamaged   = errors.New("the private key is damaged; make a new one with: vantrexia keys generate")
	errKeyEncrypted = errors.New("the private key is encrypted; decrypt it with: openssl pkey -in KEY -out PLAIN")
)

// Key is the RSA key that signs our client assertions, with the id (kid) under which its public half is
// published. Its private part is never printed.
type Key struct {
	id      string
	private *rsa.PrivateKey
}

// LoadKey reads an unencrypted RSA private key of at least 2048 bits from PEM, PKCS#1 or PKCS#8. Line breaks
// may be written as \n, because an environment variable often cannot contain one. kid is the id to publish
// the key under.
func LoadKey(data []byte, kid string) (*Key, error) {
	if kid == "" {
		return nil, errNoKeyID
	}

	// A backslash never occurs in PEM, so this cannot damage a key.
	block, _ := pem.Decode([]byte(strings.ReplaceAll(string(data), `\n`, "\n")))
	if block == nil {
		return nil, errors.New("the private key is not in PEM form; make one with: vantrexia keys generate")
	}

	private, err := parsePrivate(block)
	if err != nil {
		return nil, err
	}

	if bits := private.N.BitLen(); bits < minKeyBits {
		return nil, fmt.Errorf("the private key has %d bits; eCW needs at least %d, make one with: vantrexia keys generate",
			bits, minKeyBits)
	}

	return &Key{id: kid, private: private}, nil
}

// LoadKeyFile is [LoadKey] for a file. It does not check the file's permissions.
func LoadKeyFile(path, kid string) (*Key, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the private key: %w", err)
	}
	key, err := LoadKey(data, kid)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// GenerateKey makes a new key of 3072 bits.
func GenerateKey(kid string) (*Key, error) {
	if kid == "" {
		return nil, errNoKeyID
	}
	private, err := rsa.GenerateKey(rand.Reader, newKeyBits)
	if err != nil {
		return nil, fmt.Errorf("generate an RSA key: %w", err)
	}
	return &Key{id: kid, private: private}, nil
}

// parsePrivate replaces the parsers' errors, which do not say what to do.
func parsePrivate(block *pem.Block) (*rsa.PrivateKey, error) {
	switch block.Type {
	case "RSA PRIVATE KEY":
		if block.Headers["DEK-Info"] != "" {
			return nil, errKeyEncrypted
		}
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			return nil, errKeyDamaged
		}
		return key, nil
	case "PRIVATE KEY":
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, errKeyDamaged
		}

		private, ok := key.(*rsa.PrivateKey)
		if !ok {
			return nil, errors.New("the private key is not RSA; eCW accepts RS384 only, make one with: vantrexia keys generate")
		}
		return private, nil
	case "ENCRYPTED PRIVATE KEY":
		return nil, errKeyEncrypted
	}

	return nil, fmt.Errorf("the PEM block is a %q, not a private key; point the setting at the private key", block.Type)
}

// ID is the kid.
func (k *Key) ID() string { return k.id }

// Bits is the length of the key's modulus.
func (k *Key) Bits() int { return k.private.N.BitLen() }

// String shows the id only.
func (k *Key) String() string { return "key " + k.id }

// GoString keeps the private part out of %#v.
func (k *Key) GoString() string { return "ecw.Key{" + k.id + "}" }

// LogValue keeps the private part out of structured logs.
func (k *Key) LogValue() slog.Value { return slog.StringValue(k.id) }

// PEM returns the private key as PKCS#8. Write it with mode 0600.
func (k *Key) PEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return nil, fmt.Errorf("encode the private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// PublicJWKS returns the JSON Web Key Set (RFC 7517) of the keys' public halves, to be served to eCW. A key
// has the members kty, kid, use, alg, n and e, nothing else. There must be at least one key, and no two with
// the same kid, else eCW rejects our assertions (SMART App Launch 2.2, client-confidential-asymmetric).
func PublicJWKS(keys ...*Key) ([]byte, error) {
	if len(keys) == 0 {
		return nil, errors.New("a key set needs a key; set ECW_PRIVATE_KEY_FILE or ECW_PRIVATE_KEY")
	}

	set := jwk.NewSet()
	for _, k := range keys {
		if _, exists := set.LookupKeyID(k.id); exists {
			return nil, fmt.Errorf("two keys have the id %q; give each its own", k.id)
		}

		public, err := publicJWK(k)
		if err != nil {
			return nil, fmt.Errorf("publish key %q: %w", k.id, err)
		}

		if err := set.AddKey(public); err != nil {
			return nil, fmt.Errorf("publish key %q: %w", k.id, err)
		}
	}

	return json.Marshal(set)
}

func publicJWK(k *Key) (jwk.Key, error) {
	public, err := jwk.FromRaw(&k.private.PublicKey)
	if err != nil {
		return nil, err
	}
	return public, errors.Join(
		public.Set(jwk.KeyIDKey, k.id),
		public.Set(jwk.KeyUsageKey, jwk.ForSignature),
		public.Set(jwk.AlgorithmKey, jwa.RS384),
	)
}

const (
	// assertionType is the client_assertion_type of RFC 7523 §2.2.
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	// assertionLifetime is a minute less than the five minutes that eCW allows, for the case that our clock
	// is ahead of eCW's.
	assertionLifetime = 4 * time.Minute
	// issuedBefore dates an assertion back, because a server whose clock is a second behind ours refuses one
	// from the future. Together with assertionLifetime it is below five minutes, for servers that count from
	// iat.
	issuedBefore = 30 * time.Second
)

// signAssertion makes the client assertion of SMART Backend Services. Every request needs a new one, because
// eCW rejects a jti that it has seen. The assertion has no nbf, and its iat is in the past, so that our clock
// may be a little ahead of eCW's.
func signAssertion(key *Key, clientID, tokenURL string, now time.Time) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodRS384, jwt.MapClaims{
		"iss": clientID,
		"sub": clientID,
		"aud": tokenURL, // a string: not every server accepts the array form
		"iat": now.Add(-issuedBefore).Unix(),
		"exp": now.Add(assertionLifetime).Unix(),
		"jti": uuid.NewString(),
	})

	t.Header["kid"] = key.id
	signed, err := t.SignedString(key.private)
	if err != nil {
		return "", fmt.Errorf("sign the client assertion: %w", err)
	}

	return signed, nil
}
