package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

// caller is who a secured Temporal was asked by.
type caller struct{ certificate, authorization string }

// securedTemporal accepts TLS with any client certificate or none, and records who connects. Every call to it
// fails.
func securedTemporal(t *testing.T, certificate tls.Certificate, options ...grpc.ServerOption) (address string, asked <-chan caller) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	calls := make(chan caller, 100)
	server := grpc.NewServer(append(options,
		grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequestClientCert})),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			var c caller
			if p, ok := peer.FromContext(stream.Context()); ok {
				for _, certificate := range p.AuthInfo.(credentials.TLSInfo).State.PeerCertificates {
					c.certificate = certificate.Subject.CommonName
				}
			}
			md, _ := metadata.FromIncomingContext(stream.Context())
			c.authorization = strings.Join(md.Get("authorization"), ",")
			calls <- c
			return nil
		}))...)

	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String(), calls
}

// certificate makes a self-signed one for 127.0.0.1, and writes it and its key to files.
func certificate(t *testing.T, name string) (pair tls.Certificate, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}

	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name},
		NotAfter:              time.Now().Add(time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:              []string{name},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}

	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}

	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}

	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	pair, err = tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	return pair, certFile, keyFile
}

func TestTemporalIsToldWhoWeAre(t *testing.T) {
	t.Parallel()
	server, ca, _ := certificate(t, "temporal.example")
	_, clientCert, clientKey := certificate(t, "vantrexia")
	keyFile := filepath.Join(t.TempDir(), "api-key")
	if err := os.WriteFile(keyFile, []byte("from-a-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	for name, c := range map[string]struct {
		settings temporalConfig
		want     caller
	}{
		"API key":            {temporalConfig{APIKey: "secret", ServerCAPath: ca}, caller{authorization: "Bearer secret"}},
		"API key in a file":  {temporalConfig{APIKeyFile: keyFile, ServerCAPath: ca}, caller{authorization: "Bearer from-a-file"}},
		"client certificate": {temporalConfig{ClientCertPath: clientCert, ClientKeyPath: clientKey, ServerCAPath: ca}, caller{certificate: "vantrexia"}},
		"TLS, another name":  {temporalConfig{ServerCAPath: ca, ServerName: "temporal.example"}, caller{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, asked := securedTemporal(t, server)
			temporal, err := newTemporalClient(config{TemporalAddress: address, TemporalNamespace: "default", Temporal: c.settings}, keyringtest.Shared())
			if err != nil {
				t.Fatal(err)
			}
			defer temporal.Close()

			go func() { _, _ = temporal.CheckHealth(t.Context(), &client.CheckHealthRequest{}) }()
			select {
			case got := <-asked:
				if got != c.want {
					t.Errorf("asked by %+v, want %+v", got, c.want)
				}
			case <-time.After(patience):
				t.Error("the server was not asked")
			}
		})
	}
}

// TestTemporalSeesARenewedCertificate: a client certificate that is replaced is used at the next connection, without a restart.
func TestTemporalSeesARenewedCertificate(t *testing.T) {
	t.Parallel()
	server, ca, _ := certificate(t, "temporal.example")
	_, certFile, keyFile := certificate(t, "before")
	_, renewedCert, renewedKey := certificate(t, "renewed")
	address, asked := securedTemporal(t, server, grpc.KeepaliveParams(keepalive.ServerParameters{
		MaxConnectionAge:      50 * time.Millisecond, // Temporal's own is five minutes
		MaxConnectionAgeGrace: time.Second,
	}))
	temporal, err := newTemporalClient(config{
		TemporalAddress:   address,
		TemporalNamespace: "default",
		Temporal:          temporalConfig{ClientCertPath: certFile, ClientKeyPath: keyFile, ServerCAPath: ca},
	}, keyringtest.Shared())
	if err != nil {
		t.Fatal(err)
	}
	defer temporal.Close()

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	awaitCaller := func(want string) {
		t.Helper()
		for {
			go func() { _, _ = temporal.CheckHealth(ctx, &client.CheckHealthRequest{}) }()
			select {
			case got := <-asked:
				if got.certificate == want {
					return
				}
			case <-ctx.Done():
				t.Fatalf("nobody asks with the certificate %q", want)
			}
		}
	}

	awaitCaller("before")
	for from, to := range map[string]string{renewedKey: keyFile, renewedCert: certFile} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	awaitCaller("renewed")
}

func TestWrongTemporalSettingsAreNamed(t *testing.T) {
	t.Parallel()
	_, certFile, keyFile := certificate(t, "vantrexia")
	_, _, otherKey := certificate(t, "another")
	missing := filepath.Join(t.TempDir(), "missing")
	for name, c := range map[string]struct {
		settings temporalConfig
		want     string
	}{
		"half a pair":       {temporalConfig{ClientCertPath: certFile}, "set both or neither"},
		"no pair":           {temporalConfig{ClientCertPath: certFile, ClientKeyPath: otherKey}, "TEMPORAL_TLS_CLIENT_CERT_PATH"},
		"missing authority": {temporalConfig{ServerCAPath: missing}, "TEMPORAL_TLS_SERVER_CA_CERT_PATH"},
		"no authority":      {temporalConfig{ServerCAPath: keyFile}, "holds no certificate"},
		"missing API key":   {temporalConfig{APIKeyFile: missing}, "TEMPORAL_API_KEY_FILE"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := newTemporalClient(config{TemporalNamespace: "default", Temporal: c.settings}, keyringtest.Shared())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}
