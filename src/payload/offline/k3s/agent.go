package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// joinedFile keeps the server's last answer, so that an agent starts again while its server is away.
const joinedFile = agentFolder + "/joined.json"

func runAgent(args []string) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	config, err := loadConfig(args)
	if err != nil {
		return err
	}
	address, err := url.Parse(config.server)
	if err != nil || address.Scheme != "https" || address.Hostname() == "" {
		return fmt.Errorf("an agent needs --server https://HOST:6443 (or K3S_URL), not %q", config.server)
	}
	if config.token == "" {
		return errors.New("an agent needs --token TOKEN (or K3S_TOKEN): the server has it in " +
			serverFolder + "/node-token")
	}
	unlock, err := lockMachine()
	if err != nil {
		return err
	}
	defer unlock()

	stop := make(chan struct{})
	var n *node
	var kubernetes *child
	defer func() {
		close(stop)
		if n != nil {
			stopAll(kubernetes)
			stopAll(n.containerd)
		}
	}()
	answer, err := join(config, address.Hostname(), signals)
	if answer == nil {
		return err
	}
	if n, err = startAgent(config, address, answer, stop); err != nil {
		return err
	}
	kubernetes = newKubernetes(func(o orders) {
		_ = o.run(n.proxy) && o.run(n.kubelet, n.containerdAnswers)
	})
	kubernetes.start()
	notify("READY=1\nSTATUS=Node of " + config.server)
	sig := <-signals
	logf("stopping (%s)", sig)
	notify("STOPPING=1")
	return nil
}

// join asks the server until it answers. A server that is away is no reason to stop for a node that has joined
// before; a refusal is. Nil without an error means that a signal came first.
func join(config *config, host string, signals chan os.Signal) (*joinAnswer, error) {
	for said := false; ; said = true {
		answer, err := askToJoin(host, config.token, joinRequest{config.nodeName, config.nodeIP.String()})
		if err == nil {
			data, err := json.Marshal(answer)
			if err == nil {
				err = writeFile(joinedFile, data, 0o600)
			}
			return answer, err
		}
		var refusal *apiError
		if errors.As(err, &refusal) && refusal.status < 500 {
			return nil, fmt.Errorf("%s refuses this node: %s", host, refusal.message)
		}
		if data, readErr := os.ReadFile(joinedFile); readErr == nil {
			answer := &joinAnswer{}
			if json.Unmarshal(data, answer) == nil && len(answer.Files) > 0 {
				logf("the server cannot be asked (%v): starting with the certificates of the last time", err)
				return answer, nil
			}
		}
		if !said {
			logf("cannot join yet: %v", err)
			notify("STATUS=Waiting for " + host)
		}
		select {
		case sig := <-signals:
			logf("stopping (%s)", sig)
			return nil, nil
		case <-time.After(3 * time.Second):
		}
	}
}

func startAgent(config *config, server *url.URL, answer *joinAnswer, stop chan struct{}) (*node, error) {
	p := &pki{folder: agentFolder + "/tls"}
	if err := os.MkdirAll(p.folder, 0o700); err != nil {
		return nil, err
	}
	for name, text := range answer.Files {
		if filepath.Base(name) != name {
			return nil, fmt.Errorf("the server sent a file named %q", name)
		}
		if err := writeFile(filepath.Join(p.folder, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	_, cluster, err := net.ParseCIDR(answer.ClusterCIDR)
	if err != nil {
		return nil, err
	}
	config.clusterCIDR, config.domain = cluster, answer.Domain
	config.clusterDNS = net.ParseIP(answer.ClusterDNS)

	port := server.Port()
	if port == "" {
		port = fmt.Sprint(apiPort)
	}
	api := "https://" + net.JoinHostPort(server.Hostname(), port)
	n := newNode(config)
	n.pki, n.podCIDR, n.api = p, answer.PodCIDR, api
	if err := n.prepare(); err != nil {
		return nil, err
	}
	n.startContainerd(stop)
	n.containerd.atEase()
	client, err := newClient(api, p.cert("server-ca"), p.cert("client-kubelet"), p.key("client-kubelet"))
	if err != nil {
		return nil, err
	}
	go follow(client, "/api/v1/nodes", stop, func(nodes []nodeObject) {
		for _, o := range nodes {
			n.routeTo(o, false)
		}
	}, n.routeTo)
	return n, nil
}

// verifyByFingerprint accepts a server whose chain ends in the authority with that fingerprint.
func verifyByFingerprint(state tls.ConnectionState, print, host string) error {
	for _, cert := range state.PeerCertificates[1:] {
		encoded := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
		if fingerprint(encoded) != print {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(cert)
		_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: strings.Trim(host, "[]")})
		return err
	}
	return errors.New("the server's certificate is not of the cluster that the token is for")
}
