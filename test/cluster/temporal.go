package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/vantrexia/vantrexia/devstack"
)

func (c *cluster) startTemporal(ctx context.Context) error {
	caller, err := devstack.ClientTLS(c.certificates("admin"))
	if err != nil {
		return err
	}
	c.temporal, err = devstack.StartTemporalServer(ctx, devstack.TemporalServerConfig{
		Root:     c.cfg.root,
		Dir:      c.cfg.dir,
		Postgres: c.postgres,
		Ports:    c.ports,
		TLSDir:   c.certificates("temporal"),
		Caller:   caller,
	})
	return err
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
tls:
  caFile: %[4]s/ca.pem
  certFile: %[4]s/cert.pem
  keyFile: %[4]s/key.pem
  enableHostVerification: true
  serverName: temporal
`, c.address(temporalName), c.ports[uiName], namespace, c.certificates("temporal-ui"))
	if err := os.WriteFile(filepath.Join(dir, "cluster.yaml"), []byte(settings), 0o600); err != nil {
		return err
	}

	server := exec.Command(filepath.Join(c.cfg.root, "bin", "temporal-ui"), "--root", dir, "--config", ".", "--env", "cluster", "start")
	c.ui, err = devstack.StartProgram(server, dir+".log")
	return err
}
