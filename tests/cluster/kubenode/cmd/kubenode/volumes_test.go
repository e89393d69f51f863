package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// fill writes until the volume is full, and never more than limit: without a size limit it would fill the machine's disk.
func fill(t *testing.T, path string, limit int) (int, error) {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(path, "fill"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	block, written := make([]byte, 1<<20), 0
	for written < limit {
		count, err := file.Write(block)
		written += count
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

func storage(size string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
}

func TestVolumeIsFullAtItsSizeGrowsAndGoes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	path := filepath.Join(t.TempDir(), "node1", "pvc-1")
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pvc-1", Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": provisionerName}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:               storage("64Mi"),
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}},
		},
	}
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data", Namespace: "default"},
		Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: "pvc-1", Resources: corev1.VolumeResourceRequirements{Requests: storage("128Mi")}},
		Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, Capacity: storage("64Mi")},
	}
	v := volumes{client: fake.NewClientset(pv, claim)}
	t.Cleanup(func() { _ = v.Delete(t.Context(), pv) })

	if err := makeVolume(path, resource.MustParse("64Mi")); err != nil {
		t.Fatal(err)
	}
	written, err := fill(t, path, 128<<20)
	if !errors.Is(err, syscall.ENOSPC) || written < 48<<20 || written > 64<<20 {
		t.Fatalf("a volume of 64Mi took %d bytes and then said: %v", written, err)
	}
	if err := v.grow(t.Context(), claim); err != nil {
		t.Fatal(err)
	}
	if more, err := fill(t, path, 32<<20); err != nil {
		t.Fatalf("grown to 128Mi it took only %d bytes more: %v", more, err)
	}
	grown, err := v.client.CoreV1().PersistentVolumeClaims("default").Get(t.Context(), "data", metav1.GetOptions{})
	if err != nil || grown.Status.Capacity.Storage().String() != "128Mi" {
		t.Fatalf("the claim's capacity is %v: %v", grown.Status.Capacity, err)
	}
	if err := v.Delete(t.Context(), pv); err != nil {
		t.Fatal(err)
	}
	if loops, err := run("losetup", "-nO", "BACK-FILE"); err != nil || strings.Contains(loops, path) {
		t.Fatalf("the loop device is still there: %s %v", loops, err)
	}
}
