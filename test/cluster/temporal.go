package main

import (
	"context"
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

	"github.com/vantrexia/vantrexia/devstack"
	"github.com/vantrexia/vantrexia/test/proof"
)

// temporalPortSettings maps the ports of Temporal's services to the server's settings. In a container each
// has its default port. Here the ports are chosen, because another Temporal may run on this machine.
func temporalPortSettings() map[string]string {
	return map[string]string{
		temporalName:          "FRONTEND_GRPC_PORT",
		temporalHTTP:          "FRONTEND_HTTP_PORT",
		"frontend-membership": "FRONTEND_MEMBERSHIP_PORT",
		"history":             "HISTORY_GRPC_PORT",
		"history-membership":  "HISTORY_MEMBERSHIP_PORT",
		"matching":            "MATCHING_GRPC_PORT",
		"matching-membership": "MATCHING_MEMBERSHIP_PORT",
		"system":              "WORKER_GRPC_PORT",
		"system-membership":   "WORKER_MEMBERSHIP_PORT",
	}
}

// temporalHTTP is the port on which the server answers whether it is ready.
const temporalHTTP = "temporal-http"

func temporalPorts() (names []string) {
	for name := range temporalPortSettings() {
		names = append(names, name)
	}
	return names
}

// startTemporal makes the schema in PostgreSQL and starts the server, with the scripts and files of
// temporal-config.
func (c *cluster) startTemporal(ctx context.Context) error {
	settings, err := c.temporalSettings()
	if err != nil {
		return err
	}

	schema := exec.CommandContext(ctx, c.temporalFile("setup-schema.sh"))
	schema.Env = settings
	if said, err := schema.CombinedOutput(); err != nil {
		return fmt.Errorf("set up Temporal's schema: %w\n%s", err, said)
	}

	server := exec.Command(c.temporalFile("start-server.sh"))
	server.Env = settings
	if c.temporal, err = devstack.StartProgram(server, filepath.Join(c.cfg.dir, temporalName+".log")); err != nil {
		return err
	}
	return c.awaitTemporal(ctx)
}

func (c *cluster) temporalFile(name string) string {
	return filepath.Join(c.cfg.root, "temporal-config", name)
}

// temporalSettings are those of server.env, and where PostgreSQL is.
func (c *cluster) temporalSettings() ([]string, error) {
	shared, err := godotenv.Read(c.temporalFile("server.env"))
	if err != nil {
		return nil, err
	}

	postgres, err := url.Parse(c.postgres.URL("postgres"))
	if err != nil {
		return nil, err
	}

	password, _ := postgres.User.Password()
	passwordFile, err := c.secret("postgres-password", password)
	if err != nil {
		return nil, err
	}

	settings := []string{
		"PATH=" + os.Getenv("PATH"),
		"POSTGRES_SEEDS=" + postgres.Hostname(), "DB_PORT=" + postgres.Port(), "POSTGRES_USER=" + postgres.User.Username(),
		"POSTGRES_PASSWORD_FILE=" + passwordFile,
		"TEMPORAL_SQL_TOOL=" + filepath.Join(c.cfg.root, "bin", "temporal-sql-tool"),
		"TEMPORAL_SERVER=" + filepath.Join(c.cfg.root, "bin", "temporal-server"),
		"BIND_ON_IP=127.0.0.1", "DYNAMIC_CONFIG_FILE_PATH=" + c.temporalFile("dynamicconfig.yaml"),
	}
	for name, value := range shared {
		settings = append(settings, name+"="+value)
	}

	for name, setting := range temporalPortSettings() {
		settings = append(settings, setting+"="+strconv.Itoa(c.ports[name]))
	}

	return settings, nil
}

// startUI starts the Temporal Web UI, which reads its settings from a file.
func (c *cluster) startUI() (err error) {
	dir := filepath.Join(c.cfg.dir, uiName)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}

	settings := fmt.Sprintf(`temporalGrpcAddress: %s
host: 127.0.0.1
port: %d
enableUi: true
defaultNamespace: %s
disableNewsFetch: true
cors: {cookieInsecure: true}
`, c.address(temporalName), c.ports[uiName], namespace)
	if err := os.WriteFile(filepath.Join(dir, "cluster.yaml"), []byte(settings), 0o600); err != nil {
		return err
	}

	server := exec.Command(filepath.Join(c.cfg.root, "bin", "temporal-ui"), "--root", dir, "--config", ".", "--env", "cluster", "start")
	c.ui, err = devstack.StartProgram(server, dir+".log")
	return err
}

// awaitTemporal waits until the health check of the Compose file would pass.
func (c *cluster) awaitTemporal(ctx context.Context) error {
	for {
		var info struct{ ServerVersion string }
		err := proof.Call(ctx, http.MethodGet, c.url(temporalHTTP)+"/api/v1/system-info", "", nil, &info)
		if err == nil && strings.Count(info.ServerVersion, ".") > 0 {
			return nil
		}

		select {
		case <-c.temporal.Done():
			return c.temporal.Explain(errors.New("the Temporal server ended while it started"))
		case <-ctx.Done():
			return c.temporal.Explain(fmt.Errorf("the Temporal server does not get ready: %w", ctx.Err()))
		case <-time.After(100 * time.Millisecond):
		}
	}
}
