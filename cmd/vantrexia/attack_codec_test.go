package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/keyring/keyringtest"
	"github.com/vantrexia/vantrexia/payload"
)

// codecFor runs a codec, as `vantrexia codec` does, with a token that it was given.
func codecFor(t *testing.T, base, token, ui string) (address string) {
	t.Helper()
	f, err := newForwarder(config{}, ui)
	if err != nil {
		t.Fatal(err)
	}
	api, err := newAPIClient(config{}, base, token)
	if err != nil {
		t.Fatal(err)
	}
	f.token = fixedToken{api}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	f.host = server.Listener.Addr().String()
	return f.host
}

// Whatever is sent to the codec, and whosever token it has, it shows what is sealed to nobody but the Web UI of an
// administrator, and nothing of the token to anybody.
func TestOddRequestsToTheCodec(t *testing.T) {
	t.Parallel()
	const ui = "http://temporal.test"
	dir, settings, base, secret := adminOf(t)
	admin := adasToken(t, base, secret)
	service := strings.TrimSpace(mustPrint(t, run(t, dir, settings, "token", "--role", "service", "--sub", "gateway")))
	nurse := strings.TrimSpace(mustPrint(t, run(t, dir, settings, "token", "--role", "nurse", "--sub", "nurse-1")))

	sealed, _ := payload.Sealing{Keys: keyringtest.Shared(), Namespace: "default"}.Converters()
	p, err := sealed.ToPayload("canary")
	if err != nil {
		t.Fatal(err)
	}
	good := fmt.Sprintf(`{"payloads":[{"metadata":{"encoding":%q},"data":%q}]}`,
		base64.StdEncoding.EncodeToString(p.GetMetadata()["encoding"]), base64.StdEncoding.EncodeToString(p.GetData()))
	canary := base64.StdEncoding.EncodeToString([]byte(`"canary"`))

	ask := func(token, origin, authorization, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+codecFor(t, base, token, ui)+"/decode", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Origin", origin)
		req.Header.Set("X-Namespace", "default")
		if authorization != "" {
			req.Header.Set("Authorization", authorization)
		}
		if len(body) > 1<<20 { // so that the answer is read before all is sent
			req.Header.Set("Expect", "100-continue")
		}
		client := &http.Client{Transport: &http.Transport{ExpectContinueTimeout: time.Minute, DisableKeepAlives: true}}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		said, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, fmt.Sprint(string(said), res.Header)
	}

	for name, test := range map[string]struct {
		token, origin, authorization, body string
		status                             int
	}{
		"an administrator":                       {admin, ui, "", good, 200},
		"a service's token":                      {service, ui, "", good, 403},
		"a nurse's token":                        {nurse, ui, "", good, 403},
		"no token that is one":                   {"x", ui, "", good, 502},
		"a foreign page":                         {admin, "http://evil.test", "", good, 403},
		"a page without an origin of its own":    {admin, "null", "", good, 403},
		"a page below the Web UI's name":         {admin, ui + ".evil.test", "", good, 403},
		"a page whose name ends in the Web UI's": {admin, "http://evil-temporal.test", "", good, 403},
		"the page's own token":                   {service, ui, "Bearer " + admin, good, 403}, // the codec has its own
		"50 MB":                                  {admin, ui, "", `{"payloads":[{"data":"` + strings.Repeat("A", 50<<20) + `"}]}`, 413},
		"no JSON":                                {admin, ui, "", "\x00\xff\x1f\x8b", 400},
		"nothing":                                {admin, ui, "", "", 400},
		"a payload of noise":                     {admin, ui, "", strings.Replace(good, base64.StdEncoding.EncodeToString(p.GetData()), "AAAA", 1), 400},
		"a payload that is cut":                  {admin, ui, "", strings.Replace(good, base64.StdEncoding.EncodeToString(p.GetData()), base64.StdEncoding.EncodeToString(p.GetData()[:20]), 1), 400},
		"deep":                                   {admin, ui, "", strings.Repeat("[", 500_000), 400},
	} {
		status, said := ask(test.token, test.origin, test.authorization, test.body)
		if status != test.status {
			t.Errorf("%s: %d %.300s", name, status, said)
		}
		if strings.Contains(said, canary) != (status == http.StatusOK) {
			t.Errorf("%s is shown %.300s", name, said)
		}
		for _, token := range []string{admin, service, nurse} {
			if strings.Contains(said, token) {
				t.Errorf("%s is shown a token", name)
			}
		}
	}
}

// mustPrint is what a command that succeeds writes.
func mustPrint(t *testing.T, p *process) string {
	t.Helper()
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("vantrexia %v: %d %s", p.cmd.Args[1:], code, p.stderr.text())
	}
	return p.stdout.text()
}
