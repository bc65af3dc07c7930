package main

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// process is a vantrexia that runs as a child of ours.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// startProcess runs the command, whose output goes to the end of logFile. The child dies with us, on systems that can do
// that, and is out of reach of a Ctrl-C in the terminal: we stop it in our order.
func startProcess(cmd *exec.Cmd, logFile string) (*process, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has a descriptor of its own
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(cmd.SysProcAttr)
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // Linux takes the end of the thread that forked for the end of the parent
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in ProcessState
			close(p.done)
		}
	}()
	return p, <-started
}

// Done is closed when the process has ended.
func (p *process) Done() <-chan struct{} { return p.done }

// crashed tells whether a process that has ended did so by a panic.
func (p *process) crashed() bool { return p.cmd.ProcessState.ExitCode() == 2 }

// Kill ends the process at once, as a crash would.
func (p *process) Kill() error { return p.end(syscall.SIGKILL) }

// Stop asks the process to end, and insists after a while.
func (p *process) Stop() error {
	insist := time.AfterFunc(time.Minute, func() { _ = p.cmd.Process.Kill() })
	defer insist.Stop()
	return p.end(syscall.SIGTERM)
}

func (p *process) end(signal syscall.Signal) error {
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return nil
}
