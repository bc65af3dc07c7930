package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vantrexia/vantrexia/devstack"
	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

// ours is our own binary as it is installed: `vantrexia migrate`, then `vantrexia serve`.
type ours struct {
	*stack
	embedded bool        // the Temporal that `make run` has, in the place of the server on PostgreSQL
	imported timedImport // at the start

	firstPatients int // how many are imported at the start, 0 is all that the sandbox has by itself
}

func newOurs(s *stack) system { return &ours{stack: s} }

func newOursDev(s *stack) system { return &ours{stack: s, embedded: true} }

// ourPart is the name of our process.
const ourPart = "vantrexia"

// noLimit is a request limit that no machine reaches here, as `make run` has it with its sandbox.
const noLimit = "ECW_RATE_LIMIT=60000"

func (o *ours) Start(ctx context.Context) error {
	if err := o.startBase(ctx); err != nil {
		return err
	}
	if err := o.startTemporal(ctx, o.embedded); err != nil {
		return err
	}

	v := devstack.Vantrexia{
		Binary: o.bin("vantrexia"),
		Dir:    o.dir,
		Settings: append([]string{
			"DATABASE_URL=" + o.postgres.URL("bench"),
			"TEMPORAL_ADDRESS=" + o.temporal,
			"TEMPORAL_NAMESPACE=" + o.namespace,
			"API_ADDRESS=" + o.address("intake"),
			"API_TOKEN_SECRET=" + strings.Repeat("s", 32),
			"API_INGESTION_LIMIT=0", // one caller sends all
			"API_CALLER_LIMIT=0",
			"API_CONNECTIONS_PER_ADDRESS=1000",
			"ECW_CLIENT_ID=" + clientID,
			"ECW_PRACTICE_CODE=" + practice,
			"ECW_PRIVATE_KEY_FILE=" + o.keyFile,
			"ECW_KEY_ID=" + keyID,
			"ECW_TOKEN_URL=" + o.ehr.url + sandbox.TokenPath,
			"ECW_FHIR_BASE_URL=" + o.ehr.url + sandbox.FHIRPath + practice,
			noLimit,
		}, o.settings...),
	}
	if _, err := os.Stat(filepath.Join(o.dir, ".local", "keyring.json")); errors.Is(err, fs.ErrNotExist) { // the first turn
		if _, err := v.Output(ctx, "keys", "create"); err != nil {
			return err
		}
	}
	if _, err := v.Output(ctx, "migrate"); err != nil {
		return err
	}
	token, err := v.Output(ctx, "token", "--role", "admin", "--ttl", "2h")
	if err != nil {
		return err
	}

	program, err := v.Start(ourPart, "serve")
	if err != nil {
		return err
	}
	o.parts = append(o.parts, part{ourPart, program})
	o.url, o.token, o.workflowID = "http://"+o.address("intake"), token, "transmission/%s"
	if err := await(ctx, o.url+"/readyz", program.Done()); err != nil {
		return program.Explain(fmt.Errorf("vantrexia serve: %w", err))
	}

	o.imported, err = o.timeImport(ctx, o.firstPatients)
	return err
}

// timedImport is what an import took.
type timedImport struct {
	seconds  float64
	requests int
}

// timeImport imports patients, and sends readings of theirs from then on: 0 is those that the sandbox has by itself, and of
// more than those only the others are imported.
func (o *ours) timeImport(ctx context.Context, count int) (t timedImport, err error) {
	whom := people(count)
	if count > len(people(0)) {
		whom = whom[len(people(0)):]
	} else {
		o.patients = nil
	}
	before, _, err := o.ehr.requests(ctx)
	if err != nil {
		return t, err
	}
	began := time.Now()
	ids, err := o.importPatients(ctx, whom)
	if err != nil {
		return t, err
	}
	t.seconds = time.Since(began).Seconds()
	o.patients = append(o.patients, ids...)
	after, _, err := o.ehr.requests(ctx)
	t.requests = after - before
	return t, err
}

// people are the sandbox's patients, 0 is as many as it has by itself.
func people(count int) []sandbox.Person { return sandbox.Crowd(cmp.Or(count, len(sandbox.People()))) }

// importPatients imports patients and returns their ids, when the import has ended.
func (o *ours) importPatients(ctx context.Context, whom []sandbox.Person) ([]string, error) {
	var asked struct {
		IDs []string `json:"ecw_patient_ids"`
	}
	for _, p := range whom {
		asked.IDs = append(asked.IDs, p.FHIRID)
	}
	// An import that is done soon is answered with its result, a longer one with the place to ask.
	type result struct {
		Patients []struct {
			ID string `json:"vantrexia_id"`
		} `json:"patients"`
	}
	var answer struct {
		result
		ID     string
		Result *result
	}
	if err := call(ctx, http.MethodPost, o.url+"/api/v1/patients/import_selected_from_ecw/", o.token, asked, &answer); err != nil {
		return nil, err
	}
	for answer.ID != "" && answer.Result == nil {
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
		if err := call(ctx, http.MethodGet, o.url+"/api/v1/patients/imports/"+answer.ID+"/", o.token, nil, &answer); err != nil {
			return nil, err
		}
	}

	done := answer.result
	if answer.Result != nil {
		done = *answer.Result
	}
	var ids []string
	for _, p := range done.Patients {
		ids = append(ids, p.ID)
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("none of %d patients was imported: %+v", len(whom), answer)
	}
	return ids, nil
}

// startTemporal starts the server on PostgreSQL that production has, or the embedded one that `make run` has.
func (s *stack) startTemporal(ctx context.Context, embedded bool) error {
	if embedded {
		dir := filepath.Join(s.dir, "temporal")
		server, err := devstack.StartTemporal(ctx, devstack.TemporalConfig{
			Binary:     s.bin("temporaldev"),
			Dir:        dir,
			Port:       s.ports[devstack.TemporalFrontend],
			Headless:   true,
			Namespaces: []string{"default"},
		})
		if err != nil {
			return err
		}
		s.parts = append(s.parts, part{temporalPart, server})
		s.temporal, s.namespace, s.files = server.Address(), "default", []string{filepath.Join(dir, "temporal.db*")}
		return nil
	}

	server, err := devstack.StartTemporalServer(ctx, devstack.TemporalServerConfig{
		Root:     s.root,
		Dir:      s.dir,
		Postgres: s.postgres,
		Ports:    s.ports,
	})
	if server != nil {
		s.parts = append(s.parts, part{temporalPart, server})
	}
	s.temporal, s.namespace = s.address(devstack.TemporalFrontend), "vantrexia"
	return err
}

// temporalPart is the name of Temporal's process, whichever it is.
const temporalPart = "Temporal"

func temporalMissing(r *run) string {
	return missingBinaries(r, "vantrexia", "temporal-server", "temporal-sql-tool")
}

func temporalDevMissing(r *run) string { return missingBinaries(r, "vantrexia", "temporaldev") }

func missingBinaries(r *run, names ...string) string {
	var missing []string
	for _, name := range names {
		if _, err := os.Stat(r.bin(name)); err != nil {
			missing = append(missing, "bin/"+name)
		}
	}
	if missing == nil {
		return ""
	}
	return "`make " + strings.Join(missing, " ") + "`"
}

// pause waits, or returns an error earlier when ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
