// Command k3s is the front of the offline payload: what K3s' own program is to a K3s cluster.
//
// It has K3s' commands and file locations, and makes certificates, starts the servers, watches over them and
// stops them in order. Behind it is upstream Kubernetes, which it says when asked for its version. It uses
// nothing but Go's standard library: under emulation each imported package costs start-up time.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// version is the Kubernetes version, set by the build.
var version = "unknown"

const usage = `k3s-vm's offline payload: upstream Kubernetes behind K3s' commands and file locations

  k3s server [flags]     run a cluster: etcd, the control plane and a node
  k3s agent [flags]      run a node of another machine's cluster (--server URL --token TOKEN)
  k3s kubectl ...        kubectl with this cluster's credentials
  k3s ctr ...            containerd's client, in the namespace that holds the pods
  k3s --version

Flags are also read from /etc/rancher/k3s/config.yaml, one KEY: VALUE a line, without the dashes.
`

func main() {
	args := os.Args[1:]
	name := filepath.Base(os.Args[0])
	if name == "k3s" {
		if len(args) == 0 {
			fmt.Fprint(os.Stderr, usage)
			os.Exit(2)
		}
		name, args = args[0], args[1:]
	}

	var err error
	switch name {
	case "server":
		err = runServer(args)
	case "agent":
		err = runAgent(args)
	case "kubectl":
		err = runKubectl(args)
	case "ctr":
		err = runCtr(args)
	case "--version", "-v", "version":
		fmt.Printf("k3s-vm offline payload: Kubernetes %s (not K3s)\n", version)
	case "--help", "-h", "help":
		fmt.Print(usage)
	default:
		fmt.Fprintf(os.Stderr, "k3s: there is no command %q here; 'k3s --help' lists what there is\n", name)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "k3s: %v\n", err)
		os.Exit(1)
	}
}

// program returns the path of a program in the payload's lib folder, wherever the payload is mounted.
func program(name string) string {
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err != nil {
		return filepath.Join("/opt/k3s/lib", name)
	}
	return filepath.Join(filepath.Dir(filepath.Dir(self)), "lib", name)
}

// programPath is the PATH of what is started here: the payload's own programs come first.
func programPath() string {
	return "PATH=" + program("") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

// become replaces this process by a program of the payload, called by that name.
func become(file, name string, args []string) error {
	path := program(file)
	err := syscall.Exec(path, append([]string{name}, args...), os.Environ())
	return fmt.Errorf("cannot run %s: %w", path, err)
}

func setenvDefault(key, value string) {
	if os.Getenv(key) == "" {
		os.Setenv(key, value)
	}
}

func runKubectl(args []string) error {
	setenvDefault("KUBECONFIG", kubeconfigFile)
	return become("kubernetes", "kubectl", args)
}

func runCtr(args []string) error {
	setenvDefault("CONTAINERD_ADDRESS", containerdSocket)
	setenvDefault("CONTAINERD_NAMESPACE", "k8s.io")
	return become("ctr", "ctr", args)
}

// logf writes one line to the journal.
func logf(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	fmt.Fprintln(os.Stderr, strings.ReplaceAll(strings.TrimRight(line, "\n"), "\n", " | "))
}
