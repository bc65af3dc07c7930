package main

import (
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// testCertificates are those of an installation on this machine, made at a time that the test moves.
func testCertificates(t *testing.T) (certificates, *time.Time) {
	t.Helper()
	now := time.Now()
	return certificates{
		dir:      filepath.Join(t.TempDir(), "certs"),
		postgres: []string{"postgres", "127.0.0.1"},
		temporal: []string{"temporal", "127.0.0.1", "::1"},
		now:      func() time.Time { return now },
	}, &now
}

// done says what ensure did to each directory.
func done(t *testing.T, c certificates) map[string]string {
	t.Helper()
	results, err := c.ensure()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, r := range results {
		all[filepath.Base(r.dir)] = r.done
	}
	return all
}

func allAre(t *testing.T, got map[string]string, done string, but ...string) {
	t.Helper()
	if len(got) != 6 {
		t.Errorf("made are %v, want the authority and five more", got)
	}
	for name, what := range got {
		if (what == done) == slices.Contains(but, name) {
			t.Errorf("%s: %s, want %s except for %v", name, what, done, but)
		}
	}
}

// handshake lets a client with one certificate ask a server with another, both of which trust the authorities that are given.
func handshake(t *testing.T, server, client, serverTrusts, clientTrusts, name string) error {
	t.Helper()
	load := func(dir string) []tls.Certificate {
		if dir == "" {
			return nil
		}
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, certFile), filepath.Join(dir, keyFile))
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{pair}
	}
	pool := func(dir string) *x509.CertPool {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM([]byte(text(t, filepath.Join(dir, authorityFile)))) {
			t.Fatal(dir, "has no authority")
		}
		return pool
	}

	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: load(server),
		ClientCAs:    pool(serverTrusts),
		ClientAuth:   tls.RequireAndVerifyClientCert,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()

	said := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			err = conn.(*tls.Conn).Handshake()
			_ = conn.Close()
		}
		said <- err
	}()

	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	asked := tls.Client(conn, &tls.Config{Certificates: load(client), RootCAs: pool(clientTrusts), ServerName: name})
	if err := asked.Handshake(); err != nil {
		return err
	}
	return <-said
}

func TestCertificatesAreWhatTheyAreFor(t *testing.T) {
	t.Parallel()
	c, _ := testCertificates(t)
	allAre(t, done(t, c), doneMade)
	other, _ := testCertificates(t)
	allAre(t, done(t, other), doneMade)
	in := func(c certificates, name string) string {
		if name == "" {
			return ""
		}
		return filepath.Join(c.dir, name)
	}

	for name, tc := range map[string]struct {
		server, client string
		others         bool // the client's certificate is of another authority
		host           string
		refused        bool
	}{
		"Vantrexia asks Temporal":       {"temporal", "vantrexia", false, "temporal", false},
		"by its address":                {"temporal", "vantrexia", false, "127.0.0.1", false},
		"by its IPv6 address":           {"temporal", "vantrexia", false, "::1", false},
		"the Web UI":                    {"temporal", "temporal-ui", false, "temporal", false},
		"an administrator":              {"temporal", "admin", false, "temporal", false},
		"Temporal asks itself":          {"temporal", "temporal", false, "temporal", false},
		"PostgreSQL":                    {"postgres", "vantrexia", false, "postgres", false},
		"nobody":                        {"temporal", "", false, "temporal", true},
		"another authority's":           {"temporal", "vantrexia", true, "temporal", true},
		"another name":                  {"temporal", "vantrexia", false, "temporal.example", true},
		"PostgreSQL's is for no client": {"temporal", "postgres", false, "temporal", true},
		"PostgreSQL is not Temporal":    {"postgres", "vantrexia", false, "temporal", true},
		"a client's is for no server":   {"vantrexia", "admin", false, "vantrexia", true},
	} {
		t.Run(name, func(t *testing.T) {
			client := in(c, tc.client)
			if tc.others {
				client = in(other, tc.client)
			}
			err := handshake(t, in(c, tc.server), client, in(c, "temporal"), in(c, "vantrexia"), tc.host)
			if (err != nil) != tc.refused {
				t.Errorf("error %v, want one: %t", err, tc.refused)
			}
		})
	}
}

