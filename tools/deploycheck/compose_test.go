package deploycheck

import (
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// ourImage is the image of the services that run our binary.
const ourImage = "vantrexia:local"

// compose reads the file as `docker compose config` does, with these variables, and checks it against the
// specification.
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

// ours lists the services that run our binary.
func ours(t *testing.T) (list []types.ServiceConfig) {
	t.Helper()
	for _, service := range compose(t).Services {
		if service.Image == ourImage {
			list = append(list, service)
		}
	}
	if len(list) != 6 {
		t.Fatalf("%d services run our binary, want backend, worker, migrate, sandbox, certs and keys", len(list))
	}
	return list
}

func TestComposeTellsOurBinaryWhatItNeeds(t *testing.T) {
	t.Parallel()
	for _, service := range ours(t) {
		for _, example := range []string{"sandbox.env", "practice.env.example"} {
			set := imageSettings(t)
			if mountOf(service, workDir(t)+"/.env") != nil {
				maps.Copy(set, readSettings(t, "deploy", example))
			}

			for name, value := range service.Environment {
				set[name] = *value
			}

			if mountOf(service, workDir(t)+"/"+keyDir) != nil && set["ECW_PRIVATE_KEY_FILE"] == "" {
				set["ECW_PRIVATE_KEY"] = "found in " + keyDir
			}

			var mounted []string
			for _, secret := range service.Secrets {
				mounted = append(mounted, "/run/secrets/"+secret.Source)
			}
			if service.Name != "certs" && mountOf(service, "/certs") != nil {
				mounted = append(mounted, "/certs/ca.pem", "/certs/cert.pem", "/certs/key.pem")
			}
			if mountOf(service, "/keyring") != nil {
				mounted = append(mounted, "/keyring/keyring.json")
			}

			if example == "sandbox.env" { // the other one has values to fill in
				checkSettings(t, service.Command[0], set, mounted)
			}

			checkKnown(t, service.Name, set)
		}
	}
}

// certificates is where the parts find theirs, by service: each its own and no other. `vantrexia certs` makes them, and it alone
// sees the authority's key.
func certificates() map[string]string {
	return map[string]string{
		"certs":           "",
		"postgres":        "postgres",
		"temporal-schema": "temporal",
		"temporal":        "temporal",
		"temporal-ui":     "temporal-ui",
		"keys":            "vantrexia",
		"migrate":         "vantrexia",
		"backend":         "vantrexia",
		"worker":          "vantrexia",
	}
}

func TestPartsSeeTheirOwnCertificatesOnly(t *testing.T) {
	t.Parallel()
	all := filepath.Join(absolute(t, root), "deploy", "certs")
	for _, service := range compose(t).Services {
		var seen []string
		for _, volume := range service.Volumes {
			if !strings.HasPrefix(volume.Source, all) {
				continue
			}
			seen = append(seen, volume.Source)
			if volume.ReadOnly == (service.Name == "certs") || volume.Bind == nil || bool(volume.Bind.CreateHostPath) {
				t.Errorf("%s: %s may be written to, or is made by Docker when it is missing: %+v", service.Name, volume.Source, volume)
			}
		}

		part, hasOne := certificates()[service.Name]
		if want := filepath.Join(all, part); hasOne && !slices.Equal(seen, []string{want}) || !hasOne && seen != nil {
			t.Errorf("%s sees %v, want %q", service.Name, seen, part)
		}
		waits := service.DependsOn["certs"].Condition == types.ServiceConditionCompletedSuccessfully
		if service.Name == "postgres" && !waits { // everything else waits for PostgreSQL
			t.Error("PostgreSQL does not wait for its certificate")
		}
	}
}

// TestPartsSpeakTLS: none of the parts takes a caller without TLS, and none talks to a part that it does not verify. The server's
// side is tried in test/cluster, with the same scripts and the same pg_hba.conf.
func TestPartsSpeakTLS(t *testing.T) {
	t.Parallel()
	services := compose(t).Services
	postgres := services["postgres"]
	for _, flag := range []string{"--ssl=on", "--hba_file=/etc/postgresql/pg_hba.conf"} {
		if !slices.Contains(postgres.Command, flag) {
			t.Errorf("PostgreSQL runs without %s", flag)
		}
	}
	for path, source := range map[string]string{
		"/etc/postgresql/pg_hba.conf":      "deploy/pg_hba.conf",
		"/usr/local/bin/start-postgres.sh": "deploy/start-postgres.sh",
	} {
		if mount := mountOf(postgres, path); mount == nil || mount.Source != filepath.Join(absolute(t, root), source) {
			t.Errorf("PostgreSQL does not have %s at %s", source, path)
		}
	}
	for line := range strings.Lines(readFile(t, "deploy", "pg_hba.conf")) {
		kind, _, _ := strings.Cut(line, " ")
		if !strings.HasPrefix(line, "#") && kind != "local" && kind != "hostssl" {
			t.Errorf("PostgreSQL takes connections without TLS: %s", line)
		}
	}

	for service, want := range map[string]map[string]string{
		"temporal":        {"TLS_DIR": "/certs"},
		"temporal-schema": {"TLS_DIR": "/certs"},
		"temporal-ui": {
			"TEMPORAL_TLS_CA":                       "/certs/ca.pem",
			"TEMPORAL_TLS_CERT":                     "/certs/cert.pem",
			"TEMPORAL_TLS_KEY":                      "/certs/key.pem",
			"TEMPORAL_TLS_ENABLE_HOST_VERIFICATION": "true",
			"TEMPORAL_TLS_SERVER_NAME":              "temporal",
		},
	} {
		for name, value := range want {
			if got := services[service].Environment[name]; got == nil || *got != value {
				t.Errorf("%s: %s is %v, want %s", service, name, got, value)
			}
		}
	}
}

// TestRotationOfTheRunbook holds the settings that docs/operations.md has the reader write against what the
// backend sees.
func TestRotationOfTheRunbook(t *testing.T) {
	t.Parallel()
	_, section, _ := strings.Cut(readFile(t, "docs", "operations.md"), "## Rotate the key for eCW\n")
	section, _, _ = strings.Cut(section, "\n## ")
	settings := regexp.MustCompile(`(?m)^ *(ECW_[A-Z_]+)=(\S+)$`).FindAllStringSubmatch(section, -1)
	if len(settings) != 6 {
		t.Errorf("the runbook has %v, want the other key, then both of them swapped", settings)
	}

	backend := compose(t).Services["backend"]
	for _, setting := range settings {
		checkKnown(t, "the runbook", map[string]string{setting[1]: setting[2]})
		isFile := strings.HasSuffix(setting[1], "_FILE")
		if isFile && (filepath.Dir(setting[2]) != keyDir || mountOf(backend, workDir(t)+"/"+keyDir) == nil) {
			t.Errorf("the backend does not see %s", setting[2])
		}
		if backend.Environment[setting[1]] != nil {
			t.Errorf("%s in .env has no effect: docker-compose.yml sets it", setting[1])
		}
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

	if len(published) != 3 || !published["backend"] || !published["temporal-ui"] || !published["sandbox"] {
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

// TestNoSandboxBesideAPractice: the sandbox EHR is told what .env says, and does not start with production.
func TestNoSandboxBesideAPractice(t *testing.T) {
	t.Parallel()
	for set, want := range map[string]string{"ECW_ENVIRONMENT=production": "production", "A=b": "staging"} {
		got := compose(t, set).Services["sandbox"].Environment["ECW_ENVIRONMENT"]
		if got == nil || *got != want {
			t.Errorf("with %s the sandbox gets %v", set, got)
		}
	}
}

// TestPartsMayDoNoMoreThanTheyNeed: what somebody can do who has taken over a part.
func TestPartsMayDoNoMoreThanTheyNeed(t *testing.T) {
	t.Parallel()
	// PostgreSQL's image starts as root, and gives its files to the account that it becomes.
	more := map[string][]string{"postgres": {"CHOWN", "DAC_READ_SEARCH", "FOWNER", "SETGID", "SETUID"}}
	var memory types.UnitBytes
	for _, service := range compose(t).Services {
		name := service.Name
		if !service.ReadOnly || service.Privileged {
			t.Errorf("%s: may write to its root, or is privileged", name)
		}
		if !slices.Equal(service.CapDrop, []string{"ALL"}) || !slices.Equal(service.CapAdd, more[name]) {
			t.Errorf("%s: drops %v and adds %v, want ALL and %v", name, service.CapDrop, service.CapAdd, more[name])
		}
		if !slices.Equal(service.SecurityOpt, []string{"no-new-privileges:true"}) {
			t.Errorf("%s: security_opt is %v", name, service.SecurityOpt)
		}
		if service.MemLimit == 0 || service.MemSwapLimit != service.MemLimit || service.PidsLimit < 64 || service.PidsLimit > 512 {
			t.Errorf("%s: memory %d, with swap %d, processes %d", name, service.MemLimit, service.MemSwapLimit, service.PidsLimit)
		}
		if core := service.Ulimits["core"]; core == nil || core.Single != 0 || core.Hard != 0 {
			t.Errorf("%s: a crash may write its memory to the disk", name)
		}
		if service.NetworkMode != "" || service.Pid != "" || service.Ipc != "" || len(service.Devices) > 0 {
			t.Errorf("%s: shares something with the host", name)
		}
		for _, volume := range service.Volumes {
			if strings.Contains(volume.Source, "docker.sock") {
				t.Errorf("%s: may tell Docker what to do", name)
			}
		}
		if name != "postgres" && service.User == "" {
			t.Errorf("%s: runs in the account that its image names", name)
		}
		if service.Restart == "unless-stopped" && service.GetScale() > 0 && len(service.Profiles) == 0 {
			memory += service.MemLimit
		}
	}
	if memory > 3<<30+512<<20 {
		t.Errorf("the parts that run all the time may use %d MiB, and a host has 4 GB", memory>>20)
	}
}
