package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
)

// asCommand makes the test binary behave like temporaldev itself, so that tests can kill it.
const asCommand = "TEMPORALDEV_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	os.Exit(m.Run())
}

// child is a running temporaldev.
type child struct {
	cmd     *exec.Cmd
	stdin   io.Closer
	address string
	ui      string
}

func start(t *testing.T, args ...string) *child {
	t.Helper()
	cmd := command(t, args...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}

	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}

	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = cmd.Process.Kill() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("no line that says ready: %v (%v)", err, cmd.Wait())
	}

	c := &child{cmd: cmd, stdin: stdin}
	if _, err := fmt.Sscanf(line, "ready address=%s ui=%s", &c.address, &c.ui); err != nil {
		t.Fatalf("line %q: %v", line, err)
	}
	return c
}

func command(t *testing.T, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], append([]string{"server", "start-dev", "--port", "0"}, args...)...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	return cmd
}

func (c *child) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(c.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestServesWorkAndPagesAndStopsInOrder(t *testing.T) {
	t.Parallel()
	c := start(t, "--namespace", "first", "--namespace", "second", "--codec-endpoint", "http://127.0.0.1:1/codec")

	description, err := workflowservice.NewWorkflowServiceClient(c.dial(t)).DescribeNamespace(t.Context(),
		&workflowservice.DescribeNamespaceRequest{Namespace: "second"})
	if err != nil {
		t.Fatal(err)
	}

	if got := description.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration(); got != 7*24*time.Hour {
		t.Errorf("retention is %s", got)
	}

	if page := get(t, c.ui+"/"); !strings.Contains(page, "<html") {
		t.Errorf("the Web UI's page is %q", page)
	}

	if list := get(t, c.ui+"/api/v1/namespaces"); !strings.Contains(list, `"first"`) {
		t.Errorf("the Web UI's namespaces are %q", list)
	}

	if settings := get(t, c.ui+"/api/v1/settings"); !strings.Contains(settings, `"http://127.0.0.1:1/codec"`) {
		t.Errorf("the Web UI's settings are %q", settings)
	}

	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}

	if err := c.cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

func TestStateSurvivesKillAndAttributesAreAddedOnce(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "temporal.db")
	c := start(t, "--db-filename", file, "--search-attribute", "Practice=Keyword")
	ctx := t.Context()
	_, err := workflowservice.NewWorkflowServiceClient(c.dial(t)).RegisterNamespace(ctx, &workflowservice.RegisterNamespaceRequest{
		Namespace: "kept", WorkflowExecutionRetentionPeriod: durationpb.New(72 * time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}

	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}

	_ = c.cmd.Wait() // "signal: killed"

	c = start(t, "--db-filename", file, "--search-attribute", "Practice=Keyword", "--search-attribute", "Attempt=Int")
	conn := c.dial(t)
	if _, err := workflowservice.NewWorkflowServiceClient(conn).DescribeNamespace(ctx,
		&workflowservice.DescribeNamespaceRequest{Namespace: "kept"}); err != nil {
		t.Errorf("the namespace registered before the kill: %v", err)
	}

	attributes, err := operatorservice.NewOperatorServiceClient(conn).ListSearchAttributes(ctx,
		&operatorservice.ListSearchAttributesRequest{Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}

	want := map[string]enumspb.IndexedValueType{"Practice": enumspb.INDEXED_VALUE_TYPE_KEYWORD, "Attempt": enumspb.INDEXED_VALUE_TYPE_INT}
	if got := attributes.GetCustomAttributes(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("search attributes are %v, want %v", got, want)
	}
}

func TestEndsWithItsStandardInput(t *testing.T) {
	t.Parallel()
	c := start(t, "--exit-with-stdin")
	if err := c.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("after the end of standard input: %v", err)
	}
}

func TestRefusesInOneLine(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()

	taken := fmt.Sprint(listener.Addr().(*net.TCPAddr).Port)

	for name, test := range map[string]struct {
		args []string
		code int
		want string
	}{
		"a taken port":           {[]string{"--headless", "--port", taken}, 1, "port " + taken + " for the server is taken; stop what listens there or choose another with --port"},
		"a taken port of the UI": {[]string{"--ui-port", taken}, 1, "choose another with --ui-port"},
		"a missing directory":    {[]string{"--db-filename", filepath.Join(t.TempDir(), "missing", "t.db")}, 1, "the directory of --db-filename"},
		"a misspelt flag":        {[]string{"--prot", "1"}, 2, "see --help"},
		"a misspelt type":        {[]string{"--search-attribute", "A=String"}, 2, "Keyword"},
		"a value without quotes": {[]string{"--dynamic-config-value", "a=b"}, 2, "not JSON"},
		"a host name":            {[]string{"--ip", "example.com"}, 2, "not an IP address"},
		"a surplus word":         {[]string{"now"}, 2, `"now"`},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			var stdout, stderr strings.Builder
			args := append([]string{"server", "start-dev", "--port", "0"}, test.args...)
			code := run(ctx, args, strings.NewReader(""), &stdout, &stderr)
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if got := stderr.String(); !strings.Contains(got, test.want) || strings.Count(got, "\n") != 1 {
				t.Errorf("error is %q, want one line with %q", got, test.want)
			}
		})
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, response.Status, err)
	}
	return string(body)
}
