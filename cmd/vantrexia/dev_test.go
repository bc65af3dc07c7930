package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/devstack"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/fhir"
)

// TestDevFromTheFirstStartToTheThird is the README's first screen: start, paste the curl, look at the reading
// in all three places, stop with Ctrl-C, start again; and a start after a crash.
func TestDevFromTheFirstStartToTheThird(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	p, s := startDev(t, dir)
	pasted := time.Now()
	id := s.paste(t, dir)
	eventually(t, "the EHR has the reading", func() bool { return s.inEHR(t, dir, id) })
	eventually(t, "Temporal lists the completed workflow", func() bool { return s.workflowCompleted(t, id) })
	t.Logf("delivered %s after the curl", time.Since(pasted).Round(time.Millisecond))
	s.showsFHIR(t, id)
	s.demoAccountsSignIn(t, dir)

	simulated := run(t, dir, nil, "simulate", "--visits", "5", "--url", s.api)
	const first = "19 readings of 1 patient in 5 visits: 19 stored now, 0 stored before; 19 transmitted, 0 failed, 0 waiting\n"
	if got := simulated.stdout.text(); got != first || simulated.stderr.text() != "" {
		t.Errorf("simulate said %q and %q", got, simulated.stderr.text())
	}

	again := run(t, dir, nil, "simulate", "--visits", "5", "--url", s.api)
	if got := again.stdout.text(); got != strings.Replace(first, "19 stored now, 0 stored", "0 stored now, 19 stored", 1) {
		t.Errorf("simulate said the second time %q", got)
	}

	p.signal(t, syscall.SIGINT)
	if code := p.wait(t); code != 0 {
		t.Errorf("Ctrl-C ended it with %d, want 0\n%s", code, p.stderr.text())
	}

	nothingRunsIn(t, dir)
	for _, place := range []string{s.api, s.sandbox, s.ui} {
		portIsFree(t, place)
	}

	p, s = startDev(t, dir)
	s.showsFHIR(t, id)
	s.demoAccountsSignIn(t, dir)
	if !s.inEHR(t, dir, id) || !s.workflowCompleted(t, id) {
		t.Error("the second start has lost the reading of the first")
	}

	p.signal(t, syscall.SIGKILL)
	p.wait(t)

	p, s = startDev(t, dir)
	s.showsFHIR(t, id)
	p.signal(t, syscall.SIGTERM)
	if code := p.wait(t); code != 0 {
		t.Errorf("SIGTERM ended it with %d, want 0\n%s", code, p.stderr.text())
	}

	nothingRunsIn(t, dir)
}

// With a certificate everything on this machine goes on to find the API: the welcome comes when it is ready, the
// sandbox fetches our keys from it, `vantrexia simulate` sends to it and `vantrexia health` asks it.
func TestDevSpeaksTLS(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	_, certFile, keyFile := certificate(t, "rpm.example")
	settings := []string{"API_TLS_CERT=" + certFile, "API_TLS_KEY=" + keyFile}
	_, s := startDev(t, dir, settings...)
	if !strings.HasPrefix(s.api, "https://") || !strings.HasPrefix(s.curl, "curl --cacert "+certFile+" -i "+s.api) {
		t.Errorf("the welcome shows %s and %s", s.api, s.curl)
	}

	settings = append(settings, "API_ADDRESS="+strings.TrimPrefix(s.api, "https://"))
	sent := run(t, dir, settings, "simulate", "--visits", "5", "--url", s.api)
	if got := sent.stdout.text(); !strings.HasSuffix(got, "19 transmitted, 0 failed, 0 waiting\n") {
		t.Errorf("simulate said %q and %q", got, sent.stderr.text())
	}
	mustSay(t, run(t, dir, settings, "health", "--ready"), 0, "")
}

// shown is what the welcome shows.
type shown struct{ api, ui, sandbox, curl, token, patient string }

