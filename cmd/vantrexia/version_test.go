package main

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestABuildSaysWhatItIsMadeOf(t *testing.T) {
	t.Parallel()
	got := readBuild(&debug.BuildInfo{
		Main: debug.Module{Version: "v1.2.3"},
		Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: "684a526c0ffee"},
			{Key: "vcs.time", Value: "2026-11-29T04:00:00Z"},
			{Key: "vcs.modified", Value: "true"},
		},
	})
	target := runtime.GOOS + "/" + runtime.GOARCH
	want := build{"v1.2.3", "684a526c0ffee", "2026-11-29T04:00:00Z", true, runtime.Version(), target}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}

	for _, info := range []*debug.BuildInfo{nil, {Main: debug.Module{Version: "(devel)"}}} {
		if got := readBuild(info); got != (build{unknown, unknown, unknown, false, runtime.Version(), target}) {
			t.Errorf("without a history it says %+v", got)
		}
	}
}

// TestTheBinaryNamesItsCommit builds one in a repository of the test's own: a checkout need not have a history.
func TestTheBinaryNamesItsCommit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module example.com/m\n\ngo 1.26\n")
	source := "package main\n\nimport (\"fmt\"; \"runtime/debug\")\n\nfunc main() { info, _ := debug.ReadBuildInfo(); fmt.Print(info) }\n"
	write(t, filepath.Join(dir, "main.go"), source)
	in := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		said, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, said)
		}
		return strings.TrimSpace(string(said))
	}
	in("git", "init", "--quiet")
	in("git", "add", ".")
	in("git", "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "--quiet", "--message", "m")
	info, err := debug.ParseBuildInfo(in("go", "run", "-buildvcs=true", "."))
	if err != nil {
		t.Fatal(err)
	}
	if got := readBuild(info); got.Commit != in("git", "rev-parse", "HEAD") || got.Dirty || got.Date == unknown || got.Version == unknown {
		t.Errorf("it says %+v", got)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	if p := run(t, t.TempDir(), nil, "version"); p.wait(t) != 0 || !strings.Contains(p.stdout.text(), runtime.Version()) {
		t.Errorf("it says %q", p.stdout.text())
	}
	var got build
	p := run(t, t.TempDir(), nil, "version", "--json")
	if err := json.Unmarshal([]byte(p.stdout.text()), &got); err != nil || got.Go != runtime.Version() || got.Commit == "" {
		t.Errorf("it says %q, %v", p.stdout.text(), err)
	}
}
