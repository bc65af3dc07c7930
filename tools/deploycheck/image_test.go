package deploycheck

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestImageIsBuiltOfWhatItNeeds: .dockerignore excludes everything except the folders that it names.
func TestImageIsBuiltOfWhatItNeeds(t *testing.T) {
	t.Parallel()
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if .Module}}{{if .Module.Main}}{{.ImportPath}}{{end}}{{end}}", "./cmd/vantrexia")
	list.Dir = root
	packages, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}

	ignore := readFile(t, ".dockerignore")
	for path := range strings.FieldsSeq(string(packages)) {
		folder, _, _ := strings.Cut(strings.TrimPrefix(path, "github.com/vantrexia/vantrexia/"), "/")
		if !strings.Contains(ignore, "\n!"+folder+"\n") {
			t.Errorf(".dockerignore keeps %s from the image's build", folder)
		}
	}

	if !strings.Contains(ignore, "\n*\n") {
		t.Error(".dockerignore lets everything in, the secrets too")
	}
}

func TestImageIsBuiltWithOurGo(t *testing.T) {
	t.Parallel()
	version := regexp.MustCompile(`(?m)^go (\S+)$`).FindStringSubmatch(readFile(t, "go.mod"))
	if version == nil || !strings.Contains(readFile(t, "deploy", "Dockerfile"), "FROM golang:"+version[1]+" ") {
		t.Errorf("go.mod wants %v, deploy/Dockerfile builds with another", version)
	}
}
