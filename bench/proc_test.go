package main

import (
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	const text = "4242 (a) (b c) S 17 4242 4242 0 -1 4194560 1 2 3 4 150 25 1000 7 20 0 9 0 12 34 56"
	got, err := parseStat(text)
	want := procStat{parent: 17, own: 1750 * time.Millisecond, ended: 10070 * time.Millisecond}
	if err != nil || got != want {
		t.Errorf("got %+v and %v, want %+v", got, err, want)
	}

	for _, broken := range []string{"", "1 (x", "1 (x) S 2 3", "1 (x) S 2 4242 4242 0 -1 4194560 1 2 3 4 many 25 1000 7 20 0"} {
		if got, err := parseStat(broken); err == nil {
			t.Errorf("%q was read as %+v", broken, got)
		}
	}
}

// What a child used still counts when the child has ended, and counts once.
func TestTheTreeKeepsItsDead(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("there is no /proc")
	}
	// The shell waits for the first child, which works, and then for a read that never ends.
	shell := exec.Command("sh", "-c", `sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; echo done; read line; exit 0`)
	in, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}

	all, err := readProcesses()
	if err != nil {
		t.Fatal(err)
	}
	pid := shell.Process.Pid
	if got := all.tree(pid); len(got) != 1 || all.tree(os.Getpid())[0] != os.Getpid() {
		t.Errorf("the tree of the shell is %v", got)
	}
	if got := all.cpu(pid); got < 50*time.Millisecond || got != all[pid].own+all[pid].ended {
		t.Errorf("the shell and its ended child used %s", got)
	}
	if size, err := all.memory(pid); err != nil || size < 1<<15 || size > 1<<26 {
		t.Errorf("the shell takes %d bytes (%v)", size, err)
	}

	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := shell.Wait(); err != nil {
		t.Fatal(err)
	}
	if all, err = readProcesses(); err != nil || all.tree(pid) != nil || all.cpu(pid) != 0 {
		t.Errorf("it has ended, and uses %s (%v)", all.cpu(pid), err)
	}
}

func TestParsePSS(t *testing.T) {
	t.Parallel()
	const text = "55d0-7ffe ---p 00000000 00:00 0    [rollup]\nRss:   9000 kB\nPss:   1234 kB\nPss_Dirty:   77 kB\n"
	if got, err := parsePSS([]byte(text)); err != nil || got != 1234*1024 {
		t.Errorf("got %d and %v", got, err)
	}
	if got, err := parsePSS([]byte("Rss: 1 kB\n")); err == nil {
		t.Errorf("a text without it gave %d", got)
	}
}
