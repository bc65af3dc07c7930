package main

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"

	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/log"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	clusterName = "active"
	// clusterID is stored in the database file at the first start and compared at every later one.
	clusterID = "6f9c1e0a-3a57-4f0e-9b42-6d1b0d5f7a11"
	storeName = "sqlite"
	loopback  = "127.0.0.1"
)

// ports are the addresses to dial. Internal services listen on this machine only.
type ports struct {
	frontend, http, ui, history, matching, worker string
}

// choosePorts checks the ports that were named, and picks free ones for the rest. It holds all of them at
// once, so that no two are the same, and closes them before it returns, because the server opens its own
// listeners.
func choosePorts(opts options) (ports, error) {
	var held []net.Listener
	defer func() {
		for _, listener := range held {
			_ = listener.Close()
		}
	}()

	take := func(ip string, port int, what, flag string) (string, error) {
		listener, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
		if errors.Is(err, syscall.EADDRINUSE) {
			return "", fmt.Errorf("port %d for %s is taken; stop what listens there or choose another with %s", port, what, flag)
		}
		if err != nil {
			return "", fmt.Errorf("listen for %s: %w", what, err)
		}
		held = append(held, listener)
		return net.JoinHostPort(reachable(ip), strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)), nil
	}

	var chosen ports
	var err error
	if chosen.frontend, err = take(opts.ip, opts.port, "the server", "--port"); err != nil {
		return ports{}, err
	}

	if !opts.headless {
		if chosen.ui, err = take(opts.uiIP, opts.uiPort, "the Web UI", "--ui-port"); err != nil {
			return ports{}, err
		}
	}

	if chosen.http, err = take(opts.ip, 0, "the server's HTTP API", "--ip"); err != nil {
		return ports{}, err
	}

	for _, address := range []*string{&chosen.history, &chosen.matching, &chosen.worker} {
		if *address, err = take(loopback, 0, "an internal service", "--port"); err != nil {
			return ports{}, err
		}
	}

	return chosen, nil
}

// reachable is the address to dial for a listener on ip.
func reachable(ip string) string {
	switch parsed := net.ParseIP(ip); {
	case !parsed.IsUnspecified():
		return ip
	case parsed.To4() != nil:
		return loopback
	default:
		return "::1"
	}
}

func serverConfig(opts options, ports ports, store *config.SQL) *config.Config {
	disabled := config.Archival{
		History:    config.HistoryArchival{State: config.ArchivalDisabled},
		Visibility: config.VisibilityArchival{State: config.ArchivalDisabled},
	}
	return &config.Config{
		Persistence: config.Persistence{
			DefaultStore:     storeName,
			VisibilityStore:  storeName,
			NumHistoryShards: 1, // SQLite has one writer anyway
			DataStores:       map[string]config.DataStore{storeName: {SQL: store}},
		},
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10,
			MasterClusterName:        clusterName,
			CurrentClusterName:       clusterName,
			ClusterInformation: map[string]cluster.ClusterInformation{clusterName: {
				Enabled:                true,
				InitialFailoverVersion: 1,
				RPCAddress:             ports.frontend,
				HTTPAddress:            ports.http,
				ClusterID:              clusterID,
			}},
		},
		DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
		Services: map[string]config.Service{
			"frontend": {RPC: config.RPC{BindOnIP: opts.ip, GRPCPort: portOf(ports.frontend), HTTPPort: portOf(ports.http)}},
			"history":  internalService(ports.history),
			"matching": internalService(ports.matching),
			"worker":   internalService(ports.worker),
		},
		Archival: disabled,
		NamespaceDefaults: config.NamespaceDefaults{Archival: config.ArchivalNamespaceDefaults{
			History:    config.HistoryArchivalNamespaceDefaults{State: config.ArchivalDisabled},
			Visibility: config.VisibilityArchivalNamespaceDefaults{State: config.ArchivalDisabled},
		}},
		PublicClient: config.PublicClient{HostPort: ports.frontend},
	}
}

func internalService(address string) config.Service {
	return config.Service{RPC: config.RPC{BindOnIP: loopback, GRPCPort: portOf(address)}}
}

// newLogger writes to standard error. Standard output is for the line that says ready.
func newLogger(level zap.AtomicLevel, format string) log.Logger {
	encoding := zap.NewProductionEncoderConfig()
	encoding.EncodeTime = zapcore.ISO8601TimeEncoder
	name := "json"
	if format != "json" {
		name = "console"
	}

	logger, err := zap.Config{
		Level:             level,
		Encoding:          name,
		EncoderConfig:     encoding,
		OutputPaths:       []string{"stderr"},
		ErrorOutputPaths:  []string{"stderr"},
		DisableCaller:     true,
		DisableStacktrace: true,
	}.Build()
	if err != nil {
		return log.NewNoopLogger() // unreachable: the configuration above is fixed
	}
	return log.NewZapLogger(logger)
}
