package worker_test

import (
	"bytes"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

// PostgreSQL does what a first delivery asks for, and its answer is lost with the connection.
func TestAFirstDeliveryToWhichTheDatabaseDoesNotAnswer(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		query, statement string
		prepare          func(*rig)
	}{
		"when it begins with a pass":      {"beginDelivery", "commit", (*rig).manyPlaces},
		"before it begins with a pass":    {"beginDelivery", "addAuditEvent", (*rig).manyPlaces},
		"when it begins":                  {"MarkSent", "commit", (*rig).onePlace},
		"when it is recorded":             {"RecordDelivered", "commit", (*rig).manyPlaces},
		"when it is about to be recorded": {"RecordDelivered", "", (*rig).manyPlaces},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{ignoreIfNoneExist: true, idle: true, delays: soon(), timeout: time.Second})
			cut := r.cutAnswer(test.query, test.statement)
			r.worker = r.startWorker(r.temporal)
			r.authenticate()
			test.prepare(r)
			id := r.storeReading(fhir.BloodPressure, bloodPressure)
			run := r.start(id)
			r.mustDeliver(run)
			r.wantOnce(id)
			r.checkDelivered(id, r.transmission(id), 1)
			r.wantOneSuccess(id)
			r.wantTrail()
			if !cut.Load() {
				t.Error("no answer was lost")
			}
		})
	}
}

// cutAnswer puts a proxy before the database of the worker to come. It cuts a connection once: after the server has done the
// statement that follows the query with the given name, or the first that has the given text after it.
func (r *rig) cutAnswer(query, statement string) *atomic.Bool {
	r.t.Helper()
	target := must(url.Parse(r.sql.Config().ConnString()))(r.t)
	server := target.Host
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(r.t)
	r.t.Cleanup(func() { _ = listener.Close() })
	target.Host = listener.Addr().String()

	cut := &atomic.Bool{}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go cutOnce(client, server, "-- name: "+query+" ", statement, cut)
		}
	}()
	r.store = must(db.Open(r.t.Context(), target.String(), keyringtest.Shared()))(r.t)
	r.t.Cleanup(r.store.Close)
	return cut
}

func cutOnce(client net.Conn, address, query, statement string, cut *atomic.Bool) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()

	var last atomic.Bool // the next answer is lost
	go func() {
		defer func() { _ = client.Close() }()
		buffer := make([]byte, 1<<16)
		for {
			n, err := server.Read(buffer)
			if err != nil || last.Load() {
				return
			}
			if _, err := client.Write(buffer[:n]); err != nil {
				return
			}
		}
	}()

	buffer, seen := make([]byte, 1<<16), false
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		if seen && bytes.Contains(buffer[:n], []byte(statement)) && cut.CompareAndSwap(false, true) {
			last.Store(true)
		}
		seen = seen || bytes.Contains(buffer[:n], []byte(query))
		if _, err := server.Write(buffer[:n]); err != nil {
			return
		}
	}
}
