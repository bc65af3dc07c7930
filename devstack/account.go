package devstack

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// account is the system user that the server runs as when we run as root, because PostgreSQL refuses to run
// as root.
type account struct {
	name     string
	uid, gid uint32
}

// systemClusters holds the data of clusters whose own directory the account cannot enter. /tmp would not keep
// it.
const systemClusters = "/var/lib/vantrexia-dev"

// leaveRoot finds an account for the server, and a place for the data that this account can enter: a checkout
// under /root, as in many containers, is closed to other users. The file "moved" keeps the place for later
// starts.
func (c *cluster) leaveRoot(ctx context.Context) error {
	moved := filepath.Join(c.dir, "moved")
	switch text, err := os.ReadFile(moved); {
	case err == nil:
		c.data, c.moved = strings.TrimSpace(string(text)), true
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}

	var err error
	if c.account, err = c.findAccount(); err != nil {
		return err
	}

	if err := os.Chmod(c.dir, 0o711); err != nil { // the account must pass through it to the data
		return err
	}

	parent := filepath.Dir(c.data)
	if err := c.account.enter(ctx, parent); err == nil || ctx.Err() != nil {
		return ctx.Err()
	}

	if _, err := os.Stat(c.data); err == nil {
		return fmt.Errorf("%s cannot be reached by the user %s, in whose account PostgreSQL runs when we are root: "+
			"permit it to enter the directories above",
			c.data, c.account.name)
	}

	parent = filepath.Join(systemClusters, fmt.Sprintf("%x", sha256.Sum256([]byte(c.dir)))[:12])
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}

	for _, dir := range []string{systemClusters, parent} { // in spite of our umask
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}

	if err := c.account.enter(ctx, parent); err != nil {
		return fmt.Errorf("neither %s nor %s can be reached by the user %s, in whose account PostgreSQL runs when we are root: %w",
			c.dir, parent, c.account.name, err)
	}

	c.data, c.moved = filepath.Join(parent, "data"), true
	return os.WriteFile(moved, []byte(c.data+"\n"), 0o600)
}

// findAccount returns the owner of data that exists, else the user postgres that packages create, else
// nobody.
func (c *cluster) findAccount() (*account, error) {
	if info, err := os.Stat(c.data); err == nil {
		if owner := info.Sys().(*syscall.Stat_t); owner.Uid != 0 {
			return &account{name: fmt.Sprint(owner.Uid), uid: owner.Uid, gid: owner.Gid}, nil
		}
	}

	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseInt(found.Uid, 10, 64)
		gid, gidErr := strconv.ParseInt(found.Gid, 10, 64)
		if uidErr == nil && gidErr == nil {
			return &account{name: name, uid: uint32(uid), gid: uint32(gid)}, nil // macOS has nobody as -2
		}
	}

	return nil, errors.New("PostgreSQL refuses to run as root, and there is neither a user postgres nor a user nobody to run it as")
}

// enter checks that the account can enter dir, by doing it: the permission bits do not show ACLs, SELinux and
// mounts.
func (a *account) enter(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", `cd "$0"`, dir)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: a.uid, Gid: a.gid}}
	return cmd.Run()
}

// giveAway makes the account the owner of path, if there is an account.
func (c *cluster) giveAway(path string) error {
	if c.account == nil {
		return nil
	}
	return os.Chown(path, int(c.account.uid), int(c.account.gid))
}
