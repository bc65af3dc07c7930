package ecw_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"

	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

const exampleReading = "d4e5f6a7-b8c9-0123-defa-234567890123"

// exampleObservation is a heart rate of a patient of the sandbox; package fhir makes such resources of
// readings.
const exampleObservation = `{
	"resourceType": "Observation",
	"meta": {"profile": ["http://hl7.org/fhir/us/core/StructureDefinition/us-core-heart-rate"]},
	"identifier": [{"system": "https://vantrexia.com/fhir/sid/observation", "value": "` + exampleReading + `"}],
	"status": "final",
	"category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"}]}],
	"code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
	"subject": {"reference": "Patient/ecw-patient-2004454"},
	"effectiveDateTime": "2026-02-06T10:30:00Z",
	"valueQuantity": {"value": 78, "unit": "beats/minute", "system": "http://unitsofmeasure.org", "code": "/min"}
}`

// practice serves a sandbox EHR that knows the key, and returns its URL.
func practice(key *ecw.Key) (url string, stop func(), err error) {
	published, err := ecw.PublicJWKS(key)
	if err != nil {
		return "", nil, err
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}

	url = "http://" + listener.Addr().String()
	ehr, err := sandbox.New(sandbox.Config{
		ClientID:     "client-1",
		PracticeCode: "FFHEDD",
		JWKSURL:      url + "/.well-known/jwks.json",
		PublicURL:    url,
	})
	if err != nil {
		return "", nil, errors.Join(err, listener.Close())
	}

	routes := http.NewServeMux()
	routes.Handle("/", ehr)
	routes.HandleFunc("/.well-known/jwks.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(published)
	})

	server := &http.Server{Handler: routes}
	go func() { _ = server.Serve(listener) }()
	return url, func() { _ = errors.Join(ehr.Close(), server.Close()) }, nil
}

// A reading is delivered, and looked up before it would be sent again.
func Example() {
	key, err := ecw.GenerateKey("vantrexia-ecw-key-1")
	if err != nil {
		log.Fatal(err)
	}

	url, stop, err := practice(key) // for a real one, register the key with eCW, and leave TokenURL and FHIRBaseURL out
	if err != nil {
		log.Fatal(err)
	}
	defer stop()

	client, err := ecw.New(ecw.Config{
		ClientID:     "client-1",
		PracticeCode: "FFHEDD",
		Key:          key,
		TokenURL:     url + sandbox.TokenPath,
		FHIRBaseURL:  url + sandbox.FHIRPath + "FFHEDD",
	})
	if err != nil {
		log.Fatal(err)
	}

	ctx := context.Background()
	resource := json.RawMessage(exampleObservation)
	id := ecw.Identifier{System: "https://vantrexia.com/fhir/sid/observation", Value: exampleReading}
	_, found, err := client.FindDelivered(ctx, resource, id)
	fmt.Println("before:", found, err)
	created, err := client.CreateObservation(ctx, resource, id)
	fmt.Println("created:", created.HTTPStatus, created.Existing, err)
	again, found, err := client.FindDelivered(ctx, resource, id)
	fmt.Println("afterwards:", found, again.ID == created.ID, err)
	// Output:
	// before: false <nil>
	// created: 201 false <nil>
	// afterwards: true true <nil>
}

// The class says what a failure means for the reading; the decision needs nothing else.
func ExampleError() {
	var err error = &ecw.Error{
		Class:   ecw.ClassUnknown,
		Op:      ecw.OpCreate,
		Code:    "timeout",
		Message: "eCW did not answer in time",
	}
	var failed *ecw.Error
	if errors.As(err, &failed) && failed.Class == ecw.ClassUnknown {
		fmt.Println("look it up before it is sent again:", failed.Code)
	}
	// Output: look it up before it is sent again: timeout
}

// The key is stored in a file that only its owner can read; its public half goes to eCW.
func ExampleGenerateKey() {
	key, err := ecw.GenerateKey("vantrexia-ecw-key-1")
	if err != nil {
		log.Fatal(err)
	}
	pem, err := key.PEM()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(pem), "bytes to write with mode 0600")
}

// During a rotation both keys are published.
func ExamplePublicJWKS() {
	now, err := ecw.GenerateKey("vantrexia-ecw-key-1")
	if err != nil {
		log.Fatal(err)
	}

	next, err := ecw.GenerateKey("vantrexia-ecw-key-2")
	if err != nil {
		log.Fatal(err)
	}

	set, err := ecw.PublicJWKS(now, next)
	if err != nil {
		log.Fatal(err)
	}

	fmt.Println(string(set))
}
