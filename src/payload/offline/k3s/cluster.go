package main

import (
	"fmt"
	"net"
	"time"
)

// lookAfterCluster does what K3s' own controllers do: it names the nodes' roles and ranges, and brings DNS and
// storage.
func (s *server) lookAfterCluster() {
	go s.lookAfterNodes()
	if !s.config.disable["coredns"] {
		go s.runDNS()
	}
	if !s.config.disable["local-storage"] {
		go s.runStorage()
	}
}

// lookAfterNodes gives each node its range and the server's its roles. The kubelet may not do that itself: the
// NodeRestriction plugin forbids it.
func (s *server) lookAfterNodes() {
	visit := func(o nodeObject, gone bool) {
		s.node.routeTo(o, gone)
		if gone {
			return
		}
		patch := map[string]any{}
		if o.Spec.PodCIDR == "" {
			cidr := s.podCIDROf(o.Metadata.Name)
			patch["spec"] = map[string]any{"podCIDR": cidr, "podCIDRs": []string{cidr}}
		}
		if o.Metadata.Name == s.config.nodeName && o.Metadata.Labels["node-role.kubernetes.io/control-plane"] == "" {
			patch["metadata"] = map[string]any{"labels": map[string]string{
				"node-role.kubernetes.io/control-plane": "true",
				"node-role.kubernetes.io/master":        "true",
			}}
		}
		if len(patch) == 0 {
			return
		}
		if err := s.admin.do("PATCH", "/api/v1/nodes/"+o.Metadata.Name, patch, nil); err != nil {
			logf("cannot set up node %s: %v", o.Metadata.Name, err)
		}
	}
	follow(s.admin, "/api/v1/nodes", s.stop, func(nodes []nodeObject) {
		for _, o := range nodes {
			visit(o, false)
		}
	}, visit)
}

// retry calls f until it succeeds, and says once why it does not.
func (s *server) retry(what string, f func() error) bool {
	for said := false; ; said = true {
		err := f()
		if err == nil {
			return true
		}
		if !said {
			logf("cannot %s yet: %v", what, err)
		}
		select {
		case <-s.stop:
			return false
		case <-time.After(time.Second):
		}
	}
}

// runDNS answers on the node's address and makes that the cluster's DNS service, so that pods reach it on
// 10.43.0.10 from every node through kube-proxy.
func (s *server) runDNS() {
	const port = 1053
	d := newDNS(s.config)
	address := net.JoinHostPort(s.config.nodeIP.String(), fmt.Sprint(port))
	if !s.retry("serve DNS", func() error { return d.listen(address) }) {
		return
	}
	go follow(s.admin, "/api/v1/services", s.stop, d.resetServices, d.changeService)
	go follow(s.admin, "/api/v1/endpoints", s.stop, d.resetEndpoints, d.changeEndpoints)

	labels := map[string]string{"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS",
		"kubernetes.io/cluster-service": "true"}
	metadata := map[string]any{"name": "kube-dns", "namespace": "kube-system", "labels": labels}
	s.retry("make the DNS service", func() error {
		err := s.admin.createOrPatch("/api/v1/namespaces/kube-system/endpoints", "kube-dns", map[string]any{
			"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata,
			"subsets": []any{map[string]any{
				"addresses": []any{map[string]any{"ip": s.config.nodeIP.String(), "nodeName": s.config.nodeName}},
				"ports": []any{
					map[string]any{"name": "dns", "port": port, "protocol": "UDP"},
					map[string]any{"name": "dns-tcp", "port": port, "protocol": "TCP"},
				},
			}},
		})
		if err != nil {
			return err
		}
		return s.admin.createOrPatch("/api/v1/namespaces/kube-system/services", "kube-dns", map[string]any{
			"apiVersion": "v1", "kind": "Service", "metadata": metadata,
			"spec": map[string]any{
				"clusterIP": s.config.clusterDNS.String(),
				"ports": []any{
					map[string]any{"name": "dns", "port": 53, "targetPort": port, "protocol": "UDP"},
					map[string]any{"name": "dns-tcp", "port": 53, "targetPort": port, "protocol": "TCP"},
				},
			},
		})
	})
}
