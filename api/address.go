package api

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"
)

// Proxies are the addresses of the proxies that may say who their client is.
type Proxies []netip.Prefix

// Contains reports whether an address is that of a trusted proxy.
func (p Proxies) Contains(address netip.Addr) bool {
	return slices.ContainsFunc(p, func(block netip.Prefix) bool { return block.Contains(address) })
}

// PeerOf returns the address of a connection's other side, "host:port" as net/http and net give it. It is the
// zero Addr for a text that is none. An IPv4 address in IPv6 form is returned as IPv4.
func PeerOf(remote string) netip.Addr {
	peer, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return peer.Addr().Unmap().WithZone("")
}

// BlockOf returns what counts as one address: an IPv4 address, or an IPv6 network of 64 bits, all of which one
// customer of a provider has.
func BlockOf(address netip.Addr) netip.Prefix {
	bits := address.BitLen()
	if address.Is6() {
		bits = 64
	}
	block, _ := address.Prefix(bits) // of the zero Addr it is the zero Prefix
	return block
}

// clientOf returns the address of the client. A trusted proxy says it in X-Forwarded-For, to whose end each
// proxy adds the address that it was called from. So the client is the last one that is no trusted proxy;
// whatever stands before it the client may have made up. Nobody else is believed.
func (p Proxies) clientOf(r *http.Request) netip.Addr {
	client := PeerOf(r.RemoteAddr)
	hops := strings.Split(strings.Join(r.Header.Values(echo.HeaderXForwardedFor), ","), ",")
	for _, hop := range slices.Backward(hops) {
		if !p.Contains(client) {
			break
		}

		said, err := netip.ParseAddr(strings.Trim(strings.TrimSpace(hop), "[]"))
		if err != nil { // some proxies add the port
			said = PeerOf(strings.TrimSpace(hop))
		}
		if !said.IsValid() {
			break
		}
		client = said.Unmap().WithZone("")
	}
	return client
}

// extractIP is clientOf in the form that Echo wants. It is empty when the address is not known.
func (p Proxies) extractIP(r *http.Request) string {
	if client := p.clientOf(r); client.IsValid() {
		return client.String()
	}
	return ""
}

// behindTLS reports whether the client used TLS, with us or with a trusted proxy.
func (p Proxies) behindTLS(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	return p.Contains(PeerOf(r.RemoteAddr)) && strings.EqualFold(r.Header.Get(echo.HeaderXForwardedProto), "https")
}
