package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// client is a small client of the Kubernetes API: JSON over HTTPS with a client certificate.
type client struct {
	base string
	http *http.Client
}

type apiError struct {
	status  int
	message string
}

func (e *apiError) Error() string { return fmt.Sprintf("the API answered %d: %s", e.status, e.message) }

func isStatus(err error, status int) bool {
	e, ok := err.(*apiError)
	return ok && e.status == status
}

// newClient trusts that authority only and shows that certificate. No time limit: a watch may last.
func newClient(base, caFile, certFile, keyFile string) (*client, error) {
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s holds no certificate", caFile)
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	return &client{base: base, http: &http.Client{Transport: &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}},
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: 10 * time.Second,
	}}}, nil
}

// open sends a request and returns the answer's body, or an *apiError for an answer of 400 and above.
func (c *client) open(ctx context.Context, method, path, contentType string, body any) (io.ReadCloser, error) {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		reader = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, reader)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	if body != nil {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode < 400 {
		return response.Body, nil
	}
	defer response.Body.Close()
	data, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	var status struct{ Message string }
	if json.Unmarshal(data, &status) != nil || status.Message == "" {
		status.Message = string(data)
	}
	return nil, &apiError{response.StatusCode, status.Message}
}

// do sends a request with a time limit and decodes the answer into out, unless that is nil.
func (c *client) do(method, path string, body, out any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	contentType := "application/json"
	if method == http.MethodPatch {
		contentType = "application/strategic-merge-patch+json"
	}
	answer, err := c.open(ctx, method, path, contentType, body)
	if err != nil {
		return err
	}
	defer answer.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, answer)
		return err
	}
	return json.NewDecoder(answer).Decode(out)
}

// healthy says whether that health path answers 200 now.
func (c *client) healthy(path string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	answer, err := c.open(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return false
	}
	answer.Close()
	return true
}

// createOrPatch creates an object, or brings an existing one to what is given.
func (c *client) createOrPatch(collection, name string, object any) error {
	err := c.do(http.MethodPost, collection, object, nil)
	if isStatus(err, http.StatusConflict) {
		err = c.do(http.MethodPatch, collection+"/"+name, object, nil)
	}
	return err
}

// meta is what every object has.
type meta struct {
	Name              string            `json:"name,omitempty"`
	Namespace         string            `json:"namespace,omitempty"`
	UID               string            `json:"uid,omitempty"`
	ResourceVersion   string            `json:"resourceVersion,omitempty"`
	Labels            map[string]string `json:"labels,omitempty"`
	Annotations       map[string]string `json:"annotations,omitempty"`
	DeletionTimestamp string            `json:"deletionTimestamp,omitempty"`
}

func (m meta) key() string { return m.Namespace + "/" + m.Name }

// follow keeps calling with the objects of a collection: reset with all of them after each list, change with
// each one that is added, altered or (gone) deleted. It goes on until the channel is closed.
func follow[T any](c *client, path string, stop <-chan struct{}, reset func([]T), change func(object T, gone bool)) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	for ctx.Err() == nil {
		if err := followOnce(ctx, c, path, reset, change); err != nil && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}

func followOnce[T any](ctx context.Context, c *client, path string, reset func([]T), change func(T, bool)) error {
	body, err := c.open(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return err
	}
	var list struct {
		Metadata struct{ ResourceVersion string }
		Items    []T
	}
	err = json.NewDecoder(body).Decode(&list)
	body.Close()
	if err != nil {
		return err
	}
	reset(list.Items)

	body, err = c.open(ctx, http.MethodGet, path+"?watch=1&resourceVersion="+list.Metadata.ResourceVersion, "", nil)
	if err != nil {
		return err
	}
	defer body.Close()
	events := json.NewDecoder(body)
	for {
		var event struct {
			Type   string
			Object json.RawMessage
		}
		if err := events.Decode(&event); err != nil {
			if err == io.EOF {
				return nil // the server ends every watch after some minutes
			}
			return err
		}
		switch event.Type {
		case "ADDED", "MODIFIED", "DELETED":
			var object T
			if err := json.Unmarshal(event.Object, &object); err != nil {
				return err
			}
			change(object, event.Type == "DELETED")
		case "ERROR": // usually "too old resource version": list again
			return fmt.Errorf("watch of %s: %s", path, event.Object)
		}
	}
}
