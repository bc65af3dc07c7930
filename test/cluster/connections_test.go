package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/devstack"
)

// checkConnections makes sure that the servers take nobody without a certificate or without TLS, and that everybody who may
// ask is answered: administrators, Temporal's own workers and the Web UI.
func checkConnections(t *testing.T, c *cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()

	checkTemporalRefuses(ctx, t, c)
	checkPostgresRefuses(ctx, t, c)
	checkSystemWorkers(ctx, t, c)
	checkWebUI(ctx, t, c)
}

func checkTemporalRefuses(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
	ours, err := devstack.ClientTLS(c.certificates("admin"))
	if err != nil {
		t.Fatal(err)
	}
	anonymous, withServers := ours.Clone(), ours.Clone()
	anonymous.Certificates = nil
	withServers.Certificates = certificateOf(t, c.certificates("postgres"))
	strange := ours.Clone()
	strange.Certificates = certificateOf(t, otherCertificates(ctx, t, c))

	// The frontend, and the services behind it.
	for _, service := range []string{temporalName, "history", "matching"} {
		for who, caller := range map[string]struct {
			with   *tls.Config
			served bool
		}{
			"no TLS":                             {nil, false},
			"no certificate":                     {anonymous, false},
			"another authority's certificate":    {strange, false},
			"a certificate that is for a server": {withServers, false},
			"an administrator's certificate":     {ours, true},
		} {
			if err := greet(ctx, c.address(service), caller.with); (err == nil) != caller.served {
				t.Errorf("%s: a caller with %s has the error %v, want it to be served: %t", service, who, err, caller.served)
			}
		}
	}

	checkHTTPRefuses(t, c, map[string]*tls.Config{"no certificate": anonymous, "another authority's certificate": strange})
}

// checkHTTPRefuses asks the frontend's HTTP API. An administrator was answered there when the cluster started.
func checkHTTPRefuses(t *testing.T, c *cluster, callers map[string]*tls.Config) {
	t.Helper()
	for who, with := range callers {
		caller := &http.Client{Transport: &http.Transport{TLSClientConfig: with}, Timeout: 5 * time.Second}
		if res, err := caller.Get("https://" + c.address(devstack.TemporalHTTP) + "/api/v1/system-info"); err == nil {
			_ = res.Body.Close()
			t.Errorf("over HTTP a caller with %s is answered %s", who, res.Status)
		}
	}
}

// greet returns nil if the server begins to speak HTTP/2, which it does by itself as soon as it takes a connection. It refuses a
// client's certificate only after the client believes that the handshake is over (RFC 8446, section 4.4.2.4).
func greet(ctx context.Context, address string, with *tls.Config) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var dialer interface {
		DialContext(ctx context.Context, network, address string) (net.Conn, error)
	} = &net.Dialer{}
	if with != nil {
		with = with.Clone()
		with.NextProtos = []string{"h2"}
		dialer = &tls.Dialer{Config: with}
	}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}

	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil { // RFC 9113, section 3.4
		return err
	}
	frame := make([]byte, 9)
	if _, err := io.ReadFull(conn, frame); err != nil {
		return err
	}
	if settings := byte(4); frame[3] != settings {
		return fmt.Errorf("the server says %x", frame)
	}
	return nil
}

func certificateOf(t *testing.T, dir string) []tls.Certificate {
	t.Helper()
	certificate, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return []tls.Certificate{certificate}
}

// otherCertificates makes those of another installation, and returns the directory of an administrator's.
func otherCertificates(ctx context.Context, t *testing.T, c *cluster) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := (devstack.Vantrexia{Binary: c.cfg.binary, Dir: dir}).Output(ctx, "certs", "--dir", dir); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "admin")
}

func checkPostgresRefuses(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
	whole, err := url.Parse(c.postgres.URL("vantrexia"))
	if err != nil {
		t.Fatal(err)
	}

	plain := *whole
	plain.RawQuery = "sslmode=disable"
	_, err = pgx.Connect(ctx, plain.String())
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != "28000" { // invalid_authorization_specification
		t.Errorf("PostgreSQL without TLS: %v", err)
	}

	stranger := *whole
	query := stranger.Query()
	query.Set("sslrootcert", filepath.Join(otherCertificates(ctx, t, c), "ca.pem"))
	stranger.RawQuery = query.Encode()
	if _, err = pgx.Connect(ctx, stranger.String()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("PostgreSQL with a certificate that is not trusted: %v", err)
	}

	// Temporal's own connections.
	conn, err := pgx.Connect(ctx, whole.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var all, encrypted int
	err = conn.QueryRow(ctx, `
		SELECT count(*), count(*) FILTER (WHERE s.ssl)
		FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid)
		WHERE a.datname LIKE 'temporal%'`).Scan(&all, &encrypted)
	if err != nil || all == 0 || all != encrypted {
		t.Errorf("of Temporal's %d connections to PostgreSQL %d are encrypted; %v", all, encrypted, err)
	}
}

// checkSystemWorkers waits until the server's own workers ask the frontend for tasks, which they do with the services'
// certificate.
func checkSystemWorkers(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
	caller, err := devstack.ClientTLS(c.certificates("admin"))
	if err != nil {
		t.Fatal(err)
	}
	temporal, err := client.DialContext(ctx, client.Options{
		HostPort:          c.address(temporalName),
		Namespace:         "temporal-system",
		ConnectionOptions: client.ConnectionOptions{TLS: caller},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer temporal.Close()

	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		queue, err := temporal.DescribeTaskQueue(ctx, "default-worker-tq", client.TaskQueueTypeWorkflow)
		if err == nil && len(queue.GetPollers()) > 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("Temporal's own workers do not ask for tasks: %v, %v", queue, err)
		case <-tick.C:
		}
	}
}

// checkWebUI asks it for workflows, which it has from the server.
func checkWebUI(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
	caller := &http.Client{Timeout: 10 * time.Second}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		ask, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url(uiName)+"/api/v1/namespaces/"+namespace+"/workflows", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := caller.Do(ask)
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the Web UI does not reach Temporal: %v, %v", res, err)
		case <-tick.C:
		}
	}
}

// checkAccounts: APIs and workers have worked as an account that could not erase what was done.
func checkAccounts(t *testing.T, c *cluster) {
	t.Helper()
	for _, m := range c.members {
		log, err := os.ReadFile(c.vantrexia.LogFile(m.name))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(log, []byte("owns the tables")) || bytes.Contains(log, []byte("permission denied")) {
			t.Errorf("%s: the account of the database is not right:\n%s", m.name, log)
		}
	}
}
