package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/devstack"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/ecw/sandbox"
	"github.com/vantrexia/vantrexia/proof"
)

// How the sandbox EHR knows us.
const (
	clientID = "vantrexia-sandbox-client"
	practice = "FFHEDD"
	keyFile  = "ecw.pem"
	keyID    = "chaos-key"
)

// retryDelays are short, and many enough that a reading outlasts a run of faults.
const retryDelays = "1s,2s,3s,5s,8s,8s,8s,8s,8s,8s,8s,8s"

// system is everything that runs: two servers, and three roles of the binary as processes of their own.
type system struct {
	vantrexia      devstack.Vantrexia
	temporalBinary string
	dir            string
	log            *slog.Logger
	ports          map[string]int
	parts          map[string]*part
	order          []*part // of their start
}

const sandboxPart = "sandbox"

// startSystem starts everything in dir and returns when it is ready for readings. stop must be called, after an error too.
func startSystem(ctx context.Context, cfg config, dir string, log *slog.Logger) (*system, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s := &system{temporalBinary: cfg.TemporalBinary, dir: dir, log: log, parts: map[string]*part{}}
	s.vantrexia = devstack.Vantrexia{Binary: cfg.Binary, Dir: dir}
	var err error
	if s.ports, err = devstack.ChoosePorts(postgresPart, temporalPart, apiPart, sandboxPart); err != nil {
		return s, err
	}
	if err := s.startServers(ctx); err != nil {
		return s, err
	}
	for _, args := range [][]string{{"keys", "generate", "--out", keyFile, "--kid", keyID}, {"migrate"}} {
		if _, err := s.vantrexia.Output(ctx, args...); err != nil {
			return s, err
		}
	}
	for _, role := range []string{sandboxPart, apiPart, workerPart} {
		if err := s.keep(ctx, role, s.role(role)); err != nil {
			return s, err
		}
	}
	return s, s.awaitReady(ctx)
}

// startServers starts PostgreSQL and Temporal. Neither syncs to the disk, as only processes die here.
func (s *system) startServers(ctx context.Context) error {
	var database string
	err := s.keep(ctx, postgresPart, func(ctx context.Context) (running, error) {
		server, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{Dir: filepath.Join(s.dir, postgresPart), Port: s.ports[postgresPart], Install: true})
		if err != nil {
			return nil, err
		}
		if database == "" {
			if err := server.CreateDatabase(ctx, "vantrexia"); err != nil {
				return nil, errors.Join(err, server.Stop())
			}
			database = server.URL("vantrexia")
		}
		return server, nil
	})
	if err != nil {
		return err
	}
	s.vantrexia.Settings = s.environment(database)
	return s.keep(ctx, temporalPart, func(ctx context.Context) (running, error) {
		server, err := devstack.StartTemporal(ctx, devstack.TemporalConfig{
			Binary: s.temporalBinary, Dir: filepath.Join(s.dir, temporalPart), Port: s.ports[temporalPart], Headless: true,
		})
		if err != nil { // never a typed nil
			return nil, err
		}
		return server, nil
	})
}

// environment is what every role of the binary is told.
func (s *system) environment(database string) []string {
	return []string{
		"DATABASE_URL=" + database, "TEMPORAL_ADDRESS=" + s.address(temporalPart), "API_ADDRESS=" + s.address(apiPart),
		"API_TOKEN_SECRET=" + strings.Repeat("chaos", 8), "LOG_FORMAT=json", "RETRY_DELAYS=" + retryDelays,
		"SANDBOX_ADDRESS=" + s.address(sandboxPart), "SANDBOX_DATA_DIR=" + filepath.Join(s.dir, sandboxPart), "SANDBOX_JWKS_URL=" + s.url(apiPart) + "/.well-known/jwks.json",
		"ECW_CLIENT_ID=" + clientID, "ECW_PRACTICE_CODE=" + practice, "ECW_PRIVATE_KEY_FILE=" + keyFile, "ECW_KEY_ID=" + keyID,
		"ECW_TOKEN_URL=" + s.url(sandboxPart) + sandbox.TokenPath, "ECW_FHIR_BASE_URL=" + s.url(sandboxPart) + sandbox.FHIRPath + practice, "ECW_TIMEOUT=3s",
	}
}

func (s *system) address(name string) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.ports[name]))
}

func (s *system) url(name string) string { return "http://" + s.address(name) }

func (s *system) keep(ctx context.Context, name string, start func(context.Context) (running, error)) error {
	p, err := keep(ctx, s.log, name, start)
	if err != nil {
		return err
	}
	s.parts[name], s.order = p, append(s.order, p)
	return nil
}

// role starts "vantrexia api" and the like.
func (s *system) role(name string) func(context.Context) (running, error) {
	return func(context.Context) (running, error) {
		p, err := s.vantrexia.Start(name, name)
		if err != nil { // never a typed nil
			return nil, err
		}
		return p, nil
	}
}

// awaitReady asks until the API reaches both servers.
func (s *system) awaitReady(ctx context.Context) error {
	for {
		var answer struct{ Status string }
		err := proof.Call(ctx, http.MethodGet, s.url(apiPart)+"/readyz", "", nil, &answer)
		if err == nil && answer.Status == "ready" {
			return nil
		}
		pause(ctx, 100*time.Millisecond)
		if ctx.Err() != nil {
			return fmt.Errorf("the system does not get ready: %w", ctx.Err())
		}
	}
}

func (s *system) addFault(ctx context.Context, f fault) error {
	return proof.Call(ctx, http.MethodPost, s.url(sandboxPart)+"/admin/faults", "", f, nil)
}

func (s *system) clearFaults(ctx context.Context) error {
	return proof.Call(ctx, http.MethodDelete, s.url(sandboxPart)+"/admin/faults", "", nil, nil)
}

// ehr asks the sandbox as eCW would be asked.
func (s *system) ehr() (*ecw.Client, error) {
	key, err := ecw.LoadKeyFile(filepath.Join(s.dir, keyFile), keyID)
	if err != nil {
		return nil, err
	}
	return ecw.New(ecw.Config{
		ClientID: clientID, PracticeCode: practice, AppType: ecw.BackendService, Environment: ecw.Staging, Key: key,
		TokenURL: s.url(sandboxPart) + sandbox.TokenPath, FHIRBaseURL: s.url(sandboxPart) + sandbox.FHIRPath + practice,
	})
}

// witnesses are asked in the end; closeAll ends the connection to Temporal.
func (s *system) witnesses(o proof.Operator) (w proof.Witnesses, closeAll func(), err error) {
	ehr, err := s.ehr()
	if err != nil {
		return w, nil, err
	}
	temporal, err := client.NewLazyClient(client.Options{HostPort: s.address(temporalPart), Logger: s.log})
	if err != nil {
		return w, nil, err
	}
	w = proof.Witnesses{Operator: o, Sandbox: s.url(sandboxPart), EHR: ehr, Temporal: temporal}
	for _, role := range []string{apiPart, workerPart, sandboxPart} {
		w.Processes = append(w.Processes, s.vantrexia.LogFile(role))
	}
	return w, temporal.Close, nil
}

// stop stops everything from the top down, and returns what went wrong with the processes.
func (s *system) stop() (problems []string) {
	for _, p := range slices.Backward(s.order) {
		p.end()
		problems = append(problems, p.problems...)
	}
	return problems
}
