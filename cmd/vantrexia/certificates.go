package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// How long certificates are valid. Public authorities give at most 398 days, and some clients refuse more than 825 of a private
// one too.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 365 * 24 * time.Hour
	// clockSkew is how far the clock of another machine may be behind ours.
	clockSkew = 5 * time.Minute
)

// temporalServerName is the name by which the services within the Temporal server know each other
// (temporal-config/start-server.sh).
const temporalServerName = "temporal"

// The files in the directory of each certificate.
const (
	authorityFile = "ca.pem"
	certFile      = "cert.pem"
	keyFile       = "key.pem"
)

// What was done to a certificate.
const (
	doneMade    = "made"
	doneRenewed = "renewed"
	doneKept    = "kept"
)

// certificates are those of an installation, each in a directory below dir.
type certificates struct {
	dir      string
	postgres []string // names and addresses of PostgreSQL
	temporal []string // names and addresses of the Temporal server
	now      func() time.Time
}

// leaf is a certificate that the authority signs.
type leaf struct {
	name    string // of the directory, and the subject's common name
	purpose string
	usage   []x509.ExtKeyUsage
	hosts   []string // names and addresses of a server
}

// certificateResult says what was done to a certificate.
type certificateResult struct {
	dir, purpose, done string
	until              time.Time
}

func (c certificates) leaves() []leaf {
	server, client := x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	return []leaf{
		{"postgres", "PostgreSQL proves who it is", []x509.ExtKeyUsage{server}, c.postgres},
		// The services within the server, its own workers among them, are also each other's clients.
		{temporalServerName, "the Temporal server proves who it is, also to itself", []x509.ExtKeyUsage{server, client}, c.temporal},
		{"vantrexia", "Vantrexia's processes prove to Temporal who they are", []x509.ExtKeyUsage{client}, nil},
		{"temporal-ui", "the Temporal Web UI proves to Temporal who it is", []x509.ExtKeyUsage{client}, nil},
		{"admin", "an administrator, with Temporal's command line", []x509.ExtKeyUsage{client}, nil},
	}
}

// ensure makes what is missing, and renews what is past two thirds of its life.
func (c certificates) ensure() ([]certificateResult, error) {
	if len(c.postgres) == 0 {
		return nil, errors.New("--postgres: say by which names PostgreSQL is reached")
	}
	if err := errors.Join(checkNames("--postgres", c.postgres), checkNames("--temporal", c.temporal)); err != nil {
		return nil, err
	}
	if !slices.Contains(c.temporal, temporalServerName) {
		return nil, fmt.Errorf("--temporal: add the name %q, by which the services within the Temporal server know each other",
			temporalServerName)
	}

	signer, done, err := c.authority()
	if err != nil {
		return nil, err
	}

	results := []certificateResult{{
		dir:     c.authorityDir(),
		purpose: "the authority that signs all others; no part of the installation needs its key",
		done:    done,
		until:   signer.cert.NotAfter,
	}}
	for _, leaf := range c.leaves() {
		result, err := c.ensureLeaf(signer, leaf)
		if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	return results, nil
}

// hostName is a name as it stands in DNS, of which the first part may be a wildcard. Compose's names may have underscores.
var hostName = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

// checkNames returns an error for what cannot be a server's name in a certificate: no client would find it there.
func checkNames(flag string, hosts []string) error {
	for _, host := range hosts {
		address, err := netip.ParseAddr(host)
		if err == nil && address.Zone() == "" || err != nil && hostName.MatchString(host) {
			continue
		}
		return fmt.Errorf("%s: %q is neither a name nor an address: give such as db.example.com or 10.0.0.7, without scheme, port, "+
			"brackets and zone, and a name with other letters in its form for DNS (xn--…)", flag, host)
	}
	return nil
}

// keyPair is a certificate with its key.
type keyPair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func (c certificates) authorityDir() string { return filepath.Join(c.dir, "ca") }

// authority reads the private authority, or makes one. It is never replaced by itself: every part would have to trust the
// next one first.
func (c certificates) authority() (_ keyPair, done string, err error) {
	dir := c.authorityDir()
	have, err := readPair(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		made, err := c.makeAuthority(dir)
		return made, doneMade, err
	case errors.Is(err, errNoKey):
		have.key = nil // somebody keeps it elsewhere until a certificate has to be renewed
	case err != nil:
		return keyPair{}, "", fmt.Errorf("%s: %w: restore it, or move %s away to begin with another authority", dir, err, c.dir)
	}
	if !have.cert.IsCA || c.now().After(have.cert.NotAfter) {
		return keyPair{}, "", fmt.Errorf("%s: the certificate is not an authority's, or has expired: move %s away to begin with another, then "+
			"start all parts again", dir, c.dir)
	}
	return have, doneKept, nil
}

func (c certificates) makeAuthority(dir string) (keyPair, error) {
	id := make([]byte, 4)
	_, _ = rand.Read(id) // never fails
	made, err := c.sign(&x509.Certificate{
		Subject:               pkix.Name{CommonName: "Vantrexia private CA " + hex.EncodeToString(id)},
		NotAfter:              c.now().Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true, // it signs no further authorities
	}, nil)
	if err != nil {
		return made, err
	}
	return made, writePair(dir, made, nil)
}

func (c certificates) ensureLeaf(signer keyPair, leaf leaf) (certificateResult, error) {
	result := certificateResult{dir: filepath.Join(c.dir, leaf.name), purpose: leaf.purpose, done: doneMade}
	have, err := readPair(result.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case have.cert == nil:
		return result, fmt.Errorf("%s: %w: move the directory away to have a new certificate", result.dir, err)
	case have.cert.CheckSignatureFrom(signer.cert) != nil:
		return result, fmt.Errorf("%s: another authority than the one in %s signed the certificate, so it is left as it is: move the "+
			"directory away to have a new one", result.dir, c.authorityDir())
	case err == nil && c.isGood(have.cert, leaf):
		result.done, result.until = doneKept, have.cert.NotAfter
		return result, putBackAuthority(result.dir, signer.cert)
	default: // also when a renewal was interrupted, so that the key does not fit
		result.done = doneRenewed
	}

	if signer.key == nil {
		return result, fmt.Errorf("%s has to be %s, and %s of the authority is not in %s: put it there for a moment", result.dir, result.done,
			keyFile, c.authorityDir())
	}
	result.until = c.now().Add(leafLife)
	if signer.cert.NotAfter.Before(result.until) {
		result.until = signer.cert.NotAfter
	}
	made, err := c.sign(leaf.template(result.until), &signer)
	if err != nil {
		return result, err
	}
	return result, writePair(result.dir, made, signer.cert)
}

// putBackAuthority writes the authority's certificate beside another one where it is missing. Others beside it in the file stay:
// somebody has a part trust a second authority.
func putBackAuthority(dir string, authority *x509.Certificate) error {
	path := filepath.Join(dir, authorityFile)
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if bytes.Contains(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Raw})) {
		return nil
	}
	return writePEM(path, "CERTIFICATE", authority.Raw)
}

