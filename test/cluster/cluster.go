package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/devstack"
	"github.com/vantrexia/vantrexia/test/proof"
)

// How many APIs and workers a cluster has, beside PostgreSQL, Temporal and the sandbox EHR.
const (
	apis    = 2
	workers = 3
)

// The names of the other processes. Ports and log files are found by them.
const (
	postgresName = "postgres"
	temporalName = devstack.TemporalFrontend
	uiName       = "temporal-ui"
	sandboxName  = "sandbox"
)

// namespace is not Temporal's default one, so that `vantrexia migrate` has to create it.
const namespace = "vantrexia"

// config is what a cluster is made of and where.
type config struct {
	root     string   // of the repository: the servers in bin/ and the files in temporal-config/
	dir      string   // takes data and logs
	binary   string   // vantrexia
	settings []string // of every role, beside those that it takes to find each other: "NAME=value"
}

// cluster is everything that runs.
type cluster struct {
	cfg       config
	ports     map[string]int
	postgres  *devstack.Postgres
	temporal  *devstack.Program
	ui        *devstack.Program
	vantrexia devstack.Vantrexia
	runtime   string    // the setting by which APIs and workers find the database, as an account that does not own it
	members   []*member // in the order of their start
}

// member is a role of our binary that runs as a process.
type member struct {
	name, role string
	settings   []string
	program    *devstack.Program
}

// startTimeout bounds the whole start, which usually takes half a minute.
const startTimeout = 3 * time.Minute

// start starts everything, and returns when both APIs are ready. stop must be called, also after an error.
func start(ctx context.Context, cfg config) (*cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()

	c := &cluster{cfg: cfg}
	var err error
	names := slices.Concat([]string{postgresName, uiName, sandboxName}, apiNames(), devstack.TemporalServerPorts())
	if c.ports, err = devstack.ChoosePorts(names...); err != nil {
		return c, err
	}

	if err := c.makeCertificates(ctx); err != nil {
		return c, err
	}

	if err := c.startPostgres(ctx); err != nil {
		return c, err
	}

	if err := c.startTemporal(ctx); err != nil {
		return c, err
	}

	if err := c.startUI(); err != nil {
		return c, err
	}

	if err := c.install(ctx); err != nil {
		return c, err
	}

	for _, m := range c.plan() {
		if err := c.add(m); err != nil {
			return c, err
		}
	}

	for _, name := range apiNames() {
		if err := c.awaitReady(ctx, name); err != nil {
			return c, err
		}
	}

	return c, nil
}

// makeCertificates makes those of all parts, as an installation on one host does.
func (c *cluster) makeCertificates(ctx context.Context) error {
	_, err := devstack.Vantrexia{Binary: c.cfg.binary, Dir: c.cfg.dir}.Output(ctx, "certs", "--dir", c.certificates(""))
	return err
}

// certificates is the directory of the certificate of a part, as `vantrexia certs` names the parts.
func (c *cluster) certificates(part string) string { return filepath.Join(c.cfg.dir, "certs", part) }

func (c *cluster) startPostgres(ctx context.Context) (err error) {
	c.postgres, err = devstack.StartPostgres(ctx, devstack.PostgresConfig{
		Dir:     filepath.Join(c.cfg.dir, postgresName),
		Port:    c.ports[postgresName],
		Install: true,
		TLSDir:  c.certificates("postgres"),
		HBAFile: filepath.Join(c.cfg.root, "deploy", "pg_hba.conf"),
	})
	if err != nil {
		return err
	}
	if err := c.postgres.CreateDatabase(ctx, "vantrexia"); err != nil {
		return err
	}
	return c.createRuntime(ctx)
}

// createRuntime makes the account of APIs and workers. `vantrexia migrate` gives it its rights.
func (c *cluster) createRuntime(ctx context.Context) error {
	owner, password := c.postgres.URL("vantrexia"), rand.Text()
	conn, err := pgx.Connect(ctx, owner)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, "CREATE ROLE vantrexia_runtime LOGIN PASSWORD '"+password+"'"); err != nil {
		return err
	}

	runtime, err := url.Parse(owner)
	if err != nil {
		return err
	}
	runtime.User = url.UserPassword("vantrexia_runtime", password)
	path, err := c.secret("database-url", runtime.String())
	c.runtime = "DATABASE_URL_FILE=" + path
	return err
}

