package main

import (
	"fmt"
	"net/url"
	"os"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/embed"
)

// newEtcdCommand makes etcd from the library that Kubernetes' source carries (3.4.13, the version that
// Kubernetes 1.20 is released with). One member, reached through Unix sockets in the working folder.
func newEtcdCommand() *cobra.Command {
	config := embed.NewConfig()
	cmd := &cobra.Command{
		Use:          "etcd",
		Short:        "The database of a cluster with one control plane node",
		SilenceUsage: true,
		RunE:         func(*cobra.Command, []string) error { return runEtcd(config) },
	}
	cmd.Flags().StringVar(&config.Dir, "data-dir", "", "folder of the database")
	// The only member waits up to one election timeout more before it elects itself, and every start waits for that.
	cmd.Flags().UintVar(&config.TickMs, "heartbeat-interval", 200, "milliseconds")
	cmd.Flags().UintVar(&config.ElectionMs, "election-timeout", 1000, "milliseconds")
	return cmd
}

// runEtcd serves until it fails.
func runEtcd(config *embed.Config) error {
	// A Unix address is HOST:PORT taken as a file name in the working folder. One that a killed etcd left
	// behind would make the next one fail.
	client := url.URL{Scheme: "unix", Host: "client:2379"}
	peer := url.URL{Scheme: "unix", Host: "peer:2380"}
	for _, file := range []string{client.Host, peer.Host} {
		if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
			return err
		}
	}

	config.Name = "default"
	config.LCUrls, config.ACUrls = []url.URL{client}, []url.URL{client}
	config.LPUrls, config.APUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.Logger, config.LogLevel, config.LogOutputs = "zap", "warn", []string{"stderr"}
	config.EnableV2 = false

	server, err := embed.StartEtcd(config)
	if err != nil {
		return fmt.Errorf("cannot start etcd on %s: %w", config.Dir, err)
	}
	select {
	case err := <-server.Err():
		return err
	case <-server.Server.StopNotify():
		return fmt.Errorf("etcd stopped by itself")
	}
}
