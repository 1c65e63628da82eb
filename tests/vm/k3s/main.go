// SPDX-License-Identifier: MIT

// k3s stands for K3s in tests of upgrades: an API server with one node and some pods, which knows its version by what
// is written behind its end ("\nVERSION v1.33.1+k3s1 WORD\n"), and keeps what a cluster keeps on the data disk: its
// authority and the version that last wrote there. Data of a newer version it cannot read.
// WORD "broken": it writes to the disk as the new version, and ends.
package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	data       = "/var/lib/rancher/k3s"
	kubeconfig = "/etc/rancher/k3s/k3s.yaml"
)

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, "k3s:", err)
		os.Exit(1)
	}
	return value
}

func check(err error) { must(0, err) }

// self: the version and the word behind it.
func self() (version, word string) {
	program := must(os.ReadFile(must(os.Executable())))
	at := bytes.LastIndex(program, []byte("\nVERSION "))
	words := strings.Fields(string(program[at+1:]))
	return words[1], words[2]
}

func certificate(name string, parent *x509.Certificate, signer *ecdsa.PrivateKey) (certPEM, keyPEM []byte) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: name, Organization: []string{"system:masters"}},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(1000 * time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  parent == nil,
		BasicConstraintsValid: true,
	}
	if parent == nil {
		parent, signer = template, key
	}
	der := must(x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer))
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM = pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: must(x509.MarshalECPrivateKey(key))})
	return
}

// kept: a file on the data disk, made when it is not there.
func kept(name string, make func() []byte) []byte {
	path := data + "/" + name
	if text, err := os.ReadFile(path); err == nil {
		return text
	}
	text := make()
	check(os.WriteFile(path, text, 0o600))
	return text
}

func object(kind, namespace, name string, status any) map[string]any {
	return map[string]any{"kind": kind, "metadata": map[string]any{"name": name, "namespace": namespace, "labels": map[string]any{}},
		"status": status}
}

func server(version, word string) {
	check(os.MkdirAll(data, 0o700))
	last := strings.TrimSpace(string(kept("version", func() []byte { return []byte(version) })))
	if last > version {
		fmt.Fprintf(os.Stderr, "k3s: the data is of %s, which is newer than %s\n", last, version)
		os.Exit(1)
	}
	check(os.WriteFile(data+"/version", []byte(version), 0o600))
	if word == "broken" {
		os.Exit(1)
	}
	var authority struct{ Cert, Key []byte }
	check(json.Unmarshal(kept("authority", func() []byte {
		authority.Cert, authority.Key = certificate("test authority", nil, nil)
		return must(json.Marshal(authority))
	}), &authority))
	block, _ := pem.Decode(authority.Cert)
	ca := must(x509.ParseCertificate(block.Bytes))
	block, _ = pem.Decode(authority.Key)
	caKey := must(x509.ParseECPrivateKey(block.Bytes))
	cert, key := certificate("server", ca, caKey)
	userCert, userKey := certificate("admin", ca, caKey)
	encode := base64.StdEncoding.EncodeToString
	check(os.MkdirAll("/etc/rancher/k3s", 0o700))
	check(os.WriteFile(kubeconfig, []byte(fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: default
clusters: [{name: default, cluster: {server: "https://127.0.0.1:6443", certificate-authority-data: %s}}]
contexts: [{name: default, context: {cluster: default, user: default}}]
users: [{name: default, user: {client-certificate-data: %s, client-key-data: %s}}]
`, encode(authority.Cert), encode(userCert), encode(userKey))), 0o600))

	begin := time.Now()
	host := must(os.Hostname())
	answer := func(path string, body func() any) {
		http.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			check(json.NewEncoder(w).Encode(body()))
		})
	}
	http.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	ready := map[string]any{"type": "Ready", "status": "True"}
	answer("/api/v1/nodes", func() any {
		node := object("Node", "", host, map[string]any{"conditions": []any{ready}, "nodeInfo": map[string]any{"kubeletVersion": version}})
		return map[string]any{"kind": "NodeList", "items": []any{node}}
	})
	// At first pods are shown as they were before the start; then one after the other is what it is now.
	answer("/api/v1/pods", func() any {
		var pods []any
		for i := 0; i < 3; i++ {
			started := begin.Add(-time.Hour)
			if time.Since(begin) > time.Duration(i+1)*time.Second {
				started = begin
			}
			state := map[string]any{"running": map[string]any{"startedAt": started.UTC().Format(time.RFC3339)}}
			pods = append(pods, object("Pod", "default", fmt.Sprintf("pod-%d", i), map[string]any{"phase": "Running",
				"conditions": []any{ready}, "containerStatuses": []any{map[string]any{"ready": true, "state": state}}}))
		}
		return map[string]any{"kind": "PodList", "items": pods}
	})
	listener := must(tls.Listen("tcp", ":6443", &tls.Config{Certificates: []tls.Certificate{must(tls.X509KeyPair(cert, key))}}))
	fmt.Fprintln(os.Stderr, "k3s: serving", version)
	check(http.Serve(listener, nil))
}

func main() {
	version, word := self()
	switch {
	case len(os.Args) == 2 && os.Args[1] == "--version":
		fmt.Printf("%s version %s (test)\n", filepath.Base(os.Args[0]), version) // as K3s, which says what its file is called
	case len(os.Args) > 1 && os.Args[1] == "server":
		server(version, word)
	default:
		os.Exit(1)
	}
}
