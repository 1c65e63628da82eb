package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// server is a cluster's first machine: etcd, the control plane, and a node.
type server struct {
	config *config
	pki    *pki
	token  string
	node   *node
	stop   chan struct{} // closed when all is to end

	// Two doors to the API server. The node's opens when it listens: Kubernetes' node authorizer needs
	// nothing more. The other opens when the roles are there, without which everyone else is turned away.
	nodeGate, rolesGate *gate

	kubernetes                              *child
	etcd, apiserver, controllers, scheduler *component
	admin                                   *client
	ready                                   sync.Once // the first time
}

const (
	workFolder       = runFolder + "/kubernetes" // of the process, and of etcd's sockets
	nodeGateAddress  = "127.0.0.1:6444"
	rolesGateAddress = "127.0.0.1:6445"
	apiAddress       = "127.0.0.1:6443"
)

func runServer(args []string) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	config, err := loadConfig(args)
	if err != nil {
		return err
	}
	unlock, err := lockMachine()
	if err != nil {
		return err
	}
	defer unlock()

	s := &server{config: config, stop: make(chan struct{}), node: newNode(config),
		etcd: newComponent("etcd"), apiserver: newComponent("kube-apiserver"),
		controllers: newComponent("kube-controller-manager"), scheduler: newComponent("kube-scheduler")}
	defer s.stopEverything()
	if err := s.start(); err != nil {
		return err
	}
	sig := <-signals
	logf("stopping (%s)", sig)
	notify("STOPPING=1")
	return nil
}

// lockMachine makes sure that there is one server or agent on this machine.
func lockMachine() (func(), error) {
	if err := os.MkdirAll(workFolder, 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(runFolder+"/k3s.lock", os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("a k3s server or agent runs on this machine already (%s is locked)", file.Name())
	}
	return func() { file.Close() }, nil
}

// start starts everything. The API server takes ten times as long as anything else to come up: it is started
// as soon as it has its certificates, and the rest is done beside it.
func (s *server) start() (err error) {
	if s.nodeGate, err = newGate(nodeGateAddress, apiAddress); err != nil {
		return err
	}
	if s.rolesGate, err = newGate(rolesGateAddress, apiAddress); err != nil {
		return err
	}
	data := serverFolder + "/db/etcd"
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	s.etcd.define(append([]string{"--data-dir=" + data}, s.config.extra["etcd"]...)...)
	s.kubernetes = newKubernetes(s.bringUp)
	s.kubernetes.start()

	if s.pki, err = openPKI(tlsFolder); err != nil {
		return err
	}
	if err := s.prepareAPIServer(); err != nil {
		return err
	}
	if err := s.prepareControlPlane(); err != nil {
		return err
	}
	if err := s.startNode(); err != nil {
		return err
	}
	return s.serveJoins()
}

func (s *server) prepareAPIServer() error {
	kubernetes := "kubernetes.default.svc." + s.config.domain
	hosts := append([]string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", kubernetes, "localhost",
		"127.0.0.1", s.config.nodeName, s.config.nodeIP.String(), addressIn(s.config.serviceCIDR, 1).String()},
		s.config.tlsSAN...)
	p := s.pki
	if err := p.ensure(p.server, request{"serving-kube-apiserver", "kube-apiserver", "", unique(hosts)}); err != nil {
		return err
	}
	if err := p.ensure(p.requestHeader, request{"client-auth-proxy", "system:auth-proxy", "", nil}); err != nil {
		return err
	}
	if err := p.ensure(p.client,
		request{"client-kube-apiserver", "system:apiserver", "system:masters", nil},
		request{"client-admin", "system:admin", "system:masters", nil}); err != nil {
		return err
	}
	s.apiserver.define(append([]string{
		"--advertise-address=" + s.config.nodeIP.String(),
		"--allow-privileged=true",
		"--anonymous-auth=false",
		"--api-audiences=https://" + kubernetes + ",k3s",
		"--authorization-mode=Node,RBAC",
		"--bind-address=0.0.0.0",
		"--client-ca-file=" + p.cert("client-ca"),
		"--enable-admission-plugins=NodeRestriction",
		"--etcd-servers=unix://client:2379",
		"--kubelet-certificate-authority=" + p.cert("server-ca"),
		"--kubelet-client-certificate=" + p.cert("client-kube-apiserver"),
		"--kubelet-client-key=" + p.key("client-kube-apiserver"),
		"--kubelet-preferred-address-types=InternalIP,Hostname",
		"--profiling=false",
		"--proxy-client-cert-file=" + p.cert("client-auth-proxy"),
		"--proxy-client-key-file=" + p.key("client-auth-proxy"),
		"--requestheader-allowed-names=system:auth-proxy",
		"--requestheader-client-ca-file=" + p.cert("request-header-ca"),
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		fmt.Sprintf("--secure-port=%d", apiPort),
		"--service-account-issuer=https://" + kubernetes,
		"--service-account-key-file=" + p.key("service"),
		"--service-account-signing-key-file=" + p.key("service"),
		"--service-cluster-ip-range=" + s.config.serviceCIDR.String(),
		"--tls-cert-file=" + p.cert("serving-kube-apiserver"),
		"--tls-private-key-file=" + p.key("serving-kube-apiserver"),
	}, s.config.extra["kube-apiserver"]...)...)
	return nil
}

