package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// node is what runs on every machine of a cluster: containerd, the kubelet, kube-proxy.
type node struct {
	config  *config
	pki     *pki
	podCIDR string
	api     string // where the kubelet and kube-proxy reach the API server

	containerd        *child
	containerdAnswers chan struct{} // closed when it did for the first time
	kubelet, proxy    *component
}

func newNode(config *config) *node {
	return &node{config: config, containerdAnswers: make(chan struct{}),
		kubelet: newComponent("kubelet"), proxy: newComponent("kube-proxy")}
}

const pauseImage = "localhost/k3s-vm/pause:1"

func (n *node) etc(parts ...string) string {
	return filepath.Join(append([]string{agentFolder, "etc"}, parts...)...)
}

// prepare writes the configuration files and defines what is to run, without starting it.
func (n *node) prepare() error {
	for _, folder := range []string{runFolder, n.etc("cni", "net.d"), agentFolder + "/images", storageFolder} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	kubelet, err := n.kubeletConfig()
	if err != nil {
		return err
	}
	for path, text := range map[string]string{
		n.etc("containerd.toml"):             n.containerdConfig(),
		n.etc("cni", "net.d", "10.conflist"): n.cniConfig(),
		n.etc("kubelet.json"):                kubelet,
		n.etc("kubelet.kubeconfig"):          kubeconfigWithFiles(n.api, n.pki, "client-kubelet"),
		n.etc("kube-proxy.kubeconfig"):       kubeconfigWithFiles(n.api, n.pki, "client-kube-proxy"),
	} {
		if err := writeFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}

	n.containerd = &child{name: "containerd", path: program("containerd"), nice: 10, env: []string{programPath()},
		args: []string{"--config", n.etc("containerd.toml")}}

	args := []string{
		"--config=" + n.etc("kubelet.json"),
		"--kubeconfig=" + n.etc("kubelet.kubeconfig"),
		"--hostname-override=" + n.config.nodeName,
		"--node-ip=" + n.config.nodeIP.String(),
		"--container-runtime=remote",
		"--container-runtime-endpoint=unix://" + containerdSocket,
		"--containerd=" + containerdSocket,
		"--root-dir=/var/lib/kubelet",
		"--cert-dir=" + agentFolder + "/pki",
	}
	if len(n.config.nodeLabels) > 0 {
		args = append(args, "--node-labels="+strings.Join(n.config.nodeLabels, ","))
	}
	if len(n.config.nodeTaints) > 0 {
		args = append(args, "--register-with-taints="+strings.Join(n.config.nodeTaints, ","))
	}
	n.kubelet.define(append(args, n.config.extra["kubelet"]...)...)

	n.proxy.define(append([]string{
		"--kubeconfig=" + n.etc("kube-proxy.kubeconfig"),
		"--hostname-override=" + n.config.nodeName,
		"--bind-address=" + n.config.nodeIP.String(),
		"--cluster-cidr=" + n.config.clusterCIDR.String(),
		"--proxy-mode=iptables",
		"--iptables-min-sync-period=100ms",
		// Left to the guest, which knows how much memory there is; without these kube-proxy insists.
		"--conntrack-max-per-core=0",
		"--conntrack-tcp-timeout-established=0s",
		"--conntrack-tcp-timeout-close-wait=0s",
		"--healthz-bind-address=127.0.0.1:10256",
		"--metrics-bind-address=127.0.0.1:10249",
	}, n.config.extra["kube-proxy"]...)...)
	return nil
}

func (n *node) containerdConfig() string {
	return fmt.Sprintf(`version = 2
root = %q
state = %q
# Snapshotters that this guest has no use for: each costs time at the start.
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.native",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]

[grpc]
  address = %q

[plugins."io.containerd.internal.v1.opt"]
  path = %q

[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "10010"
  sandbox_image = %q

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = %q
  conf_dir = %q

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  disable_snapshot_annotations = true
  default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  BinaryName = %q
  SystemdCgroup = false
%s`, agentFolder+"/containerd", runFolder+"/containerd", containerdSocket, agentFolder+"/containerd/opt",
		pauseImage, program("cni"), n.etc("cni", "net.d"), program("runc"), registriesConfig(n.config.registries))
}

