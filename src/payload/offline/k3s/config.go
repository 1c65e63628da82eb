package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// Where K3s keeps its things, and so do we.
const (
	configFile       = "/etc/rancher/k3s/config.yaml"
	kubeconfigFile   = "/etc/rancher/k3s/k3s.yaml"
	stateFolder      = "/var/lib/rancher/k3s"
	serverFolder     = stateFolder + "/server"
	agentFolder      = stateFolder + "/agent"
	tlsFolder        = serverFolder + "/tls"
	storageFolder    = stateFolder + "/storage"
	runFolder        = "/run/k3s"
	containerdSocket = runFolder + "/containerd/containerd.sock"
	joinPort         = 9345
	apiPort          = 6443
)

// config is what the command line and config.yaml say, with the defaults filled in.
type config struct {
	nodeName    string
	nodeIP      net.IP
	clusterCIDR *net.IPNet
	serviceCIDR *net.IPNet
	clusterDNS  net.IP
	domain      string
	token       string
	server      string // agent only: https://HOST:6443
	tlsSAN      []string
	nodeLabels  []string
	nodeTaints  []string
	disable     map[string]bool
	mode        os.FileMode         // of k3s.yaml
	registries  string              // a file like K3s' registries.yaml
	extra       map[string][]string // component -> further flags
}

// flagsThatNeedNoValue are K3s flags that stand alone on a command line.
var flagsThatNeedNoValue = map[string]bool{"debug": true, "disable-network-policy": true, "cluster-init": true}

// ignored are K3s settings that change nothing here and deserve no warning.
var ignored = map[string]bool{
	"debug": true, "disable-network-policy": true, "cluster-init": true, "flannel-backend": true,
	"flannel-iface": true, "snapshotter": true, "node-external-ip": true, "egress-selector-mode": true,
}

// component flags: K3s' name for them and the program they belong to.
var componentArgs = map[string]string{
	"kube-apiserver-arg": "kube-apiserver", "kube-controller-manager-arg": "kube-controller-manager",
	"kube-scheduler-arg": "kube-scheduler", "kubelet-arg": "kubelet", "kube-proxy-arg": "kube-proxy",
	"etcd-arg": "etcd",
}

// loadConfig reads config.yaml, then the environment, then the command line: the later wins.
func loadConfig(args []string) (*config, error) {
	settings := map[string][]string{}
	data, err := os.ReadFile(configFile)
	if err == nil {
		settings, err = parseYAML(string(data))
	}
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("%s: %w", configFile, err)
	}
	for key, variable := range map[string]string{"token": "K3S_TOKEN", "server": "K3S_URL", "node-name": "K3S_NODE_NAME"} {
		if value := os.Getenv(variable); value != "" {
			settings[key] = []string{value}
		}
	}
	if err := parseArgs(args, settings); err != nil {
		return nil, err
	}
	return interpret(settings)
}

// parseArgs adds --key value and --key=value. A key given here replaces the file's values.
func parseArgs(args []string, settings map[string][]string) error {
	seen := map[string]bool{}
	for i := 0; i < len(args); i++ {
		if !strings.HasPrefix(args[i], "-") {
			return fmt.Errorf("unexpected argument %q", args[i])
		}
		key, value, hasValue := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		if !hasValue && flagsThatNeedNoValue[key] {
			value, hasValue = "true", true
		}
		if !hasValue {
			if i+1 == len(args) {
				return fmt.Errorf("--%s needs a value", key)
			}
			i++
			value = args[i]
		}
		if !seen[key] {
			settings[key] = nil
			seen[key] = true
		}
		settings[key] = append(settings[key], value)
	}
	return nil
}

// parseYAML understands what K3s' config files hold: a flat mapping of scalars and lists of scalars.
func parseYAML(text string) (map[string][]string, error) {
	settings := map[string][]string{}
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		return settings, parseJSON(text, settings)
	}
	key := ""
	for number, line := range strings.Split(text, "\n") {
		line = strings.TrimRight(stripComment(line), " \t\r")
		content := strings.TrimSpace(line)
		switch {
		case content == "" || content == "---":
		case content == "-" || strings.HasPrefix(content, "- "):
			if key == "" {
				return nil, fmt.Errorf("line %d: a list item without a key", number+1)
			}
			settings[key] = append(settings[key], unquote(strings.TrimSpace(content[1:])))
		case line[0] == ' ' || line[0] == '\t':
			return nil, fmt.Errorf("line %d: nested mappings are not understood here", number+1)
		default:
			name, value, found := strings.Cut(content, ":")
			if !found {
				return nil, fmt.Errorf("line %d: not KEY: VALUE", number+1)
			}
			key = strings.TrimSuffix(unquote(strings.TrimSpace(name)), "+")
			value = strings.TrimSpace(value)
			if strings.HasPrefix(value, "[") && strings.HasSuffix(value, "]") {
				for _, item := range strings.Split(value[1:len(value)-1], ",") {
					if item = strings.TrimSpace(item); item != "" {
						settings[key] = append(settings[key], unquote(item))
					}
				}
			} else if value != "" {
				settings[key] = append(settings[key], unquote(value))
			}
		}
	}
	return settings, nil
}

