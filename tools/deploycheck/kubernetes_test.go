package deploycheck

import (
	"bytes"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// decode reads an object of Kubernetes; a field that its type does not have is an error. KEDA's types are not
// at hand.
func decode(kind string, text []byte) (any, error) {
	var object any
	switch kind {
	case "Deployment":
		object = &appsv1.Deployment{}
	case "Job":
		object = &batchv1.Job{}
	case "Service":
		object = &corev1.Service{}
	case "ServiceAccount":
		object = &corev1.ServiceAccount{}
	case "ConfigMap":
		object = &corev1.ConfigMap{}
	case "PodDisruptionBudget":
		object = &policyv1.PodDisruptionBudget{}
	case "HorizontalPodAutoscaler":
		object = &autoscalingv2.HorizontalPodAutoscaler{}
	case "NetworkPolicy":
		object = &networkingv1.NetworkPolicy{}
	default:
		return nil, nil
	}

	return object, yaml.UnmarshalStrict(text, object)
}

// overlays lists the examples, by path.
func overlays(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "deploy/kubernetes/overlays/*/kustomization.yaml"))
	if err != nil || len(files) < 2 {
		t.Fatalf("overlays: %v, %v", files, err)
	}
	for i := range files {
		files[i] = filepath.Dir(files[i])
	}
	return files
}

func TestKubernetesManifests(t *testing.T) {
	t.Parallel()
	for _, dir := range overlays(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
			if err != nil {
				t.Fatal(err)
			}

			pods, settings := map[string]corev1.PodSpec{}, map[string]map[string]string{}
			kinds := map[string]int{}
			for _, resource := range built.Resources() {
				kinds[resource.GetKind()]++
				text, err := resource.AsYAML()
				if err != nil {
					t.Fatal(err)
				}

				object, err := decode(resource.GetKind(), text)
				if err != nil {
					t.Errorf("%s %s: %v", resource.GetKind(), resource.GetName(), err)
				}

				switch o := object.(type) {
				case *appsv1.Deployment:
					pods[o.Name] = o.Spec.Template.Spec
				case *batchv1.Job:
					pods[o.Name] = o.Spec.Template.Spec
				case *corev1.ConfigMap:
					settings[o.Name] = o.Data
				}
			}

			for _, kind := range []string{"ScaledObject", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy", "Service"} {
				if kinds[kind] == 0 {
					t.Errorf("no %s", kind)
				}
			}

			if len(pods) != 3 {
				t.Errorf("%d kinds of pods, want API, worker and migration", len(pods))
			}

			for name, pod := range pods {
				checkPod(t, name, pod, settings)
			}
		})
	}
}

func checkPod(t *testing.T, name string, pod corev1.PodSpec, configMaps map[string]map[string]string) {
	t.Helper()
	container := pod.Containers[0]
	set := imageSettings(t)
	for _, from := range container.EnvFrom {
		for setting, value := range configMaps[from.ConfigMapRef.Name] {
			set[setting] = value
		}
	}

	known := secretKeys(t)
	var mounted []string
	for _, mount := range container.VolumeMounts {
		for _, item := range secretOf(pod, mount.Name).Items {
			if item.Key != postgresCA { // the database's URL names it, not a setting
	for _, variable := range container.Env {
		set[variable.Name] = variable.Value
	}

				mounted = append(mounted, mount.MountPath+"/"+item.Path)
			}
			if !slices.Contains(known, item.Key) {
				t.Errorf("%s: deploy/README.md puts no %s into the Secret", name, item.Key)
			}
		}
		if !mount.ReadOnly {
			t.Errorf("%s: %s may be written to, and our binary then refuses what every account may read", name, mount.MountPath)
		}
	}

	checkSettings(t, container.Args[0], set, mounted)
	if set["TEMPORAL_API_KEY_FILE"]+set["TEMPORAL_TLS_CLIENT_CERT_PATH"] == "" || set["ALLOW_UNENCRYPTED_HOSTS"] != "" {
		t.Errorf("%s: Temporal is reached without TLS", name)
	}
	security := container.SecurityContext
	if !*pod.SecurityContext.RunAsNonRoot || !*security.ReadOnlyRootFilesystem || *security.AllowPrivilegeEscalation {
		t.Errorf("%s: the container may do more than it needs", name)
	}
	if strings.HasSuffix(container.Image, "vantrexia") {
		t.Errorf("%s: the image %s is not pinned", name, container.Image)
	}
	if container.Args[0] != "migrate" && (container.ReadinessProbe == nil || *pod.TerminationGracePeriodSeconds < 60) {
		t.Errorf("%s: not ready to be replaced", name)
	}
}

// TestTheGuideReachesPostgreSQLWithTLS: where the guide says how the URL looks, its authority is among the keys of the Secret.
func TestTheGuideReachesPostgreSQLWithTLS(t *testing.T) {
	t.Parallel()
	url := regexp.MustCompile(`postgres://\S+\?sslmode=verify-full&sslrootcert=/run/secrets/vantrexia/(\S+)`).
		FindStringSubmatch(readFile(t, "deploy", "README.md"))
	if url == nil || url[1] != postgresCA || !slices.Contains(secretKeys(t), postgresCA) {
		t.Errorf("the authority of PostgreSQL's certificate is %v, the Secret has %v", url, secretKeys(t))
	}
}

// postgresCA is the key of the authority of PostgreSQL's certificate.
const postgresCA = "postgres-ca"

// secretOf is the Secret that a volume shows; the zero value has no items, and so shows nothing to this test.
func secretOf(pod corev1.PodSpec, volume string) corev1.SecretVolumeSource {
	for _, v := range pod.Volumes {
		if v.Name == volume && v.Secret != nil {
			return *v.Secret
		}
	}
	return corev1.SecretVolumeSource{}
}

// secretKeys are those that the guide has the reader put into the Secret.
func secretKeys(t *testing.T) (keys []string) {
	t.Helper()
	guide := readFile(t, "deploy", "README.md")
	for line := range bytes.Lines([]byte(guide)) {
		if _, after, ok := strings.Cut(string(line), "--from-file="); ok {
			key, _, _ := strings.Cut(after, "=")
			keys = append(keys, key)
		}
	}

	if len(keys) == 0 {
		t.Fatal("deploy/README.md creates no Secret")
	}
	return keys
}
