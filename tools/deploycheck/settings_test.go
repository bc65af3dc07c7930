package deploycheck

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the directory of the repository.
const root = "../.."

func readFile(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{root}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// settings lists every one that the binary knows; a test beside the binary keeps .env.example true.
func settings(t *testing.T) map[string]bool {
	t.Helper()
	known := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#([A-Z_]+)=`).FindAllStringSubmatch(readFile(t, ".env.example"), -1) {
		known[m[1]] = true
	}
	if len(known) < 20 {
		t.Fatalf(".env.example lists only %d settings", len(known))
	}
	return known
}

// required lists the settings that a role or command needs. Of settings with a "|" between them it needs one.
func required(role string) []string {
	ecw := []string{"ECW_CLIENT_ID", "ECW_PRACTICE_CODE", "ECW_PRIVATE_KEY|ECW_PRIVATE_KEY_FILE", "ECW_KEY_ID"}
	servers := []string{"DATABASE_URL|DATABASE_URL_FILE", "KEYRING_FILE", "TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE"}
	switch role {
	case "migrate", "keys":
		return servers
	case "worker":
		return slices.Concat(servers, ecw, []string{"HEALTH_ADDRESS"})
	case "api":
		return slices.Concat(servers, ecw, []string{"HEALTH_ADDRESS", "API_ADDRESS", "API_TOKEN_SECRET|API_TOKEN_SECRET_FILE"})
	case "serve":
		return slices.Concat(required("api"), required("worker"))
	case "certs":
		return []string{}
	case "sandbox":
		return []string{"SANDBOX_ADDRESS", "SANDBOX_JWKS_URL", "SANDBOX_DATA_DIR", "ECW_CLIENT_ID", "ECW_PRACTICE_CODE"}
	}

	return nil
}

// reads reports whether a role reads the file that a setting names. Roles share their settings, but each mounts
// only the secrets that it reads.
func reads(role, setting string) bool {
	switch setting {
	case "AUDIT_CHECKPOINTS_FILE": // it is written, and is no secret
		return false
	case "API_TOKEN_SECRET_FILE", "API_OTHER_TOKEN_SECRET_FILE", "OIDC_CLIENT_SECRET_FILE":
		return role == "api" || role == "serve"
	case "ECW_PRIVATE_KEY_FILE", "ECW_OTHER_KEY_FILE", "ECW_CLIENT_SECRET_FILE":
		return role == "api" || role == "serve" || role == "worker"
	}
	return role != "sandbox" && (strings.HasSuffix(setting, "_FILE") || strings.HasSuffix(setting, "_PATH"))
}

// checkSettings checks that a role knows every setting that is set, and has every setting that it needs. What
// is mounted must be the files that it reads, and no others.
func checkSettings(t *testing.T, role string, set map[string]string, mounted []string) {
	t.Helper()
	if required(role) == nil {
		t.Errorf("role %q is unknown", role)
	}

	checkKnown(t, role, set)
	var read []string
	for name, file := range set {
		if reads(role, name) {
			read = append(read, file)
		}
	}
	slices.Sort(read)
	if mounted = slices.Sorted(slices.Values(mounted)); !slices.Equal(read, mounted) {
		t.Errorf("%s: it reads %v, and what is mounted is %v", role, read, mounted)
	}

	for _, names := range required(role) {
		found := false
		for name := range strings.SplitSeq(names, "|") {
			found = found || set[name] != ""
		}
		if !found {
			t.Errorf("%s: %s is not set", role, names)
		}
	}
}

// checkKnown reports settings that the binary does not know.
func checkKnown(t *testing.T, where string, set map[string]string) {
	t.Helper()
	known := settings(t)
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if !known[name] {
			t.Errorf("%s: the binary knows no setting %s", where, name)
		}
	}
}

// readSettings reads a file of settings.
func readSettings(t *testing.T, path ...string) map[string]string {
	t.Helper()
	set := map[string]string{}
	for _, line := range regexp.MustCompile(`(?m)^([A-Z_]+)=(.*)$`).FindAllStringSubmatch(readFile(t, path...), -1) {
		set[line[1]] = line[2]
	}
	return set
}

// imageSettings are those that deploy/Dockerfile sets.
func imageSettings(t *testing.T) map[string]string {
	t.Helper()
	set := map[string]string{}
	for _, line := range regexp.MustCompile(`(?m)^ENV (.*)$`).FindAllStringSubmatch(readFile(t, "deploy", "Dockerfile"), -1) {
		for _, pair := range strings.Fields(line[1]) {
			name, value, _ := strings.Cut(pair, "=")
			set[name] = value
		}
	}
	return set
}
