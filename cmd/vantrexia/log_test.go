package main

import (
	"bytes"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestLogLinesHaveTheTutorialsForm: what `docker compose logs backend | grep ecw_sync` is promised to show.
func TestLogLinesHaveTheTutorialsForm(t *testing.T) {
	t.Parallel()
	for want, write := range map[string]func(*slog.Logger){
		"INFO vantrexia: API listening address=127.0.0.1:8000": func(l *slog.Logger) { l.Info("API listening", "address", "127.0.0.1:8000") },
		"INFO ecw_sync: eCW response: 201 Created, FHIR Observation ID: obs-fhir-98765": func(l *slog.Logger) {
			l.With("component", "ecw_sync").Info("eCW response: 201 Created, FHIR Observation ID: obs-fhir-98765")
		},
		`WARN api: no answer practice=FFHEDD error="not reached"`: func(l *slog.Logger) {
			l.With("component", "api", "practice", "FFHEDD").Warn("no answer", "error", errors.New("not reached"))
		},
		`ERROR vantrexia: "two\nlines" http.status=503 http.component=inner`: func(l *slog.Logger) {
			l.WithGroup("http").With("status", 503, "component", "inner").Error("two\nlines")
		},
	} {
		var out bytes.Buffer
		write(slog.New(newLineHandler(&out, slog.LevelInfo)))
		head := regexp.MustCompile(`^\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\] (.*)\n$`).FindStringSubmatch(out.String())
		if head == nil || head[2] != want {
			t.Errorf("got %q, want %q", out.String(), want)
			continue
		}
		if at, err := time.Parse(time.DateTime, head[1]); err != nil || time.Since(at) > time.Minute || time.Until(at) > time.Minute {
			t.Errorf("the time %s is not now in UTC", head[1])
		}
	}
}

func TestLogLinesOfManyDoNotMix(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(newLineHandler(&out, slog.LevelInfo))
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { log.With("component", "ecw_sync", "a", 1).Info("message", "b", 2) })
	}

	all.Wait()
	log.Debug("below the level")
	if n := strings.Count(out.String(), "INFO ecw_sync: message a=1 b=2\n"); n != 20 || strings.Count(out.String(), "\n") != 20 {
		t.Errorf("%d whole lines of 20:\n%s", n, out.String())
	}
}