// install does what an installation does once: secrets, the key for eCW, the schema and the namespace.
func (c *cluster) install(ctx context.Context) error {
	database, err := c.secret("database-owner-url", c.postgres.URL("vantrexia"))
	if err != nil {
		return err
	}

	tokens, err := c.secret("api-token-secret", rand.Text()+rand.Text())
	if err != nil {
		return err
	}

	settings := []string{
		"DATABASE_URL_FILE=" + database,
		"API_TOKEN_SECRET_FILE=" + tokens,
		"API_INGESTION_LIMIT=0", // one caller sends for all devices
		"TEMPORAL_ADDRESS=" + c.address(temporalName),
		"TEMPORAL_NAMESPACE=" + namespace,
		"TEMPORAL_TLS_CLIENT_CERT_PATH=" + filepath.Join(c.certificates("vantrexia"), "cert.pem"),
		"TEMPORAL_TLS_CLIENT_KEY_PATH=" + filepath.Join(c.certificates("vantrexia"), "key.pem"),
		"TEMPORAL_TLS_SERVER_CA_CERT_PATH=" + filepath.Join(c.certificates("vantrexia"), "ca.pem"),
		"TEMPORAL_UI_URL=" + c.url(uiName),
	}

	c.vantrexia, err = devstack.Install(ctx, devstack.Vantrexia{
		Binary:   c.cfg.binary,
		Dir:      c.cfg.dir,
		Settings: append(settings, c.cfg.settings...),
	}, c.address(sandboxName), c.address(apiNames()[1]))
	return err
}

// secret writes a secret to a file of its own, as Compose and Kubernetes mount secrets.
func (c *cluster) secret(name, value string) (path string, err error) {
	path = filepath.Join(c.cfg.dir, name)
	return path, os.WriteFile(path, []byte(value+"\n"), 0o600)
}

// plan lists the roles in the order of their start.
func (c *cluster) plan() []*member {
	all := []*member{{name: sandboxName, role: "sandbox"}}
	for _, name := range apiNames() {
		all = append(all, &member{name: name, role: "api", settings: []string{"API_ADDRESS=" + c.address(name), c.runtime}})
	}
	for n := range workers {
		all = append(all, &member{name: fmt.Sprint("worker-", n+1), role: "worker", settings: []string{c.runtime}})
	}
	return all
}

func apiNames() (names []string) {
	for n := range apis {
		names = append(names, fmt.Sprint("api-", n+1))
	}
	return names
}

func (c *cluster) add(m *member) (err error) {
	if m.program, err = c.vantrexia.Start(m.name, m.role, m.settings...); err != nil {
		return fmt.Errorf("start %s: %w", m.name, err)
	}
	c.members = append(c.members, m)
	return nil
}

// replace stops a process with SIGTERM, as a deploy does, and starts it again. settings are added to its own.
func (c *cluster) replace(name string, settings ...string) (err error) {
	at := slices.IndexFunc(c.members, func(m *member) bool { return m.name == name })
	m := c.members[at]
	if err := m.program.Stop(); err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	if code := m.program.ExitCode(); code != 0 {
		return fmt.Errorf("%s ended with %d after SIGTERM", name, code)
	}
	m.program, err = c.vantrexia.Start(m.name, m.role, slices.Concat(m.settings, settings)...)
	return err
}

func (c *cluster) address(name string) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(c.ports[name]))
}

func (c *cluster) url(name string) string { return "http://" + c.address(name) }

// awaitReady waits until the API reaches both servers.
func (c *cluster) awaitReady(ctx context.Context, name string) error {
	for {
		var answer struct{ Status string }
		err := proof.Call(ctx, http.MethodGet, c.url(name)+"/readyz", "", nil, &answer)
		if err == nil && answer.Status == "ready" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not get ready (%w); its log is %s", name, ctx.Err(), c.vantrexia.LogFile(name))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// wait returns when ctx ends, or with an error when a process does.
func (c *cluster) wait(ctx context.Context) error {
	ended := make(chan string, len(c.members)+3)
	watch := func(name string, done <-chan struct{}) {
		go func() {
			<-done
			ended <- name
		}()
	}

	watch(postgresName, c.postgres.Done())
	watch(temporalName, c.temporal.Done())
	watch(uiName, c.ui.Done())
	for _, m := range c.members {
		watch(m.name, m.program.Done())
	}

	select {
	case <-ctx.Done():
		return nil
	case name := <-ended:
		return fmt.Errorf("%s ended by itself; look into the logs in %s for the reason", name, c.cfg.dir)
	}
}

// stop stops everything from the top down.
func (c *cluster) stop() error {
	var errs []error
	for _, m := range slices.Backward(c.members) {
		errs = append(errs, m.program.Stop())
	}

	for _, server := range []*devstack.Program{c.ui, c.temporal} {
		if server != nil {
			errs = append(errs, server.Stop())
		}
	}

	if c.postgres != nil {
		errs = append(errs, c.postgres.Stop())
	}
	return errors.Join(errs...)
}
