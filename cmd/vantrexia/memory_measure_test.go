//go:build measure

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMemoryOfWaitingTransmissions measures a worker while MEASURE_WAITING transmissions wait for eCW to take
// us back. GOMEMLIMIT, when it is set, is the worker's.
func TestMemoryOfWaitingTransmissions(t *testing.T) {
	waiting, err := strconv.Atoi(os.Getenv("MEASURE_WAITING"))
	if err != nil {
		t.Fatal(err)
	}

	in := install(t)
	in.start(t, "api", "listening")
	in.settings = append(in.settings, "GODEBUG=gctrace=1")
	if limit, set := os.LookupEnv("GOMEMLIMIT"); set {
		in.settings = append(in.settings, "GOMEMLIMIT="+limit)
	}

	deliverer := in.start(t, "worker", "worker started")

	postReading(t, in.api, in.admin, "2026-02-06T10:30:00Z") // makes the patient, whom eCW has to show
	in.breakEHR(t, `{"kind": "unauthorized", "target": "token", "for": "24h"}`)
	began := time.Now()
	for sent := 0; sent < waiting; sent += 1000 {
		postWeights(t, in.api, in.admin, sent, min(1000, waiting-sent))
	}

	held := awaitHeld(t, in, waiting)
	took := time.Since(began).Round(time.Second)
	time.Sleep(15 * time.Second) // the workflows that started them end
	t.Logf("%d transmissions wait after %s\n%s\n%s", held, took, memory(t, deliverer),
		regexp.MustCompile(`msg=memory .*`).FindString(deliverer.stderr.text()))
}

// awaitHeld returns how many transmissions are held when all are, but for one that is tried now and then.
func awaitHeld(t *testing.T, in *installation, waiting int) int {
	t.Helper()
	for {
		var status struct{ Circuit struct{ Held int } }
		call(t, http.MethodGet, in.api+"/fhir/status/", in.admin, "", &status)
		if status.Circuit.Held >= waiting-1 {
			return status.Circuit.Held
		}
		time.Sleep(time.Second) // this takes minutes
	}
}

// postWeights posts a batch of readings, each at a minute of its own.
func postWeights(t *testing.T, api, token string, from, count int) {
	t.Helper()
	var known struct {
		Results []struct{ ID string } `json:"results"`
	}

	call(t, http.MethodGet, api+"/patients/?ecw_fhir_id=ecw-patient-2004454", token, "", &known)
	readings := make([]map[string]any, count)
	for i := range readings {
		readings[i] = map[string]any{
			"patient_id": known.Results[0].ID, "observation_type": "weight", "device": "scale",
			"effective_at": time.Date(2025, 1, 1, 0, from+i, 0, 0, time.UTC).Format(time.RFC3339),
			"values":       map[string]any{"value": 81.6, "unit": "kg"},
		}
	}

	body, err := json.Marshal(map[string]any{"observations": readings})
	if err != nil {
		t.Fatal(err)
	}

	var answer struct{ Created int }
	if status := call(t, http.MethodPost, api+"/observations/batch/", token, string(body), &answer); answer.Created != count {
		t.Fatalf("the batch gave %d, and %d readings were stored", status, answer.Created)
	}
}

// memory is what Linux and the garbage collector say of a process.
func memory(t *testing.T, p *process) string {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	said := regexp.MustCompile(`(?m)^(VmHWM|VmRSS|Threads):.*$`).FindAllString(string(status), -1)
	collections := regexp.MustCompile(`(?m)^gc .*$`).FindAllString(p.stderr.text(), -1)
	return strings.Join(append(said, collections[max(0, len(collections)-1):]...), "\n")
}
