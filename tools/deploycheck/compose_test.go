package deploycheck

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// ourImage is the image of the services that run our binary.
const ourImage = "vantrexia:local"

// compose reads the file as `docker compose config` does, with these variables, and checks it against the specification.
func compose(t *testing.T, variables ...string) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(root, "docker-compose.yml")},
		cli.WithEnv(variables), cli.WithProfiles([]string{"*"}), cli.WithResolvedPaths(true), cli.WithConsistency(true))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func TestComposeTellsOurBinaryWhatItNeeds(t *testing.T) {
	t.Parallel()
	project := compose(t)
	roles := 0
	for _, service := range project.Services {
		if service.Image != ourImage {
			continue
		}
		roles++
		set := imageSettings(t)
		for name, value := range service.Environment {
			set[name] = *value
		}
		var mounted []string
		for _, secret := range service.Secrets {
			mounted = append(mounted, "/run/secrets/"+secret.Source)
		}
		checkSettings(t, service.Command[0], set, mounted)
		if !service.ReadOnly || len(service.CapDrop) != 1 {
			t.Errorf("%s: may write to its root, or has capabilities", service.Name)
		}
	}
	if roles != 4 {
		t.Errorf("%d services run our binary, want api, worker, migrate and sandbox", roles)
	}
}

func TestComposeExampleOfAPractice(t *testing.T) {
	t.Parallel()
	for name := range compose(t, "VANTREXIA_SETTINGS=deploy/practice.env.example").Services["worker"].Environment {
		if !settings(t)[name] {
			t.Errorf("deploy/practice.env.example: the binary knows no setting %s", name)
		}
	}
}

// TestRotationOfTheRunbook holds the override that docs/operations.md shows against the same.
func TestRotationOfTheRunbook(t *testing.T) {
	t.Parallel()
	_, rest, _ := strings.Cut(readFile(t, "docs", "operations.md"), "```yaml\n")
	block, _, _ := strings.Cut(rest, "```")
	override := filepath.Join(t.TempDir(), "override.yml")
	if err := os.WriteFile(override, []byte(block), 0o600); err != nil {
		t.Fatal(err)
	}
	options, err := cli.NewProjectOptions([]string{filepath.Join(root, "docker-compose.yml"), override}, cli.WithWorkingDirectory(root))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	api := project.Services["api"]
	if file := api.Environment["ECW_OTHER_KEY_FILE"]; file == nil || *file != "/run/secrets/ecw-other-key" || len(api.Secrets) != 4 {
		t.Errorf("the API has %v and the secrets %v", api.Environment, api.Secrets)
	}
}

func TestComposePublishesOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	project := compose(t)
	published := map[string]bool{}
	for _, service := range project.Services {
		for _, port := range service.Ports {
			published[service.Name] = true
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s publishes %s on %q", service.Name, port.Published, port.HostIP)
			}
		}
		if _, outside := service.Networks["outside"]; outside && (service.Name == "postgres" || service.Name == "temporal") {
			t.Errorf("%s is reachable from outside", service.Name)
		}
	}
	if len(published) != 3 || !published["api"] || !published["temporal-ui"] || !published["sandbox"] {
		t.Errorf("published are %v", published)
	}
	if !project.Networks["inside"].Internal {
		t.Error("the inner network has a way out")
	}
}

func TestComposeServicesAreWatchedAndRestarted(t *testing.T) {
	t.Parallel()
	for _, service := range compose(t).Services {
		once := strings.HasPrefix(service.Restart, "on-failure")
		if !once && service.Restart != "unless-stopped" {
			t.Errorf("%s: restart is %q", service.Name, service.Restart)
		}
		watched := service.HealthCheck != nil && !service.HealthCheck.Disable
		if watched == (once || service.Name == "sandbox") {
			t.Errorf("%s: health check %t", service.Name, watched)
		}
		if service.ContainerName != "" {
			t.Errorf("%s has a fixed container name, and cannot be scaled", service.Name)
		}
	}
}

// TestComposeRunsWhatIsTested keeps the images at the versions that the tests build from source.
func TestComposeRunsWhatIsTested(t *testing.T) {
	t.Parallel()
	module := readFile(t, "tools", "temporaldev", "go.mod")
	version := func(path string) string {
		m := regexp.MustCompile(`(?m)^\s*` + regexp.QuoteMeta(path) + ` v(\S+)`).FindStringSubmatch(module)
		if m == nil {
			t.Fatalf("%s is not in tools/temporaldev/go.mod", path)
		}
		return m[1]
	}
	services := compose(t).Services
	for name, want := range map[string]string{
		"temporal":        "temporalio/server:" + version("go.temporal.io/server"),
		"temporal-schema": "temporalio/admin-tools:" + version("go.temporal.io/server"),
		"temporal-ui":     "temporalio/ui:" + version("github.com/temporalio/ui-server/v2"),
	} {
		if services[name].Image != want {
			t.Errorf("%s runs %s, the tests run %s", name, services[name].Image, want)
		}
	}
	for _, service := range services {
		if _, tag, ok := strings.Cut(service.Image, ":"); !ok || tag == "latest" {
			t.Errorf("%s: the image %s is not pinned", service.Name, service.Image)
		}
	}
}

// TestSecretsOfComposeAreMade runs the script that the guide begins with.
func TestSecretsOfComposeAreMade(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := filepath.Join(dir, "make-secrets.sh")
	if err := os.WriteFile(script, []byte(readFile(t, "deploy", "make-secrets.sh")), 0o755); err != nil {
		t.Fatal(err)
	}
	made := map[string]string{}
	for range 2 { // the second time, nothing is made anew
		if said, err := exec.CommandContext(t.Context(), script).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, said)
		}
		for name, secret := range compose(t).Secrets {
			if filepath.Base(filepath.Dir(secret.File)) != "secrets" {
				t.Errorf("the secret %s is in %s", name, secret.File)
			}
			text, err := os.ReadFile(filepath.Join(dir, "secrets", filepath.Base(secret.File)))
			if err != nil || len(text) < 32 {
				t.Errorf("the secret %s: %q, %v", name, text, err)
			}
			if made[name] != "" && made[name] != string(text) {
				t.Errorf("the secret %s was replaced", name)
			}
			made[name] = string(text)
		}
	}
	info, err := os.Stat(filepath.Join(dir, "secrets"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory of the secrets: %v, %v", info.Mode(), err)
	}
	if password := strings.TrimSpace(made["vantrexia-password"]); !strings.Contains(made["database-url"], ":"+password+"@postgres:") {
		t.Error("the database's URL does not have the database's password")
	}
}
