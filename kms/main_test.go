package main

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// mask is what the services of this test encrypt with: it is enough to see that the key is not sent in clear
// to the file, and that what comes back is what was sent.
func mask(data []byte) []byte {
	masked := make([]byte, len(data))
	for i, b := range data {
		masked[i] = b ^ 0x5a
	}
	return masked
}

// newVault speaks the two calls of Vault's transit engine, over TLS.
func newVault(t *testing.T) (host string) {
	t.Helper()
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, data map[string]string) {
		_ = json.NewEncoder(w).Encode(map[string]any{"data": data})
	}
	read := func(w http.ResponseWriter, r *http.Request, field string) ([]byte, bool) {
		if r.Header.Get("X-Vault-Token") != "token" {
			http.Error(w, `{"errors":["permission denied"]}`, http.StatusForbidden)
			return nil, false
		}
		var body map[string]string
		_ = json.NewDecoder(r.Body).Decode(&body)
		data, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(body[field], "vault:v1:"))
		return data, err == nil
	}
	mux.HandleFunc("PUT /v1/transit/encrypt/vantrexia", func(w http.ResponseWriter, r *http.Request) {
		if plain, ok := read(w, r, "plaintext"); ok {
			answer(w, map[string]string{"ciphertext": "vault:v1:" + base64.StdEncoding.EncodeToString(mask(plain))})
		}
	})
	mux.HandleFunc("PUT /v1/transit/decrypt/vantrexia", func(w http.ResponseWriter, r *http.Request) {
		if sealed, ok := read(w, r, "ciphertext"); ok {
			answer(w, map[string]string{"plaintext": base64.StdEncoding.EncodeToString(mask(sealed))})
		}
	})
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)

	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VAULT_CACERT", ca)
	return server.Listener.Addr().String()
}

// newAWS speaks the two calls of AWS KMS.
func newAWS(t *testing.T) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			KeyID                     string `json:"KeyId"`
			Plaintext, CiphertextBlob []byte
		}
		_ = json.NewDecoder(r.Body).Decode(&body)
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		answer := map[string]any{"KeyId": body.KeyID}
		switch r.Header.Get("X-Amz-Target") {
		case "TrentService.Encrypt":
			answer["CiphertextBlob"] = mask(body.Plaintext)
		case "TrentService.Decrypt":
			answer["Plaintext"] = mask(body.CiphertextBlob)
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(server.Close)
	t.Setenv("AWS_ENDPOINT_URL_KMS", server.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
}

func TestAKeyringComesBack(t *testing.T) {
	newAWS(t)
	vaultKey := "hcvault://" + newVault(t) + "/transit/keys/vantrexia"
	t.Setenv("VAULT_TOKEN", "token")

	for name, key := range map[string]string{
		"AWS KMS": "aws-kms://arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
		"Vault":   vaultKey,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			in, wrapped, out := filepath.Join(dir, "keyring.json"), filepath.Join(dir, "wrapped"), filepath.Join(dir, "out")
			content := strings.Repeat(`{"keyring": "secret"}`, 500) // more than AWS KMS encrypts by itself
			if err := os.WriteFile(in, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}

			if err := run(t.Context(), []string{"wrap", "--key", key, "--in", in, "--out", wrapped}); err != nil {
				t.Fatal(err)
			}
			if sealed, _ := os.ReadFile(wrapped); strings.Contains(string(sealed), "secret") {
				t.Error("the wrapped file has the keyring in clear")
			}
			for range 2 { // a pod that starts again finds the file of before
				if err := run(t.Context(), []string{"unwrap", "--key", key, "--in", wrapped, "--out", out}); err != nil {
					t.Fatal(err)
				}
			}
			if got, _ := os.ReadFile(out); string(got) != content {
				t.Errorf("%d bytes came back of %d", len(got), len(content))
			}
			if info, _ := os.Stat(out); info.Mode().Perm() != 0o600 {
				t.Errorf("the mode is %v", info.Mode())
			}

			if err := run(t.Context(), []string{"unwrap", "--key", key, "--in", in, "--out", out}); err == nil {
				t.Error("a file that was never wrapped was unwrapped")
			}
		})
	}
}

func TestWhatIsWrongIsSaid(t *testing.T) {
	host := newVault(t)
	in := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(in, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	vaultKey := "hcvault://" + host + "/transit/keys/vantrexia"
	for name, c := range map[string]struct {
		token string
		args  []string
		want  string
	}{
		"no key":          {"token", []string{"wrap", "--in", in, "--out", in}, "--key"},
		"unknown service": {"token", []string{"wrap", "--key", "azure://x", "--in", in, "--out", in}, "aws-kms://"},
		"unknown command": {"token", []string{"turn", "--key", vaultKey, "--in", in, "--out", in}, "wrap or unwrap"},
		"no token":        {"", []string{"wrap", "--key", vaultKey, "--in", in, "--out", in}, "VAULT_TOKEN"},
		"wrong token":     {"wrong", []string{"wrap", "--key", vaultKey, "--in", in, "--out", in}, "may use the key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("VAULT_TOKEN", c.token)
			if err := run(t.Context(), c.args); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if content, _ := os.ReadFile(in); string(content) != "{}" {
				t.Error("the file was overwritten")
			}
		})
	}
}