// parseJSON takes the same as an object of JSON, which is YAML too.
func parseJSON(text string, settings map[string][]string) error {
	var object map[string]any
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		return err
	}
	for key, value := range object {
		list, ok := value.([]any)
		if !ok {
			list = []any{value}
		}
		for _, item := range list {
			switch item.(type) {
			case string, bool, float64:
				settings[key] = append(settings[key], fmt.Sprint(item))
			default:
				return fmt.Errorf("%s: neither a scalar nor a list of scalars", key)
			}
		}
	}
	return nil
}

// stripComment cuts from the first # that stands at the start or after a blank, outside quotes.
func stripComment(line string) string {
	var quote rune
	previous := ' '
	for i, r := range line {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case r == '"' || r == '\'':
			quote = r
		case r == '#' && (previous == ' ' || previous == '\t'):
			return line[:i]
		}
		previous = r
	}
	return line
}

func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}

// interpret turns settings into a config and says which ones it does not know.
func interpret(settings map[string][]string) (*config, error) {
	c := &config{domain: "cluster.local", mode: 0o600, disable: map[string]bool{}, extra: map[string][]string{}}
	cluster, service, ip := "10.42.0.0/16", "10.43.0.0/16", ""
	var unknown []string
	for key, values := range settings {
		if len(values) == 0 {
			continue
		}
		last := values[len(values)-1]
		switch {
		case key == "node-name":
			c.nodeName = last
		case key == "node-ip":
			ip, _, _ = strings.Cut(last, ",")
		case key == "cluster-cidr":
			cluster = last
		case key == "service-cidr":
			service = last
		case key == "cluster-dns":
			c.clusterDNS = net.ParseIP(last)
		case key == "cluster-domain":
			c.domain = last
		case key == "token" || key == "agent-token":
			c.token = last
		case key == "token-file":
			data, err := os.ReadFile(last)
			if err != nil {
				return nil, fmt.Errorf("token-file: %w", err)
			}
			c.token = strings.TrimSpace(string(data))
		case key == "server":
			c.server = last
		case key == "private-registry":
			c.registries = last
		case key == "tls-san":
			c.tlsSAN = values
		case key == "node-label":
			c.nodeLabels = values
		case key == "node-taint":
			c.nodeTaints = values
		case key == "disable":
			for _, value := range values {
				for _, item := range strings.Split(value, ",") {
					c.disable[strings.TrimSpace(item)] = true
				}
			}
		case key == "write-kubeconfig-mode":
			mode, err := strconv.ParseUint(last, 8, 32)
			if err != nil {
				return nil, fmt.Errorf("write-kubeconfig-mode: %q is no file mode", last)
			}
			c.mode = os.FileMode(mode)
		case componentArgs[key] != "":
			for _, value := range values {
				c.extra[componentArgs[key]] = append(c.extra[componentArgs[key]], "--"+strings.TrimLeft(value, "-"))
			}
		case !ignored[key]:
			unknown = append(unknown, key)
		}
	}
	if len(unknown) > 0 {
		sort.Strings(unknown)
		logf("settings that this payload does not know and ignores: %s", strings.Join(unknown, ", "))
	}
	return c, c.complete(cluster, service, ip)
}

// complete checks the addresses and fills in what was not said.
func (c *config) complete(cluster, service, ip string) (err error) {
	if _, c.clusterCIDR, err = net.ParseCIDR(cluster); err != nil || c.clusterCIDR.IP.To4() == nil {
		return fmt.Errorf("cluster-cidr: %q is no IPv4 network", cluster)
	}
	if _, c.serviceCIDR, err = net.ParseCIDR(service); err != nil || c.serviceCIDR.IP.To4() == nil {
		return fmt.Errorf("service-cidr: %q is no IPv4 network", service)
	}
	if c.clusterDNS == nil {
		c.clusterDNS = addressIn(c.serviceCIDR, 10)
	}
	if c.nodeName == "" {
		if c.nodeName, err = os.Hostname(); err != nil {
			return err
		}
	}
	c.nodeName = strings.ToLower(c.nodeName)
	if ip != "" {
		c.nodeIP = net.ParseIP(ip)
	} else {
		c.nodeIP, err = defaultAddress()
	}
	if c.nodeIP == nil || c.nodeIP.To4() == nil {
		return fmt.Errorf("node-ip: no IPv4 address of this machine is known (%v)", err)
	}
	return nil
}

// addressIn returns the n-th address of a network.
func addressIn(network *net.IPNet, n int) net.IP {
	ip := append(net.IP{}, network.IP.To4()...)
	for i := 3; i >= 0 && n > 0; i-- {
		n += int(ip[i])
		ip[i] = byte(n)
		n >>= 8
	}
	return ip
}

// podCIDR is the /24 of the node with that number.
func (c *config) podCIDR(node int) string {
	return addressIn(c.clusterCIDR, node<<8).String() + "/24"
}

// defaultAddress is the address that this machine reaches others with. "Connecting" a UDP socket only asks
// the routing table; no packet is sent.
func defaultAddress() (net.IP, error) {
	conn, err := net.Dial("udp4", "192.0.2.1:9")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).IP, nil
}

// writeFile replaces a file as a whole, durably, with exactly that mode.
func writeFile(path string, data []byte, mode os.FileMode) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == string(data) {
		return os.Chmod(path, mode)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	_, err = file.Write(data)
	if err == nil {
		err = file.Chmod(mode)
	}
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
