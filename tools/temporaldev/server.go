package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	uiserver "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	uioptions "github.com/temporalio/ui-server/v2/server/server_options"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/primitives"
	"go.temporal.io/server/temporal"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// frontendHealth is the name under which the frontend answers the gRPC health check.
const frontendHealth = "temporal.api.workflowservice.v1.WorkflowService"

// readyTimeout bounds the start, which usually takes half a second, and a few seconds on a busy machine.
const readyTimeout = 60 * time.Second

// serve runs the server and its Web UI until ctx ends. When both accept requests it writes one line to
// stdout, "ready address=127.0.0.1:7233 ui=http://127.0.0.1:8233"; the process that started this one waits
// for it.
func serve(ctx context.Context, opts options, stdout io.Writer) error {
	syscall.Umask(0o077) // the database holds what the workflows were given
	unlock, err := lockStore(ctx, opts.dbFile)
	if err != nil {
		return err
	}
	defer unlock()

	ports, err := choosePorts(opts)
	if err != nil {
		return err
	}

	store, err := openStore(ctx, opts)
	if err != nil {
		return err
	}

	level := zap.NewAtomicLevelAt(log.ParseZapLevel(opts.logLevel))
	if opts.logLevel == "never" {
		level.SetLevel(zap.FatalLevel) // a fatal error ends the process, so it is always logged
	}

	server, err := newServer(opts, ports, store, newLogger(level, opts.logFormat))
	if err != nil {
		return fmt.Errorf("configure the server: %w", err)
	}

	if err := server.Start(); err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	defer func() {
		level.SetLevel(zap.FatalLevel) // services that stop later log errors about those that have stopped already
		_ = server.Stop()              // it logs what goes wrong and returns nothing
	}()

	ready := "ready address=" + ports.frontend
	if !opts.headless {
		ui := newUI(opts, ports)
		go func() { _ = ui.Start() }()
		defer ui.Stop()
		ready += " ui=http://" + ports.ui
	}

	if err := awaitReady(ctx, opts, ports); err != nil {
		if ctx.Err() != nil {
			return nil // stopped before the start was over
		}
		return err
	}

	fmt.Fprintln(stdout, ready)
	<-ctx.Done()
	return nil
}

func newServer(opts options, ports ports, store *config.SQL, logger log.Logger) (temporal.Server, error) {
	return temporal.NewServer(
		temporal.WithConfig(serverConfig(opts, ports, store)),
		temporal.ForServices(temporal.DefaultServices),
		// One process is the whole cluster, so nothing gossips.
		temporal.WithStaticHosts(map[primitives.ServiceName]static.Hosts{
			primitives.FrontendService: static.SingleLocalHost(ports.frontend),
			primitives.HistoryService:  static.SingleLocalHost(ports.history),
			primitives.MatchingService: static.SingleLocalHost(ports.matching),
			primitives.WorkerService:   static.SingleLocalHost(ports.worker),
		}),
		temporal.WithLogger(logger),
		temporal.WithAuthorizer(authorization.NewNoopAuthorizer()),
		temporal.WithClaimMapper(func(*config.Config) authorization.ClaimMapper { return authorization.NewNoopClaimMapper() }),
		temporal.WithDynamicConfigClient(opts.dynamicConfig),
	)
}

func newUI(opts options, ports ports) *uiserver.Server {
	return uiserver.NewServer(uioptions.WithConfigProvider(&uiconfig.Config{
		TemporalGRPCAddress: ports.frontend,
		Host:                bracketed(opts.uiIP),
		Port:                portOf(ports.ui),
		EnableUI:            true,
		DefaultNamespace:    opts.namespaces[0],
		DisableNewsFetch:    true,
		HideLogs:            true,
		Codec:               uiconfig.Codec{Endpoint: opts.codec},
		CORS:                uiconfig.CORS{CookieInsecure: true}, // it is served without TLS
	}))
}

// awaitReady returns once the frontend reports that it serves and the Web UI answers.
func awaitReady(ctx context.Context, opts options, ports ports) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()

	conn, err := grpc.NewClient(ports.frontend, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("reach the server: %w", err)
	}
	defer conn.Close()

	err = poll(ctx, func() error {
		response, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: frontendHealth})
		if err == nil && response.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			return fmt.Errorf("its health is %s", response.GetStatus())
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("the server on %s does not get ready: %w", ports.frontend, err)
	}
	if opts.headless {
		return nil
	}

	err = poll(ctx, func() error { return getOK(ctx, "http://"+ports.ui+"/healthz") })
	if err != nil {
		return fmt.Errorf("the Web UI on %s does not get ready: %w", ports.ui, err)
	}
	return nil
}

func getOK(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}

	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()

	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// poll repeats try until it succeeds, and returns its last error when ctx ends first.
func poll(ctx context.Context, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func portOf(address string) int {
	_, text, _ := net.SplitHostPort(address)
	port, _ := strconv.Atoi(text)
	return port
}

// bracketed returns an IP address in the form that goes before a port.
func bracketed(ip string) string {
	if parsed := net.ParseIP(ip); parsed != nil && parsed.To4() == nil {
		return "[" + ip + "]"
	}
	return ip
}

// developmentConfig has the settings in which a server for one developer differs from the server's defaults.
func developmentConfig() dynamicconfig.StaticClient {
	return dynamicconfig.StaticClient{
		// The server would otherwise report its version to the vendor and ask for news.
		dynamicconfig.EnableServerVersionCheck.Key(): false,
		// A host of production size caches 128,000 workflows; here memory is the laptop's.
		dynamicconfig.HistoryCacheHostLevelMaxSize.Key(): 8096,
		// The Web UI and tests that poll list workflows faster than the default of 10 a second.
		dynamicconfig.FrontendMaxNamespaceVisibilityRPSPerInstance.Key(): 100,
	}
}
