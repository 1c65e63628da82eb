// Command kubernetes is every component of a node in one process: etcd, the control plane, the kubelet, kube-proxy;
// and, called by that name, kubectl.
//
// One process instead of six, as in K3s: what they share, nine tenths of their code and most of what they do before
// they begin, is loaded, initialised and kept in memory once; and under emulation every switch between two processes
// empties the caches of translated addresses and code.
//
// What to run comes on standard input, an order a line: {"component": "kube-apiserver", "args": ["--…", …]}. The
// process ends when a component does, when standard input does, and on SIGTERM, all at once and with nothing to be
// tidied up: etcd's log is on the disk before it says that anything is stored.
package main

import (
	"encoding/json"
	goflag "flag"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	_ "k8s.io/client-go/plugin/pkg/client/auth"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

type order struct {
	Component string   `json:"component"`
	Args      []string `json:"args"`
}

var commands = map[string]func() *cobra.Command{
	"etcd":                    newEtcdCommand,
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-proxy":              proxy.NewProxyCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubelet":                 kubelet.NewKubeletCommand,
}

func main() {
	rand.Seed(time.Now().UnixNano())
	pflag.CommandLine.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	pflag.CommandLine.AddGoFlagSet(goflag.CommandLine)
	logs.InitLogs()

	if filepath.Base(os.Args[0]) == "kubectl" {
		end(kubectl.NewDefaultKubectlCommand().Execute())
	}
	// The flags of this set are sorted when they are first walked through, which the components do at the same time.
	pflag.CommandLine.VisitAll(func(*pflag.Flag) {})
	go obey(os.Stdin)

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	<-signals
	end(nil)
}

// obey runs what it is told to, until there is nobody left to tell.
func obey(input io.Reader) {
	orders := json.NewDecoder(input)
	for {
		var o order
		if err := orders.Decode(&o); err == io.EOF {
			end(nil)
		} else if err != nil {
			end(fmt.Errorf("cannot read an order: %w", err))
		}
		newCommand := commands[o.Component]
		if newCommand == nil {
			end(fmt.Errorf("there is no component %q", o.Component))
		}
		command := newCommand()
		command.SetArgs(o.Args)
		go func() {
			end(fmt.Errorf("%s ended: %v", o.Component, command.Execute()))
		}()
	}
}

func end(err error) {
	logs.FlushLogs()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
