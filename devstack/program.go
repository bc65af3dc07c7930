package devstack

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Program is a child process other than PostgreSQL and Temporal, such as a role of our own binary.
type Program struct{ process *process }

// StartProgram runs cmd, whose output goes to the end of logFile. The caller must Stop or Kill it, or wait
// for Done.
func StartProgram(cmd *exec.Cmd, logFile string) (*Program, error) {
	p, err := startProcess(cmd, logFile, os.O_APPEND, syscall.SIGKILL)
	if err != nil {
		return nil, err
	}
	return &Program{process: p}, nil
}

// PID is the program's process id.
func (p *Program) PID() int { return p.process.cmd.Process.Pid }

// Done is closed when the program has ended.
func (p *Program) Done() <-chan struct{} { return p.process.done }

// ExitCode is the program's exit code, or -1 if a signal ended it. It may be called only after Done is
// closed.
func (p *Program) ExitCode() int { return p.process.cmd.ProcessState.ExitCode() }

// Stop asks the program to end, kills it after a minute, and returns when it has ended. It may be called
// twice.
func (p *Program) Stop() error {
	return p.process.stop(stopStep{syscall.SIGTERM, time.Minute})
}

// Kill ends the program at once, as a crash would.
func (p *Program) Kill() error { return p.process.kill() }

// Explain adds the end of the program's log to err.
func (p *Program) Explain(err error) error { return p.process.explain(err) }

// Vantrexia runs our own binary as an installation does: roles and commands as processes, with the same
// settings and no others.
type Vantrexia struct {
	Binary   string   // its path
	Dir      string   // its working directory
	Settings []string // "NAME=value"
}

// Start starts a role such as "worker", which writes to LogFile(name). Settings win over those of all.
func (v Vantrexia) Start(name, role string, settings ...string) (*Program, error) {
	return StartProgram(v.command(context.Background(), settings, role), v.LogFile(name))
}

// LogFile is where Start puts what the process of that name says.
func (v Vantrexia) LogFile(name string) string { return filepath.Join(v.Dir, name+".log") }

// Output runs a command to its end and returns what it prints.
func (v Vantrexia) Output(ctx context.Context, args ...string) (string, error) {
	cmd := v.command(ctx, nil, args...)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("vantrexia %s: %w: %s", args[0], err, complaint.String())
	}
	return strings.TrimSpace(string(out)), nil
}

func (v Vantrexia) command(ctx context.Context, settings []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, v.Binary, args...)
	cmd.Dir = v.Dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.TempDir()}, v.Settings...)
	cmd.Env = append(cmd.Env, settings...)
	return cmd
}

// ChoosePorts finds a free port on 127.0.0.1 for each name. The ports are below those that the kernel gives
// to outgoing connections, because such a connection could take the port of a process that is down for a
// moment.
func ChoosePorts(names ...string) (map[string]int, error) {
	ports := map[string]int{}
	for _, name := range names {
		for range 100 {
			listener, err := net.Listen("tcp", address(15000+rand.IntN(15000)))
			if err != nil {
				continue
			}
			defer listener.Close() // not before all are chosen
			ports[name] = listener.Addr().(*net.TCPAddr).Port
			break
		}

		if ports[name] == 0 {
			return nil, errors.New("no free port on 127.0.0.1 between 15000 and 30000")
		}
	}

	return ports, nil
}
