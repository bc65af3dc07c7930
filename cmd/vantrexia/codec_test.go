package main

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
	"github.com/vantrexia/vantrexia/payload"
)

const adasPassword = "gravel pocket lantern nine"

// adminOf runs an API with an administrator who has two-factor sign-in, and returns the secret of that.
func adminOf(t *testing.T) (dir string, settings []string, base, secret string) {
	t.Helper()
	_, dir, settings, base, secret = apiWithAdmin(t)
	return dir, settings, base, secret
}

// apiWithAdmin is adminOf with further settings, and returns the API's process too.
func apiWithAdmin(t *testing.T, more ...string) (api *process, dir string, settings []string, base, secret string) {
	t.Helper()
	dir, address, database := workDir(t), freeAddress(t), stack.Postgres(t)
	settings = append(more,
		"KEYRING_FILE="+keyringtest.File(t), "DATABASE_URL="+database, "TEMPORAL_ADDRESS=127.0.0.1:1", "API_ADDRESS="+address,
		"API_TOKEN_SECRET="+strings.Repeat("s", 32), "ECW_CLIENT_ID=c", "ECW_PRACTICE_CODE=FFHEDD",
	)
	store, err := db.Open(t.Context(), database, keyringtest.Shared())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustSay(t, runWith(t, dir, settings, adasPassword+"\n", "users", "add", "--local", "--reason", "first", "--ask-password",
		"--email", "ada@example.com", "--first", "Ada", "--last", "Berg", "--role", "admin"), 0, "")
	mustSay(t, run(t, dir, settings, "keys", "generate"), 0, "")
	api = start(t, dir, settings, "api")
	api.await(t, &api.stderr, "listening")
	base = "http://" + address

	// A password that somebody else has set is good for choosing another only.
	ada, err := store.FindUser(t.Context(), db.FindUserParams{PracticeCode: "FFHEDD", Email: "ada@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	own := db.SetPasswordParams{PracticeCode: "FFHEDD", ID: ada.ID, PasswordHash: ada.PasswordHash}
	if _, err := store.SetPassword(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	key, err := totp.Generate(totp.GenerateOpts{Issuer: "Vantrexia", AccountName: "ada@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	offer := db.OfferTOTPParams{PracticeCode: "FFHEDD", ID: ada.ID, Secret: key.Secret()}
	if err := store.OfferTOTP(t.Context(), offer); err != nil {
		t.Fatal(err)
	}
	if err := store.EnableTOTP(t.Context(), ada.ID); err != nil {
		t.Fatal(err)
	}
	return api, dir, settings, base, key.Secret()
}

func codeOf(t *testing.T, secret string) string {
	t.Helper()
	code, err := totp.GenerateCode(secret, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// asked is a request to the codec.
type asked struct{ method, path, host, origin string }

func (a asked) of(t *testing.T, address string) (status int, header http.Header, body string) {
	t.Helper()
	sealed, _ := payload.Sealing{Keys: keyringtest.Shared(), Namespace: "default"}.Converters()
	p, err := sealed.ToPayload("canary")
	if err != nil {
		t.Fatal(err)
	}
	text := `{"payloads":[{"metadata":{"encoding":"` + base64.StdEncoding.EncodeToString(p.GetMetadata()["encoding"]) + `"},"data":"` + base64.StdEncoding.EncodeToString(p.GetData()) + `"}]}`
	req, err := http.NewRequestWithContext(t.Context(), a.method, "http://"+address+a.path, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if a.host != "" {
		req.Host = a.host
	}
	if a.origin != "" {
		req.Header.Set("Origin", a.origin)
	}
	req.Header.Set("X-Namespace", "default")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(answer)
}

func TestTheWebUIDecodesWithAnAdministratorsHelp(t *testing.T) {
	t.Parallel()
	dir, settings, base, secret := adminOf(t)
	const ui = "http://temporal.test"
	address := freeAddress(t)
	args := []string{"codec", "--url", base, "--ui", ui, "--listen", address}
	mustSay(t, run(t, dir, settings, args...), 1, "use --email")
	mustSay(t, runWith(t, dir, settings, "wrong\n", append(args, "--email", "ada@example.com")...), 1, "sign in")
	mustSay(t, run(t, dir, append([]string{"VANTREXIA_TOKEN=x"}, settings...), "codec", "--listen", "0.0.0.0:0"), 1, "not a port of this machine")
	mustSay(t, run(t, dir, append([]string{"VANTREXIA_TOKEN=x"}, settings...), "codec", "--ui", "here"), 1, "not the address of the Temporal Web UI")

	codec := startTyping(t, dir, settings, adasPassword+"\n"+codeOf(t, secret)+"\n", append(args, "--email", "ada@example.com")...)
	codec.await(t, &codec.stderr, "as the codec endpoint")

	for name, test := range map[string]struct {
		asked
		status int
		allows bool
	}{
		"the Web UI":               {asked{"POST", "/decode", "", ui}, 200, true},
		"its browser, before":      {asked{"OPTIONS", "/decode", "", ui}, 204, true},
		"another page":             {asked{"POST", "/decode", "", "http://evil.test"}, 403, false},
		"another page, before":     {asked{"OPTIONS", "/decode", "", "http://evil.test"}, 403, false},
		"another port":             {asked{"POST", "/decode", "", ui + ":81"}, 403, false},
		"no page":                  {asked{"POST", "/decode", "", ""}, 403, false},
		"by a name that was bound": {asked{"POST", "/decode", "evil.test:" + strings.Split(address, ":")[1], ui}, 421, false},
		"to encode":                {asked{"POST", "/encode", "", ui}, 404, false},
		"to read":                  {asked{"GET", "/decode", "", ui}, 405, true},
	} {
		status, header, body := test.of(t, address)
		if status != test.status || (header.Get("Access-Control-Allow-Origin") == ui) != test.allows {
			t.Errorf("%s: %d %v", name, status, header)
		}
		if shown := strings.Contains(body, base64.StdEncoding.EncodeToString([]byte(`"canary"`))); shown != (name == "the Web UI") {
			t.Errorf("%s is answered %s", name, body)
		}
	}
}

// A browser writes an origin in one way only, however the address was typed.
func TestTheOriginOfTheWebUI(t *testing.T) {
	t.Parallel()
	for address, origin := range map[string]string{
		"http://127.0.0.1:8233":             "http://127.0.0.1:8233",
		"HTTP://Temporal.Example.com/":      "http://temporal.example.com",
		"https://temporal.example.com:443/": "https://temporal.example.com",
		"http://temporal.example.com:80":    "http://temporal.example.com",
		"https://temporal.example.com:80":   "https://temporal.example.com:80",
		"http://[::1]:8233/namespaces":      "http://[::1]:8233",
	} {
		f, err := newForwarder(config{}, address)
		if err != nil || f.origin != origin {
			t.Errorf("%s: %v, %v", address, f, err)
		}
	}
}

// The access token is renewed while the Web UI is used, and given up at the end.
func TestTheCodecsSessionIsRenewed(t *testing.T) {
	t.Parallel()
	_, _, base, secret := adminOf(t)
	cfg := config{}
	api, err := newAPIClient(cfg, base, "none yet")
	if err != nil {
		t.Fatal(err)
	}
	s := &session{api: api}
	var signedIn tokens
	sent := map[string]string{"email": "ada@example.com", "password": adasPassword, "totp_code": codeOf(t, secret)}
	if err := api.call(t.Context(), http.MethodPost, "/auth/login/", sent, &signedIn); err != nil {
		t.Fatal(err)
	}
	s.take(signedIn)

	first, err := s.access(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	s.until = time.Now()
	second, err := s.access(t.Context(), false)
	if err != nil || second.token == first.token {
		t.Errorf("after its time: the same token is used (%v)", err)
	}
	third, err := s.access(t.Context(), true)
	if err != nil || third.token == second.token {
		t.Errorf("after a refusal: the same token is used (%v)", err)
	}

	// The Web UI goes to another page while the token is renewed.
	left, leave := context.WithCancel(t.Context())
	proxy := leavingProxy(t, base, leave)
	s.api.base = strings.Replace(s.api.base, base, proxy, 1)
	_, _ = s.access(left, true)
	if _, err := s.access(t.Context(), true); err != nil {
		t.Errorf("after a request that was given up: %v", err)
	}
	s.api.base = api.base

	s.end()
	if _, err := s.access(context.Background(), true); err == nil || !strings.Contains(err.Error(), "start the command again") {
		t.Errorf("after the end: %v", err)
	}
}

// leavingProxy is an address that leads to another server, whose first answer comes just after its client has left.
func leavingProxy(t *testing.T, to string, leave func()) string {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(*http.Response) error {
		leave()
		time.Sleep(100 * time.Millisecond)
		return nil
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	return server.URL
}
