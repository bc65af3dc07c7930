//go:build !linux

package main

import "syscall"

// dieWithParent: only Linux has a death signal.
func dieWithParent(*syscall.SysProcAttr) {}
