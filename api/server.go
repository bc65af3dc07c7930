// Package api is the HTTP interface. It stores readings and patients, starts and controls their workflows,
// and shows their state. It answers in JSON, takes every path with or without a trailing slash, and requires
// a bearer token on everything under /api/.
package api

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
	"github.com/vantrexia/vantrexia/health"
	"github.com/vantrexia/vantrexia/payload"
)

// maxBody is the largest request body taken, in the notation of Echo's BodyLimit.
const maxBody = "1M"

// Config is what the API needs to run.
type Config struct {
	Store    *db.Store
	Temporal client.Client
	// TemporalNamespace and TemporalUIURL make links into the Temporal Web UI; an empty URL makes none.
	TemporalNamespace string
	TemporalUIURL     string
	// Payloads opens what Temporal stores, for administrators.
	Payloads payload.Sealing
	// PublicURL is how callers reach the API, without a slash at its end; links in answers begin with it.
	// When it is empty they are paths. The address in the request is not used: a caller or a proxy may write
	// anything there.
	PublicURL string
	EHR       *ecw.Client
	// Asked counts what people have workers ask of eCW; nil: nobody counts. What EHR sends for them, it counts
	// itself.
	Asked *gate.Asked
	// PracticeCode is the eCW practice whose patients and readings this API serves.
	PracticeCode string
	// MRNSystem is the system of the identifier that holds the MRN. When it is empty, the identifier of type
	// MR is taken.
	MRNSystem string
	// JWKS returns the key set that is published now: public keys only.
	JWKS func() []byte
	// Signer checks the bearer tokens.
	Signer *account.Signer
	// TrustedProxies may say who their client is; nobody else is believed.
	TrustedProxies Proxies
	// Limits are how many requests are taken; the zero value has no limit.
	Limits Limits
	// OIDC is the practice's identity provider, without the RedirectURL, which follows from PublicURL. Without an
	// issuer there is none.
	OIDC account.OIDCConfig
	// ImportWait is how long a request waits for its import before it answers 202; 20 s when it is 0.
	ImportWait time.Duration
	// TimeZone is where a day begins and ends.
	TimeZone *time.Location
	Logger   *slog.Logger
}

type server struct {
	Config
	contract *contract
	people   *account.People
	oidc     *account.OIDC // nil: there is no identity provider
	started  time.Time
	probe    *probe
	machines *account.Machines
	limits   limits
	refusals *audit.Refusals
	views    *audit.Recent // whose rows automatic refreshes need not repeat
	migrated atomic.Bool   // the schema is as new as this binary; it never gets older
}

// New returns the API as a handler.
func New(cfg Config) (http.Handler, error) {
	contract, err := loadContract()
	if err != nil {
		return nil, err
	}

	people, err := account.NewPeople(account.Config{
		Store:        cfg.Store,
		PracticeCode: cfg.PracticeCode,
		Signer:       cfg.Signer,
		Logger:       cfg.Logger,
	})
	if err != nil {
		return nil, err
	}

	cfg.ImportWait = cmp.Or(cfg.ImportWait, defaultImportWait)
	s := &server{
		Config:   cfg,
		contract: contract,
		people:   people,
		oidc:     newOIDC(people, cfg),
		started:  time.Now(),
		probe:    &probe{ehr: cfg.EHR},
		machines: account.NewMachines(cfg.Store, cfg.PracticeCode, cfg.Logger),
		limits:   newLimits(cfg.Limits),
		refusals: audit.NewRefusals(cfg.Store, cfg.Logger),
		views:    audit.NewRecent(mostViews),
	}

	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = s.writeError
	e.JSONSerializer = plainJSON{}
	e.IPExtractor = s.TrustedProxies.extractIP // by default Echo believes any header
	e.Pre(middleware.RemoveTrailingSlash())
	e.Use(
		s.keepPublicURL,
		s.secureHeaders,
		s.logRequests,
		middleware.RecoverWithConfig(middleware.RecoverConfig{LogErrorFunc: s.logPanic}),
		s.answerTemporalUI,
		s.limitRequests,
		middleware.BodyLimit(maxBody),
	)

	s.addOpenRoutes(e)
	s.addSignInRoutes(e)
	s.addOIDCRoutes(e)
	s.addRoutes(e)
	return e, nil
}

