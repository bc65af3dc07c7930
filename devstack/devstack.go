// Package devstack starts what a laptop lacks: a private PostgreSQL cluster and a Temporal server, both as child
// processes. "vantrexia dev" and the integration tests run on it, so both meet the real servers.
//
// A child ends with the process that started it, however that ends; a PostgreSQL that a killed parent left behind
// nevertheless is stopped by the next start on the same directory. Children are in process groups of their own: a
// Ctrl-C in the terminal reaches only their parent, which stops them in the order it wants.
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

// readyTimeout bounds a start, beside the caller's context. Seconds are usual; recovery after a crash takes longer.
const readyTimeout = 60 * time.Second

// PortError says that a port the caller asked for is not free. The caller knows by which setting it was asked for
// and should name it.
type PortError struct {
	Port int
}

func (e *PortError) Error() string { return fmt.Sprintf("port %d is taken", e.Port) }

// Root returns the directory of this repository, found from the working directory upwards. Tests use it, because go
// test runs each package's tests in the package's own directory.
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

// makeDir creates a directory for our eyes only, in parents that others may pass through: PostgreSQL may have to run
// in another account than ours.
func makeDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// checkPort reports a *PortError when something listens on the port already. 0 means any port and is never taken.
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

// freePort returns a port that was free a moment ago; whoever uses it must be ready to lose the race for it.
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
			return nil, fmt.Errorf("%s is in use by another vantrexia; stop that one first", dir)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return file, nil
}