// TestCertificatesAreTheirOwners: nobody else reads them, and they live no longer than is good.
func TestCertificatesAreTheirOwners(t *testing.T) {
	t.Parallel()
	c, now := testCertificates(t)
	done(t, c)
	count := 0
	err := filepath.WalkDir(c.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		want := os.FileMode(0o700)
		if !entry.IsDir() {
			count++
			want = 0o600
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has the mode %v, want %v", path, info.Mode(), want)
		}
		return nil
	})
	if err != nil || count != 2+5*3 {
		t.Errorf("%d files, %v", count, err)
	}

	for _, name := range []string{"ca", "postgres", "temporal", "vantrexia", "temporal-ui", "admin"} {
		pair, err := readPair(filepath.Join(c.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		life := pair.cert.NotAfter.Sub(*now).Round(time.Hour)
		if want := map[bool]time.Duration{true: authorityLife, false: leafLife}[name == "ca"]; life != want || pair.cert.IsCA != (name == "ca") {
			t.Errorf("%s is valid for %s, want %s; an authority: %t", name, life, want, pair.cert.IsCA)
		}
	}
}

func TestCertificatesAreRenewedInTime(t *testing.T) {
	t.Parallel()
	c, now := testCertificates(t)
	*now = now.Add(-245 * 24 * time.Hour) // so that what is renewed is valid when it is used below
	allAre(t, done(t, c), doneMade)
	before := text(t, filepath.Join(c.dir, "vantrexia", certFile))
	allAre(t, done(t, c), doneKept)

	*now = now.Add(240 * 24 * time.Hour) // just before two thirds of a year
	allAre(t, done(t, c), doneKept)
	if text(t, filepath.Join(c.dir, "vantrexia", certFile)) != before {
		t.Error("a certificate that was kept has changed")
	}

	*now = now.Add(5 * 24 * time.Hour)
	allAre(t, done(t, c), doneRenewed, "ca")
	if text(t, filepath.Join(c.dir, "vantrexia", certFile)) == before {
		t.Error("a certificate that was renewed has not changed")
	}
	if err := handshake(t, filepath.Join(c.dir, "temporal"), filepath.Join(c.dir, "admin"), filepath.Join(c.dir, "temporal"),
		filepath.Join(c.dir, "admin"), "temporal"); err != nil {
		t.Error(err)
	}

	// Only the one that others ask for by another name.
	c.postgres = []string{"db.example", "127.0.0.1"}
	got := done(t, c)
	if got["postgres"] != doneRenewed || got["temporal"] != doneKept || got["vantrexia"] != doneKept {
		t.Errorf("after another name of PostgreSQL: %v", got)
	}

	// A renewal that was interrupted left a key that does not fit.
	if err := os.Rename(filepath.Join(c.dir, "admin", keyFile), filepath.Join(c.dir, "vantrexia", keyFile)); err != nil {
		t.Fatal(err)
	}
	got = done(t, c)
	if got["vantrexia"] != doneRenewed || got["admin"] != doneRenewed || got["temporal-ui"] != doneKept {
		t.Errorf("after a key was exchanged: %v", got)
	}
}

// TestTheAuthoritysKeyMayBeElsewhere: it is needed only to sign.
func TestTheAuthoritysKeyMayBeElsewhere(t *testing.T) {
	t.Parallel()
	c, now := testCertificates(t)
	done(t, c)
	key := filepath.Join(c.authorityDir(), keyFile)
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	allAre(t, done(t, c), doneKept)

	*now = now.Add(300 * 24 * time.Hour)
	if _, err := c.ensure(); err == nil || !strings.Contains(err.Error(), "put it there") {
		t.Errorf("without the key of the authority: %v", err)
	}
	if err := os.Rename(key+".away", key); err != nil {
		t.Fatal(err)
	}
	allAre(t, done(t, c), doneRenewed, "ca")

	// Near its end it signs for as long as it is valid itself.
	*now = now.Add(3250 * 24 * time.Hour)
	allAre(t, done(t, c), doneRenewed, "ca")
	authority, err := readPair(c.authorityDir())
	if err != nil {
		t.Fatal(err)
	}
	vantrexia, err := readPair(filepath.Join(c.dir, "vantrexia"))
	if err != nil || !vantrexia.cert.NotAfter.Equal(authority.cert.NotAfter) {
		t.Errorf("valid until %v, the authority until %v, %v", vantrexia.cert.NotAfter, authority.cert.NotAfter, err)
	}
	*now = now.Add(leafLife)
	if _, err := c.ensure(); err == nil || !strings.Contains(err.Error(), "has expired") {
		t.Errorf("after the authority's end: %v", err)
	}
}

// TestCertificatesOfOthersStay: whatever another authority signed is never overwritten, and neither is what cannot be read.
func TestCertificatesOfOthersStay(t *testing.T) {
	t.Parallel()
	c, _ := testCertificates(t)
	done(t, c)
	other, _ := testCertificates(t)
	done(t, other)
	theirs := text(t, filepath.Join(other.dir, "temporal", certFile))
	for name, broken := range map[string]struct {
		file, text, want string
	}{
		"another authority's": {"temporal/" + certFile, theirs, "another authority"},
		"no certificate":      {"postgres/" + certFile, "?", "move the directory away"},
		"no authority":        {"ca/" + certFile, "?", "move"},
		"the wrong authority": {"ca/" + certFile, text(t, filepath.Join(other.dir, "ca", certFile)), "move"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(c.dir, broken.file)
			before := text(t, path)
			defer func() {
				if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
					t.Error(err)
				}
			}()
			if err := os.WriteFile(path, []byte(broken.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := c.ensure(); err == nil || !strings.Contains(err.Error(), broken.want) {
				t.Errorf("error %v, want %q in it", err, broken.want)
			}
			if text(t, path) != broken.text {
				t.Error("it was overwritten")
			}
		})
	}
	allAre(t, done(t, c), doneKept)
}

// TestCertsCommand runs the binary as an administrator does.
func TestCertsCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	made := run(t, dir, nil, "certs", "--dir", "certs")
	mustSay(t, made, 0, "")
	said := made.stdout.text()
	for _, name := range []string{"certs/ca", "certs/postgres", "certs/temporal", "certs/vantrexia", "certs/temporal-ui", "certs/admin"} {
		if !strings.Contains(said, name+" ") {
			t.Errorf("%s is not in %s", name, said)
		}
	}
	if strings.Contains(said, "restart") {
		t.Errorf("nothing was renewed, and it says %s", said)
	}
	again := run(t, dir, nil, "certs", "--dir", "certs", "--postgres", "db.example")
	mustSay(t, again, 0, "")
	if said := again.stdout.text(); !strings.Contains(said, "restart") || strings.Count(said, " kept ") != 5 {
		t.Errorf("with another name of PostgreSQL it says %s", said)
	}
	mustSay(t, run(t, dir, nil, "certs", "--dir", "certs", "--temporal", "temporal.example"), 1, `add the name "temporal"`)
}
