package devstack

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// process is a running child.
type process struct {
	cmd     *exec.Cmd
	logFile string
	done    chan struct{} // closed when it has ended
	err     error         // how it ended; read after done is closed
}

// startProcess starts cmd with its standard error in logFile. earlier says what to do with the text of an
// earlier run there: os.O_TRUNC or os.O_APPEND. On Linux the child gets deathSignal when this process dies.
func startProcess(cmd *exec.Cmd, logFile string, earlier int, deathSignal syscall.Signal) (*process, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|earlier, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has a descriptor of its own

	cmd.Stderr = log
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}

	cmd.SysProcAttr.Setpgid = true
	setDeathSignal(cmd.SysProcAttr, deathSignal)

	p := &process{cmd: cmd, logFile: logFile, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// Linux sends the death signal when the thread that started the child ends, and Go ends idle threads.
		// So this goroutine keeps its thread for as long as the child lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()

	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// stopStep is a signal, and how long the process has to end after it.
type stopStep struct {
	signal syscall.Signal
	grace  time.Duration
}

// stop sends one signal after the other until the process has ended, and kills it in the end. A process that
// has ended before is no error.
func (p *process) stop(steps ...stopStep) error {
	for _, step := range steps {
		if err := p.cmd.Process.Signal(step.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		select {
		case <-p.done:
			return nil
		case <-time.After(step.grace):
		}
	}
	return p.kill()
}

func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return nil
}

// explain adds the end of the process's log to err, because the reason is usually only there.
func (p *process) explain(err error) error {
	tail := logTail(p.logFile)
	if tail == "" {
		return err
	}
	return fmt.Errorf("%w; the end of %s:\n%s", err, p.logFile, tail)
}

// logTail returns the last lines of the file, or "" when there is nothing to show.
func logTail(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return lastLines(text)
}

// lastLines returns the last lines of text, as many as fit into an error.
func lastLines(text []byte) string {
	const lines = 12
	all := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return strings.TrimSpace(string(bytes.Join(all, []byte("\n"))))
}
