package main

import (
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

// TestDevAgainstAnotherEHR is the README's recipe, with a sandbox of its own as the other EHR: the commands
// that the welcome shows test the connection, list the patients, and import one.
func TestDevAgainstAnotherEHR(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	address, sandboxAddress := freeAddress(t), freeAddress(t)
	other := []string{
		"ECW_CLIENT_ID=rpm", "ECW_PRACTICE_CODE=home-1",
		"ECW_TOKEN_URL=http://" + sandboxAddress + "/oauth/oauth2/token",
		"ECW_FHIR_BASE_URL=http://" + sandboxAddress + "/fhir/r4/{practice_code}",
	}

	ehr := start(t, dir, append([]string{"SANDBOX_ADDRESS=" + sandboxAddress, "SANDBOX_JWKS_URL=http://" + address + "/.well-known/jwks.json"}, other...), "sandbox")
	ehr.await(t, &ehr.stderr, "listening")
	temporalAddress, namespace := stack.Temporal(t)
	p := start(t, dir, append([]string{
		"API_ADDRESS=" + address, "KEYRING_FILE=" + keyringtest.File(t), "DATABASE_URL=" + stack.Postgres(t), "TEMPORAL_ADDRESS=" + temporalAddress, "TEMPORAL_NAMESPACE=" + namespace,
	}, other...), "dev")

	welcome := p.await(t, &p.stdout, "of the list")

	token := regexp.MustCompile(`(?m)^token='[^']+'$`).FindString(welcome)
	var said []string
	for _, command := range regexp.MustCompile(`(?m)^curl (?:.*\\\n)*.*$`).FindAllString(welcome, -1) {
		if strings.Contains(command, "import_selected") {
			id := regexp.MustCompile(`"ecw_fhir_id":"([^"]+)"`).FindStringSubmatch(strings.Join(said, ""))
			if id == nil {
				t.Fatalf("no patient is listed: %s", said)
			}
			command = strings.Replace(command, "an ecw_fhir_id of the list", id[1], 1)
		}
		said = append(said, curl(t, token, command))
	}

	for i, want := range []string{`"message":"JWT authentication successful"`, `"test_patient_count":142`, `"count":142`, `"imported":1`} {
		if len(said) <= i || !strings.Contains(said[i], want) {
			t.Fatalf("command %d does not give %s\n%s\n%s", i+1, want, welcome, said)
		}
	}

	if !strings.Contains(welcome, "http://"+address+"/.well-known/jwks.json") {
		t.Errorf("the welcome does not say where the keys to register are:\n%s", welcome)
	}
}

// curl runs a printed command. The shell splits it into words, as for a person. The test itself sends the
// request, so that it does not need the program curl.
func curl(t *testing.T, token, command string) string {
	t.Helper()
	words, err := exec.Command("sh", "-c", "curl() { printf '%s\\0' \"$@\"; }\n"+token+"\n"+command).Output()
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}

	method, address, body, header := "", "", "", http.Header{}
	for args := strings.Split(strings.TrimSuffix(string(words), "\x00"), "\x00"); len(args) > 0; args = args[1:] {
		if !strings.HasPrefix(args[0], "-") {
			address = args[0]
			continue
		}
		if len(args) == 1 {
			t.Fatalf("%s: %s has no value", command, args[0])
		}

		switch value := args[1]; args[0] {
		case "-X":
			method = value
		case "-H":
			name, text, _ := strings.Cut(value, ": ")
			header.Set(name, text)
		case "-d":
			body = value
		default:
			t.Fatalf("%s: the test does not know what %s means", command, args[0])
		}

		args = args[1:]
	}

	if method == "" && body != "" {
		method = http.MethodPost
	}

	req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}

	req.Header = header
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()

	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}
