package api_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/api"
	"github.com/vantrexia/vantrexia/keyring"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
	"github.com/vantrexia/vantrexia/payload"
)

const decodePath = "/api/v1/temporal/decode"

// remote is the data converter that Temporal's command line has with --codec-endpoint and --codec-auth.
func (c caller) remote(namespace string) converter.DataConverter {
	return converter.NewRemoteDataConverter(converter.GetDefaultDataConverter(), converter.RemoteDataConverterOptions{
		Endpoint: c.base + strings.TrimSuffix(decodePath, "/decode"),
		Client:   *c.client,
		ModifyRequest: func(req *http.Request) error {
			req.Header.Set("Authorization", "Bearer "+c.token)
			req.Header.Set("X-Namespace", namespace)
			return nil
		},
	})
}

func TestTheCommandLineOfTemporalShowsAHistory(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	patient := s.patient(kevin)
	observation := s.post(bloodPressure(patient))
	s.await(observation, "transmitted")

	events := s.temporal.GetWorkflowHistory(t.Context(), "transmission/"+observation, "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	first, err := events.Next()
	if err != nil {
		t.Fatal(err)
	}
	input := first.GetWorkflowExecutionStartedEventAttributes().GetInput()
	summary := first.GetUserMetadata().GetSummary()
	if shown := converter.GetDefaultDataConverter().ToStrings(input); strings.Contains(strings.Join(shown, ""), observation) {
		t.Error("the input is in clear")
	}

	admin := s.as(account.Admin)
	if shown := admin.remote(s.namespace).ToStrings(input); len(shown) != 1 || !strings.Contains(shown[0], observation) {
		t.Errorf("the input is shown as %q", shown)
	}
	if shown := admin.remote(s.namespace).ToString(summary); shown != `"Carries one reading into the EHR"` {
		t.Errorf("the summary is shown as %q", shown)
	}
	if shown := admin.remote("another").ToStrings(input); !strings.Contains(shown[0], "is not the namespace of this installation") {
		t.Errorf("of another namespace: %q", shown)
	}
	if shown := s.as(account.Nurse).remote(s.namespace).ToStrings(input); !strings.Contains(shown[0], "forbidden") {
		t.Errorf("to a nurse: %q", shown)
	}
}

// sealedPayloads is a request to decode one payload with such data.
func sealedPayloads(t *testing.T, data []byte) string {
	t.Helper()
	body, err := protojson.Marshal(&commonpb.Payloads{Payloads: []*commonpb.Payload{{
		Metadata: map[string][]byte{converter.MetadataEncoding: []byte(payload.Encoding)},
		Data:     data,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestNothingButPayloadsIsDecoded(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	keys := keyringtest.Shared()
	column, err := keys.Seal(keyring.Cell{Table: "patients", Column: "demographics", Practice: practice, Row: "1"}, []byte("canary"))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := keys.SealPayload("another", []byte("canary"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := keys.SealPayload(s.namespace, []byte("canary"))
	if err != nil {
		t.Fatal(err)
	}

	admin := s.as(account.Admin)
	for name, data := range map[string][]byte{
		"a column of the database":     column,
		"a payload of another keyring": otherPayload(t, s.namespace),
		"one of another namespace":     elsewhere,
		"what holds no payload":        text,
		"nothing":                      nil,
		"noise":                        []byte("noise"),
	} {
		t.Run(name, func(t *testing.T) {
			got := admin.in(t).do("POST", decodePath, sealedPayloads(t, data)).want(t, http.StatusBadRequest, "invalid")
			if strings.Contains(string(got.body), "canary") || strings.Contains(string(got.body), base64.StdEncoding.EncodeToString([]byte("canary"))) {
				t.Errorf("it is shown: %s", got.body)
			}
		})
	}

	plain := `{"payloads":[{"metadata":{"encoding":"anNvbi9wbGFpbg=="},"data":"IkEi"}]}`
	var shown struct {
		Payloads []struct{ Data string }
	}
	got := admin.do("POST", decodePath, plain).want(t, http.StatusOK, "")
	if err := json.Unmarshal(got.body, &shown); err != nil || len(shown.Payloads) != 1 || shown.Payloads[0].Data != "IkEi" {
		t.Errorf("a plain payload comes back as %s", got.body)
	}
	admin.do("POST", decodePath, `{"payloads":[{"data":"*"}]}`).want(t, http.StatusBadRequest, "malformed_json")
	admin.do("POST", decodePath, sealedPayloads(t, make([]byte, 1<<20))).want(t, http.StatusRequestEntityTooLarge, "too_large")
}

// otherPayload is sealed with keys that the API does not have.
func otherPayload(t *testing.T, namespace string) []byte {
	t.Helper()
	content, err := keyring.Generate()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := keyring.New(content)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := keys.SealPayload(namespace, []byte("canary"))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// A browser lets no page but the Temporal Web UI read the answer.
func TestOnlyTheTemporalWebUIMayAskFromABrowser(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	ask := func(method, origin string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, s.base+decodePath, strings.NewReader(`{"payloads":[]}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Origin", origin)
		req.Header.Set("Content-Type", "application/json")
		if method == http.MethodPost {
			req.Header.Set("Authorization", "Bearer "+s.token)
		}
		res, err := s.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		return res
	}

	for _, method := range []string{http.MethodOptions, http.MethodPost} {
		res := ask(method, "http://temporal.test")
		if allowed := res.Header.Get("Access-Control-Allow-Origin"); allowed != "http://temporal.test" || res.StatusCode >= 300 {
			t.Errorf("%s of the Web UI: %s, the allowed origin is %q", method, res.Status, allowed)
		}
		if headers := res.Header.Get("Access-Control-Allow-Headers"); method == http.MethodOptions && !strings.Contains(headers, "X-Namespace") {
			t.Errorf("the Web UI may send %q", headers)
		}
		for _, origin := range []string{"https://temporal.test", "http://temporal.test:8080", "http://evil.test", "null", ""} {
			res := ask(method, origin)
			if allowed := res.Header.Get("Access-Control-Allow-Origin"); allowed != "" || res.Header.Get("Access-Control-Allow-Headers") != "" {
				t.Errorf("%s of %q: the allowed origin is %q", method, origin, allowed)
			}
		}
	}
}

// Whatever is sent, the answer is one of the contract, and nothing of it is kept by a browser or a proxy.
func TestOddRequestsToDecode(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	admin := s.as(account.Admin)
	broken := `{"metadata":{"encoding":"YmluYXJ5L2VuY3J5cHRlZA=="},"data":"AAAA"}`
	for name, test := range map[string]struct {
		body   string
		status int
		code   string
	}{
		"nothing":           {``, 400, "malformed_json"},
		"null":              {`null`, 400, "malformed_json"},
		"a list":            {`[]`, 400, "malformed_json"},
		"a payload of null": {`{"payloads":[null]}`, 400, "invalid"},
		"an empty payload":  {`{"payloads":[{}]}`, 200, ""},
		"no payloads":       {`{}`, 200, ""},
		"deep":              {`{"x":` + strings.Repeat(`[`, 100_000) + strings.Repeat(`]`, 100_000) + `}`, 400, "malformed_json"},
		"deep in a payload": {`{"payloads":[{"metadata":` + strings.Repeat(`{"a":`, 50_000) + `1` + strings.Repeat(`}`, 50_000) + `}]}`, 400, "malformed_json"},
		"two bodies":        {`{"payloads":[]}{"payloads":[]}`, 400, "malformed_json"},
		"not UTF-8":         {"{\"payloads\":[{\"metadata\":{\"\xff\":\"\"}}]}", 400, "malformed_json"},
		"many":              {`{"payloads":[` + strings.Repeat(`{},`, 9_999) + `{}]}`, 200, ""},
		"too many":          {`{"payloads":[` + strings.Repeat(`{},`, 200_000) + `{}]}`, 400, "invalid"},
		"many broken":       {`{"payloads":[` + strings.Repeat(broken+`,`, 9_000) + broken + `]}`, 400, "invalid"},
		"50 MB":             {strings.Repeat(" ", 50<<20), 413, "too_large"},
	} {
		got := admin.in(t).do("POST", decodePath, test.body)
		if got.status != test.status || (test.code != "" && got.text("code") != test.code) {
			t.Errorf("%s: %d %.200s", name, got.status, got.body)
		}
		if cache := got.header.Get("Cache-Control"); cache != "no-store" {
			t.Errorf("%s: Cache-Control is %q", name, cache)
		}
		if len(got.body) > 1<<20+1000 {
			t.Errorf("%s: the answer has %d bytes", name, len(got.body))
		}
	}
	others := map[string]caller{
		"no token":      s.with(""),
		"another token": s.with("x"),
		"a machine":     s.as(account.Service),
		"a doctor":      s.as(account.Provider),
	}
	for name, c := range others {
		if got := c.do("POST", decodePath, `{"payloads":[]}`, "Origin", "http://temporal.test"); got.status != 401 && got.status != 403 {
			t.Errorf("%s: %d", name, got.status)
		}
	}
	if got := admin.do("POST", decodePath, sealedPayloads(t, nil), "Content-Encoding", "gzip"); got.status < 400 || got.status >= 500 {
		t.Errorf("gzip: %d", got.status)
	}
	if got := admin.do("POST", decodePath, `{"payloads":[]}`, "Content-Type", "text/plain"); got.status != 415 && got.status != 200 {
		t.Errorf("text: %d %s", got.status, got.body)
	}
}

// The API has read a key that the worker has not: the request is refused as one that may be made again, and the reading waits.
func TestAWorkerWithoutTheKeyTakesNoUpdate(t *testing.T) {
	t.Parallel()
	path := keyringtest.File(t)
	keys, err := keyring.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	s := startWith(t, setup{change: func(cfg *api.Config) {
		cfg.Payloads.Keys = keys
		options := client.Options{Namespace: cfg.Payloads.Namespace}
		options.DataConverter, options.FailureConverter = cfg.Payloads.Converters()
		if cfg.Temporal, err = client.NewClientFromExisting(cfg.Temporal, options); err != nil {
			t.Fatal(err)
		}
	}})
	s.fault(`{"kind":"reset_after","target":"create"}`)
	id := s.post(weight(s.patient(kevin)))
	s.await(id, "failed")

	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rotated, _, err := keyring.Rotate(content, keyring.Temporal, time.Now().Add(-time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, rotated, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := keys.Reread(nil); err != nil {
		t.Fatal(err)
	}
	s.transmit(id).want(t, http.StatusServiceUnavailable, "temporal_unavailable")
}
