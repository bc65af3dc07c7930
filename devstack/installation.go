package devstack

import (
	"context"
	"path/filepath"

	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

// SandboxPractice is the eCW practice code of an installation on the sandbox EHR.
const SandboxPractice = "FFHEDD"

// How the sandbox EHR knows an installation.
const (
	sandboxClientID = "vantrexia-sandbox-client"
	sandboxKeyFile  = "ecw.pem"
	sandboxKeyID    = "sandbox-key"
)

// Install does in v.Dir what an installation does once, by `vantrexia keys generate` and `vantrexia migrate`,
// and returns v with the settings by which its roles and the sandbox EHR find and know each other. The EHR
// listens on ehr and fetches our public keys from api, both host:port. v.Settings say where the database and
// Temporal are, and win over what is added.
func Install(ctx context.Context, v Vantrexia, ehr, api string) (Vantrexia, error) {
	settings := []string{
		"LOG_FORMAT=json",
		"SANDBOX_ADDRESS=" + ehr,
		"SANDBOX_DATA_DIR=sandbox",
		"SANDBOX_JWKS_URL=http://" + api + "/.well-known/jwks.json",
		"ECW_CLIENT_ID=" + sandboxClientID,
		"ECW_PRACTICE_CODE=" + SandboxPractice,
		"ECW_PRIVATE_KEY_FILE=" + sandboxKeyFile,
		"ECW_KEY_ID=" + sandboxKeyID,
		"ECW_TOKEN_URL=" + sandboxTokenURL(ehr),
		"ECW_FHIR_BASE_URL=" + sandboxFHIRURL(ehr),
	}
	v.Settings = append(settings, v.Settings...)

	for _, args := range [][]string{{"keys", "generate", "--out", sandboxKeyFile, "--kid", sandboxKeyID}, {"migrate"}} {
		if _, err := v.Output(ctx, args...); err != nil {
			return v, err
		}
	}

	return v, nil
}

// EHR returns a client that asks the sandbox EHR, which listens on ehr, as an installed v does.
func (v Vantrexia) EHR(ehr string) (*ecw.Client, error) {
	key, err := ecw.LoadKeyFile(filepath.Join(v.Dir, sandboxKeyFile), sandboxKeyID)
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
