package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/vantrexia/vantrexia/devstack"
	"github.com/vantrexia/vantrexia/ecw"
)

// run is what all contenders have in common.
type run struct {
	root    string // of the repository
	self    string // path of this binary, which plays the contenders' roles as well
	dir     string // takes data and logs, on a disk
	keyFile string // of the key that signs assertions
	jwks    []byte
	sent    atomic.Int64 // readings made so far: each is another one

	postgresVersion string // of the last that was started
}

// newRun makes the directory and the key.
func newRun(dir string) (*run, error) {
	root, err := devstack.Root()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}

	key, err := ecw.GenerateKey(keyID)
	if err != nil {
		return nil, err
	}
	text, err := key.PEM()
	if err != nil {
		return nil, err
	}
	r := &run{root: root, self: self, dir: dir, keyFile: filepath.Join(dir, "ecw.pem")}
	if r.jwks, err = ecw.PublicJWKS(key); err != nil {
		return nil, err
	}
	return r, os.WriteFile(r.keyFile, text, 0o600)
}

// nextReading makes a reading that was not made before.
func (r *run) nextReading(patients []string) reading {
	return nthReading(int(r.sent.Add(1)), patients)
}

func (r *run) bin(name string) string { return filepath.Join(r.root, "bin", name) }

// program is a process that a stack started.
type program interface {
	PID() int
	Stop() error
	Done() <-chan struct{}
}

// part is a program with its name in the tables.
type part struct {
	name string
	program
}

// ehrPart is the sandbox's name among the parts. What it costs is no cost of a contender.
const ehrPart = "EHR"

// stack is what a contender runs on: a PostgreSQL and a sandbox EHR of its own, and its processes.
type stack struct {
	*run
	name  string
	dir   string
	ports map[string]int

	ehrPerMinute, ehrPatients int      // of the sandbox, 0 is its default
	settings                  []string // of our own binary, beside those that it takes to find its neighbours

	postgres  *devstack.Postgres
	database  *database
	ehr       *ehr
	parts     []part // in the order of their start, PostgreSQL is not among them
	temporal  string // its address, "" without one
	namespace string
	files     []string // beside PostgreSQL's, that take what it stores

	url, token string   // of the intake
	patients   []string // as the intake calls them
	workflowID string   // format, of the workflow of a reading; "" without one
}

// newStack makes a place for the contender of that name.
func newStack(r *run, name string) (*stack, error) {
	s := &stack{run: r, name: name, dir: filepath.Join(r.dir, name)}
	err := os.Mkdir(s.dir, 0o711) // PostgreSQL may run in another account than ours
	if errors.Is(err, os.ErrExist) {
		err = nil
	}
	return s, err
}

func (s *stack) address(port string) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.ports[port]))
}

// startBase starts PostgreSQL, as Debian sets it up and with fsync, and the sandbox EHR.
func (s *stack) startBase(ctx context.Context) (err error) {
	names := slices.Concat([]string{"postgres", "ehr", "intake", "redis"}, devstack.TemporalServerPorts())
	if s.ports, err = devstack.ChoosePorts(names...); err != nil {
		return err
	}
	s.parts, s.files = nil, nil

	s.postgres, err = devstack.StartPostgres(ctx, devstack.PostgresConfig{
		Dir:     filepath.Join(s.dir, "postgres"),
		Port:    s.ports["postgres"],
		Durable: true,
		Install: true,
		Output:  os.Stderr,
	})
	if err != nil {
		return err
	}
	if err := s.postgres.CreateDatabase(ctx, "bench"); err != nil {
		return err
	}
	if s.database, err = openDatabase(ctx, s.postgres); err != nil {
		return err
	}
	return s.startEHR(ctx)
}

func (s *stack) startEHR(ctx context.Context) error {
	s.ehr = &ehr{url: "http://" + s.address("ehr"), stored: map[string]time.Time{}}
	s.patients = nil
	for _, p := range people(s.ehrPatients) {
		s.patients = append(s.patients, p.FHIRID)
	}
	return s.startSelf(ctx, ehrPart, "ehr", s.ehr.url+"/bench/jwks.json", ehrConfig{
		Address:   s.address("ehr"),
		JWKS:      s.jwks,
		PerMinute: s.ehrPerMinute,
		Patients:  s.ehrPatients,
	})
}

// startRole starts a contender that is a role of this binary, with its intake.
func (s *stack) startRole(ctx context.Context, role string) error {
	cfg := roleConfig{
		Address:     s.address("intake"),
		DatabaseURL: s.postgres.URL("bench"),
		EHR:         s.ehr.url,
		KeyFile:     s.keyFile,
		Temporal:    s.temporal,
		Namespace:   s.namespace,
	}
	s.url = "http://" + s.address("intake")
	return s.startSelf(ctx, role, role, s.url+"/readyz", cfg)
}

// roleSetting is the environment variable that tells a role of this binary its settings, the database's password among them.
const roleSetting = "BENCH_ROLE_CONFIG"

// startSelf starts this binary in a role and returns when ready answers.
func (s *stack) startSelf(ctx context.Context, name, role, ready string, cfg any) error {
	settings, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	cmd := exec.Command(s.self, "role", role)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), roleSetting+"="+string(settings))
	return s.start(ctx, name, cmd, ready)
}

// start starts a process and returns when ready answers. Its output goes to <name>.log.
func (s *stack) start(ctx context.Context, name string, cmd *exec.Cmd, ready string) error {
	p, err := devstack.StartProgram(cmd, filepath.Join(s.dir, name+".log"))
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	s.parts = append(s.parts, part{name, p})
	if ready == "" {
		return nil
	}
	if err := await(ctx, ready, p.Done()); err != nil {
		return p.Explain(fmt.Errorf("start %s: %w", name, err))
	}
	return nil
}

// Send posts the reading.
func (s *stack) Send(ctx context.Context, r reading) (string, error) {
	var stored struct{ ID string }
	err := call(ctx, http.MethodPost, s.url+intakePath, s.token, r, &stored)
	return stored.ID, err
}

// Stop ends the processes from the last to the first, and leaves PostgreSQL.
func (s *stack) Stop() error {
	var errs []error
	for _, p := range slices.Backward(s.parts) {
		errs = append(errs, p.Stop())
	}
	return errors.Join(errs...)
}

// stopPostgres ends PostgreSQL. Its data stays.
func (s *stack) stopPostgres() error {
	if s.database != nil {
		s.database.close()
		s.database = nil
	}
	if s.postgres == nil {
		return nil
	}
	err := s.postgres.Stop()
	s.postgres = nil
	return err
}

// everybody is the parts and PostgreSQL.
func (s *stack) everybody() []part {
	return append(slices.Clone(s.parts), part{"PostgreSQL", s.postgres})
}
