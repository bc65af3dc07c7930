package devstack

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cluster is the place of a PostgreSQL cluster on disk:
//
//	lock      held by the process that runs the server
//	password  of the superuser, readable by us only
//	log       what the server said since its last start
//	data/     PostgreSQL's own directory
//
// All of it is in the directory the caller named, except that data may have to be elsewhere; see account.go.
type cluster struct {
	dir      string
	data     string
	moved    bool     // data is not below dir
	account  *account // nil: the server runs as ourselves
	lock     *os.File
	password string
	binaries postgresBinaries
}

// openCluster locks the directory, and finds the directory of the data and the account that runs the server.
func openCluster(ctx context.Context, dir string) (_ *cluster, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, err
	}

	if err := makeDir(dir); err != nil {
		return nil, err
	}

	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}

	c := &cluster{dir: dir, data: filepath.Join(dir, "data"), lock: lock}
	if os.Geteuid() == 0 {
		if err := c.leaveRoot(ctx); err != nil {
			_ = lock.Close()
			return nil, err
		}
	}
	return c, nil
}

// prepare finds the binaries that fit and makes the cluster when there is none.
func (c *cluster) prepare(ctx context.Context, cfg PostgresConfig) error {
	if err := c.forgetOrphan(); err != nil {
		return err
	}

	version, err := os.ReadFile(filepath.Join(c.data, "PG_VERSION"))
	switch {
	case err == nil:
		return c.reopen(ctx, strings.TrimSpace(string(version)))
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}

	found, others, ok := findPostgres(ctx, 0)
	if !ok && len(others) > 0 {
		return fmt.Errorf("the versions installed here, %v, are too old: %w", others, errNoPostgres)
	}
	if !ok && !cfg.Install {
		return errNoPostgres
	}
	if !ok {
		if err := installPostgres(ctx, cfg.Output); err != nil {
			return err
		}
		if found, _, ok = findPostgres(ctx, 0); !ok {
			return errNoPostgres
		}
	}

	c.binaries = found
	return c.initialise(ctx, cfg.Durable)
}

// forgetOrphan removes moved data whose directory was deleted, because a person deletes it to start afresh.
func (c *cluster) forgetOrphan() error {
	if _, err := os.Stat(c.passwordFile()); !c.moved || !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return os.RemoveAll(c.data)
}

// reopen finds the binaries for an existing cluster, whose files need their own major version.
func (c *cluster) reopen(ctx context.Context, version string) error {
	major, err := strconv.Atoi(version)
	if err != nil {
		return fmt.Errorf("%s holds no version: %w", filepath.Join(c.data, "PG_VERSION"), err)
	}

	found, others, ok := findPostgres(ctx, major)
	if !ok {
		return fmt.Errorf("the data in %s is of PostgreSQL %d, and installed here are %v: install version %d, or delete %s to start afresh",
			c.data, major, others, major, c.dir)
	}

	c.binaries = found
	password, err := os.ReadFile(c.passwordFile())
	if err != nil {
		return fmt.Errorf("the cluster's password is gone: restore the file, or delete %s to start afresh: %w", c.dir, err)
	}

	c.password = string(password)
	return nil
}

func (c *cluster) passwordFile() string { return filepath.Join(c.dir, "password") }

// initialise makes a cluster beside its final place, and moves it there when it is complete, so that an
// interruption leaves no incomplete cluster.
func (c *cluster) initialise(ctx context.Context, durable bool) error {
	fresh := c.data + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}

	if err := os.Mkdir(fresh, 0o700); err != nil {
		return err
	}

	c.password = rand.Text()
	if err := os.WriteFile(c.passwordFile(), []byte(c.password), 0o600); err != nil {
		return err
	}

	// initdb reads the password from a file, with the rights of the account that it runs in.
	forInitdb := fresh + ".password"
	if err := os.WriteFile(forInitdb, []byte(c.password), 0o600); err != nil {
		return err
	}
	defer func() { _ = os.Remove(forInitdb) }()

	for _, path := range []string{fresh, forInitdb} {
		if err := c.giveAway(path); err != nil {
			return err
		}
	}

	args := []string{
		"--pgdata=" + fresh, "--username=" + superuser, "--pwfile=" + forInitdb, "--auth=scram-sha-256",
		"--encoding=UTF8", "--locale=C", "--lc-ctype=" + characterLocale(),
	}
	if !durable {
		args = append(args, "--no-sync")
	}

	cmd := exec.CommandContext(ctx, filepath.Join(c.binaries.dir, "initdb"), args...)
	c.confine(cmd)
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w:\n%s", err, lastLines(said))
	}
	return os.Rename(fresh, c.data)
}

// The files of PostgresConfig as the server has them, in its own directory.
const (
	tlsCertFile = "server-cert.pem"
	tlsKeyFile  = "server-key.pem"
	hbaFile     = "our_hba.conf"
)

// takeFiles copies the files that the caller named: they belong to us, and the server reads a key only if it belongs to its own
// account.
func (c *cluster) takeFiles(cfg PostgresConfig) error {
	files := map[string]string{}
	if cfg.TLSDir != "" {
		files[tlsCertFile], files[tlsKeyFile] = filepath.Join(cfg.TLSDir, "cert.pem"), filepath.Join(cfg.TLSDir, "key.pem")
	}
	if cfg.HBAFile != "" {
		files[hbaFile] = cfg.HBAFile
	}

	for name, from := range files {
		text, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		to := filepath.Join(c.data, name)
		if err := os.WriteFile(to, text, 0o600); err != nil {
			return err
		}
		if err := c.giveAway(to); err != nil {
			return err
		}
	}
	return nil
}

// characterLocale is the locale that knows upper from lower case beyond ASCII; sorting stays by code point.
func characterLocale() string {
	if runtime.GOOS == "darwin" {
		return "en_US.UTF-8"
	}
	return "C.UTF-8"
}

// confine lets cmd run in the server's account, in a directory that this account can enter, and with English
// messages, because this package reads them.
func (c *cluster) confine(cmd *exec.Cmd) {
	cmd.Dir = filepath.Dir(c.data)
	for _, setting := range os.Environ() {
		if !strings.HasPrefix(setting, "PG") { // PGDATA and its like are meant for another cluster
			cmd.Env = append(cmd.Env, setting)
		}
	}
	cmd.Env = append(cmd.Env, "LC_ALL=C")
	if c.account != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.account.uid, Gid: c.account.gid}}
	}
}

// stopLeftover stops a server that outlived the process that started it. We hold the lock, so no other
// process uses it.
func (c *cluster) stopLeftover(logger *slog.Logger) error {
	pidFile := filepath.Join(c.data, "postmaster.pid")
	text, err := os.ReadFile(pidFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}

	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || !c.isServer(pid) {
		// After a restart of the machine or the container the number may belong to any process, and
		// PostgreSQL would refuse to start because of it.
		return os.Remove(pidFile)
	}

	logger.Info("stopping a PostgreSQL that an earlier run left behind", "pid", pid)
	for _, step := range []stopStep{
		{syscall.SIGINT, 20 * time.Second},
		{syscall.SIGQUIT, 5 * time.Second},
		{syscall.SIGKILL, 5 * time.Second},
	} {
		if err := syscall.Kill(pid, step.signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
		for end := time.Now().Add(step.grace); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if !c.isServer(pid) {
				return nil
			}
		}
	}

	return fmt.Errorf("process %d does not end", pid)
}

// isServer reports whether the process is a server on our data.
func (c *cluster) isServer(pid int) bool {
	return pid > 0 && strings.Contains(commandLine(pid)+" ", " -D "+c.data+" ")
}