// isGood reports whether the certificate is before two thirds of its life, and for what is asked for.
func (c certificates) isGood(cert *x509.Certificate, leaf leaf) bool {
	life := cert.NotAfter.Sub(cert.NotBefore)
	want := leaf.template(cert.NotAfter)
	return c.now().Before(cert.NotBefore.Add(life/3*2)) &&
		slices.Equal(cert.DNSNames, want.DNSNames) &&
		slices.EqualFunc(cert.IPAddresses, want.IPAddresses, func(a, b net.IP) bool { return a.Equal(b) }) &&
		slices.Equal(cert.ExtKeyUsage, want.ExtKeyUsage)
}

func (l leaf) template(until time.Time) *x509.Certificate {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: l.name},
		NotAfter:    until,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: l.usage,
	}
	for _, host := range l.hosts {
		if address, err := netip.ParseAddr(host); err == nil {
			template.IPAddresses = append(template.IPAddresses, address.AsSlice())
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return template
}

// sign makes a key and its certificate. Without a signer it is signed by itself.
func (c certificates) sign(template *x509.Certificate, signer *keyPair) (keyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return keyPair{}, err
	}
	if signer == nil {
		signer = &keyPair{cert: template, key: key}
	}

	template.NotBefore = c.now().Add(-clockSkew)
	der, err := x509.CreateCertificate(rand.Reader, template, signer.cert, key.Public(), signer.key)
	if err != nil {
		return keyPair{}, fmt.Errorf("sign the certificate of %s: %w", template.Subject.CommonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	return keyPair{cert: cert, key: key}, err
}

var errNoKey = fmt.Errorf("%s is missing", keyFile)

// readPair returns fs.ErrNotExist when there is neither certificate nor key. With any other error, the certificate is nil if it
// is what cannot be read.
func readPair(dir string) (keyPair, error) {
	if missing(filepath.Join(dir, certFile)) && missing(filepath.Join(dir, keyFile)) {
		return keyPair{}, fs.ErrNotExist
	}

	text, err := os.ReadFile(filepath.Join(dir, certFile))
	if err != nil {
		return keyPair{}, fmt.Errorf("there is a %s, but no certificate: %v", keyFile, err) // no fs.ErrNotExist
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return keyPair{}, fmt.Errorf("%s holds no certificate in PEM form", certFile)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return keyPair{}, err
	}

	if missing(filepath.Join(dir, keyFile)) {
		return keyPair{cert: cert}, errNoKey
	}
	read, err := tls.LoadX509KeyPair(filepath.Join(dir, certFile), filepath.Join(dir, keyFile))
	if err != nil {
		return keyPair{cert: cert}, err
	}
	signer, ok := read.PrivateKey.(crypto.Signer)
	if !ok {
		return keyPair{cert: cert}, fmt.Errorf("%s holds no key that signs", keyFile)
	}
	return keyPair{cert: cert, key: signer}, nil
}

// writePair writes the certificate and its key, and the authority's certificate beside them. Whatever reads them meanwhile finds
// whole files; for a moment the key is newer than the certificate, and such a reader tries again.
func writePair(dir string, p keyPair, authority *x509.Certificate) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return err
	}

	if authority != nil {
		if err := writePEM(filepath.Join(dir, authorityFile), "CERTIFICATE", authority.Raw); err != nil {
			return err
		}
	}
	if err := writePEM(filepath.Join(dir, keyFile), "PRIVATE KEY", key); err != nil {
		return err
	}
	return writePEM(filepath.Join(dir, certFile), "CERTIFICATE", p.cert.Raw)
}

// writePEM replaces the file in one step, mode 0600.
func writePEM(path, kind string, der []byte) error {
	var text bytes.Buffer
	if err := pem.Encode(&text, &pem.Block{Type: kind, Bytes: der}); err != nil {
		return err
	}

	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // what an interrupted run left behind
	}
	if err := writeNew(fresh, text.Bytes()); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}
