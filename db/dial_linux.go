package db

import (
	"context"
	"strings"
	"syscall"
)

// tcpUserTimeout is TCP_USER_TIMEOUT, which package syscall does not name.
const tcpUserTimeout = 0x12

// limitUnanswered ends a connection whose packets are not acknowledged. By itself Linux sends them again for
// a quarter of an hour, and the queries to a host that vanished hold every connection of the pool meanwhile.
func limitUnanswered(_ context.Context, network, _ string, conn syscall.RawConn) error {
	if !strings.HasPrefix(network, "tcp") { // a socket of this machine
		return nil
	}

	var refused error
	err := conn.Control(func(fd uintptr) {
		refused = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(unansweredTimeout.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return refused
}
