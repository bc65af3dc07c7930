package main

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/time/rate"

	"github.com/vantrexia/vantrexia/api"
)

// limitConnections bounds how many connections there are at once. Further ones wait to be accepted. One
// address gets a part of them only, and what it opens beyond that is closed. A trusted proxy may have all,
// because everybody's requests come from there.
func limitConnections(listener net.Listener, cfg doorConfig, log *slog.Logger) net.Listener {
	return netutil.LimitListener(&addressListener{
		Listener: listener,
		most:     cfg.PerAddress,
		trusted:  cfg.TrustedProxies,
		log:      log,
		open:     map[netip.Prefix]int{},
		warn:     rate.Sometimes{Interval: time.Minute},
	}, cfg.Connections)
}

// addressListener counts the connections of each address.
type addressListener struct {
	net.Listener
	most    int
	trusted api.Proxies
	log     *slog.Logger
	warn    rate.Sometimes

	mu   sync.Mutex
	open map[netip.Prefix]int // of the addresses that have any
}

func (l *addressListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}

		peer := api.PeerOf(conn.RemoteAddr().String())
		if l.trusted.Contains(peer) {
			return conn, nil
		}

		block := api.BlockOf(peer)
		if l.enter(block) {
			return &countedConn{Conn: conn, leave: sync.OnceFunc(func() { l.leave(block) })}, nil
		}

		_ = conn.Close()
		l.warn.Do(func() {
			l.log.WarnContext(context.Background(), "an address has opened more connections than it may: they are closed; "+
				"if it is a proxy, name it in API_TRUSTED_PROXIES", "setting", "API_CONNECTIONS_PER_ADDRESS", "most", l.most)
		})
	}
}

func (l *addressListener) enter(block netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[block] >= l.most {
		return false
	}
	l.open[block]++
	return true
}

func (l *addressListener) leave(block netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[block]--; l.open[block] == 0 {
		delete(l.open, block)
	}
}

// countedConn is a connection that counts until it is closed.
type countedConn struct {
	net.Conn
	leave func()
}

func (c *countedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
