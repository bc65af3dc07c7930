// Package sandbox is a stand-in for the EHR eClinicalWorks (eCW), for development, demonstrations and tests:
// a token endpoint that verifies SMART Backend Services assertions, a FHIR R4 server with Patient and
// Observation, sample patients, a page that shows what arrived, and faults on demand.
//
// It is written from the specifications and from what is publicly known of eCW, and is strict where eCW is
// strict. It shares no code with package ecw, the client, so that each tests the other. Where eCW's behaviour
// is not public, the sandbox makes a choice, and a comment says so. It is not meant for patient data: its
// administration and its page ask for no password.
package sandbox

import (
	"crypto/tls"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config describes one practice of the sandbox and the one app registered with it.
type Config struct {
	ClientID     string // of the registered app; required
	PracticeCode string // last part of the FHIR base URL; required

	// JWKSURL is where the app publishes its public keys; required. They are fetched for token requests and
	// kept for a minute, but fetched again at once for a kid that is not among them.
	JWKSURL string
	// KeysKept makes this an EHR that keeps the keys for so long, also when it is asked for another kid.
	KeysKept time.Duration
	// JWKSTLS is how they are fetched over TLS; nil is Go's default.
	JWKSTLS *tls.Config
	// PublicURL is the address of this server for clients, such as "http://127.0.0.1:8090"; required. The
	// audience of an assertion is PublicURL + TokenPath.
	PublicURL string

	Scopes        []string      // that the app may ask for; default DefaultScopes
	TokenLifetime time.Duration // default 5 minutes
	Patients      int           // how many of Crowd it has; default those of People
	RatePerMinute int           // token and FHIR requests in a clock minute before 429 until its end; 0 = no limit (eCW: 250)

	// DataDir is the folder of observations.ndjson, which keeps the accepted Observations. They are written
	// before the request is answered, and New reads them again. Only one process may use it at a time. Empty
	// means memory only.
	DataDir string

	// IgnoreIfNoneExist makes this an EHR without conditional create: it ignores the header and creates
	// again. A Bundle with a known identifier gets eCW's 201, ALREADY_EXIST.
	IgnoreIfNoneExist bool
	RefuseGlucose     bool // refuse glucose with eCW's 613, as practices of eCW may

	Logger *slog.Logger // default: none

	// Now is the EHR's own clock, which may be wrong on purpose. It dates answers and Observations, and
	// decides when tokens and faults end and when a minute of the limit begins. Delays run on the real clock.
	// Default time.Now.
	Now func() time.Time
}

// TokenPath is the path of the token endpoint.
const TokenPath = "/oauth/oauth2/token"

// FHIRPath is the path of the FHIR base; the practice code follows it.
const FHIRPath = "/fhir/r4/"

// DefaultScopes are those that the app's registration asks for.
func DefaultScopes() []string {
	return []string{"system/Patient.read", "system/Observation.write", "system/Observation.read"}
}

// Server is the sandbox EHR, an http.Handler safe for concurrent use; its caller owns the listener.
type Server struct {
	cfg      Config
	log      *slog.Logger
	now      func() time.Time
	handler  http.Handler
	patients *patients
	store    *store
	tokens   *tokens
	keys     *keySource
	faults   *faults
	limiter  *limiter
	capacity *capacity
	stats    *stats
	pageForm *template.Template

	closing chan struct{} // closed by Close, which ends the waits of slow answers
	close   sync.Once
}

// New checks the configuration, reads the Observations kept in DataDir and returns the server. The error
// names every wrong field.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}

	people, err := allPeople(cfg.Patients)
	if err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}

	s := &Server{
		cfg:      cfg,
		log:      cfg.Logger,
		now:      cfg.Now,
		tokens:   newTokens(),
		keys:     newKeySource(cfg),
		faults:   &faults{},
		limiter:  &limiter{perMinute: cfg.RatePerMinute},
		capacity: newCapacity(),
		stats:    newStats(),
		closing:  make(chan struct{}),
	}

	if s.patients, err = newPatients(people); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	if s.pageForm, err = template.New("page").Parse(pageHTML); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	if s.store, err = openStore(cfg.DataDir, cfg.Now); err != nil {
		return nil, fmt.Errorf("sandbox: DataDir: %w", err)
	}

	s.handler = s.routes()
	return s, nil
}

func (c Config) complete() (Config, error) {
	var errs []error
	if c.ClientID == "" {
		errs = append(errs, errors.New("ClientID is empty; give the id of the registered app"))
	}
	if c.PracticeCode == "" || strings.ContainsAny(c.PracticeCode, "/?# ") {
		errs = append(errs, fmt.Errorf("PracticeCode %q is not a path segment; give one such as FFHEDD", c.PracticeCode))
	}

	for name, value := range map[string]string{"JWKSURL": c.JWKSURL, "PublicURL": c.PublicURL} {
		if u, err := url.Parse(value); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			errs = append(errs, fmt.Errorf("%s %q is not an absolute http or https URL; give one such as http://127.0.0.1:8090", name, value))
		}
	}

	if c.TokenLifetime < 0 {
		errs = append(errs, fmt.Errorf("TokenLifetime %s is negative; use for example 5m", c.TokenLifetime))
	}
	if c.Patients < 0 {
		errs = append(errs, fmt.Errorf("the number of Patients, %d, is negative: 0 takes those of People", c.Patients))
	}
	if c.RatePerMinute < 0 {
		errs = append(errs, fmt.Errorf("RatePerMinute %d is negative; 0 switches the limit off", c.RatePerMinute))
	}
	if len(c.Scopes) == 0 {
		c.Scopes = DefaultScopes()
	}

	for _, scope := range c.Scopes {
		if _, ok := parseScope(scope); !ok {
			errs = append(errs, fmt.Errorf("scope %q in Scopes is not a SMART system scope such as system/Patient.read", scope))
		}
	}

	c.Scopes = slices.Clone(c.Scopes)
	c.PublicURL = strings.TrimRight(c.PublicURL, "/")
	if c.TokenLifetime == 0 {
		c.TokenLifetime = 5 * time.Minute
	}
	if c.Patients == 0 {
		c.Patients = sampleCount + addedCount
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}

	if c.Now == nil {
		c.Now = time.Now
	}

	return c, errors.Join(errs...)
}