// cniConfig is a bridge with the node's own range. Addresses are handed out from a folder in /run: a machine
// that was switched off has no pods, and so no address is lost. Traffic to the outside is masqueraded by one
// rule of ours (see network) and not by the plugin, which would run iptables four times for every pod.
func (n *node) cniConfig() string {
	return fmt.Sprintf(`{
  "cniVersion": "0.4.0",
  "name": "k3s-vm",
  "plugins": [
    { "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
      "ipam": { "type": "host-local", "dataDir": "/run/k3s/cni", "ranges": [[{ "subnet": %q }]],
                "routes": [{ "dst": "0.0.0.0/0" }] } },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}
`, n.podCIDR)
}

func (n *node) kubeletConfig() (string, error) {
	resolvConf := "/etc/resolv.conf"
	if data, err := os.ReadFile(resolvConf); err == nil && strings.Contains(string(data), "127.0.0.53") {
		resolvConf = "/run/systemd/resolve/resolv.conf"
	}
	data, err := json.MarshalIndent(map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1",
		"kind":       "KubeletConfiguration",
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true},
			"x509":      map[string]any{"clientCAFile": n.pki.cert("client-ca")},
		},
		"authorization":       map[string]any{"mode": "Webhook"},
		"cgroupDriver":        "cgroupfs",
		"clusterDNS":          []string{n.config.clusterDNS.String()},
		"clusterDomain":       n.config.domain,
		"evictionHard":        map[string]string{"imagefs.available": "5%", "nodefs.available": "5%"},
		"failSwapOn":          false,
		"healthzBindAddress":  "127.0.0.1",
		"resolvConf":          resolvConf,
		"serializeImagePulls": false,
		"tlsCertFile":         n.pki.cert("serving-kubelet"),
		"tlsPrivateKeyFile":   n.pki.key("serving-kubelet"),
		"volumePluginDir":     agentFolder + "/volume-plugins",
	}, "", "  ")
	return string(data), err
}

// network sets what pods need of the kernel. The guest has done most of it already.
func (n *node) network() {
	if _, err := os.Stat("/proc/sys/net/bridge"); err != nil {
		_ = exec.Command("modprobe", "br_netfilter").Run()
	}
	for path, value := range map[string]string{
		"/proc/sys/net/ipv4/ip_forward":                "1",
		"/proc/sys/net/bridge/bridge-nf-call-iptables": "1",
	} {
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			logf("cannot set %s to %s: %v", path, value, err)
		}
	}
	cidr := n.config.clusterCIDR.String()
	rule := []string{"POSTROUTING", "-s", cidr, "!", "-d", cidr, "-m", "comment", "--comment",
		"k3s-vm: pods to the outside", "-j", "MASQUERADE"}
	if exec.Command("iptables", append([]string{"-w", "-t", "nat", "-C"}, rule...)...).Run() != nil {
		out, err := exec.Command("iptables", append([]string{"-w", "-t", "nat", "-A"}, rule...)...).CombinedOutput()
		if err != nil {
			logf("pods cannot reach the outside: iptables: %v: %s", err, out)
		}
	}
}

// nodeObject is the part of a Node that is of interest here.
type nodeObject struct {
	Metadata meta
	Spec     struct{ PodCIDR string }
	Status   struct {
		Addresses []struct{ Type, Address string }
	}
}

func (o nodeObject) address() string {
	for _, a := range o.Status.Addresses {
		if a.Type == "InternalIP" {
			return a.Address
		}
	}
	return ""
}

// routeTo makes the pods of another node reachable; the nodes share one network segment.
func (n *node) routeTo(o nodeObject, gone bool) {
	if o.Metadata.Name == n.config.nodeName || o.Spec.PodCIDR == "" || o.address() == "" ||
		o.address() == n.config.nodeIP.String() {
		return
	}
	verb := "replace"
	if gone {
		verb = "del"
	}
	out, err := exec.Command("ip", "route", verb, o.Spec.PodCIDR, "via", o.address()).CombinedOutput()
	if err != nil && !gone {
		logf("no route to the pods of node %s: %v: %s", o.Metadata.Name, err, out)
	}
}

// startContainerd starts containerd and, once it answers, imports images; the kubelet waits for the answer too.
func (n *node) startContainerd(stop <-chan struct{}) {
	n.containerd.start()
	go n.network()
	go func() {
		if !waitForSocket("unix", containerdSocket, stop) {
			return
		}
		logf("containerd answers after %s", sinceStart())
		close(n.containerdAnswers)
		importImages(agentFolder+"/images", filepath.Join(filepath.Dir(program("")), "images"))
	}()
}

var started = time.Now()

func sinceStart() time.Duration { return time.Since(started).Round(100 * time.Millisecond) }
