//go:build !linux

package devstack

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// setDeathSignal does nothing: only Linux tells a child of its parent's death. PostgreSQL then stays until the next start.
func setDeathSignal(*syscall.SysProcAttr, syscall.Signal) {}

// commandLine returns the command line of a running process, or "" when there is none with that id.
func commandLine(pid int) string {
	text, err := exec.Command("ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
