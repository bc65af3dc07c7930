// Package devstack starts a private PostgreSQL cluster and a Temporal server as child processes. "vantrexia
// dev" and the integration tests use it, so both run against the real servers.
//
// A child ends when the process that started it ends, for any reason. If a killed parent leaves a PostgreSQL
// behind, the next start on the same directory stops it. Each child has a process group of its own, so that a
// Ctrl-C in the terminal reaches only the parent, which stops its children in the right order.
//
// Linux and macOS are supported.
package devstack

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const loopback = "127.0.0.1"

// readyTimeout bounds a start, as the caller's context does. A start usually takes seconds; recovery after a
// crash takes longer.
const readyTimeout = 60 * time.Second

// PortError says that a port that the caller asked for is taken. The caller should name the setting of the
// port.
type PortError struct {
	Port int
}

func (e *PortError) Error() string { return fmt.Sprintf("port %d is taken", e.Port) }

// Root returns the directory of this repository, found from the working directory upwards. Tests use it,
// because go test runs each package's tests in the package's own directory.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}

	for {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}

		first, _, _ := strings.Cut(string(text), "\n")
		if strings.TrimSpace(first) == "module github.com/vantrexia/vantrexia" {
			return dir, nil
		}

		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("the working directory is not inside the vantrexia repository")
		}

		dir = parent
	}
}

// makeDir creates a directory that only we can read. Others may pass through its parents, because PostgreSQL
// may run in another account.
func makeDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// checkPort reports a *PortError when something listens on the port already. 0 means any port and is never
// taken.
func checkPort(port int) error {
	if port == 0 {
		return nil
	}
	listener, err := net.Listen("tcp", address(port))
	if errors.Is(err, syscall.EADDRINUSE) {
		return &PortError{Port: port}
	}
	if err != nil {
		return fmt.Errorf("port %d: %w", port, err)
	}
	return listener.Close()
}

// freePort returns a port that was free a moment ago. Another process may take it before the caller does.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", address(0))
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

func address(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }

// lockDir keeps a second process off dir. The kernel frees the lock when this process ends.
func lockDir(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}

	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is in use by another vantrexia: stop that one first", dir)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return file, nil
}
