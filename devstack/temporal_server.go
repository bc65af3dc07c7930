package devstack

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/joho/godotenv"
)

// The ports of a TemporalServer that others than its own services ask.
const (
	TemporalFrontend = "temporal"
	TemporalHTTP     = "temporal-http" // on which it tells that it is ready
)

// TemporalServerConfig says where the Temporal server runs that production has: on PostgreSQL, with the scripts and files of
// temporal-config.
type TemporalServerConfig struct {
	// Root is the directory of this repository: bin/temporal-server and bin/temporal-sql-tool are in it, and
	// temporal-config.
	Root string
	// Dir takes the server's log and the password of PostgreSQL.
	Dir string
	// Postgres takes its two databases.
	Postgres *Postgres
	// Ports has one for each of TemporalServerPorts.
	Ports map[string]int
	// TLSDir holds the server's certificate as `vantrexia certs` makes it. With it the server speaks TLS only, takes
	// only callers with a certificate of the same authority, and reaches PostgreSQL with TLS. Empty: nothing is
	// encrypted.
	TLSDir string
	// Caller is how StartTemporalServer asks a server with TLS whether it is ready.
	Caller *tls.Config
}

// temporalPortSettings are the ports of Temporal's services, and how the server is told of them. In a container each has its
// default; here another Temporal may run beside us.
func temporalPortSettings() map[string]string {
	return map[string]string{
		TemporalFrontend:      "FRONTEND_GRPC_PORT",
		TemporalHTTP:          "FRONTEND_HTTP_PORT",
		"frontend-membership": "FRONTEND_MEMBERSHIP_PORT",
		"history":             "HISTORY_GRPC_PORT",
		"history-membership":  "HISTORY_MEMBERSHIP_PORT",
		"matching":            "MATCHING_GRPC_PORT",
		"matching-membership": "MATCHING_MEMBERSHIP_PORT",
		"system":              "WORKER_GRPC_PORT",
		"system-membership":   "WORKER_MEMBERSHIP_PORT",
	}
}

// TemporalServerPorts names the ports that a server needs, for ChoosePorts.
func TemporalServerPorts() (names []string) {
	for name := range temporalPortSettings() {
		names = append(names, name)
	}
	return names
}

// StartTemporalServer makes the schema in PostgreSQL, starts the server and returns when it is ready. ctx bounds the start
// only; the caller must Stop the server, after an error too when one is returned.
func StartTemporalServer(ctx context.Context, cfg TemporalServerConfig) (*Program, error) {
	if err := SetUpTemporalSchema(ctx, cfg); err != nil {
		return nil, err
	}
	settings, err := cfg.settings()
	if err != nil {
		return nil, err
	}

	server := exec.Command(cfg.file("start-server.sh"))
	server.Env = settings
	program, err := StartProgram(server, filepath.Join(cfg.Dir, "temporal.log"))
	if err != nil {
		return nil, err
	}
	return program, cfg.await(ctx, program)
}

func (cfg TemporalServerConfig) file(name string) string {
	return filepath.Join(cfg.Root, "temporal-config", name)
}

// SetUpTemporalSchema makes the server's databases, or brings them up to date, as temporal-config/setup-schema.sh
// does. settings, such as "VISIBILITY_INDEXES=all", go before those of server.env.
func SetUpTemporalSchema(ctx context.Context, cfg TemporalServerConfig, settings ...string) error {
	shared, err := cfg.settings()
	if err != nil {
		return err
	}
	schema := exec.CommandContext(ctx, cfg.file("setup-schema.sh"))
	schema.Env = append(shared, settings...)
	if said, err := schema.CombinedOutput(); err != nil {
		return fmt.Errorf("set up Temporal's schema: %w\n%s", err, said)
	}
	return nil
}

// settings are those of server.env, and where PostgreSQL is.
func (cfg TemporalServerConfig) settings() ([]string, error) {
	shared, err := godotenv.Read(cfg.file("server.env"))
	if err != nil {
		return nil, err
	}
	postgres, err := url.Parse(cfg.Postgres.URL("postgres"))
	if err != nil {
		return nil, err
	}
	password, _ := postgres.User.Password()
	passwordFile := filepath.Join(cfg.Dir, "postgres-password") // a file of its own, as compose and Kubernetes mount it
	if err := os.WriteFile(passwordFile, []byte(password+"\n"), 0o600); err != nil {
		return nil, err
	}

	settings := []string{
		"PATH=" + os.Getenv("PATH"),
		"POSTGRES_SEEDS=" + postgres.Hostname(),
		"DB_PORT=" + postgres.Port(),
		"POSTGRES_USER=" + postgres.User.Username(),
		"POSTGRES_PASSWORD_FILE=" + passwordFile,
		"TEMPORAL_SQL_TOOL=" + filepath.Join(cfg.Root, "bin", "temporal-sql-tool"),
		"TEMPORAL_SERVER=" + filepath.Join(cfg.Root, "bin", "temporal-server"),
		"BIND_ON_IP=" + loopback,
		"DYNAMIC_CONFIG_FILE_PATH=" + cfg.file("dynamicconfig.yaml"),
		"TLS_DIR=" + cfg.TLSDir,
	}
	for name, value := range shared {
		settings = append(settings, name+"="+value)
	}
	for name, setting := range temporalPortSettings() {
		settings = append(settings, setting+"="+strconv.Itoa(cfg.Ports[name]))
	}
	return settings, nil
}

// await asks until the server names its version.
func (cfg TemporalServerConfig) await(ctx context.Context, program *Program) error {
	scheme := "http://"
	if cfg.TLSDir != "" {
		scheme = "https://"
	}
	transport := &http.Transport{TLSClientConfig: cfg.Caller}
	defer transport.CloseIdleConnections()
	caller := &http.Client{Transport: transport, Timeout: 5 * time.Second}

	for {
		if answers(ctx, caller, scheme+address(cfg.Ports[TemporalHTTP])+"/api/v1/system-info") {
			return nil
		}
		select {
		case <-program.Done():
			return program.Explain(errors.New("the Temporal server ended while it started"))
		case <-ctx.Done():
			return program.Explain(fmt.Errorf("the Temporal server does not get ready: %w", ctx.Err()))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func answers(ctx context.Context, caller *http.Client, url string) bool {
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	res, err := caller.Do(ask)
	if err != nil {
		return false
	}
	defer res.Body.Close()

	var info struct{ ServerVersion string }
	return json.NewDecoder(res.Body).Decode(&info) == nil && strings.Count(info.ServerVersion, ".") > 0
}

// ClientTLS is how a caller with the certificate in dir reaches a server on this machine, both made by
// `vantrexia certs`.
func ClientTLS(dir string) (*tls.Config, error) {
	certificate, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return nil, err
	}

	settings := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{certificate},
		RootCAs:      x509.NewCertPool(),
	}
	if !settings.RootCAs.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("%s holds no certificate", filepath.Join(dir, "ca.pem"))
	}
	return settings, nil
}
