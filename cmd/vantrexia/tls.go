package main

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/vantrexia/vantrexia/secretfile"
)

// heldCertificate is the API's certificate, read again when one of its files has changed. So a renewed one is used
// from the next connection on.
type heldCertificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	loaded  *tls.Certificate
	changed [2]time.Time // when the files were written that loaded comes from, or that could not be read
}

// serverTLS is nil when the API speaks plain HTTP.
func (c doorConfig) serverTLS(log *slog.Logger) (*tls.Config, error) {
	if c.TLSCert == "" {
		return nil, nil
	}

	held := &heldCertificate{certFile: c.TLSCert, keyFile: c.TLSKey, log: log}
	if err := held.load(); err != nil {
		return nil, fmt.Errorf("API_TLS_CERT, API_TLS_KEY: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: held.get}, nil
}

func (c *heldCertificate) load() error {
	times, err := c.written()
	if err != nil {
		return err
	}

	c.changed = times
	pair, err := loadKeyPair(c.certFile, c.keyFile)
	if err != nil {
		return err
	}
	c.loaded = &pair
	return nil
}

// loadKeyPair is [tls.LoadX509KeyPair], but refuses a key that others may read.
func loadKeyPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := os.ReadFile(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := secretfile.Read(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}

func (c *heldCertificate) written() (times [2]time.Time, err error) {
	for i, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return times, err
		}
		times[i] = info.ModTime()
	}
	return times, nil
}

// get returns the certificate for a connection. While the files do not fit together, because one of them is
// still to be written, it is the one before.
func (c *heldCertificate) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if times, err := c.written(); err == nil && times == c.changed {
		return c.loaded, nil
	}

	if err := c.load(); err != nil {
		c.log.WarnContext(hello.Context(), "the changed certificate cannot be used, so the one before is", "setting", "API_TLS_CERT",
			"error", err)
	}
	return c.loaded, nil
}

// apiURL returns the URL under which this machine reaches the API.
func (c config) apiURL() string {
	local := localURL(c.APIAddress)
	if c.Door.TLSCert != "" {
		return "https" + strings.TrimPrefix(local, "http")
	}
	return local
}

// localTLS is how a client on this machine asks the API; nil when that needs no TLS. The API's certificate is
// made for the name by which callers reach it, and not for 127.0.0.1, so the client takes the one in
// API_TLS_CERT. It does not look at names and dates there: a process with an expired certificate is alive.
func (c config) localTLS() *tls.Config {
	if c.Door.TLSCert == "" {
		return nil
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // VerifyConnection does it
		VerifyConnection:   c.Door.isOurs,
	}
}

func (c config) localClient() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: c.localTLS()}}
}

// isOurs returns an error unless the server has the certificate in API_TLS_CERT.
func (c doorConfig) isOurs(state tls.ConnectionState) error {
	text, err := os.ReadFile(c.TLSCert)
	if err != nil {
		return fmt.Errorf("API_TLS_CERT: %w", err)
	}
	block, rest := pem.Decode(text)
	for block != nil && block.Type != "CERTIFICATE" {
		block, rest = pem.Decode(rest)
	}
	if block == nil || !bytes.Equal(block.Bytes, state.PeerCertificates[0].Raw) {
		return errors.New("the server has another certificate than API_TLS_CERT: check that it is the API of this installation")
	}
	return nil
}
