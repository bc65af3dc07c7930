// Package docs_test holds the documents against the code.
package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/vantrexia/vantrexia/devstack"
)

// A promise whose test was renamed or deleted is no longer proved by anything.
func TestTestsThatAreNamedExist(t *testing.T) {
	t.Parallel()
	defined := map[string]bool{}
	definition := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	for _, file := range files(t, "_test.go") {
		for _, found := range definition.FindAllStringSubmatch(read(t, file), -1) {
			defined[found[1]] = true
		}
	}
	named := 0
	for _, file := range files(t, ".md") {
		for _, name := range regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(read(t, file), -1) {
			named++
			if !defined[name[1]] {
				t.Errorf("%s names %s, which does not exist", file, name[1])
			}
		}
	}
	if named == 0 {
		t.Error("no document names a test")
	}
}

// files lists the repository's files with such an end.
func files(t *testing.T, end string) (list []string) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		hidden := strings.HasPrefix(entry.Name(), ".") && path != ".."
		if err == nil && entry.IsDir() && hidden {
			return fs.SkipDir
		}
		if strings.HasSuffix(path, end) {
			list = append(list, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The tests run PostgreSQL with the log settings that an installation must have.
func TestPostgreSQLLogsTheSameEverywhere(t *testing.T) {
	t.Parallel()
	compose, runbook := read(t, "../docker-compose.yml"), read(t, "operations.md")
	for _, setting := range devstack.PrivateLog() {
		if !strings.Contains(compose, "- --"+setting+"\n") {
			t.Errorf("docker-compose.yml does not set %s", setting)
		}
		name, value, _ := strings.Cut(setting, "=")
		row := regexp.MustCompile("(?m)^\\|.*`" + name + "`.* \\| `" + value + "` \\|")
		if !row.MatchString(runbook) {
			t.Errorf("docs/operations.md does not say that %s must be %s", name, value)
		}
	}
}