func unique(items []string) (out []string) {
	seen := map[string]bool{}
	for _, item := range items {
		if item != "" && !seen[item] {
			seen[item] = true
			out = append(out, item)
		}
	}
	return out
}

// prepareControlPlane makes the remaining certificates, the kubeconfigs and the token, and defines the controllers.
func (s *server) prepareControlPlane() error {
	p := s.pki
	if err := p.ensure(p.client,
		request{"client-controller", "system:kube-controller-manager", "", nil},
		request{"client-scheduler", "system:kube-scheduler", "", nil}); err != nil {
		return err
	}
	credentials := func(name string) string { return filepath.Join(serverFolder, "cred", name+".kubeconfig") }
	for _, name := range []string{"client-controller", "client-scheduler"} {
		text := kubeconfigWithFiles(s.rolesGate.url(), p, name)
		if err := writeFile(credentials(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	text, err := kubeconfigWithData("https://"+apiAddress, p, "client-admin")
	if err != nil {
		return err
	}
	if err := writeFile(kubeconfigFile, []byte(text), s.config.mode); err != nil {
		return err
	}
	if s.admin, err = newClient("https://"+apiAddress, p.cert("server-ca"), p.cert("client-admin"),
		p.key("client-admin")); err != nil {
		return err
	}
	if err := s.loadToken(); err != nil {
		return err
	}

	s.controllers.define(append([]string{
		"--allocate-node-cidrs=false",
		"--bind-address=127.0.0.1",
		"--cluster-cidr=" + s.config.clusterCIDR.String(),
		"--cluster-signing-cert-file=" + p.cert("client-ca"),
		"--cluster-signing-key-file=" + p.key("client-ca"),
		// The node's range is set by this program; that controller would wait ten seconds first.
		"--controllers=*,-nodeipam,bootstrapsigner,tokencleaner",
		"--kubeconfig=" + credentials("client-controller"),
		"--leader-elect=false",
		"--port=0",
		"--profiling=false",
		"--root-ca-file=" + p.cert("server-ca"),
		"--secure-port=0",
		"--service-account-private-key-file=" + p.key("service"),
		"--use-service-account-credentials=true",
	}, s.config.extra["kube-controller-manager"]...)...)
	s.scheduler.define(append([]string{
		"--bind-address=127.0.0.1",
		"--kubeconfig=" + credentials("client-scheduler"),
		"--leader-elect=false",
		"--port=0",
		"--profiling=false",
		"--secure-port=0",
	}, s.config.extra["kube-scheduler"]...)...)
	return nil
}

// loadToken reads or makes what an agent joins with, in K3s' form: K10, the authority's fingerprint, the secret.
func (s *server) loadToken() error {
	path := filepath.Join(serverFolder, "node-token")
	secret := s.config.token
	if secret == "" {
		if data, err := os.ReadFile(path); err == nil {
			_, secret, _ = strings.Cut(strings.TrimSpace(string(data)), "::server:")
		}
	}
	if i := strings.LastIndex(secret, "::server:"); i >= 0 {
		secret = secret[i+len("::server:"):]
	}
	if secret == "" {
		bytes := make([]byte, 16)
		if _, err := rand.Read(bytes); err != nil {
			return err
		}
		secret = hex.EncodeToString(bytes)
	}
	s.token = secret
	line := fmt.Sprintf("K10%s::server:%s\n", fingerprint(s.pki.server.pem), secret)
	return writeFile(path, []byte(line), 0o600)
}

func (s *server) startNode() error {
	n := s.node
	n.pki, n.podCIDR, n.api = s.pki, s.config.podCIDR(0), s.nodeGate.url()
	if err := s.pki.ensure(s.pki.client, nodeClientRequests(s.config.nodeName)...); err != nil {
		return err
	}
	if err := s.pki.ensure(s.pki.server, nodeServerRequest(s.config.nodeName, s.config.nodeIP.String())); err != nil {
		return err
	}
	if err := n.prepare(); err != nil {
		return err
	}
	n.startContainerd(s.stop)
	return nil
}

func nodeClientRequests(name string) []request {
	return []request{
		{"client-kubelet", "system:node:" + name, "system:nodes", nil},
		{"client-kube-proxy", "system:kube-proxy", "", nil},
	}
}

func nodeServerRequest(name, ip string) request {
	return request{"serving-kubelet", name, "", []string{name, "localhost", "127.0.0.1", ip}}
}

// bringUp starts the components and opens the doors as the API server comes up, and looks after the cluster from the
// first time that it is ready.
func (s *server) bringUp(o orders) {
	s.nodeGate.shut()
	s.rolesGate.shut()
	notify("STATUS=The API server is starting")
	if !o.run(s.etcd) || !o.run(s.apiserver) {
		return
	}
	logf("the API server is being started, after %s", sinceStart())
	go o.run(s.node.kubelet, s.node.containerdAnswers)
	if !o.after(s.scheduler.defined) || !o.until(s.serving) {
		return
	}
	logf("the API server answers after %s", sinceStart())
	s.nodeGate.open()
	if !o.until(func() bool { return s.admin.healthy("/healthz/poststarthook/rbac/bootstrap-roles") }) {
		return
	}
	s.rolesGate.open()
	if !o.run(s.node.proxy) || !o.run(s.controllers) || !o.run(s.scheduler) {
		return
	}
	if !o.until(func() bool { return s.admin.healthy("/readyz") }) {
		return
	}
	logf("the API is ready after %s", sinceStart())
	notify("READY=1\nSTATUS=The API is ready")
	s.ready.Do(func() {
		s.node.containerd.atEase()
		s.lookAfterCluster()
	})
}

// serving says whether the API server gives an answer of any kind. A connection is accepted long before: it opens its
// port first and then spends most of its start on other things.
func (s *server) serving() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	answer, err := s.admin.open(ctx, "GET", "/livez", "", nil)
	if err == nil {
		answer.Close()
	}
	var refused *apiError
	return err == nil || errors.As(err, &refused)
}

// stopEverything ends Kubernetes, then containerd. Its shims and the pods go on: a restart of this program does not
// touch them.
func (s *server) stopEverything() {
	close(s.stop)
	began := time.Now()
	stopAll(s.kubernetes)
	stopAll(s.node.containerd)
	logf("stopped in %s", time.Since(began).Round(100*time.Millisecond))
}

// joinAddress is where agents ask for their certificates.
func joinAddress(host string) string { return net.JoinHostPort(host, fmt.Sprint(joinPort)) }
