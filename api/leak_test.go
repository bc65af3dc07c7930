package api_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// leakCheck keeps the log of a system, at info level, and what must not stand in it.
type leakCheck struct {
	mu      sync.Mutex
	written bytes.Buffer
	secrets map[string]bool
}

// newLeakCheck fails the test at its end, when everything started later has stopped, if the log holds a
// secret.
func newLeakCheck(tb testing.TB) *leakCheck {
	l := &leakCheck{secrets: map[string]bool{tokenSecret: true}}
	tb.Cleanup(func() {
		for _, leak := range l.leaks() {
			tb.Error(leak)
		}
	})
	return l
}

// logger is for every part of the system: the API, the worker, the eCW client and Temporal's SDK.
func (l *leakCheck) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func (l *leakCheck) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written.Write(line)
}

func (l *leakCheck) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written.String()
}

// secret notes words that must not be logged.
func (l *leakCheck) secret(words ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, word := range words {
		if word != "" {
			l.secrets[word] = true
		}
	}
}

// private lists what no log may hold, for any patient: measurements by name, the readings of these tests
// as numbers of their own, devices, credentials.
var private = regexp.MustCompile(`(?i)systolic|diastolic|heart_rate|\bvalues?\b|BP-OMRON|SCALE-7|bearer |eyJ[A-Za-z0-9_-]{8}|access_token|client_assertion|` +
	`(^|[^0-9A-Za-z._:-])(142|92|78|81\.60?|900)([^0-9A-Za-z.:-]|$)`)

func (l *leakCheck) leaks() (found []string) {
	for line := range strings.Lines(l.text()) {
		if word := private.FindString(line); word != "" {
			found = append(found, fmt.Sprintf("the log holds %q: %s", word, line))
		}
		for word := range l.secrets {
			if strings.Contains(line, word) {
				found = append(found, fmt.Sprintf("the log holds %q: %s", word, line))
			}
		}
	}
	return found
}

// A check that finds nothing in anything would prove nothing.
func TestTheLeakCheckFindsLeaks(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"patient Jane", "MRN-1", "systolic: 120", "the reading 142 is high", `{"value":1}`, "weight 81.6", "Authorization: Bearer x", "eyJhbGciOiJIUzI1NiJ9.e30.x",
	} {
		l := &leakCheck{secrets: map[string]bool{"Jane": true, "MRN-1": true}}
		l.logger().Info(line)
		if len(l.leaks()) == 0 {
			t.Errorf("%q was not found", line)
		}
	}

	l := &leakCheck{secrets: map[string]bool{"Jane": true}}
	l.logger().Info("Pushed Observation to eCW", "http_status", 201, "observation_id", "0b92fd78-1429-4142-8920-78c2c0ffee92")
	if leaks := l.leaks(); len(leaks) > 0 {
		t.Error(leaks)
	}
}