// addOpenRoutes adds the routes that take no token.
func (s *server) addOpenRoutes(e *echo.Echo) {
	ready := &health.Probe{
		Store:         s.Store,
		Temporal:      s.Temporal,
		Logger:        s.Logger,
		TakesRequests: true,
	}

	take := func(path string, handle echo.HandlerFunc) { e.Match(methodsOf(http.MethodGet), path, handle) }
	take("/healthz", echo.WrapHandler(http.HandlerFunc(ready.ServeHealth)))
	take("/readyz", echo.WrapHandler(http.HandlerFunc(ready.ServeReadiness)))
	take("/.well-known/jwks.json", s.jwks)
	take("/openapi.yaml", s.getContract)
	take("/docs", s.getDocs)
	take("/docs/:file", s.getDocsFile)
}

// addSignInRoutes adds the routes of the API to which nobody has a token yet.
func (s *server) addSignInRoutes(e *echo.Echo) {
	e.POST("/api/v1/auth/login", s.signIn, s.whenMigrated, s.contract.check)
	e.POST("/api/v1/auth/token/refresh", s.refreshTokens, s.whenMigrated, s.contract.check)
}

// addRoutes adds the routes that take a token, with the right that each of them needs.
func (s *server) addRoutes(e *echo.Echo) {
	take := func(method, path string, handle echo.HandlerFunc, right account.Right) {
		e.Match(methodsOf(method), "/api/v1"+path, handle, s.allow(right), s.contract.check)
	}

	take("POST", "/auth/logout", s.signOut, account.OwnAccount)
	take("POST", "/auth/logout/everywhere", s.signOutEverywhere, account.OwnAccount)
	take("GET", "/auth/me", s.getMe, account.OwnAccount)
	take("PATCH", "/auth/me", s.updateMe, account.OwnAccount)
	take("POST", "/auth/me/password", s.changePassword, account.OwnAccount)
	take("POST", "/auth/me/totp", s.offerTOTP, account.OwnAccount)
	take("DELETE", "/auth/me/totp", s.dropTOTP, account.OwnAccount)
	take("POST", "/auth/me/totp/confirm", s.confirmTOTP, account.OwnAccount)
	take("GET", "/users", s.listUsers, account.ManageAccounts)
	take("POST", "/users", s.createUser, account.ManageAccounts)
	take("GET", "/users/events", s.listAccountEvents, account.ManageAccounts)
	take("GET", "/users/:id", s.getUser, account.ManageAccounts)
	take("PATCH", "/users/:id", s.updateUser, account.ManageAccounts)
	take("POST", "/users/:id/reset-password", s.resetPassword, account.ManageAccounts)
	take("POST", "/users/:id/unlock", s.unlockUser, account.ManageAccounts)
	take("DELETE", "/users/:id/totp", s.removeTOTP, account.ManageAccounts)
	take("POST", "/observations", s.createObservation, account.PostReadings)
	take("POST", "/observations/batch", s.createObservations, account.PostReadings)
	take("GET", "/observations/:id", s.getObservation, account.PostReadings)
	for _, d := range doors() {
		take("POST", "/ingestion/"+d.path, s.ingest(d), account.PostReadings)
	}
	take("POST", "/patients", s.createPatient, account.ChangePatients)
	take("GET", "/patients", s.listPatients, account.SeePatients)
	take("POST", "/patients/search", byBody(s.listPatients), account.SeePatients)
	take("GET", "/patients/:id", s.getPatient, account.SeePatients)
	take("PATCH", "/patients/:id", s.updatePatient, account.ChangePatients)
	take("POST", "/patients/:id/archive", s.archivePatient, account.ChangePatients)
	take("POST", "/patients/:id/unarchive", s.unarchivePatient, account.ChangePatients)
	take("GET", "/patients/:id/sync-status", s.getSyncStatus, account.SeePatients)
	take("POST", "/patients/import_selected_from_ecw", s.importPatients, account.ImportPatients)
	take("GET", "/patients/imports/:id", s.getImport, account.ImportPatients)
	take("POST", "/ecw/test/jwt", s.testJWT, account.TestConnection)
	take("POST", "/ecw/test/connection", s.testConnection, account.TestConnection)
	take("GET", "/ecw/patients", s.listECWPatients, account.ImportPatients)
	take("POST", "/ecw/patients/search", byBody(s.listECWPatients), account.ImportPatients)
	take("GET", "/fhir/observations/:id", s.getFHIRObservation, account.SeePatients)
	take("POST", "/fhir/observations/:id/transform", s.transformObservation, account.SteerDeliveries)
	take("POST", "/fhir/observations/:id/transmit", s.transmitObservation, account.SteerDeliveries)
	take("POST", "/fhir/observations/:id/cancel", s.cancelObservation, account.SteerDeliveries)
	take("GET", "/api-keys", s.listKeys, account.ManageAccounts)
	take("POST", "/api-keys", s.createKey, account.ManageAccounts)
	take("GET", "/api-keys/:id", s.getKey, account.ManageAccounts)
	take("DELETE", "/api-keys/:id", s.revokeKey, account.ManageAccounts)
	take("POST", "/tokens/revoke", s.revokeToken, account.ManageAccounts)
	take("POST", "/fhir/process-pending", s.processPending, account.SweepPending)
	take("POST", "/temporal/decode", s.decodePayloads, account.DecodeHistories)
	take("GET", "/audit", s.listAuditEvents, account.SeeAudit)
	take("GET", "/audit/export", s.exportAuditEvents, account.SeeAudit)
	take("GET", "/fhir/status", s.getStatus, account.SeeDeliveries)
	take("GET", "/fhir/transmissions", s.listTransmissions, account.SeeDeliveries)
	take("GET", "/fhir/transmissions/:id", s.getTransmission, account.SeeDeliveries)
}

