package deploycheck

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// The tutorial of the integration has the reader put the key into backend/keys, write settings into .env, and
// use these commands. Its promises are a contract.

// keyDir is where the tutorial puts the key, beside the .env.
const keyDir = "backend/keys"

// workDir is where our binary runs in its image, and looks for .env and the key.
func workDir(t *testing.T) string {
	t.Helper()
	all := regexp.MustCompile(`(?m)^WORKDIR (\S+)$`).FindAllStringSubmatch(readFile(t, "deploy", "Dockerfile"), -1)
	if len(all) == 0 {
		t.Fatal("deploy/Dockerfile names no directory")
	}
	return all[len(all)-1][1]
}

// mountOf is what a service has mounted at a path, or nil.
func mountOf(service types.ServiceConfig, target string) *types.ServiceVolumeConfig {
	for _, volume := range service.Volumes {
		if volume.Target == target {
			return &volume
		}
	}
	return nil
}

// TestRestartTakesUpSettings: `docker compose restart backend` after a change of .env. A restart makes no new
// container, so what its environment holds stays as it was; the file is read again.
func TestRestartTakesUpSettings(t *testing.T) {
	t.Parallel()
	services := compose(t).Services
	for _, name := range []string{"backend", "worker"} {
		service := services[name]
		for path, source := range map[string]string{workDir(t) + "/.env": ".env", workDir(t) + "/" + keyDir: keyDir} {
			mount := mountOf(service, path)
			if mount == nil || mount.Type != "bind" || mount.Source != filepath.Join(absolute(t, root), source) {
				t.Errorf("%s: %s is not mounted at %s: %+v", name, source, path, mount)
				continue
			}
			if !mount.ReadOnly || mount.Bind == nil || bool(mount.Bind.CreateHostPath) {
				t.Errorf("%s: %s may be written to, or is made as a directory when it is missing", name, source)
			}
		}

		for setting := range service.Environment {
			_, sandbox := readSettings(t, "deploy", "sandbox.env")[setting]
			if sandbox || strings.HasPrefix(setting, "ECW_") || strings.HasPrefix(setting, "LOG_") {
				t.Errorf("%s: %s in .env has no effect: the container's environment has it", name, setting)
			}
		}

		if len(service.EnvFiles) > 0 {
			t.Errorf("%s: what %v says wins over .env until the container is made anew", name, service.EnvFiles)
		}
	}
}

// TestBackendIsTheWholeOfUs: the backend runs API and worker in one process, so that its log shows the
// deliveries.
func TestBackendIsTheWholeOfUs(t *testing.T) {
	t.Parallel()
	backend := compose(t).Services["backend"]
	if !slices.Equal(backend.Command, []string{"serve"}) || backend.GetScale() != 1 || len(backend.Profiles) > 0 {
		t.Errorf("the backend runs %v, %d times, in the profiles %v", backend.Command, backend.GetScale(), backend.Profiles)
	}
	if grace := backend.StopGracePeriod; grace == nil || time.Duration(*grace) < 100*time.Second {
		t.Errorf("the backend is killed after %v, and `vantrexia serve` takes up to 100s to stop", grace)
	}
	if format := readSettings(t, "deploy", "practice.env.example")["LOG_FORMAT"] + readSettings(t, "deploy", "sandbox.env")["LOG_FORMAT"]; format != "" {
		t.Errorf("the log has the form %s, not that of the tutorial", format)
	}
}

// TestWorkersAreAdded: workers are added with --scale only, because the backend has one already.
func TestWorkersAreAdded(t *testing.T) {
	t.Parallel()
	worker := compose(t).Services["worker"]
	if !slices.Equal(worker.Command, []string{"worker"}) || worker.GetScale() != 0 {
		t.Errorf("the worker runs %v, %d times when nobody asks", worker.Command, worker.GetScale())
	}
	if len(worker.Profiles) > 0 || len(worker.Ports) > 0 || worker.ContainerName != "" {
		t.Error("--scale worker=2 finds no such service, or the second worker a port or a name that is taken")
	}

	for _, service := range compose(t).Services {
		if _, waits := service.DependsOn["worker"]; waits {
			t.Errorf("%s waits for a worker that is not there", service.Name)
		}
	}
}

// TestCommandsNameServices: the commands of the tutorial and of our documents name services that exist.
func TestCommandsNameServices(t *testing.T) {
	t.Parallel()
	services := compose(t).Services
	text := "docker compose restart backend\ndocker compose logs backend | grep ecw_sync\n"
	for _, document := range [][]string{{"README.md"}, {"deploy", "README.md"}, {"docs", "operations.md"}} {
		text += strings.ReplaceAll(readFile(t, document...), "\\\n", " ") // a command over several lines
	}

	command := regexp.MustCompile(`docker compose (?:restart|logs|stop|exec|run|up)((?: [^|#\n` + "`" + `;>]+)*)`)
	named := 0
	for _, found := range command.FindAllStringSubmatch(text, -1) {
		for _, word := range servicesOf(found[0]) {
			named++
			if _, known := services[word]; !known {
				t.Errorf("%s: there is no service %s", strings.TrimSpace(found[0]), word)
			}
		}
	}

	if named < 15 {
		t.Errorf("only %d services are named in commands: the test does not find them", named)
	}
}

// servicesOf lists the services that a command of Compose names.
func servicesOf(command string) (names []string) {
	words := strings.Fields(command)[2:]
	verb, words := words[0], words[1:]
	withValue := map[string]bool{"--env": true, "--volume": true, "--user": true, "--tail": true}
	for i := 0; i < len(words); i++ {
		switch {
		case words[i] == "--scale":
			i++
			name, _, _ := strings.Cut(words[i], "=")
			names = append(names, name)
		case withValue[words[i]]:
			i++
		case strings.HasPrefix(words[i], "-"):
		default:
			names = append(names, words[i])
			if verb == "exec" || verb == "run" { // what follows is the command in the container
				return names
			}
		}
	}

	return names
}

// TestContainersRunAsTheOwnerOfTheSettings, because only the owner may read .env and the key.
func TestContainersRunAsTheOwnerOfTheSettings(t *testing.T) {
	t.Parallel()
	services := compose(t, "VANTREXIA_USER=1000:1001").Services
	for name, want := range map[string]string{
		"backend":         "1000:1001",
		"worker":          "1000:1001",
		"migrate":         "1000:1001",
		"certs":           "1000:1001",
		"temporal":        "1000:1001",
		"temporal-schema": "1000:1001",
		"temporal-ui":     "1000:1001",
		"sandbox":         "65532:65532",
	} {
		if got := services[name].User; got != want {
			t.Errorf("%s runs as %s, want %s", name, got, want)
		}
	}
}

// TestAddressesNameServices: one container finds another by its name.
func TestAddressesNameServices(t *testing.T) {
	t.Parallel()
	services := compose(t).Services
	sandbox := readSettings(t, "deploy", "sandbox.env")
	for name, value := range services["sandbox"].Environment {
		if value != nil {
			sandbox[name] = *value
		}
	}

	addresses := map[string]string{"backend's Temporal": *services["backend"].Environment["TEMPORAL_ADDRESS"]}
	for _, name := range []string{"SANDBOX_ADDRESS", "SANDBOX_JWKS_URL", "ECW_TOKEN_URL", "ECW_FHIR_BASE_URL"} {
		addresses[name] = sandbox[name]
	}

	for name, address := range addresses {
		host, _, _ := strings.Cut(strings.TrimPrefix(address, "http://"), ":")
		if _, known := services[host]; !known {
			t.Errorf("%s is %q: there is no service %q", name, address, host)
		}
	}
}
