package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// logLine is what these tests read of a line of the log.
type logLine struct {
	Level, Msg, Route string
	HTTPStatus        int `json:"http_status"`
	Stored            *int
}

// troubles returns the lines of the log after its first `since` bytes that are above info, or that report a
// caller who hung up.
func (s *system) troubles(tb testing.TB, since int) (lines []logLine) {
	tb.Helper()
	for text := range strings.Lines(s.log.text()[since:]) {
		var line logLine
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			tb.Fatal(err)
		}
		if line.Level != "INFO" || line.Msg == wentAway {
			lines = append(lines, line)
		}
	}
	return lines
}

const wentAway = "the caller went away before the answer"

// hangUp sends a request, closes its connection as soon as now reports that it is time, calls gone, and returns
// when the API has noticed.
func (s *system) hangUp(tb testing.TB, method, path, body string, now func() bool, gone func()) {
	tb.Helper()
	before := len(s.log.text())
	ctx, cancel := context.WithCancel(tb.Context())
	req, err := http.NewRequestWithContext(ctx, method, s.base+path, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}

	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+s.token)
	ended := make(chan error, 1)
	go func() {
		res, err := s.client.Do(req)
		if err == nil {
			_ = res.Body.Close()
			err = fmt.Errorf("it was answered with %s", res.Status)
		}
		ended <- err
	}()

	eventually(tb, "time to hang up", now)
	cancel()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "context canceled") {
		tb.Fatalf("the request was not cut off: %v", err)
	}
	gone()

	eventually(tb, "noticed", func() bool { return strings.Contains(s.log.text()[before:], wentAway) })
}

// A gateway that hangs up is no failure of ours: the log has one line at info, and stored readings are
// delivered.
func TestHangUpInTheMiddleOfABatch(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	readings := mostlyLater(s.patient(kevin))
	before := len(s.log.text())
	tx := s.hold(t, readings[5]) // for which the first chunk waits
	s.hangUp(t, "POST", batchPath, batch(readings), func() bool { return blocks(t, tx) }, func() {
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	})

	stored := s.rows("observations")
	if stored != firstReadings {
		t.Fatalf("%d readings are stored, want the work to stop after the first chunk", stored)
	}
	s.awaitDelivered(stored)
	lines := s.troubles(t, before)
	if len(lines) != 1 {
		t.Fatalf("%d lines are logged, want one: %+v", len(lines), lines[:min(len(lines), 3)])
	}

	if got := lines[0]; got.Level != "INFO" || got.HTTPStatus != 499 || got.Stored == nil || *got.Stored != stored {
		t.Errorf("%+v is logged, want that %d readings are stored", got, stored)
	}

	rest := s.do("POST", batchPath, batch(append(readings[:stored:stored], readings[200]))).want(t, http.StatusOK, "")
	if rest.get("existing") != number(fmt.Sprint(stored)) || rest.get("created") != number("1") {
		t.Errorf("the batch again: created %v, existing %v", rest.get("created"), rest.get("existing"))
	}
}

// A caller hangs up while its request waits for a row that is locked.
func TestHangUpOfASingleRequest(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient("")
	tx, err := s.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	if _, err := tx.Exec(t.Context(), "LOCK patients"); err != nil {
		t.Fatal(err)
	}

	for _, request := range [][3]string{
		{"POST", "/api/v1/observations/", weight(patient)},
		{"POST", batchPath, batch(weights(patient, 2))},
		{"PATCH", "/api/v1/patients/" + patient + "/", `{"phone":"5"}`},
		{"GET", "/api/v1/patients/", ""},
	} {
		t.Run(request[0]+" "+request[1], func(t *testing.T) {
			eventually(t, "over with the one before", func() bool { return !blocks(t, tx) })
			before := len(s.log.text())
			s.hangUp(t, request[0], request[1], request[2], func() bool { return blocks(t, tx) }, func() {})
			lines := s.troubles(t, before)
			if len(lines) != 1 || lines[0].Level != "INFO" || lines[0].HTTPStatus != 499 {
				t.Errorf("%+v is logged", lines)
			}
		})
	}
}
