package worker_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/proto"

	"github.com/vantrexia/vantrexia/ecw/sandbox"
	"github.com/vantrexia/vantrexia/fhir"
)

func ecwPatientID() string { return sandbox.People()[0].FHIRID }

// wiretap keeps what the EHR was sent.
type wiretap struct {
	mu      sync.Mutex
	bodies  strings.Builder
	secrets map[string]string // access tokens and assertions, with a name for messages
}

func (w *wiretap) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		req.Body = io.NopCloser(bytes.NewReader(body))
		w.keep(req, body)
		next.ServeHTTP(rw, req)
	})
}

func (w *wiretap) keep(req *http.Request, body []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bodies.Write(body)
	if token, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer "); ok {
		w.secrets[token] = "an access token"
	}
	if form, err := url.ParseQuery(string(body)); err == nil && form.Has("client_assertion") {
		w.secrets[form.Get("client_assertion")] = "a client assertion"
	}
}

// logBook is a log that may be written from anywhere.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBook) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(line)
}

// lines are the log's lines at debug level, and those above.
func (b *logBook) lines(t *testing.T) (debug, info string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range strings.Lines(b.text.String()) {
		var head struct{ Level slog.Level }
		if err := json.Unmarshal([]byte(line), &head); err != nil {
			t.Fatal(err)
		}
		if head.Level < slog.LevelInfo {
			debug += line
		} else {
			info += line
		}
	}
	return debug, info
}

// rawHistory is a run's whole history with its payloads as they are, not in base64, and once more opened.
func (r *rig) rawHistory(run client.WorkflowRun) string {
	r.t.Helper()
	var raw strings.Builder
	for _, event := range r.history(run) {
		raw.Write(must(proto.Marshal(event))(r.t))
		r.openAll(event)
		raw.Write(must(proto.Marshal(event))(r.t))
	}
	return raw.String()
}

func TestNothingOfThePatientStandsInHistoryOrLog(t *testing.T) {
	t.Parallel()
	tap, book := &wiretap{secrets: map[string]string{}}, &logBook{}
	r := newRig(t, setup{watch: tap.wrap, log: slog.NewJSONHandler(book, &slog.HandlerOptions{Level: slog.LevelDebug})})
	patient := r.patient
	var histories strings.Builder

	delivered := r.storeReading(fhir.BloodPressure, `{"systolic": 147.53, "diastolic": 93.27, "heart_rate": 71.64}`)
	run := r.start(delivered)
	r.mustDeliver(run)
	histories.WriteString(r.rawHistory(run))

	// A delivery whose answer is lost, a look-up that breaks off, and one that finds the Observation.
	r.breakEHR(fault{Kind: "reset_after", Target: "create"})
	r.breakEHR(fault{Kind: "reset_after", Target: "search"})
	lost := r.storeReading(fhir.BloodPressure, `{"systolic": 147.53, "diastolic": 93.27}`)
	run = r.start(lost)
	r.awaitRetry(lost)
	r.transmitNow(lost)
	eventually(t, "the outcome of the look-up", func() bool {
		row := r.transmission(lost)
		return len(r.attempts(row.ID)) == 2 && row.NextRetryAt != nil
	})
	r.transmitNow(lost)
	r.mustDeliver(run)
	histories.WriteString(r.rawHistory(run))

	// The EHR's refusals name the patient and the reading in their texts.
	nobody := "ecw-patient-7654321"
	r.relink(&nobody)
	refused := r.storeReading(fhir.BloodPressure, `{"systolic": 147.53}`)
	run = r.start(refused)
	if _, err := r.outcome(run); err == nil {
		t.Fatal("delivered for a patient that the EHR does not know")
	}
	histories.WriteString(r.rawHistory(run))

	key := must(must(sharedKey())(t).PEM())(t)
	keyLine := strings.Split(string(key), "\n")[1]
	personal := map[string]string{
		patient.FirstName: "the first name", patient.LastName: "the last name", patient.MRN: "the MRN", *patient.ExternalID: "the patient's id in eCW",
		nobody: "the wrong patient's id in eCW", patient.DateOfBirth.Format("2006-01-02"): "the birth date",
		"147.53": "the systolic value", "93.27": "the diastolic value", "71.64": "the heart rate", keyLine: "the private key",
	}
	debug, info := book.lines(t)
	tap.mu.Lock()
	defer tap.mu.Unlock()
	for secret, name := range tap.secrets {
		personal[secret] = name
	}
	for text, name := range personal {
		if strings.Contains(histories.String(), text) {
			t.Errorf("the workflow history holds %s", name)
		}
		if strings.Contains(info, text) {
			t.Errorf("the log holds %s:\n%s", name, linesWith(info, text))
		}
	}

	// The test would find nothing in an empty history, in a log that was not kept, or when looking for the wrong things.
	for place, pair := range map[string][2]string{
		"the histories": {histories.String(), lost.String()}, "the log": {info, "Pushed Observation to eCW"}, "the debug log": {debug, patient.MRN + " (systolic: 147.53"},
		"the EHR's mail": {tap.bodies.String(), "147.53"}, "the EHR's  mail": {tap.bodies.String(), *patient.ExternalID},
	} {
		if !strings.Contains(pair[0], pair[1]) {
			t.Errorf("%s lack %q", place, pair[1])
		}
	}
	for _, documented := range []string{ // by the tutorial of the integration, with ids instead of the MRN and the values
		"Pushed Observation to eCW for patient " + patient.ID.String() + " (observation " + delivered.String() + ")",
		"eCW response: 201 Created, FHIR Observation ID: ",
	} {
		if !strings.Contains(info, documented) {
			t.Errorf("the log lacks %q", documented)
		}
	}
	if lines := linesWith(info, delivered.String()); strings.Count(lines, "eCW response") != 1 {
		t.Errorf("a delivery is one answer of eCW in the log:\n%s", lines)
	}
	if len(tap.secrets) < 2 {
		t.Errorf("%d tokens and assertions were seen, want at least two", len(tap.secrets))
	}
}

// linesWith are the lines that hold the text.
func linesWith(log, text string) string {
	var found strings.Builder
	for line := range strings.Lines(log) {
		if strings.Contains(line, text) {
			found.WriteString(line)
		}
	}
	return found.String()
}
