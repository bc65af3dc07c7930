package sandbox

import (
	"cmp"
	"context"
	"crypto/rsa"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

const (
	keysKept   = time.Minute
	minKeyBits = 2048
)

// keySource fetches the app's public keys and keeps them for a minute. It fetches them again at once for a
// key that it does not know, so that a rotated key works immediately; unless it is stubborn.
type keySource struct {
	url      string
	kept     time.Duration
	stubborn bool
	now      func() time.Time
	client   *http.Client

	mu      sync.Mutex
	set     jwk.Set
	fetched time.Time
}

func newKeySource(cfg Config) *keySource {
	client := &http.Client{Timeout: 5 * time.Second}
	if cfg.JWKSTLS != nil {
		client.Transport = &http.Transport{TLSClientConfig: cfg.JWKSTLS}
	}
	return &keySource{
		url:      cfg.JWKSURL,
		kept:     cmp.Or(cfg.KeysKept, keysKept),
		stubborn: cfg.KeysKept > 0,
		now:      cfg.Now,
		client:   client,
	}
}

// find returns the RSA key with that id. Every failure is an invalid_client, because the app has not proved
// its identity.
func (k *keySource) find(ctx context.Context, kid string) (*rsa.PublicKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()

	if k.set == nil || k.now().Sub(k.fetched) >= k.kept || !k.stubborn && len(withID(k.set, kid)) == 0 {
		set, err := k.fetch(ctx)
		if err != nil {
			return nil, invalidClient("the app's key set at %s is not usable: %v", k.url, err)
		}
		k.set, k.fetched = set, k.now()
	}

	keys := withID(k.set, kid)
	if len(keys) != 1 {
		return nil, invalidClient("the app's key set at %s has %d keys with this kid; it needs exactly one", k.url, len(keys))
	}

	return rsaKey(keys[0])
}

func withID(set jwk.Set, kid string) []jwk.Key {
	var found []jwk.Key
	for i := range set.Len() {
		if key, ok := set.Key(i); ok && key.KeyID() == kid {
			found = append(found, key)
		}
	}
	return found
}

func (k *keySource) fetch(ctx context.Context) (jwk.Set, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.url, nil)
	if err != nil {
		return nil, err
	}

	req.Header.Set("Accept", "application/json")
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()

	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}

	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return nil, err
	}

	set, err := jwk.Parse(body)
	if err != nil {
		return nil, fmt.Errorf("not a JSON Web Key Set")
	}

	for i := range set.Len() {
		key, _ := set.Key(i)
		if private, err := jwk.IsPrivateKey(key); err == nil && private {
			return nil, fmt.Errorf("it publishes a private key; replace that key now")
		}
	}

	return set, nil
}

func rsaKey(key jwk.Key) (*rsa.PublicKey, error) {
	if use := key.KeyUsage(); use != "" && use != "sig" {
		return nil, invalidClient("the key's use is %q, not sig", use)
	}
	if alg := key.Algorithm().String(); alg != "" && alg != "RS384" {
		return nil, invalidClient("the key's alg is %q, not RS384", alg)
	}

	var public rsa.PublicKey
	if err := key.Raw(&public); err != nil {
		return nil, invalidClient("the key is not an RSA key")
	}
	if bits := public.N.BitLen(); bits < minKeyBits {
		return nil, invalidClient("the key has %d bits; it needs %d", bits, minKeyBits)
	}

	return &public, nil
}
