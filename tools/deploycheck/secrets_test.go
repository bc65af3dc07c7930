package deploycheck

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

// nobody is an account that is not root's, for tests that run as root.
const nobody = 65534

// installation is a copy of what deploy/make-secrets.sh works in, as one account has it.
type installation struct {
	dir string
	uid int
}

func install(t *testing.T, uid int) installation {
	t.Helper()
	in := installation{dir: t.TempDir(), uid: uid}
	if err := os.Chmod(filepath.Dir(in.dir), 0o711); err != nil {
		t.Fatal(err)
	}

	if err := os.Mkdir(filepath.Join(in.dir, "deploy"), 0o755); err != nil {
		t.Fatal(err)
	}

	in.write(t, "deploy/make-secrets.sh", readFile(t, "deploy", "make-secrets.sh"), 0o755)
	for _, path := range []string{"", "deploy"} {
		if err := os.Chown(filepath.Join(in.dir, path), uid, uid); err != nil && os.Getuid() == 0 {
			t.Fatal(err)
		}
	}

	return in
}

// write makes a file of the account.
func (in installation) write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	full := filepath.Join(in.dir, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(full, []byte(text), mode); err != nil {
		t.Fatal(err)
	}

	if os.Getuid() == 0 {
		for _, made := range []string{full, filepath.Dir(full)} {
			if err := os.Chown(made, in.uid, in.uid); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (in installation) read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(in.dir, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// run runs the script as the account.
func (in installation) run(t *testing.T) error {
	t.Helper()
	script := exec.CommandContext(t.Context(), filepath.Join(in.dir, "deploy", "make-secrets.sh"))
	script.Dir = in.dir
	if os.Getuid() == 0 {
		script.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(in.uid), Gid: uint32(in.uid)}}
	}
	said, err := script.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, said)
	}
	return nil
}

// person is the account of somebody who installs, never root.
func person() int {
	if uid := os.Getuid(); uid != 0 {
		return uid
	}
	return nobody
}

// TestSecretsOfComposeAreMade runs the script that the guide begins with.
func TestSecretsOfComposeAreMade(t *testing.T) {
	t.Parallel()
	in := install(t, person())
	if err := in.run(t); err == nil || !strings.Contains(err.Error(), ".env does not exist") {
		t.Errorf("without a file of settings: %v", err)
	}

	in.write(t, ".env", "ECW_PRACTICE_CODE=FFHEDD", 0o644) // and no line break at its end
	made := map[string]string{}
	for range 2 { // the second time, nothing is made anew
		if err := in.run(t); err != nil {
			t.Fatal(err)
		}
		for name, secret := range compose(t).Secrets {
			path, err := filepath.Rel(absolute(t, root), secret.File)
			if err != nil || filepath.Dir(path) != "deploy/secrets" {
				t.Fatalf("the secret %s is in %s, %v", name, secret.File, err)
			}
			made[path] = kept(made[path], in.read(t, path))
		}
		made[keyDir+"/private.pem"] = kept(made[keyDir+"/private.pem"], in.read(t, keyDir+"/private.pem"))
	}

	for path, text := range made {
		if len(text) < 32 {
			t.Errorf("%s is %q, or was replaced", path, text)
		}
	}

	for url, account := range map[string]struct{ name, password string }{
		"database-owner-url": {"vantrexia", "vantrexia-password"},
		"database-url":       {"vantrexia_runtime", "vantrexia-runtime-password"},
	} {
		text, password := made["deploy/secrets/"+url], strings.TrimSpace(made["deploy/secrets/"+account.password])
		if !strings.HasPrefix(text, "postgres://"+account.name+":"+password+"@postgres:") {
			t.Errorf("%s is not that of %s, with its password", url, account.name)
		}
		if !strings.HasSuffix(text, "?sslmode=verify-full&sslrootcert=/certs/ca.pem\n") {
			t.Errorf("%s does not demand verified TLS", url)
		}
	}

	modes := map[string]os.FileMode{
		"deploy/secrets":                    0o700,
		"deploy/secrets/api-token-secret":   0o600,
		"deploy/secrets/database-url":       0o600,
		"deploy/secrets/vantrexia-password": 0o444,
		keyDir:                              0o700,
		keyDir + "/private.pem":             0o600,
		".env":                              0o600,
	}
	for _, part := range certificates() {
		modes[filepath.Join("deploy/certs", part)] = 0o700
	}
	in.checkModes(t, modes)
	if got, want := in.read(t, ".env"), fmt.Sprintf("ECW_PRACTICE_CODE=FFHEDD\nVANTREXIA_USER=%d:%[1]d\n", person()); os.Getuid() == 0 &&
		got != want {
		t.Errorf(".env is %q, want %q", got, want)
	}
}

// kept returns what a file holds now. If it held something else before, it returns a word that is too short
// for a secret.
func kept(before, now string) string {
	if before != "" && before != now {
		return "replaced"
	}
	return now
}

func (in installation) checkModes(t *testing.T, want map[string]os.FileMode) {
	t.Helper()
	for path, mode := range want {
		info, err := os.Stat(filepath.Join(in.dir, path))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, want %v", path, info.Mode(), err, mode)
		}
	}
}

// TestAKeyThatExistsIsKept: a key that is registered with eCW must not be replaced.
func TestAKeyThatExistsIsKept(t *testing.T) {
	t.Parallel()
	for name, path := range map[string]string{"of the tutorial": keyDir + "/private.pem", "of an earlier version": "deploy/secrets/ecw-private-key"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := install(t, person())
			in.write(t, ".env", "", 0o600)
			in.write(t, path, "the key that is registered", 0o600)
			if err := in.run(t); err != nil {
				t.Fatal(err)
			}
			if got := in.read(t, keyDir+"/private.pem"); got != "the key that is registered" {
				t.Errorf("the key is %q", got)
			}
		})
	}
}

// TestSecretsThatRootMakesAreReadInContainers: our containers never run as root, so the files must belong to
// their account.
func TestSecretsThatRootMakesAreReadInContainers(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}

	in := install(t, 0)
	in.write(t, ".env", "", 0o600)
	if err := in.run(t); err != nil {
		t.Fatal(err)
	}

	if text := in.read(t, ".env"); text != "" {
		t.Errorf(".env is %q: the containers would run as root", text)
	}

	for _, path := range []string{".env", keyDir, keyDir + "/private.pem", "deploy/certs", "deploy/certs/vantrexia",
		"deploy/secrets/database-url", "deploy/secrets/api-token-secret"} {
		info, err := os.Stat(filepath.Join(in.dir, path))
		if err != nil {
			t.Fatal(err)
		}
		owner := fmt.Sprint(info.Sys().(*syscall.Stat_t).Uid)
		for _, service := range append(ours(t), withCertificates(t)...) {
			if account, _, _ := strings.Cut(service.User, ":"); account != owner {
				t.Errorf("%s belongs to %s, and %s runs as %s", path, owner, service.Name, service.User)
			}
		}
	}
}

// withCertificates are the services of others that read a certificate themselves. PostgreSQL's is copied by root.
func withCertificates(t *testing.T) (list []types.ServiceConfig) {
	t.Helper()
	for _, name := range []string{"temporal", "temporal-schema", "temporal-ui"} {
		list = append(list, compose(t).Services[name])
	}
	return list
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	full, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return full
}
