package docs_test

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// Whose licence we may ship under ours, and with which duties, somebody has thought about for these.
const allowed = " MIT BSD-2-Clause BSD-3-Clause Apache-2.0 ISC MPL-2.0 0BSD Unlicense CC0-1.0 "

// unstated are modules without a licence, in the binary because one that we use needs them.
const unstated = " github.com/nexus-rpc/nexus-proto-annotations " // of go.temporal.io/api, from Temporal's own people

// A dependency that is added or raised is added to the list with `make licenses`.
func TestEachModuleHasAnAllowedLicence(t *testing.T) {
	t.Parallel()
	listed := map[string]string{}
	row := regexp.MustCompile("(?m)^\\| `(\\S+)` \\| (\\S+) \\| (.+) \\|$")
	for _, found := range row.FindAllStringSubmatch(read(t, "licenses.md"), -1) {
		listed[found[1]+" "+found[2]] = found[3]
	}

	list := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}{{end}}{{end}}", "../cmd/vantrexia")
	list.Env = append(list.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	linked := map[string]bool{}
	for module := range strings.Lines(string(out)) {
		if module = strings.TrimSpace(module); module != "" {
			linked[module] = true
		}
	}
	if len(linked) == 0 {
		t.Fatal("go list names no module")
	}

	for module := range linked {
		if listed[module] == "" {
			t.Errorf("docs/licenses.md has no %s: run make licenses", module)
		}
	}
	for module, licence := range listed {
		if !linked[module] {
			t.Errorf("docs/licenses.md has %s, which is not in the binary: run make licenses", module)
		}
		for id := range strings.SplitSeq(licence, " AND ") {
			path, _, _ := strings.Cut(module, " ")
			if id == "NOASSERTION" && strings.Contains(unstated, " "+path+" ") {
				continue
			}
			if !strings.Contains(allowed, " "+id+" ") {
				t.Errorf("%s is under %s, which nobody has allowed", module, id)
			}
		}
	}
}