// TokenURL is the token endpoint, and the audience that an assertion must name.
func (s *Server) TokenURL() string { return s.cfg.PublicURL + TokenPath }

// FHIRBaseURL is the base of the practice's FHIR resources, without a slash at the end.
func (s *Server) FHIRBaseURL() string { return s.cfg.PublicURL + FHIRPath + s.cfg.PracticeCode }

// ServeHTTP serves everything: the token endpoint, FHIR, /admin/ and the page at /. The header Date has the
// time of Config.Now.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Date", s.now().UTC().Format(http.TimeFormat))
	s.handler.ServeHTTP(w, r)
}

// Close ends the waits of slow answers and closes the file of Observations. A later create is answered with
// 500. Call it before http.Server.Shutdown, which would wait for the slow answers. A second call does
// nothing.
func (s *Server) Close() error {
	var err error
	s.close.Do(func() {
		close(s.closing)
		s.capacity.close()
		s.keys.client.CloseIdleConnections()
		err = s.store.close()
	})
	return err
}

func (s *Server) routes() http.Handler {
	const base = FHIRPath + "{practice}"
	mux := http.NewServeMux()

	mux.Handle("POST "+TokenPath, s.ehr("POST token", opToken, s.token))

	mux.Handle("GET "+base+"/metadata", s.open("GET metadata", s.capability))
	mux.Handle("GET "+base+"/.well-known/smart-configuration", s.open("GET smart-configuration", s.smartConfiguration))

	mux.Handle("GET "+base+"/Patient", s.fhir("GET Patient", opSearch, "Patient", 's', s.searchPatients))
	mux.Handle("GET "+base+"/Patient/{id}", s.fhir("GET Patient/{id}", opRead, "Patient", 'r', s.readPatient))

	mux.Handle("POST "+base+"/Observation", s.fhir("POST Observation", opCreate, "Observation", 'c', s.createObservation))
	mux.Handle("GET "+base+"/Observation", s.fhir("GET Observation", opSearch, "Observation", 's', s.searchObservations))
	mux.Handle("GET "+base+"/Observation/{id}", s.fhir("GET Observation/{id}", opRead, "Observation", 'r', s.readObservation))
	mux.Handle("GET "+base+"/Observation/{id}/_history/{version}",
		s.fhir("GET Observation/{id}/_history/{version}", opRead, "Observation", 'r', s.readObservation))

	for _, path := range []string{base, base + "/{$}"} {
		mux.Handle("POST "+path, s.fhir("POST Bundle", opCreate, "Observation", 'c', s.transaction))
	}

	mux.Handle(base+"/", s.open("other FHIR", s.noSuchInteraction))

	mux.HandleFunc("GET /admin/faults", s.listFaults)
	mux.HandleFunc("POST /admin/faults", s.addFault)
	mux.HandleFunc("DELETE /admin/faults", s.clearFaults)
	mux.HandleFunc("POST /admin/patients", s.putPatient)
	mux.HandleFunc("GET /admin/stats", s.showStats)
	mux.HandleFunc("POST /admin/reset", s.reset)
	mux.HandleFunc("GET /{$}", s.page)

	return mux
}

// fhir makes a handler of a FHIR interaction (a letter of "cruds") with a type of resource. It demands a
// valid token whose scope allows the interaction.
func (s *Server) fhir(route string, op operation, resource string, interaction rune, next endpoint) http.Handler {
	return s.ofPractice(route, op, func(c *call) reply {
		if rep, ok := s.authorize(c, resource, interaction); !ok {
			return rep
		}
		if interaction == 'c' {
			if rep, ok := checkContentType(c); !ok {
				return rep
			}
		}
		return next(c)
	})
}

// open makes a handler of an endpoint below the FHIR base that needs no token.
func (s *Server) open(route string, next endpoint) http.Handler {
	return s.ofPractice(route, opRead, next)
}

func (s *Server) ofPractice(route string, op operation, next endpoint) http.Handler {
	return s.ehr(route, op, func(c *call) reply {
		if c.PathValue("practice") != s.cfg.PracticeCode {
			return problem{status: http.StatusNotFound, code: "not-found", detail: "no practice with this code"}.outcome()
		}
		if accept := c.Header.Get("Accept"); !acceptsJSON(accept) {
			return problem{status: http.StatusNotAcceptable, code: "not-supported", detail: "only application/fhir+json is served"}.outcome()
		}
		return next(c)
	})
}

func acceptsJSON(accept string) bool {
	return accept == "" || strings.Contains(accept, "json") || strings.Contains(accept, "*/*") || strings.Contains(accept, "application/*")
}

func checkContentType(c *call) (reply, bool) {
	mediaType, params, err := mime.ParseMediaType(c.Header.Get("Content-Type"))
	charset := strings.ToLower(params["charset"])
	if err == nil && (mediaType == "application/fhir+json" || mediaType == typeJSON) && (charset == "" || charset == "utf-8") {
		return reply{}, true
	}
	return problem{
		status: http.StatusUnsupportedMediaType,
		code:   "not-supported",
		detail: "Content-Type must be application/fhir+json in UTF-8",
	}.outcome(), false
}
