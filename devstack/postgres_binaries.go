package devstack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// oldestPostgres is the oldest major version that the migrations run on: the first with a built-in
// gen_random_uuid.
const oldestPostgres = 13

// postgresBinaries is a directory with postgres and initdb in it.
type postgresBinaries struct {
	dir   string
	major int
}

// findPostgres returns the binaries of the given major version, or with 0 the first that are new enough: on
// PATH, then where pg_config says, then the highest version in the directories of packages. If none fits, it
// returns false and the versions that it found.
func findPostgres(ctx context.Context, major int) (found postgresBinaries, others []int, ok bool) {
	for _, dir := range postgresDirs(ctx) {
		candidate, err := inspectPostgres(ctx, dir)
		if err != nil {
			continue
		}
		if candidate.major == major || major == 0 && candidate.major >= oldestPostgres {
			return candidate, nil, true
		}
		others = append(others, candidate.major)
	}
	return postgresBinaries{}, others, false
}

// postgresDirs lists the directories to look in, the preferred one first.
func postgresDirs(ctx context.Context) []string {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, filepath.Dir(path))
	}

	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}

	var packaged []string
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", // Debian, Ubuntu
		"/usr/pgsql-*/bin",          // PostgreSQL's packages for Red Hat
		"/opt/homebrew/opt/postgresql@*/bin",
		"/usr/local/opt/postgresql@*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin",
	} {
		matches, err := filepath.Glob(pattern)
		if err == nil { // the only error is a malformed pattern
			packaged = append(packaged, matches...)
		}
	}

	slices.SortStableFunc(packaged, func(a, b string) int { return cmp.Compare(majorOf(b), majorOf(a)) })
	return append(dirs, packaged...)
}

var (
	// dirVersion finds the version in a path such as /usr/lib/postgresql/15/bin.
	dirVersion = regexp.MustCompile(`(\d+)(\.\d+)?/bin$`)
	// programVersion finds it in "postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)".
	programVersion = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)
)

func majorOf(dir string) int {
	match := dirVersion.FindStringSubmatch(dir)
	if match == nil {
		return 0
	}
	major, _ := strconv.Atoi(match[1]) // digits by the pattern
	return major
}

// inspectPostgres asks the server in dir for its version. A client-only installation has no server.
func inspectPostgres(ctx context.Context, dir string) (postgresBinaries, error) {
	if _, err := exec.LookPath(filepath.Join(dir, "initdb")); err != nil {
		return postgresBinaries{}, err
	}

	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return postgresBinaries{}, err
	}

	match := programVersion.FindSubmatch(out)
	if match == nil {
		return postgresBinaries{}, fmt.Errorf("%s/postgres --version says %q", dir, out)
	}

	major, err := strconv.Atoi(string(match[1]))
	return postgresBinaries{dir: dir, major: major}, err
}

// errNoPostgres names every way to get a PostgreSQL.
var errNoPostgres = errors.New("no PostgreSQL server is installed here: install version " + strconv.Itoa(oldestPostgres) +
	" or later (Debian, Ubuntu: apt-get install postgresql; Fedora: dnf install postgresql-server; macOS: brew install postgresql@17), " +
	"or set DATABASE_URL to a server that runs already")

// aptScript installs PostgreSQL without the cluster that Debian's package makes and starts by default,
// because a developer does not want another system service. The script removes its setting afterwards.
const aptScript = `set -e
setting=/etc/postgresql-common/createcluster.d/vantrexia.conf
mkdir -p /etc/postgresql-common/createcluster.d
trap 'rm -f "$setting"' EXIT
echo "create_main_cluster = false" >"$setting"
export DEBIAN_FRONTEND=noninteractive
apt-get -q -o DPkg::Lock::Timeout=120 update
apt-get -q -o DPkg::Lock::Timeout=120 install -y --no-install-recommends postgresql
`

// installer is a package manager that works here without a question.
type installer struct {
	name    string
	command []string
}

// findInstaller returns false when only a person can install PostgreSQL.
func findInstaller(ctx context.Context) (installer, bool) {
	asRoot := os.Geteuid() == 0
	if runtime.GOOS == "darwin" {
		_, err := exec.LookPath("brew")
		return installer{"Homebrew", []string{"brew", "install", "postgresql@17"}}, err == nil && !asRoot // it refuses root
	}

	if _, err := exec.LookPath("apt-get"); err != nil {
		return installer{}, false
	}

	if asRoot {
		return installer{"apt-get", []string{"sh", "-c", aptScript}}, true
	}

	passwordless := exec.CommandContext(ctx, "sudo", "-n", "true").Run() == nil
	return installer{"apt-get", []string{"sudo", "-n", "sh", "-c", aptScript}}, passwordless
}

// installPostgres installs PostgreSQL with the system's package manager. It returns errNoPostgres where that
// would ask a question.
func installPostgres(ctx context.Context, output io.Writer) error {
	chosen, ok := findInstaller(ctx)
	if !ok {
		return errNoPostgres
	}

	// Tests of several packages may find PostgreSQL missing at the same time. The lock lets one of them
	// install it.
	unlock, err := lockInstallation(ctx)
	if err != nil {
		return err
	}
	defer unlock()

	if _, _, ok := findPostgres(ctx, 0); ok {
		return nil
	}

	fmt.Fprintf(output, "No PostgreSQL server is installed here: installing one with %s (needed once)\n", chosen.name)
	said, err := exec.CommandContext(ctx, chosen.command[0], chosen.command[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w; %s failed (%v):\n%s", errNoPostgres, chosen.name, err, lastLines(said))
	}
	return nil
}

// lockInstallation waits until no other process on this machine installs.
func lockInstallation(ctx context.Context) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(os.TempDir(), "vantrexia-install.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}

	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		select {
		case <-ctx.Done():
			_ = file.Close()
			return nil, fmt.Errorf("another process installs PostgreSQL: %w", ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}
