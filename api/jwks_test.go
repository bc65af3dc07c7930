package api_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"
)

func TestJWKSHoldsThePublicKeyOnly(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	got := s.with("").do("GET", "/.well-known/jwks.json", "").want(t, http.StatusOK, "")
	if cache := got.header.Get("Cache-Control"); cache != "public, max-age=300" {
		t.Errorf("Cache-Control %q", cache)
	}

	var set struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(got.body, &set); err != nil || len(set.Keys) != 1 || !slices.Equal(got.keys(), []string{"keys"}) {
		t.Fatalf("no set of one key: %s", got.body)
	}

	key := answer{body: set.Keys[0]}
	if want := []string{"alg", "e", "kid", "kty", "n", "use"}; !slices.Equal(key.keys(), want) {
		t.Errorf("members %v, want %v", key.keys(), want)
	}

	if key.text("kty") != "RSA" || key.text("kid") != keyID || key.text("use") != "sig" || key.text("alg") != "RS384" {
		t.Errorf("got %s", key.body)
	}
}
