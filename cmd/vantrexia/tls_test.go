package main

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// serveTLS serves TLS with the files' certificate, and returns the settings of a process on the same machine.
func serveTLS(t *testing.T, certFile, keyFile string) config {
	t.Helper()
	cfg := config{Door: doorConfig{TLSCert: certFile, TLSKey: keyFile}}
	server := newServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), usualPatience())
	var err error
	if server.TLSConfig, err = cfg.Door.serverTLS(slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	cfg.APIAddress = serveForTest(t, server, nil)
	return cfg
}

// nameShown is the name in the certificate that a new connection is shown.
func nameShown(t *testing.T, address string) string {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, text, 0o600); err != nil {
		t.Fatal(err)
	}
	// A file system may keep times so coarsely that two writes in a row look like one.
	later := time.Now().Add(time.Duration(len(text)) * time.Second)
	if err := os.Chtimes(to, later, later); err != nil {
		t.Fatal(err)
	}
}

// A renewed certificate is used without a restart. Between the writes of its two files the one before is used.
func TestARenewedCertificateIsUsed(t *testing.T) {
	t.Parallel()
	_, certFile, keyFile := certificate(t, "first.example")
	_, nextCert, nextKey := certificate(t, "second.example, which is another")
	cfg := serveTLS(t, certFile, keyFile)
	if name := nameShown(t, cfg.APIAddress); name != "first.example" {
		t.Fatalf("the certificate is for %s", name)
	}

	copyFile(t, nextCert, certFile)
	if name := nameShown(t, cfg.APIAddress); name != "first.example" {
		t.Errorf("with half of the files renewed the certificate is for %s", name)
	}
	copyFile(t, nextKey, keyFile)
	if name := nameShown(t, cfg.APIAddress); !strings.HasPrefix(name, "second.example") {
		t.Errorf("the certificate is for %s", name)
	}
}

// `vantrexia health` and the others on this machine take the certificate in API_TLS_CERT, whatever name it is
// for, and no other.
func TestThisMachineKnowsItsOwnCertificate(t *testing.T) {
	t.Parallel()
	_, certFile, keyFile := certificate(t, "rpm.example")
	_, otherCert, otherKey := certificate(t, "other.example")
	cfg, other := serveTLS(t, certFile, keyFile), serveTLS(t, otherCert, otherKey)

	var out strings.Builder
	if err := askHealth(t.Context(), cfg.localClient(), cfg.apiURL()+"/healthz", &out); err != nil {
		t.Error(err)
	}
	if err := askHealth(t.Context(), cfg.localClient(), other.apiURL()+"/healthz", &out); err == nil {
		t.Error("another certificate is taken")
	}
}

// The commands of administrators send their token over TLS to the API of this machine.
func TestCommandsAskTheAPIOverTLS(t *testing.T) {
	t.Parallel()
	_, certFile, keyFile := certificate(t, "rpm.example")
	api, err := newAPIClient(serveTLS(t, certFile, keyFile), "", "a token")
	if err != nil {
		t.Fatal(err)
	}
	if err := api.call(t.Context(), http.MethodGet, "/users/", nil, nil); err != nil {
		t.Error(err)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	t.Parallel()
	_, certFile, keyFile := certificate(t, "rpm.example")
	cfg := serveTLS(t, certFile, keyFile)
	old := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	if conn, err := tls.Dial("tcp", cfg.APIAddress, old); err == nil {
		_ = conn.Close()
		t.Error("TLS 1.1 is taken")
	}

	plain, err := net.Dial("tcp", cfg.APIAddress)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	c := conn{plain, t}
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if said := c.end(); !strings.HasPrefix(said, "HTTP/1.0 400") {
		t.Errorf("plain HTTP is answered with %q", said)
	}
}

func TestACertificateThatCannotBeReadStopsTheStart(t *testing.T) {
	t.Parallel()
	_, certFile, _ := certificate(t, "rpm.example")
	_, err := doorConfig{TLSCert: certFile, TLSKey: "/nothing"}.serverTLS(slog.New(slog.DiscardHandler))
	if err == nil || !strings.HasPrefix(err.Error(), "API_TLS_CERT, API_TLS_KEY: ") {
		t.Errorf("got %v", err)
	}
}
