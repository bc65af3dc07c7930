//go:build !linux

package devstack

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// setDeathSignal does nothing, because only Linux sends a child a signal when its parent dies. Elsewhere
// PostgreSQL stays until the next start stops it.
func setDeathSignal(*syscall.SysProcAttr, syscall.Signal) {}

// commandLine returns the command line of a running process, or "" when there is none with that id.
func commandLine(pid int) string {
	text, err := exec.Command("ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