func startDev(t *testing.T, dir string, more ...string) (*process, shown) {
	t.Helper()
	p := start(t, dir, append(anyPorts(), more...), "dev")
	welcome := p.await(t, &p.stdout, "602 real visits:")
	find := func(pattern string) string {
		m := regexp.MustCompile(pattern).FindStringSubmatch(welcome)
		if m == nil {
			t.Fatalf("no %s in\n%s", pattern, welcome)
		}
		return m[1]
	}
	return p, shown{
		api:     find(`(?m)^  API +(\S+)$`),
		ui:      find(`(?m)^  Temporal Web UI +(\S+)$`),
		sandbox: find(`(?m)^  Sandbox EHR +(\S+)$`),
		curl:    find(`(?s)\n(curl .*?)\n\n`),
		token:   find(`Bearer ([^']+)`),
		patient: find(`"patient_id": "([^"]+)"`),
	}
}

// paste runs the curl and returns the id of the new reading.
func (s shown) paste(t *testing.T, dir string) string {
	t.Helper()
	var stored struct {
		ID string `json:"id"`
	}
	if _, err := exec.LookPath("curl"); err != nil { // then send what it says ourselves
		target := regexp.MustCompile(`http\S+`).FindString(s.curl)
		_, body, _ := strings.Cut(s.curl, "-d '")
		if status := call(t, http.MethodPost, target, s.token, strings.TrimSuffix(body, "'"), &stored); status != http.StatusCreated {
			t.Fatalf("the curl's request gave %d, want 201", status)
		}
		return stored.ID
	}

	cmd := exec.Command("sh", "-c", s.curl)
	cmd.Dir = dir
	answer, err := cmd.Output()
	head, body, _ := strings.Cut(string(answer), "\r\n\r\n")
	if err != nil || !strings.HasPrefix(head, "HTTP/1.1 201 ") || json.Unmarshal([]byte(body), &stored) != nil {
		t.Fatalf("the curl gave (%v)\n%s", err, answer)
	}
	return stored.ID
}

// inEHR reports whether the sandbox EHR finds the reading, when it is asked as the installation asks it.
func (s shown) inEHR(t *testing.T, dir, id string) bool {
	t.Helper()
	ehr, err := devstack.Vantrexia{Dir: dir}.EHR(strings.TrimPrefix(s.sandbox, "http://"))
	if err != nil {
		t.Fatal(err)
	}

	var patient struct {
		ExternalID string `json:"external_id"`
	}

	call(t, http.MethodGet, s.api+"/api/v1/patients/"+s.patient+"/", s.token, "", &patient)
	_, found, err := ehr.FindObservation(t.Context(), ecw.Identifier{System: fhir.IdentifierSystem, Value: id}, patient.ExternalID)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// workflowCompleted asks what the Web UI asks for its list.
func (s shown) workflowCompleted(t *testing.T, id string) bool {
	t.Helper()
	var list struct {
		Executions []struct {
			Status string `json:"status"`
		} `json:"executions"`
	}
	query := url.Values{"query": {`WorkflowId = "transmission/` + id + `"`}}
	call(t, http.MethodGet, s.ui+"/api/v1/namespaces/default/workflows?"+query.Encode(), "", "", &list)
	return len(list.Executions) == 1 && list.Executions[0].Status == "WORKFLOW_EXECUTION_STATUS_COMPLETED"
}

func (s shown) showsFHIR(t *testing.T, id string) {
	t.Helper()
	var resource struct {
		ResourceType string `json:"resourceType"`
		ID           string `json:"id"`
		Component    []any  `json:"component"`
	}
	status := call(t, http.MethodGet, s.api+"/api/v1/fhir/observations/"+id+"/", s.token, "", &resource)
	if status != http.StatusOK || resource.ResourceType != "Observation" || resource.ID != id || len(resource.Component) == 0 {
		t.Errorf("the FHIR view gave %d %+v", status, resource)
	}
}

func portIsFree(t *testing.T, place string) {
	t.Helper()
	u, err := url.Parse(place)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", u.Host)
	if err != nil {
		t.Errorf("%s is not given back: %v", place, err)
		return
	}
	_ = listener.Close()
}
