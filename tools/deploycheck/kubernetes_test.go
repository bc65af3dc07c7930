package deploycheck

import (
	"bytes"
	"maps"
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
			var policies []*networkingv1.NetworkPolicy
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
				case *networkingv1.NetworkPolicy:
					policies = append(policies, o)
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
			checkPolicies(t, policies, "to 192.0.2.10/32 at 5432", "to the internet at 443", "to the internet at 7233")
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

	for _, variable := range container.Env {
		set[variable.Name] = variable.Value
	}

	known := secretKeys(t)
	var mounted []string
	for _, mount := range container.VolumeMounts {
		for _, item := range secretOf(pod, mount.Name).Items {
			if item.Key != postgresCA { // the database's URL names it, not a setting
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
	dropped := security.Capabilities
	if dropped == nil || !slices.Equal(dropped.Drop, []corev1.Capability{"ALL"}) || len(dropped.Add) > 0 ||
		pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault ||
		pod.HostNetwork || pod.HostPID || pod.HostIPC || pod.ServiceAccountName != "vantrexia" {
		t.Errorf("%s: the pod may do more than it needs", name)
	}
	if container.Resources.Limits.Memory().IsZero() || container.Resources.Requests.Cpu().IsZero() {
		t.Errorf("%s: no limit of memory, or no request", name)
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

// checkPolicies: nothing is reached or reaches out but by a rule that names its peers and its ports. servers are those that
// depend on the overlay.
func checkPolicies(t *testing.T, policies []*networkingv1.NetworkPolicy, servers ...string) {
	t.Helper()
	both := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	denies := func(p *networkingv1.NetworkPolicy) bool {
		return len(p.Spec.PodSelector.MatchLabels)+len(p.Spec.PodSelector.MatchExpressions)+len(p.Spec.Ingress)+len(p.Spec.Egress) == 0 &&
			slices.Equal(p.Spec.PolicyTypes, both)
	}
	if !slices.ContainsFunc(policies, denies) {
		t.Error("no policy denies everything to begin with")
	}

	var allowed []string
	for _, policy := range policies {
		for _, rule := range policy.Spec.Ingress {
			allowed = append(allowed, peers(t, policy.Name, "from", rule.From, rule.Ports)...)
		}
		for _, rule := range policy.Spec.Egress {
			allowed = append(allowed, peers(t, policy.Name, "to", rule.To, rule.Ports)...)
		}
	}
	slices.Sort(allowed)
	want := append([]string{
		"from ingress-nginx ingress-nginx controller at 8000",
		"from monitoring prometheus at 8081",
		"to kube-system kube-dns at 53",
		"to kube-system kube-dns at 53", // UDP and TCP
	}, servers...)
	slices.Sort(want)
	if !slices.Equal(allowed, want) {
		t.Errorf("allowed is\n%s\nwant\n%s", strings.Join(allowed, "\n"), strings.Join(want, "\n"))
	}
}

// peers says in words whom a rule names.
func peers(t *testing.T, policy, direction string, named []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) (all []string) {
	t.Helper()
	if len(named) == 0 || len(ports) == 0 {
		t.Errorf("%s: a rule names no peers or no ports: it allows all", policy)
	}
	for _, peer := range named {
		var who []string
		switch {
		case peer.IPBlock != nil && strings.HasSuffix(peer.IPBlock.CIDR, "/0"):
			for _, private := range []string{"10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"} {
				if !slices.Contains(peer.IPBlock.Except, private) {
					t.Errorf("%s: the internet has %s in it", policy, private)
				}
			}
			who = append(who, "the internet")
		case peer.IPBlock != nil:
			who = append(who, peer.IPBlock.CIDR)
		case peer.NamespaceSelector == nil || peer.PodSelector == nil:
			t.Errorf("%s: a peer is any pod of a namespace, or of any namespace: %+v", policy, peer)
			continue
		default:
			who = append(who, peer.NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"])
			for _, label := range slices.Sorted(maps.Keys(peer.PodSelector.MatchLabels)) {
				who = append(who, label+"="+peer.PodSelector.MatchLabels[label])
			}
			for _, expression := range peer.PodSelector.MatchExpressions {
				who = append(who, expression.Values...)
			}
		}
		for _, port := range ports {
			all = append(all, direction+" "+strings.Join(who, " ")+" at "+port.Port.String())
		}
	}
	return all
}
