package main

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// A provisioner of node-local volumes under K3s' name for it, so that a claim without a class, or with the class
// local-path, is bound as it is on K3s. A volume is a folder of the server node's disk.

const (
	provisionerName  = "rancher.io/local-path"
	storageClass     = "local-path"
	selectedNode     = "volume.kubernetes.io/selected-node"
	provisionedBy    = "pv.kubernetes.io/provisioned-by"
	volumesPath      = "/api/v1/persistentvolumes"
	claimsPath       = "/api/v1/persistentvolumeclaims"
	storageClassPath = "/apis/storage.k8s.io/v1/storageclasses"
)

type claimObject struct {
	Metadata meta
	Spec     struct {
		StorageClassName string
		VolumeName       string
		VolumeMode       string
		AccessModes      []string
		Resources        struct{ Requests map[string]string }
	}
}

type volumeObject struct {
	Metadata meta
	Spec     struct {
		HostPath                      *struct{ Path string }
		PersistentVolumeReclaimPolicy string
	}
	Status struct{ Phase string }
}

func (s *server) runStorage() {
	if !s.retry("make the storage class", func() error {
		return s.admin.createOrPatch(storageClassPath, storageClass, map[string]any{
			"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
			"metadata": map[string]any{"name": storageClass, "annotations": map[string]string{
				"storageclass.kubernetes.io/is-default-class": "true"}},
			"provisioner":       provisionerName,
			"reclaimPolicy":     "Delete",
			"volumeBindingMode": "WaitForFirstConsumer",
		})
	}) {
		return
	}
	var mutex sync.Mutex // both watches end in calls to the API; one at a time is enough
	claim := func(o claimObject, gone bool) {
		mutex.Lock()
		defer mutex.Unlock()
		if !gone {
			s.provision(o)
		}
	}
	volume := func(o volumeObject, gone bool) {
		mutex.Lock()
		defer mutex.Unlock()
		if !gone {
			s.reclaim(o)
		}
	}
	go follow(s.admin, claimsPath, s.stop, func(items []claimObject) {
		for _, o := range items {
			claim(o, false)
		}
	}, claim)
	follow(s.admin, volumesPath, s.stop, func(items []volumeObject) {
		for _, o := range items {
			volume(o, false)
		}
	}, volume)
}

// provision makes the volume for a claim, once the scheduler has chosen a node for the claim's pod.
func (s *server) provision(o claimObject) {
	node := o.Metadata.Annotations[selectedNode]
	if o.Spec.StorageClassName != storageClass || o.Spec.VolumeName != "" || node == "" ||
		o.Metadata.DeletionTimestamp != "" || o.Spec.VolumeMode == "Block" {
		return
	}
	name := "pvc-" + o.Metadata.UID
	path := filepath.Join(storageFolder, strings.Join([]string{name, o.Metadata.Namespace, o.Metadata.Name}, "_"))
	if node == s.config.nodeName {
		// Pods run as whoever they like: the folder is everybody's, as on K3s.
		if err := os.MkdirAll(path, 0o777); err != nil {
			logf("cannot make the volume %s: %v", path, err)
			return
		}
		_ = os.Chmod(path, 0o777)
	}
	err := s.admin.do("POST", volumesPath, map[string]any{
		"apiVersion": "v1", "kind": "PersistentVolume",
		"metadata": map[string]any{"name": name, "annotations": map[string]string{provisionedBy: provisionerName}},
		"spec": map[string]any{
			"accessModes":                   o.Spec.AccessModes,
			"capacity":                      map[string]string{"storage": o.Spec.Resources.Requests["storage"]},
			"hostPath":                      map[string]string{"path": path, "type": "DirectoryOrCreate"},
			"persistentVolumeReclaimPolicy": "Delete",
			"storageClassName":              storageClass,
			"claimRef": map[string]string{"apiVersion": "v1", "kind": "PersistentVolumeClaim",
				"name": o.Metadata.Name, "namespace": o.Metadata.Namespace, "uid": o.Metadata.UID,
				"resourceVersion": o.Metadata.ResourceVersion},
			"nodeAffinity": map[string]any{"required": map[string]any{"nodeSelectorTerms": []any{
				map[string]any{"matchExpressions": []any{map[string]any{
					"key": "kubernetes.io/hostname", "operator": "In", "values": []string{node}}}}}}},
		},
	}, nil)
	if err != nil && !isStatus(err, 409) {
		logf("cannot make a volume for %s: %v", o.Metadata.key(), err)
	}
}

// reclaim removes a volume of ours whose claim is gone, and its folder.
func (s *server) reclaim(o volumeObject) {
	if o.Status.Phase != "Released" || o.Spec.PersistentVolumeReclaimPolicy != "Delete" || o.Spec.HostPath == nil ||
		o.Metadata.Annotations[provisionedBy] != provisionerName || o.Metadata.DeletionTimestamp != "" {
		return
	}
	// Nobody but us writes such paths, but what is removed for good is worth a second look.
	path := filepath.Clean(o.Spec.HostPath.Path)
	if filepath.Dir(path) == storageFolder && strings.HasPrefix(filepath.Base(path), "pvc-") {
		if err := os.RemoveAll(path); err != nil {
			logf("cannot remove the volume %s: %v", path, err)
			return
		}
	}
	if err := s.admin.do("DELETE", volumesPath+"/"+o.Metadata.Name, nil, nil); err != nil && !isStatus(err, 404) {
		logf("cannot remove the volume %s: %v", o.Metadata.Name, err)
	}
}
