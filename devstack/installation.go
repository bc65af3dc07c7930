package devstack

import (
	"context"
	"path/filepath"
	"slices"

	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

// SandboxPractice is the eCW practice code of an installation on the sandbox EHR.
const SandboxPractice = "FFHEDD"

// sandboxClientID is the client id under which the sandbox EHR knows an installation.
const sandboxClientID = "vantrexia-sandbox-client"

// SandboxSettings returns the settings by which the roles of an installation and the sandbox EHR find and
// know each other. The EHR listens on ehr and fetches our public keys from api, both host:port.
func SandboxSettings(ehr, api string) []string {
	return []string{
		"SANDBOX_ADDRESS=" + ehr,
		"SANDBOX_DATA_DIR=sandbox",
		"SANDBOX_JWKS_URL=http://" + api + "/.well-known/jwks.json",
		"ECW_CLIENT_ID=" + sandboxClientID,
		"ECW_PRACTICE_CODE=" + SandboxPractice,
		"ECW_TOKEN_URL=" + sandboxTokenURL(ehr),
		"ECW_FHIR_BASE_URL=" + sandboxFHIRURL(ehr),
	}
}

// Install makes an installation in v.Dir, by `vantrexia keys generate`, `vantrexia keys create` and `vantrexia migrate`, and returns v
// with SandboxSettings added. v.Settings say where the database and Temporal are, and win over what is added.
func Install(ctx context.Context, v Vantrexia, ehr, api string) (Vantrexia, error) {
	v.Settings = slices.Concat([]string{"LOG_FORMAT=json"}, SandboxSettings(ehr, api), v.Settings)
	for _, args := range [][]string{{"keys", "generate"}, {"keys", "create"}, {"migrate"}} {
		if _, err := v.Output(ctx, args...); err != nil {
			return v, err
		}
	}
	return v, nil
}

// EHR returns a client for the sandbox EHR, which listens on ehr. It has the identity and the key of the
// installation in v.Dir, where `vantrexia keys generate` puts the key by default.
func (v Vantrexia) EHR(ehr string) (*ecw.Client, error) {
	key, err := ecw.LoadKeyFile(filepath.Join(v.Dir, ".local", "ecw-private.pem"), "vantrexia-ecw-key-1")
	if err != nil {
		return nil, err
	}

	return ecw.New(ecw.Config{
		ClientID:     sandboxClientID,
		PracticeCode: SandboxPractice,
		AppType:      ecw.BackendService,
		Environment:  ecw.Staging,
		Key:          key,
		TokenURL:     sandboxTokenURL(ehr),
		FHIRBaseURL:  sandboxFHIRURL(ehr),
	})
}

func sandboxTokenURL(ehr string) string { return "http://" + ehr + sandbox.TokenPath }

func sandboxFHIRURL(ehr string) string { return "http://" + ehr + sandbox.FHIRPath + SandboxPractice }
