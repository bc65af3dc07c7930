package api_test

import (
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/devstack"
	"github.com/vantrexia/vantrexia/worker"
)

// startTemporal starts a server of the test's own, which it may stop and start again on the same directory
// and port.
func startTemporal(t *testing.T, dir string, port int) *devstack.Temporal {
	t.Helper()
	root, err := devstack.Root()
	if err != nil {
		t.Fatal(err)
	}

	var server *devstack.Temporal
	eventually(t, "started", func() bool {
		server, err = devstack.StartTemporal(t.Context(), devstack.TemporalConfig{
			Binary:           filepath.Join(root, "bin", "temporaldev"),
			Dir:              dir,
			Port:             port,
			Headless:         true,
			SearchAttributes: searchAttributes(),
		})
		var taken *devstack.PortError // for a moment, by a connection of another test
		if err != nil && !errors.As(err, &taken) {
			t.Fatal(err)
		}
		return err == nil
	})

	t.Cleanup(func() { _ = server.Stop() })
	return server
}

// Every 201 is a promise: readings that come while Temporal is down are in the chart once after it is back.
func TestTemporalIsStoppedAndStartedAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := startTemporal(t, dir, 0)
	s := startWith(t, setup{temporal: server.Address()})
	if err := worker.EnsureSchedules(t.Context(), s.temporal, practice); err != nil {
		t.Fatal(err)
	}

	patient := s.patient(kevin)
	s.await(s.post(weight(patient)), "transmitted")
	s.fault(`{"kind":"reset_after","target":"create"}`)
	waiting := s.post(weight(patient))
	s.await(waiting, "failed") // its wait goes on through the outage

	_, port, err := net.SplitHostPort(server.Address())
	if err != nil {
		t.Fatal(err)
	}

	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}

	var group sync.WaitGroup
	for range 4 {
		group.Go(func() { s.post(weight(patient)) })
	}

	group.Go(func() {
		s.do("POST", batchPath, batch(weights(patient, 3))).want(t, http.StatusOK, "")
	})

	group.Wait()
	if got := s.status(); got.text("status") != "unhealthy" || got.get("queue", "pending") != number("7") {
		t.Errorf("the status meanwhile: %s", got.body)
	}

	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}

	startTemporal(t, dir, n)
	s.exec("UPDATE observations SET created_at = created_at - interval '2 minutes'") // the sweep's grace is over
	sweep := s.temporal.ScheduleClient().GetHandle(t.Context(), "process-pending/"+practice)
	eventually(t, "triggered", func() bool { return sweep.Trigger(t.Context(), client.ScheduleTriggerOptions{}) == nil })
	eventually(t, "taken", func() bool { return s.transmit(waiting).status == http.StatusOK })
	s.awaitDelivered(9)
	if n := s.rows("transmissions"); n != 9 {
		t.Errorf("%d transmissions for 9 readings", n)
	}

	eventually(t, "healthy", func() bool { return s.status().text("status") == "healthy" })
}
