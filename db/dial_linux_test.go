package db

import (
	"net"
	"syscall"
	"testing"
)

// Every new connection of the pool gives up on a host that vanished.
func TestConnectionsGiveUpOnAVanishedHost(t *testing.T) {
	t.Parallel()
	cfg, err := poolConfig("postgres://u:p@127.0.0.1:1/db")
	if err != nil {
		t.Fatal(err)
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })

	conn, err := cfg.ConnConfig.DialFunc(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })

	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var got int
	var refused error
	err = raw.Control(func(fd uintptr) {
		got, refused = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout)
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := int(unansweredTimeout.Milliseconds()); refused != nil || got != want {
		t.Errorf("TCP_USER_TIMEOUT is %d (%v), want %d", got, refused, want)
	}
}
