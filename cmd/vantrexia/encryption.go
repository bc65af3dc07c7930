package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// checkDatabaseTLS returns an error when DATABASE_URL would let a connection go to another machine without TLS, or
// to a server whose certificate is not verified. Every way counts that pgx may take: of several hosts each, and with
// sslmode=prefer the second try, which is without TLS. A URL that cannot be read is left to package db.
func (c config) checkDatabaseTLS() error {
	parsed, err := pgconn.ParseConfig(c.DatabaseURL)
	if err != nil {
		return nil
	}

	ways := []*pgconn.FallbackConfig{{Host: parsed.Host, Port: parsed.Port, TLSConfig: parsed.TLSConfig}}
	allowed := map[string]bool{}
	for _, way := range append(ways, parsed.Fallbacks...) {
		if network, _ := pgconn.NetworkAddress(way.Host, way.Port); network == "unix" || isThisMachine(way.Host) {
			continue
		}

		// sslmode=verify-ca verifies in a function of its own, and asks crypto/tls not to.
		settings := way.TLSConfig
		if settings != nil && (!settings.InsecureSkipVerify || settings.VerifyPeerCertificate != nil) {
			continue
		}

		if !slices.Contains(c.UnencryptedHosts, way.Host) {
			return fmt.Errorf("DATABASE_URL: PostgreSQL at %q would be reached without verified TLS: set sslmode=verify-full in it, and "+
				"sslrootcert to the file of the authority that signed the server's certificate; or name the host in "+
				"ALLOW_UNENCRYPTED_HOSTS if something else encrypts the way, such as a service mesh", way.Host)
		}
		allowed[way.Host] = true
	}

	for host := range allowed {
		c.warnOfPlainConnection("DATABASE_URL", host)
	}
	return nil
}

// checkTemporalTLS returns an error when TEMPORAL_ADDRESS is on another machine and no setting switches TLS on. With TLS the
// server's certificate is always verified.
func (c config) checkTemporalTLS(isTLS bool) error {
	host := temporalHost(c.temporalAddress())
	switch {
	case isTLS || isThisMachine(host):
		return nil
	case slices.Contains(c.UnencryptedHosts, host):
		c.warnOfPlainConnection("TEMPORAL_ADDRESS", host)
		return nil
	}
	return fmt.Errorf("TEMPORAL_ADDRESS: Temporal at %q would be reached without TLS: set TEMPORAL_TLS=true or a client certificate "+
		"(TEMPORAL_TLS_CLIENT_CERT_PATH, TEMPORAL_TLS_CLIENT_KEY_PATH), and TEMPORAL_TLS_SERVER_CA_CERT_PATH for an authority of your own; or "+
		"name the host in ALLOW_UNENCRYPTED_HOSTS if something else encrypts the way, such as a service mesh", host)
}

// temporalHost is the host of an address such as temporal:7233 or dns:///temporal:7233. Of any other form that gRPC may take, such
// as a list, or a name that another machine looks up, it is the whole, which is on no machine of ours.
func temporalHost(address string) string {
	address = strings.TrimPrefix(strings.TrimPrefix(address, "dns:///"), "passthrough:///")
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return address
	}
	return host
}

// checkAPITLS returns an error when a password or a token would go to an API on another machine without TLS.
func (c config) checkAPITLS(api string) error {
	u, err := url.Parse(api)
	if err == nil && u.Host != "" {
		host := u.Hostname()
		if u.Scheme == "https" || u.Scheme == "http" && (isThisMachine(host) || slices.Contains(c.UnencryptedHosts, host)) {
			return nil
		}
	}
	return fmt.Errorf("--url %q is not the address of an API with TLS: use such as https://your-domain.com; for a host where something "+
		"else encrypts the way, such as a service mesh, name it in ALLOW_UNENCRYPTED_HOSTS", api)
}

func (c config) warnOfPlainConnection(setting, host string) {
	c.logger(slog.LevelInfo).Warn("ALLOW_UNENCRYPTED_HOSTS: the connection is not encrypted by us and the server is not "+
		"verified; patient data is readable on the way unless something else encrypts it", "setting", setting, "host", host)
}

// isThisMachine reports whether what is sent to the host stays on this machine. A name is not looked up, because the answer
// comes over the network and may change: of all names only localhost counts (RFC 6761, section 6.3).
func isThisMachine(host string) bool {
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.Unmap().IsLoopback()
}
