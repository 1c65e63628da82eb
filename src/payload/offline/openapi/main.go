// Command openapi asks a freshly compiled API server for its OpenAPI specification, so that no start has to make it.
//
//	openapi KUBERNETES FOLDER     writes openapi.json.gz and openapi.pb.gz to FOLDER
//
// The API server and its etcd run for some seconds in a temporary folder, on a loopback port that was free. That they
// do is also the first test of what was compiled.
package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

const (
	patience = 3 * time.Minute
	token    = "build" // of a server that only this machine reaches, for some seconds, with nothing in it
)

var forms = map[string]string{
	"openapi.json.gz": "application/json",
	"openapi.pb.gz":   "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: openapi KUBERNETES FOLDER")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}

func run(program, folder string) error {
	work, err := os.MkdirTemp("", "openapi-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	address, err := freeAddress()
	if err != nil {
		return err
	}
	orders, err := orders(work, address)
	if err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var log bytes.Buffer
	cmd := exec.CommandContext(ctx, program)
	cmd.Dir, cmd.Stdout, cmd.Stderr = work, &log, &log
	input, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if _, err := input.Write(orders); err != nil {
		return err
	}

	for name, accept := range forms {
		data, err := ask(ctx, "https://"+address+"/openapi/v2", accept, ended)
		if err == nil {
			err = pack(filepath.Join(folder, name), data)
		}
		if err != nil {
			cancel()
			return fmt.Errorf("%w; the API server's log:\n%s", err, log.Bytes())
		}
	}
	input.Close() // the end of its orders is its end
	return <-ended
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

// orders makes the files that the API server insists on and says what to run.
func orders(work, address string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	keyFile := filepath.Join(work, "service.key")
	block := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	if err := os.WriteFile(keyFile, block, 0o600); err != nil {
		return nil, err
	}
	tokenFile := filepath.Join(work, "tokens")
	if err := os.WriteFile(tokenFile, []byte(token+",build,build,system:masters\n"), 0o600); err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	for _, o := range []map[string]any{
		{"component": "etcd", "args": []string{"--data-dir=" + filepath.Join(work, "etcd")}},
		{"component": "kube-apiserver", "args": []string{
			"--advertise-address=" + host, "--bind-address=" + host, "--secure-port=" + port,
			"--token-auth-file=" + tokenFile, "--authorization-mode=RBAC", "--cert-dir=" + filepath.Join(work, "tls"),
			"--etcd-servers=unix://client:2379", "--api-audiences=build",
			"--service-account-issuer=https://build", "--service-account-key-file=" + keyFile,
			"--service-account-signing-key-file=" + keyFile, "--service-cluster-ip-range=10.43.0.0/16"}},
	} {
		if err := encoder.Encode(o); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// ask repeats the question until it is answered in that form, or the API server is gone.
func ask(ctx context.Context, url, accept string, ended <-chan error) ([]byte, error) {
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // its certificate was made for this run
	}}
	defer client.CloseIdleConnections()
	for {
		request, err := http.NewRequestWithContext(ctx, "GET", url, nil)
		if err != nil {
			return nil, err
		}
		request.Header.Set("Accept", accept)
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := client.Do(request)
		if err == nil {
			var data []byte
			data, err = io.ReadAll(response.Body)
			response.Body.Close()
			if err == nil && response.StatusCode == http.StatusOK && len(data) > 100_000 {
				return data, nil
			}
			if err == nil {
				err = fmt.Errorf("%s: %.200s", response.Status, data)
			}
		}
		select {
		case status := <-ended:
			return nil, fmt.Errorf("the API server ended before it answered: %v", status)
		case <-ctx.Done():
			return nil, fmt.Errorf("no answer from the API server within %s: %w", patience, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func pack(path string, data []byte) error {
	var out bytes.Buffer
	writer, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := writer.Write(data); err != nil {
		return err
	}
	if err := writer.Close(); err != nil {
		return err
	}
	return os.WriteFile(path, out.Bytes(), 0o644)
}
