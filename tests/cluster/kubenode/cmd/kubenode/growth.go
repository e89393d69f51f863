package main

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"
)

// growClaims grows, while they are in use, the volumes of claims that ask for more than they have. It looks every second
// instead of watching, because then what failed is simply tried again.
func (v volumes) growClaims(ctx context.Context) {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		claims, err := v.client.CoreV1().PersistentVolumeClaims("").List(ctx, metav1.ListOptions{})
		if err != nil {
			klog.ErrorS(err, "Could not list claims")
			return
		}
		for i := range claims.Items {
			if err := v.grow(ctx, &claims.Items[i]); err != nil {
				klog.ErrorS(err, "Could not grow", "claim", klog.KObj(&claims.Items[i]))
			}
		}
	}, time.Second)
}

func (v volumes) grow(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	wanted := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	present := claim.Status.Capacity[corev1.ResourceStorage]
	if claim.Status.Phase != corev1.ClaimBound || wanted.Cmp(present) <= 0 {
		return nil
	}
	pv, err := v.client.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, metav1.GetOptions{})
	if err != nil || pv.Annotations["pv.kubernetes.io/provisioned-by"] != provisionerName {
		return err
	}
	path := pv.Spec.Local.Path
	if err := resizeFile(backingFile(path), wanted); err != nil {
		return err
	}
	device, err := run("findmnt", "-n", "-o", "SOURCE", path)
	if err != nil {
		return err
	}
	for _, command := range [][]string{{"losetup", "-c", device}, {"xfs_growfs", path}} {
		if _, err := run(command[0], command[1:]...); err != nil {
			return err
		}
	}
	pv.Spec.Capacity[corev1.ResourceStorage] = wanted
	if _, err := v.client.CoreV1().PersistentVolumes().Update(ctx, pv, metav1.UpdateOptions{}); err != nil {
		return err
	}
	claim.Status.Capacity[corev1.ResourceStorage] = wanted
	claim.Status.Conditions = nil // all that it could hold is about growing
	_, err = v.client.CoreV1().PersistentVolumeClaims(claim.Namespace).UpdateStatus(ctx, claim, metav1.UpdateOptions{})
	return err
}
