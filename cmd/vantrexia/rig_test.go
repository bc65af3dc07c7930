package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/devstack"
	"github.com/vantrexia/vantrexia/devstack/devtest"
)

// The tests of this package run the real binary, as a person does, in a directory of its own.

var stack devtest.Stack // its databases are empty: `vantrexia migrate` is among what is tested

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	defer func() {
		if path, err := binary(); err == nil {
			_ = os.RemoveAll(filepath.Dir(path))
		}
	}()
	return stack.Run(m)
}

// binary builds the command once, and returns its path.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "vantrexia-binary-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "vantrexia")
	if said, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		return path, fmt.Errorf("go build: %w\n%s", err, said)
	}
	return path, nil
})

// patience bounds every wait: seconds are usual, a loaded machine takes longer.
const patience = 2 * time.Minute

// workDir is a directory in which `vantrexia dev` finds bin/temporaldev. PostgreSQL may run in another
// account than ours, which must be able to enter.
func workDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}

	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}

	if err := os.Symlink(temporalBinary(t), filepath.Join(dir, "bin", "temporaldev")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func temporalBinary(t *testing.T) string {
	t.Helper()
	root, err := devstack.Root()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "bin", "temporaldev")
}

// anyPorts lets `vantrexia dev` choose free ports everywhere.
func anyPorts() []string {
	return []string{"API_ADDRESS=127.0.0.1:0", "SANDBOX_ADDRESS=127.0.0.1:0", "TEMPORAL_UI_ADDRESS=127.0.0.1:0", "TEMPORAL_PORT=0"}
}

// process is a vantrexia that runs.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr output
	done           chan struct{} // closed when it has ended
}

// start runs the binary with these settings and no others. It is killed when the test ends before it does.
func start(t *testing.T, dir string, settings []string, args ...string) *process {
	t.Helper()
	return startTyping(t, dir, settings, "", args...)
}

// startTyping is start with an input.
func startTyping(t *testing.T, dir string, settings []string, input string, args ...string) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}

	p := &process{cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, &p.stdout, &p.stderr
	p.cmd.Stdin = strings.NewReader(input)
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.TempDir()}, settings...)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}

	go func() {
		_ = p.cmd.Wait() // how it ended is in ProcessState
		close(p.done)
	}()

	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		p.wait(t)
	})
	return p
}

// run runs the binary to its end.
func run(t *testing.T, dir string, settings []string, args ...string) *process {
	t.Helper()
	p := start(t, dir, settings, args...)
	p.wait(t)
	return p
}

// wait returns the exit code of the process when it has ended.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.done
		t.Errorf("vantrexia %v does not end\n%s", p.cmd.Args[1:], p.stderr.text())
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// await returns what the process wrote to out as soon as text is in it.
func (p *process) await(t *testing.T, out *output, text string) string {
	t.Helper()
	timeout := time.After(patience)
	for {
		said, more := out.watch()
		if strings.Contains(said, text) {
			return said
		}

		select {
		case <-more:
		case <-p.done:
			if said := out.text(); strings.Contains(said, text) {
				return said
			}
			t.Fatalf("vantrexia %v ended without saying %q\n%s\n%s", p.cmd.Args[1:], text, p.stdout.text(), p.stderr.text())
		case <-timeout:
			t.Fatalf("vantrexia %v does not say %q\n%s\n%s", p.cmd.Args[1:], text, p.stdout.text(), p.stderr.text())
		}
	}
}

// output collects what a process writes, and wakes those who wait for it.
type output struct {
	mu      sync.Mutex
	written bytes.Buffer
	more    chan struct{} // closed at the next write
}

func (o *output) Write(data []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more != nil {
		close(o.more)
		o.more = nil
	}
	return o.written.Write(data)
}

func (o *output) watch() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more == nil {
		o.more = make(chan struct{})
	}
	return o.written.String(), o.more
}

func (o *output) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.written.String()
}

// nothingRunsIn fails the test when a process works in dir or below, where the servers that we start do. Only
// Linux can say.
func nothingRunsIn(t *testing.T, dir string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return
	}

	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}

	for _, link := range links {
		if cwd, err := os.Readlink(link); err == nil && strings.HasPrefix(cwd+"/", dir+"/") {
			command, _ := os.ReadFile(filepath.Join(filepath.Dir(link), "cmdline"))
			t.Errorf("still running: %s", bytes.ReplaceAll(command, []byte{0}, []byte{' '}))
		}
	}
}

// call makes a request and decodes the JSON answer into out, when there is an out.
func call(t *testing.T, method, url, token, body string, out any) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}

	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()

	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if out != nil && res.StatusCode < 300 {
		if err := json.Unmarshal(answer, out); err != nil {
			t.Fatalf("%s %s: %v in %s", method, url, err, answer)
		}
	}
	return res.StatusCode
}

// eventually asks until the answer is yes, and returns how long that took.
func eventually(t *testing.T, what string, yes func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	for !yes() {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("not so: %s (%v)", what, errors.Unwrap(ctx.Err()))
		}
	}

	return time.Since(began)
}