// methodsOf are the methods that are answered as one: a server that has GET has HEAD too (RFC 9110 §9.1), for
// which net/http leaves the body out.
func methodsOf(method string) []string {
	if method == http.MethodGet {
		return []string{http.MethodGet, http.MethodHead}
	}
	return []string{method}
}

// whenMigrated answers 503 until the schema is as new as this binary. The first processes of an upgrade may
// start before its migration, and must not write what the old schema cannot hold.
func (s *server) whenMigrated(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if err := s.checkMigrated(c.Request().Context()); err != nil {
			return err
		}
		return next(c)
	}
}

func (s *server) checkMigrated(ctx context.Context) error {
	if s.migrated.Load() {
		return nil
	}

	err := s.Store.CheckMigrated(ctx)
	if errors.Is(err, db.ErrMigrationsPending) {
		answer := databaseUnavailable()
		answer.Detail = "The database waits for `vantrexia migrate`. Nothing was stored. Send the request again in a moment."
		return answer
	}
	if err != nil {
		return err
	}

	s.migrated.Store(true)
	return nil
}

// logRequests writes one line for each request. It names the route's pattern, never the path or the body,
// because these may name a person.
func (s *server) logRequests(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		start := time.Now()
		err := next(c)
		if err != nil {
			c.Error(err)
		}
		s.Logger.DebugContext(c.Request().Context(), "request",
			"method", c.Request().Method, "route", c.Path(), "http_status", c.Response().Status, "duration", time.Since(start))
		return nil
	}
}

func (s *server) logPanic(c echo.Context, err error, stack []byte) error {
	s.Logger.ErrorContext(c.Request().Context(), "handler panicked", "route", c.Path(), "error", err, "stack", string(stack))
	return err
}
