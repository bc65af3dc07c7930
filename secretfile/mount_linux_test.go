package secretfile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// inNamespace says that the test runs in a process that may mount, and gives it the directory to do it in.
const inNamespace = "SECRETFILE_TEST_MOUNT"

// TestReadOnlyMount mounts as Kubernetes does: a tmpfs with the files of a Secret, then read-only. It starts
// itself in namespaces of its own, in which it may.
func TestReadOnlyMount(t *testing.T) {
	t.Parallel()
	if dir := os.Getenv(inNamespace); dir != "" {
		readOnMount(t, dir)
		return
	}

	cmd := exec.Command(os.Args[0], "-test.run=^TestReadOnlyMount$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}

	said, err := cmd.CombinedOutput()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Skipf("this machine makes no namespaces: %v", err)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, said)
	}
	if bytes.Contains(said, []byte("--- SKIP")) {
		t.Skipf("this machine mounts nothing:\n%s", said)
	}
}

func readOnMount(t *testing.T, dir string) {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Skipf("no tmpfs: %v", err)
	}

	modes := map[string]fs.FileMode{"docker": 0o444, "kubernetes": 0o440, "loose": 0o644, "writable": 0o664}
	for name, mode := range modes {
		write(t, filepath.Join(dir, name), mode)
	}
	if _, err := Read(filepath.Join(dir, "docker")); err == nil {
		t.Error("0444 is taken on a mount that can be written to")
	}

	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for name := range modes {
		if _, err := Read(filepath.Join(dir, name)); (err == nil) != (name != "writable") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
