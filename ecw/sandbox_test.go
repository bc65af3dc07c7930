package ecw_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

const (
	patient  = "ecw-patient-2004454"
	idSystem = "https://vantrexia.com/fhir/sid/observation"
)

var sharedKey = sync.OnceValue(func() *ecw.Key {
	k, err := ecw.GenerateKey("vantrexia-ecw-key-1")
	if err != nil {
		panic(err)
	}
	return k
})

// start runs a sandbox EHR that trusts our published key, and returns a client of it and its URL.
func start(t *testing.T, mode ecw.WriteMode, adjust ...func(*ecw.Config)) (*ecw.Client, string) {
	t.Helper()
	jwks, err := ecw.PublicJWKS(sharedKey())
	if err != nil {
		t.Fatal(err)
	}

	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(jwks)
	}))
	t.Cleanup(app.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	server, err := sandbox.New(sandbox.Config{
		ClientID:     "client-1",
		PracticeCode: "FFHEDD",
		JWKSURL:      app.URL,
		PublicURL:    "http://" + listener.Addr().String(),
	})
	if err != nil {
		t.Fatal(err)
	}

	web := &httptest.Server{Listener: listener, Config: &http.Server{Handler: server}}
	web.Start()
	t.Cleanup(func() {
		_ = server.Close()
		web.Close()
	})

	return join(t, mode, web.URL, adjust...), web.URL
}

// TestClocksThatDiffer: eCW accepts our assertions, and we its tokens and answers, if the clocks differ as
// much as those of machines that are synchronised now and then.
func TestClocksThatDiffer(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{-30 * time.Second, -time.Second, time.Second, 20 * time.Second} {
		t.Run(ahead.String(), func(t *testing.T) {
			t.Parallel()
			client, _ := start(t, ecw.WriteObservation, func(c *ecw.Config) {
				c.Now = func() time.Time { return time.Now().Add(ahead) }
			})
			resource, id := heartRate(patient)
			if _, err := client.CreateObservation(t.Context(), resource, id); err != nil {
				t.Errorf("our clock is %s ahead of eCW's: %v", ahead, err)
			}
		})
	}
}

// join returns a client of a sandbox that runs.
func join(t *testing.T, mode ecw.WriteMode, url string, adjust ...func(*ecw.Config)) *ecw.Client {
	t.Helper()
	cfg := ecw.Config{
		ClientID:     "client-1",
		PracticeCode: "FFHEDD",
		Key:          sharedKey(),
		WriteMode:    mode,
		TokenURL:     url + sandbox.TokenPath,
		FHIRBaseURL:  url + sandbox.FHIRPath + "FFHEDD",
	}

	for _, a := range adjust {
		a(&cfg)
	}

	client, err := ecw.New(cfg)
	if err != nil {
		t.Fatal(err)
	}

	return client
}

// fault asks the sandbox for one fault at the next matching request.
func fault(t *testing.T, url, kind, target string) {
	t.Helper()
	breakSandbox(t, url, fmt.Sprintf(`{"kind":%q,"target":%q,"count":1}`, kind, target))
}

// breakSandbox asks the sandbox for a fault of any length.
func breakSandbox(t *testing.T, url, body string) {
	t.Helper()
	res, err := http.Post(url+"/admin/faults", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusCreated {
		t.Fatalf("fault %s: %s", body, res.Status)
	}
}

// withValue replaces the heart rate of 78.
func withValue(resource json.RawMessage, value string) json.RawMessage {
	return bytes.Replace(resource, []byte(`"value":78`), []byte(`"value":`+value), 1)
}

func heartRate(patient string) (json.RawMessage, ecw.Identifier) {
	id := ecw.Identifier{System: idSystem, Value: uuid.NewString()}
	return json.RawMessage(`{"resourceType":"Observation",
		"meta":{"profile":["http://hl7.org/fhir/us/core/StructureDefinition/us-core-heart-rate"]},
		"identifier":[{"system":"` + id.System + `","value":"` + id.Value + `"}],"status":"final",
		"category":[{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/observation-category","code":"vital-signs"}]}],
		"code":{"coding":[{"system":"http://loinc.org","code":"8867-4"}]},"subject":{"reference":"Patient/` + patient + `"},
		"effectiveDateTime":"2026-02-06T10:30:00Z",
		"valueQuantity":{"value":78,"unit":"beats/minute","system":"http://unitsofmeasure.org","code":"/min"}}`), id
}

// TestAgainstSandbox delivers to the sandbox EHR, which shares no code with the client, in both write modes.
func TestAgainstSandbox(t *testing.T) {
	t.Parallel()
	for _, mode := range []ecw.WriteMode{ecw.WriteObservation, ecw.WriteBundle} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			client, _ := start(t, mode)
			t.Run("once", func(t *testing.T) { deliverTwice(t, client) })

			t.Run("unknown patient", func(t *testing.T) {
				resource, id := heartRate("nobody")
				_, err := client.CreateObservation(context.Background(), resource, id)
				var e *ecw.Error
				if !errors.As(err, &e) || e.Class != ecw.ClassPermanentData || !strings.HasPrefix(e.Message, "Patient not found in eCW") {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

func deliverTwice(t *testing.T, client *ecw.Client) {
	resource, id := heartRate(patient)
	if _, found, err := client.FindDelivered(context.Background(), resource, id); found || err != nil {
		t.Fatalf("before: %v %v", found, err)
	}

	first, err := client.CreateObservation(context.Background(), resource, id)
	if err != nil || first.ID == "" || first.Existing {
		t.Fatalf("first: %+v %v", first, err)
	}

	second, err := client.CreateObservation(context.Background(), resource, id)
	if err != nil || second.ID != first.ID {
		t.Errorf("second: %+v %v, want id %s", second, err, first.ID)
	}

	found, ok, err := client.FindDelivered(context.Background(), resource, id)
	if err != nil || !ok || found.ID != first.ID {
		t.Errorf("find: %+v %v %v", found, ok, err)
	}
}
