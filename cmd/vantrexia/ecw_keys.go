package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/ecw/keydir"
	"github.com/vantrexia/vantrexia/secretfile"
)

// ecwKeys is what signs our assertions for eCW, and what the API publishes. Both change while the process
// runs, if ECW_KEYS_DIR is set.
type ecwKeys struct {
	signing func() *ecw.Key // nil for an app that authenticates with a client secret
	jwks    func() []byte   // the signing key and, during a rotation, the former or the next one
}

func (c config) ecwKeys(log *slog.Logger) (ecwKeys, error) {
	if ecw.AppType(c.ECW.AppType) == ecw.ConfidentialClient {
		return ecwKeys{jwks: func() []byte { return []byte(`{"keys":[]}`) }}, nil
	}

	if c.ECW.KeysDir != "" {
		dir, err := keydir.Open(c.ECW.KeysDir, log)
		if err != nil {
			return ecwKeys{}, fmt.Errorf("ECW_KEYS_DIR: %w", err)
		}
		return ecwKeys{signing: dir.SigningKey, jwks: dir.JWKS}, nil
	}

	published, err := c.ECW.keys()
	if err != nil {
		return ecwKeys{}, err
	}
	jwks, err := ecw.PublicJWKS(published...)
	if err != nil {
		return ecwKeys{}, fmt.Errorf("ECW_KEY_ID, ECW_OTHER_KEY_ID: %w", err)
	}
	return ecwKeys{signing: func() *ecw.Key { return published[0] }, jwks: func() []byte { return jwks }}, nil
}

// keys are the key that signs and, if there is one, the other one that is published.
func (c ecwConfig) keys() ([]*ecw.Key, error) {
	signing, err := c.signingKey()
	if err != nil {
		return nil, err
	}
	if c.OtherKeyFile == "" {
		return []*ecw.Key{signing}, nil
	}

	other, err := loadECWKey(c.OtherKeyFile, c.OtherKeyID)
	if err != nil {
		return nil, fmt.Errorf("ECW_OTHER_KEY_FILE, ECW_OTHER_KEY_ID: %w", err)
	}
	return []*ecw.Key{signing, other}, nil
}

func (c ecwConfig) signingKey() (*ecw.Key, error) {
	if c.PrivateKey != "" {
		key, err := ecw.LoadKey([]byte(c.PrivateKey), c.KeyID)
		if err != nil {
			return nil, fmt.Errorf("ECW_PRIVATE_KEY: %w", err)
		}
		return key, nil
	}

	key, err := loadECWKey(c.PrivateKeyFile, c.KeyID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("ECW_PRIVATE_KEY_FILE: %s does not exist: run `vantrexia keys generate`, or set it to the file of your key",
			c.PrivateKeyFile)
	}
	if err != nil {
		return nil, fmt.Errorf("ECW_PRIVATE_KEY_FILE: %w", err)
	}
	return key, nil
}

func loadECWKey(path, kid string) (*ecw.Key, error) {
	text, err := secretfile.Read(path)
	if err != nil {
		return nil, err
	}
	key, err := ecw.LoadKey(text, kid)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// checkKeysDir refuses the settings of single keys beside ECW_KEYS_DIR: nobody would know which key signs.
// getenv says what is set, because some of them have defaults.
func (c ecwConfig) checkKeysDir(getenv func(string) string) error {
	if c.KeysDir == "" {
		return nil
	}
	var errs []error
	for _, setting := range []string{
		"ECW_PRIVATE_KEY", "ECW_PRIVATE_KEY_FILE", "ECW_KEY_ID", "ECW_OTHER_KEY_FILE", "ECW_OTHER_KEY_ID",
	} {
		if getenv(setting) != "" {
			errs = append(errs, fmt.Errorf("%s and ECW_KEYS_DIR are both set: take %[1]s out, because the files of the directory say which "+
				"keys there are", setting))
		}
	}
	return errors.Join(errs...)
}

// published is the state of the other key, of which only an operator knows whether it is the next one or the
// former one.
const published = keydir.State("published")

// ecwKeyStatus lists the keys for eCW, for a person. Made is when a single key's file was written; it is zero
// for a key that is in no file, and so is Since for all single keys.
func (c config) ecwKeyStatus() ([]keydir.Key, error) {
	if ecw.AppType(c.ECW.AppType) == ecw.ConfidentialClient {
		return nil, nil
	}
	if c.ECW.KeysDir != "" {
		keys, err := keydir.Keys(c.ECW.KeysDir)
		if err != nil {
			return nil, fmt.Errorf("ECW_KEYS_DIR: %w", err)
		}
		return keys, nil
	}

	loaded, err := c.ECW.keys()
	if err != nil {
		return nil, err
	}
	files := []string{c.ECW.PrivateKeyFile, c.ECW.OtherKeyFile}
	if c.ECW.PrivateKey != "" {
		files[0] = ""
	}

	var keys []keydir.Key
	for i, key := range loaded {
		shown := keydir.Key{ID: key.ID(), State: published, Bits: key.Bits()}
		if i == 0 {
			shown.State = keydir.Signing
		}
		if info, err := os.Stat(files[i]); err == nil {
			shown.Made = info.ModTime().UTC()
		}
		keys = append(keys, shown)
	}
	return keys, nil
}

// signingKeyNames names the key that signs for eCW, for the audit trail.
func (c config) signingKeyNames() (names []string) {
	keys, _ := c.ecwKeyStatus()
	for _, key := range keys {
		if key.State == keydir.Signing {
			names = append(names, "ecw/"+key.ID)
		}
	}
	return names
}
