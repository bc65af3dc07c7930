package deploycheck

import (
	"os"
	"path/filepath"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// With the component kms, an init container writes the keyring into memory, where the role reads it.
func TestAWrappedKeyringIsUnwrappedBeforeEachRole(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	kubernetes := filepath.Join(absolute(t, root), "deploy", "kubernetes")
	base, err := filepath.Rel(dir, filepath.Join(kubernetes, "base"))
	if err != nil {
		t.Fatal(err)
	}
	kms, err := filepath.Rel(dir, filepath.Join(kubernetes, "components", "kms"))
	if err != nil {
		t.Fatal(err)
	}
	overlay := "resources: [" + base + "]\ncomponents: [" + kms + "]\n"
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(overlay), 0o600); err != nil {
		t.Fatal(err)
	}
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}

	pods := map[string]corev1.PodSpec{}
	var policies []*networkingv1.NetworkPolicy
	for _, resource := range built.Resources() {
		text, err := resource.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		object, err := decode(resource.GetKind(), text)
		if err != nil {
			t.Fatal(err)
		}
		switch o := object.(type) {
		case *appsv1.Deployment:
			pods[o.Name] = o.Spec.Template.Spec
		case *batchv1.Job:
			pods[o.Name] = o.Spec.Template.Spec
		case *networkingv1.NetworkPolicy:
			policies = append(policies, o)
		}
	}
	checkPolicies(t, policies, "to postgres postgresql at 5432", "to temporal temporal frontend at 7233",
		"to the internet at 443", "to the internet at 443") // eCW, and the key management service
	if len(pods) != 3 {
		t.Errorf("%d kinds of pods, want API, worker and migration", len(pods))
	}
	for name, pod := range pods {
		checkUnwraps(t, name, pod)
	}
}

func checkUnwraps(t *testing.T, name string, pod corev1.PodSpec) {
	t.Helper()
	if len(pod.InitContainers) != 1 || pod.InitContainers[0].Image != "vantrexia-kms" {
		t.Fatalf("%s: the init containers are %+v", name, pod.InitContainers)
	}
	memory := 0
	for _, volume := range pod.Volumes {
		if volume.Name == "keyring" && volume.Secret == nil && volume.EmptyDir != nil && volume.EmptyDir.Medium == corev1.StorageMediumMemory {
			memory++
		}
	}
	if memory != 1 {
		t.Errorf("%s: the keyring is not in memory: %+v", name, pod.Volumes)
	}
	if !mounts(pod.InitContainers[0], "keyring", false) || !mounts(pod.Containers[0], "keyring", true) {
		t.Errorf("%s: the keyring is not written by the one container and read by the other", name)
	}
	if mounts(pod.Containers[0], "wrapped-keyring", true) {
		t.Errorf("%s: the role sees the wrapped keyring", name)
	}
}

func mounts(c corev1.Container, volume string, readOnly bool) bool {
	for _, mount := range c.VolumeMounts {
		if mount.Name == volume {
			return mount.ReadOnly == readOnly
		}
	}
	return false
}
