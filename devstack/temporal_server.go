package devstack

import (
	"context"
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
	}
	for name, value := range shared {
		settings = append(settings, name+"="+value)
	}
	for name, setting := range temporalPortSettings() {
		settings = append(settings, setting+"="+strconv.Itoa(cfg.Ports[name]))
	}
	return settings, nil
}

// await asks what the health check of the compose file asks.
func (cfg TemporalServerConfig) await(ctx context.Context, program *Program) error {
	for {
		if cfg.answers(ctx) {
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

// answers reports whether the server names its version.
func (cfg TemporalServerConfig) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address(cfg.Ports[TemporalHTTP])+"/api/v1/system-info", nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(ask)
	if err != nil {
		return false
	}
	defer res.Body.Close()

	var info struct{ ServerVersion string }
	return json.NewDecoder(res.Body).Decode(&info) == nil && strings.Count(info.ServerVersion, ".") > 0
}
