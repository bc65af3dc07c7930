package ecw

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
)

func TestCreateSendsConditionalCreate(t *testing.T) {
	t.Parallel()
	const search = "identifier=https%3A%2F%2Fvantrexia.com%2Ffhir%2Fsid%2Fobservation%7Cd4e5f6a7-b8c9-0123-defa-234567890123"
	t.Run("observation", func(t *testing.T) {
		t.Parallel()
		e := newEHR(t)
		e.write = reply(201, "Location: Observation/obs-1", "")
		if _, err := e.client(t).CreateObservation(context.Background(), testResource, testID); err != nil {
			t.Fatal(err)
		}

		r := e.requests("POST")[0]
		if r.url != "/fhir/r4/FFHEDD/Observation" || string(r.body) != string(testResource) {
			t.Errorf("sent %s %s", r.url, r.body)
		}

		for name, want := range map[string]string{"If-None-Exist": search, "Content-Type": "application/fhir+json",
			"Accept": "application/fhir+json", "Authorization": "Bearer tok-1", "Prefer": "return=representation", "User-Agent": "vantrexia"} {
			if got := r.header.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}

		if q, err := url.ParseQuery(search); err != nil || q.Get("identifier") != testID.System+"|"+testID.Value {
			t.Errorf("If-None-Exist does not parse back: %v %v", q, err)
		}
		for _, want := range []string{`"fhir_observation_id":"obs-1"`, `"http_status":201`, testID.Value} {
			if log := e.logs.String(); !strings.Contains(log, want) {
				t.Errorf("the log lacks %s: %s", want, log)
			}
		}
	})

	t.Run("bundle", func(t *testing.T) {
		t.Parallel()
		e := newEHR(t)
		e.write = reply(200, "", entryAnswer("1", "Observation/obs-1", ""))
		c := e.client(t, func(cfg *Config) { cfg.WriteMode = WriteBundle })

		if _, err := c.CreateObservation(context.Background(), testResource, testID); err != nil {
			t.Fatal(err)
		}

		r := e.requests("POST")[0]
		var b struct {
			ResourceType, Type string
			Entry              []struct {
				FullURL  string
				Resource json.RawMessage
				Request  struct{ Method, URL, IfNoneExist string }
			}
		}

		if err := json.Unmarshal(r.body, &b); err != nil {
			t.Fatal(err)
		}
		if r.url != "/fhir/r4/FFHEDD" || b.ResourceType != "Bundle" || b.Type != "transaction" || len(b.Entry) != 1 {
			t.Fatalf("sent %s %s", r.url, r.body)
		}

		en := b.Entry[0]
		if !strings.HasPrefix(en.FullURL, "urn:uuid:") || en.Request.Method != "POST" || en.Request.URL != "Observation" ||
			en.Request.IfNoneExist != search || string(en.Resource) != string(testResource) {
			t.Errorf("entry %+v, resource %s", en, en.Resource)
		}

		if r.header.Get("If-None-Exist") != "" {
			t.Error("If-None-Exist header on a transaction")
		}
	})
}

func TestCreateRefusesWhatCouldNotBeLookedUp(t *testing.T) {
	t.Parallel()
	other := Identifier{System: testID.System, Value: "other"}
	for name, resource := range map[string]string{
		"no JSON": `{`, "null": `null`, "a Patient": `{"resourceType":"Patient"}`, "no identifier": `{"resourceType":"Observation"}`,
		"another identifier": string(testResource),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			_, err := e.client(t).CreateObservation(context.Background(), json.RawMessage(resource), other)
			if ee := asError(t, err); ee.Class != ClassPermanentData || ee.Code != "invalid_resource" {
				t.Errorf("got %v", ee)
			}
			if len(e.requests("token"))+len(e.requests("POST")) != 0 {
				t.Error("something was sent")
			}
		})
	}
}

func TestSearchTokenEscapes(t *testing.T) {
	t.Parallel()
	if got, want := searchToken(Identifier{System: `a|b`, Value: `c,d$e\f`}), `a\|b|c\,d\$e\\f`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
