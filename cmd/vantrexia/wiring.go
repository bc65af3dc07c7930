package main

import (
	"context"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/api"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
	"github.com/vantrexia/vantrexia/keyring"
	"github.com/vantrexia/vantrexia/worker"
)

// dependencies is what the API and the worker both need.
type dependencies struct {
	cfg      config
	log      *slog.Logger
	keys     *keyring.Keyring
	store    *db.Store
	temporal client.Client
	working  *atomic.Bool // set while the worker takes work
}

// close closes the connections that were made.
func (d *dependencies) close() {
	if d.temporal != nil {
		d.temporal.Close()
	}
	if d.store != nil {
		d.store.Close()
	}
}

// newAPI makes the API's handler.
func newAPI(d dependencies) (http.Handler, error) {
	signer, err := d.cfg.signer()
	if err != nil {
		return nil, err
	}

	log := d.log.With("component", "api")
	asked := d.gate(log).Asked()
	keys, err := d.cfg.ecwKeys(log)
	if err != nil {
		return nil, err
	}
	ehr, err := d.cfg.ehr(log, asked, keys)
	if err != nil {
		return nil, err
	}

	zone, err := time.LoadLocation(d.cfg.TimeZone)
	if err != nil {
		return nil, err
	}

	made := d.apiConfig()
	if made.OIDC.ClientSecret, err = d.cfg.OIDC.secret(); err != nil {
		return nil, err
	}
	made.EHR, made.Asked, made.JWKS, made.TimeZone, made.Signer, made.Logger = ehr, asked, keys.jwks, zone, signer, log
	return api.New(made)
}

// apiConfig fills in the fields that come straight from the settings. newAPI adds those that may fail.
func (d dependencies) apiConfig() api.Config {
	return api.Config{
		Store:             d.store,
		Temporal:          d.temporal,
		TemporalNamespace: d.cfg.TemporalNamespace,
		TemporalUIURL:     d.cfg.TemporalUIURL,
		Payloads:          d.cfg.payloads(d.keys),
		PublicURL:         strings.TrimRight(d.cfg.PublicURL, "/"),
		PracticeCode:      d.cfg.ECW.PracticeCode,
		MRNSystem:         d.cfg.ECW.MRNSystem,
		OIDC:              d.cfg.OIDC.forAPI(),
		TrustedProxies:    d.cfg.Door.TrustedProxies,
		Limits: api.Limits{
			Ingestion: d.cfg.Door.Ingestion,
			Callers:   d.cfg.Door.Callers,
			Anonymous: d.cfg.Door.Anonymous,
			SignIn:    d.cfg.Door.SignIn,
		},
	}
}

// gate returns the gate through which every request to the practice's eCW passes.
func (d dependencies) gate(log *slog.Logger) *gate.Gate {
	return gate.New(gate.Config{
		Store:     d.store,
		Practice:  d.cfg.ECW.PracticeCode,
		PerMinute: d.cfg.ECW.RateLimit,
		Parallel:  d.cfg.ECW.Parallel,
		Timeout:   d.cfg.ECW.Timeout,
		FirstWait: d.cfg.RetryDelays[0],
		Call:      worker.Call(d.temporal),
		Logger:    log,
	})
}

func (d dependencies) patientImport(ehr *ecw.Client, entry *gate.Gate, log *slog.Logger) *activities.PatientImport {
	return &activities.PatientImport{
		Store:     d.store,
		EHR:       ehr,
		Gate:      entry,
		MRNSystem: d.cfg.ECW.MRNSystem,
		Parallel:  d.cfg.ImportParallel,
		Start:     worker.Start(d.temporal),
		Logger:    log,
	}
}

func (d dependencies) prune(log *slog.Logger) *activities.Prune {
	return &activities.Prune{
		Store: d.store,
		Keep: activities.Keep{
			IdempotencyKeys: d.cfg.Retain.IdempotencyKeys,
			Imports:         d.cfg.Retain.Imports,
			Attempts:        d.cfg.Retain.Attempts,
			Readings:        d.cfg.Retain.Readings,
			Audit:           d.cfg.Retain.Audit,
		},
		Logger: log,
	}
}

// serveAPI answers requests until ctx ends. It closes the listener.
func serveAPI(ctx context.Context, d dependencies, listener net.Listener) error {
	handler, err := newAPI(d)
	if err != nil {
		return errors.Join(err, listener.Close())
	}

	server := newServer(handler, usualPatience())
	server.ErrorLog = log.New(connectionLog{d.log}, "", 0)
	if server.TLSConfig, err = d.cfg.Door.serverTLS(d.log); err != nil {
		return errors.Join(err, listener.Close())
	}

	d.log.InfoContext(ctx, "API listening", "address", listener.Addr().String(), "tls", server.TLSConfig != nil)
	return serveOn(ctx, limitConnections(listener, d.cfg.Door, d.log), server, d.cfg.DrainTimeout)
}

// runWorker waits for Temporal, and then takes the practice's work until ctx ends.
func runWorker(ctx context.Context, d dependencies) error {
	log := d.log.With("component", "ecw_sync")
	entry := d.gate(log)
	keys, err := d.cfg.ecwKeys(log)
	if err != nil {
		return err
	}
	ehr, err := d.cfg.ehr(log, entry, keys)
	if err != nil {
		return err
	}

	w := worker.New(d.temporal, d.cfg.ECW.PracticeCode, worker.Activities{
		Transmission: &activities.Transmission{
			Store:       d.store,
			EHR:         ehr,
			Gate:        entry,
			RetryDelays: d.cfg.RetryDelays,
			Logger:      log,
		},
		Pending:       &activities.Pending{Store: d.store},
		PatientImport: d.patientImport(ehr, entry, log),
		Circuit:       &activities.Circuit{Store: d.store, Gate: entry},
		Prune:         d.prune(log),
	}, d.cfg.DrainTimeout)

	started := func() {
		d.working.Store(true)
		warnOfOthers(ctx, d, log)
		go worker.SealClear(ctx, d.store, log)
		log.InfoContext(ctx, "worker started", "practice", d.cfg.ECW.PracticeCode, "environment", d.cfg.ECW.Environment)
	}

	err = await(ctx, log, "Temporal", func(ctx context.Context) error { return prepareTemporal(ctx, d) }, refusedByTemporal)
	if ctx.Err() != nil { // stopped before it had started
		return nil
	}
	if err != nil {
		return err
	}

	if err := w.Run(ctx, started); err != nil {
		return temporalError(d.cfg, err)
	}
	return nil
}

// warnOfOthers logs how many readings of other practices wait, because this worker does not take them. That
// happens when ECW_PRACTICE_CODE is changed while readings are under way.
func warnOfOthers(ctx context.Context, d dependencies, log *slog.Logger) {
	others, err := d.store.OpenElsewhere(ctx, d.cfg.ECW.PracticeCode)
	if err != nil {
		log.WarnContext(ctx, "readings of other practices could not be counted", "error", err)
	}
	for _, other := range others {
		log.WarnContext(ctx, "readings of another practice are under way, and wait for a worker with its ECW_PRACTICE_CODE",
			"practice", other.PracticeCode, "readings", other.Open)
	}
}
