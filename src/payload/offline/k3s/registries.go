package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// registries is K3s' registries.yaml, as far as it is understood here: its mirrors, and the authorities of their
// servers. k3s-vm writes it as JSON.
type registries struct {
	Mirrors map[string]struct{ Endpoint []string }
	Configs map[string]struct {
		TLS struct {
			CAFile string `json:"ca_file"`
		}
	}
}

// registriesConfig is that file as a part of containerd's configuration.
func registriesConfig(path string) string {
	if path == "" {
		return ""
	}
	var r registries
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		logf("no registry mirrors: %s: %v", path, err)
		return ""
	}
	const plugin = `plugins."io.containerd.grpc.v1.cri".registry`
	var text strings.Builder
	for name, mirror := range r.Mirrors {
		endpoints, _ := json.Marshal(mirror.Endpoint)
		fmt.Fprintf(&text, "\n[%s.mirrors.%q]\n  endpoint = %s\n", plugin, name, endpoints)
	}
	for host, config := range r.Configs {
		if config.TLS.CAFile != "" {
			fmt.Fprintf(&text, "\n[%s.configs.%q.tls]\n  ca_file = %q\n", plugin, host, config.TLS.CAFile)
		}
	}
	return text.String()
}
