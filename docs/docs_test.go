// Package docs_test holds the documents against the code.
package docs_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
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

// A decision that nobody finds is taken again.
func TestDecisionsAreRecordedAlike(t *testing.T) {
	t.Parallel()
	guide := read(t, "../CONTRIBUTING.md")
	records, err := filepath.Glob("decisions/*.md")
	if err != nil || len(records) == 0 {
		t.Fatalf("no records: %v", err)
	}
	for i, record := range records {
		text := read(t, record)
		parts := regexp.MustCompile(`(?s)^# (\d+)\. .*\n## Context\n.*\n## Decision\n.*\n## Consequences\n`).FindStringSubmatch(text)
		number := strconv.Itoa(i + 1)
		if parts == nil || parts[1] != number || !strings.HasPrefix(record, fmt.Sprintf("decisions/%04d-", i+1)) {
			t.Errorf("%s is not number %s with context, decision and consequences", record, number)
		}
		if !strings.Contains(guide, "(docs/"+record+")") {
			t.Errorf("CONTRIBUTING.md does not lead to %s", record)
		}
	}
}

// A link to a file that was moved leads nowhere.
func TestLinksBetweenDocumentsLeadSomewhere(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`)
	for _, file := range files(t, ".md") {
		for _, found := range link.FindAllStringSubmatch(read(t, file), -1) {
			if strings.Contains(found[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), found[1])); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}
