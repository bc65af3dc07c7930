package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vantrexia/vantrexia/ecw/sandbox"
	"github.com/vantrexia/vantrexia/fhir"
)

//go:embed celery/delivery.py
var deliveryPy []byte

// celerySystem is what Vantrexia replaces: Celery with Redis as the broker, and PostgreSQL.
type celerySystem struct{ *stack }

func newCelery(s *stack) system { return &celerySystem{s} }

// celeryConfig is what celery/delivery.py is told.
type celeryConfig struct {
	DatabaseURL, Broker                   string
	TokenURL, FHIRBaseURL, Scope, KeyFile string
	ClientID, KeyID, IdentifierSystem     string
}

// celeryPrefork is how many processes deliver.
const celeryPrefork = 2

func (c *celerySystem) Start(ctx context.Context) error {
	if err := c.startBase(ctx); err != nil {
		return err
	}
	pool, err := openPool(ctx, c.postgres.URL("bench")) // which makes the table
	if err != nil {
		return err
	}
	pool.Close()
	if err := os.WriteFile(filepath.Join(c.dir, "delivery.py"), deliveryPy, 0o600); err != nil {
		return err
	}

	// As Debian sets it up: snapshots now and then, no log of every write.
	port := strconv.Itoa(c.ports["redis"])
	redis := exec.Command("redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", c.dir)
	redis.Dir = c.dir
	if err := c.start(ctx, "Redis", redis, ""); err != nil {
		return err
	}
	if err := awaitPort(ctx, c.address("redis")); err != nil {
		return err
	}

	settings, err := json.Marshal(celeryConfig{
		DatabaseURL:      c.postgres.URL("bench"),
		Broker:           "redis://" + c.address("redis") + "/0",
		TokenURL:         c.ehr.url + sandbox.TokenPath,
		FHIRBaseURL:      c.ehr.url + sandbox.FHIRPath + practice,
		Scope:            strings.Join(sandbox.DefaultScopes(), " "),
		KeyFile:          c.keyFile,
		ClientID:         clientID,
		KeyID:            keyID,
		IdentifierSystem: fhir.IdentifierSystem,
	})
	if err != nil {
		return err
	}
	python := func(args ...string) *exec.Cmd {
		cmd := exec.Command(findPython(), args...)
		cmd.Dir = c.dir
		cmd.Env = append(os.Environ(), roleSetting+"="+string(settings), "C_FORCE_ROOT=1")
		return cmd
	}
	worker := python("-m", "celery", "--app", "delivery", "worker",
		"--pool", "prefork", "--concurrency", strconv.Itoa(celeryPrefork), "--loglevel", "WARNING")
	if err := c.start(ctx, "Celery", worker, ""); err != nil {
		return err
	}
	c.url = "http://" + c.address("intake")
	intake := python("-m", "gunicorn", "--workers", "2", "--threads", "4", "--bind", c.address("intake"), "delivery:application")
	return c.start(ctx, "gunicorn", intake, c.url+"/readyz")
}

// awaitPort returns when something listens there.
func awaitPort(ctx context.Context, address string) error {
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			return conn.Close()
		}
		if paused := pause(ctx, 50*time.Millisecond); paused != nil {
			return fmt.Errorf("nothing listens on %s: %w", address, errors.Join(err, paused))
		}
	}
}

// findPython returns the interpreter that has what delivery.py needs: Debian's packages are for Debian's own. "" is none.
func findPython() string {
	for _, python := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(python, "-c", "import celery, cryptography, gunicorn, jwt, psycopg2, redis, requests").Run() == nil {
			return python
		}
	}
	return ""
}

func celeryMissing(*run) string {
	if _, err := exec.LookPath("redis-server"); err != nil || findPython() == "" {
		return "`apt-get install celery gunicorn python3-cryptography python3-jwt python3-psycopg2 python3-redis python3-requests redis-server`"
	}
	return ""
}
