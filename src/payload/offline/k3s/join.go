package main

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// An agent joins by asking the server for all it needs: its certificates with their keys, the authorities, its
// range of pod addresses. It proves itself by the token's secret; the server proves itself by the fingerprint of
// its authority, which the token carries too.

const joinPath = "/v1-k3s-vm/join"

type joinRequest struct {
	Name string
	IP   string
}

type joinAnswer struct {
	PodCIDR     string
	ClusterCIDR string
	ServiceCIDR string
	ClusterDNS  string
	Domain      string
	Files       map[string]string // file name in the folder of the certificates -> contents
}

var nodeNames = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$`)

// serveJoins answers agents.
func (s *server) serveJoins() error {
	pair, err := tls.LoadX509KeyPair(s.pki.cert("serving-kube-apiserver"), s.pki.key("serving-kube-apiserver"))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp4", joinAddress(""))
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc(joinPath, s.handleJoin)
	server := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
		MaxHeaderBytes: 16 << 10}
	go func() {
		err := server.Serve(tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{pair}}))
		logf("agents cannot join any more: %v", err)
	}()
	return nil
}

func (s *server) handleJoin(w http.ResponseWriter, r *http.Request) {
	secret := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if subtle.ConstantTimeCompare([]byte(secret), []byte(s.token)) != 1 {
		http.Error(w, "wrong token", http.StatusUnauthorized)
		return
	}
	var request joinRequest
	err := json.NewDecoder(io.LimitReader(r.Body, 4096)).Decode(&request)
	if err != nil || r.Method != http.MethodPost || !nodeNames.MatchString(request.Name) ||
		net.ParseIP(request.IP).To4() == nil {
		http.Error(w, "a join needs a node name and its IPv4 address", http.StatusBadRequest)
		return
	}
	if request.Name == s.config.nodeName {
		http.Error(w, "the server itself has that node name: give the agent another one", http.StatusConflict)
		return
	}
	answer, err := s.admit(request)
	if err != nil {
		logf("agent %s: %v", request.Name, err)
		http.Error(w, "the server could not make the certificates", http.StatusInternalServerError)
		return
	}
	logf("agent %s (%s) joins with %s", request.Name, request.IP, answer.PodCIDR)
	_ = json.NewEncoder(w).Encode(answer)
}

func (s *server) admit(from joinRequest) (*joinAnswer, error) {
	answer := &joinAnswer{
		PodCIDR:     s.podCIDROf(from.Name),
		ClusterCIDR: s.config.clusterCIDR.String(),
		ServiceCIDR: s.config.serviceCIDR.String(),
		ClusterDNS:  s.config.clusterDNS.String(),
		Domain:      s.config.domain,
		Files: map[string]string{
			"server-ca.crt": string(s.pki.server.pem),
			"client-ca.crt": string(s.pki.client.pem),
		},
	}
	issue := func(ca *authority, r request) error {
		certPEM, keyPEM, err := ca.issue(r)
		answer.Files[r.name+".crt"], answer.Files[r.name+".key"] = string(certPEM), string(keyPEM)
		return err
	}
	for _, r := range nodeClientRequests(from.Name) {
		if err := issue(s.pki.client, r); err != nil {
			return nil, err
		}
	}
	return answer, issue(s.pki.server, nodeServerRequest(from.Name, from.IP))
}

// ranges remembers which node has which range; a node keeps its own for good.
var ranges struct {
	sync.Mutex
	nodes map[string]int
}

func (s *server) podCIDROf(name string) string {
	if name == s.config.nodeName {
		return s.config.podCIDR(0)
	}
	ranges.Lock()
	defer ranges.Unlock()
	path := filepath.Join(serverFolder, "node-ranges.json")
	if ranges.nodes == nil {
		ranges.nodes = map[string]int{}
		if data, err := os.ReadFile(path); err == nil {
			_ = json.Unmarshal(data, &ranges.nodes)
		}
	}
	if _, ok := ranges.nodes[name]; !ok {
		next := 1
		for _, n := range ranges.nodes {
			if n >= next {
				next = n + 1
			}
		}
		ranges.nodes[name] = next
		if data, err := json.MarshalIndent(ranges.nodes, "", "  "); err == nil {
			if err := writeFile(path, append(data, '\n'), 0o600); err != nil {
				logf("cannot remember the range of node %s: %v", name, err)
			}
		}
	}
	return s.config.podCIDR(ranges.nodes[name])
}

// askToJoin is the agent's side. The server's certificate is checked against the token's fingerprint.
func askToJoin(host, token string, request joinRequest) (*joinAnswer, error) {
	print, secret, found := strings.Cut(strings.TrimPrefix(token, "K10"), "::server:")
	if !found || !strings.HasPrefix(token, "K10") {
		return nil, fmt.Errorf("the token is not of the form K10<fingerprint>::server:<secret>; " +
			"it is in /var/lib/rancher/k3s/server/node-token on the server")
	}
	config := &tls.Config{
		InsecureSkipVerify: true, // the authority is not known yet; VerifyConnection compares its fingerprint
		VerifyConnection: func(state tls.ConnectionState) error {
			return verifyByFingerprint(state, print, host)
		},
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}, Timeout: 15 * time.Second}
	defer client.CloseIdleConnections()
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	post, err := http.NewRequestWithContext(context.Background(), http.MethodPost,
		"https://"+joinAddress(host)+joinPath, strings.NewReader(string(body)))
	if err != nil {
		return nil, err
	}
	post.Header.Set("Authorization", "Bearer "+secret)
	response, err := client.Do(post)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, &apiError{response.StatusCode, strings.TrimSpace(string(data))}
	}
	answer := &joinAnswer{}
	return answer, json.Unmarshal(data, answer)
}
