package ecw

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v2/jwk"
)

func TestLoadKey(t *testing.T) {
	t.Parallel()
	key := testKey()
	pkcs8, err := key.PEM()
	if err != nil {
		t.Fatal(err)
	}

	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key.private)})
	for name, data := range map[string][]byte{
		"PKCS#8": pkcs8, "PKCS#1": pkcs1, "one line": []byte(strings.ReplaceAll(string(pkcs8), "\n", `\n`)),
	} {
		got, err := LoadKey(data, "kid-1")
		if err != nil || !got.private.Equal(key.private) || got.ID() != "kid-1" {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}

	path := filepath.Join(t.TempDir(), "private.pem")
	if err := os.WriteFile(path, pkcs8, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := LoadKeyFile(path, "kid-1"); err != nil || !got.private.Equal(key.private) {
		t.Errorf("file: %v", err)
	}
	if _, err := LoadKeyFile(path+"x", "kid-1"); err == nil {
		t.Error("a missing file loads")
	}
}

func TestLoadKeyRefusals(t *testing.T) {
	t.Parallel()
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}

	curve, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}

	curveDER, err := x509.MarshalPKCS8PrivateKey(curve)
	if err != nil {
		t.Fatal(err)
	}

	public, err := x509.MarshalPKIXPublicKey(&testKey().private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}

	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	for _, tc := range []struct {
		name, kid string
		data      []byte
		want      string
	}{
		{"empty", "k", nil, "not in PEM form"},
		{"no kid", "", nil, "ECW_KEY_ID"},
		{"short", "k", block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(short)), "1024 bits"},
		{"curve", "k", block("PRIVATE KEY", curveDER), "not RSA"},
		{"public", "k", block("PUBLIC KEY", public), "not a private key"},
		{"encrypted", "k", block("ENCRYPTED PRIVATE KEY", []byte{1}), "decrypt it"},
		{
			"encrypted PKCS#1",
			"k",
			[]byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"),
			"decrypt it",
		},
		{"damaged PKCS#1", "k", block("RSA PRIVATE KEY", []byte{1}), "damaged"},
		{"damaged PKCS#8", "k", block("PRIVATE KEY", []byte{1}), "damaged"},
	} {
		if _, err := LoadKey(tc.data, tc.kid); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
}

func TestPublicJWKS(t *testing.T) {
	t.Parallel()
	old := &Key{id: "old", private: testKey().private}
	data, err := PublicJWKS(testKey(), old)
	if err != nil {
		t.Fatal(err)
	}

	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(data, &set); err != nil || len(set.Keys) != 2 {
		t.Fatalf("%s: %v", data, err)
	}

	for _, k := range set.Keys {
		if got := slices.Sorted(maps.Keys(k)); !slices.Equal(got, []string{"alg", "e", "kid", "kty", "n", "use"}) {
			t.Errorf("members %v", got)
		}
		if k["kty"] != "RSA" || k["use"] != "sig" || k["alg"] != "RS384" || k["e"] != "AQAB" {
			t.Errorf("key %v", k)
		}
	}

	if set.Keys[0]["kid"] != "vantrexia-ecw-key-1" || set.Keys[1]["kid"] != "old" {
		t.Errorf("kids %v", set.Keys)
	}
	if _, err := PublicJWKS(); err == nil {
		t.Error("an empty set was published")
	}
	if _, err := PublicJWKS(testKey(), old, old); err == nil || !strings.Contains(err.Error(), `"old"`) {
		t.Errorf("two keys with one kid: %v", err)
	}
}

// TestAssertion verifies an assertion as eCW does, with the published key set only.
func TestAssertion(t *testing.T) {
	t.Parallel()
	const clientID, tokenURL = "client-1", "https://oauth.example/token"
	data, err := PublicJWKS(testKey())
	if err != nil {
		t.Fatal(err)
	}

	set, err := jwk.Parse(data)
	if err != nil {
		t.Fatal(err)
	}

	now := time.Now().Truncate(time.Second)
	ids := map[string]bool{}
	for range 3 {
		signed, err := signAssertion(testKey(), clientID, tokenURL, now)
		if err != nil {
			t.Fatal(err)
		}

		claims := jwt.MapClaims{}
		parsed, err := jwt.ParseWithClaims(signed, claims, func(tok *jwt.Token) (any, error) {
			k, _ := set.LookupKeyID(tok.Header["kid"].(string))
			var public rsa.PublicKey
			return &public, k.Raw(&public)
		}, jwt.WithValidMethods([]string{"RS384"}), jwt.WithExpirationRequired(), jwt.WithAudience(tokenURL),
			jwt.WithIssuer(clientID), jwt.WithSubject(clientID))
		if err != nil {
			t.Fatal(err)
		}

		if got := slices.Sorted(maps.Keys(parsed.Header)); !slices.Equal(got, []string{"alg", "kid", "typ"}) || parsed.Header["typ"] != "JWT" {
			t.Errorf("header %v", parsed.Header)
		}
		if got := slices.Sorted(maps.Keys(claims)); !slices.Equal(got, []string{"aud", "exp", "iat", "iss", "jti", "sub"}) {
			t.Errorf("claims %v", got)
		}

		issued, expires := float64(now.Add(-30*time.Second).Unix()), float64(now.Add(4*time.Minute).Unix())
		if claims["aud"] != tokenURL || claims["iat"] != issued || claims["exp"] != expires {
			t.Errorf("claims %v", claims)
		}

		ids[claims["jti"].(string)] = true
	}

	if len(ids) != 3 {
		t.Errorf("a jti was used twice: %v", ids)
	}
}

func BenchmarkSignAssertion(b *testing.B) {
	key, now := testKey(), time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := signAssertion(key, "client-1", "https://oauth.example/token", now); err != nil {
			b.Fatal(err)
		}
	}
}
