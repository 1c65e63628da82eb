package apiserver

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"k8s.io/klog/v2"
	v1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/controllers/autoregister"
	openapicontroller "k8s.io/kube-aggregator/pkg/controllers/openapi"
	openapiaggregator "k8s.io/kube-aggregator/pkg/controllers/openapi/aggregator"
)

// openAPIDelay is how long after an API group was added the specifications are merged.
const openAPIDelay = 10 * time.Second

// prebuiltOpenAPI serves the OpenAPI specification that was made when this program was built. Merging the chained
// API servers' specifications means writing, parsing and writing again several megabytes of JSON, for the same result
// every time: until an API group is added that did not exist then. From then on it is the aggregator's controller, as
// upstream, and the first document is served until that has merged its own. Without the files it merges when asked.
type prebuiltOpenAPI struct {
	server    *APIAggregator
	documents *documents // nil: there are none
	once      sync.Once
	built     chan struct{}
	added     chan struct{} // closed when a group was added that the documents do not know
	addedOnce sync.Once

	mutex      sync.Mutex
	controller *openapicontroller.AggregationController
	queued     []func(*openapicontroller.AggregationController)
	handler    http.Handler
}

func newPrebuiltOpenAPI(s *APIAggregator) *prebuiltOpenAPI {
	p := &prebuiltOpenAPI{server: s, documents: readDocuments(), built: make(chan struct{}), added: make(chan struct{})}
	s.GenericAPIServer.Handler.NonGoRestfulMux.Handle("/openapi/v2", p)
	return p
}

// Handle takes the handler that the aggregator registers.
func (p *prebuiltOpenAPI) Handle(_ string, handler http.Handler) { p.handler = handler }

func (p *prebuiltOpenAPI) build() {
	p.once.Do(func() {
		defer close(p.built)
		downloader := openapiaggregator.NewDownloader()
		aggregator, err := openapiaggregator.BuildAndRegisterAggregator(&downloader,
			p.server.GenericAPIServer.NextDelegate(),
			p.server.GenericAPIServer.Handler.GoRestfulContainer.RegisteredWebServices(),
			p.server.openAPIConfig, p)
		if err != nil {
			klog.Errorf("cannot merge the OpenAPI specifications: %v", err)
			return
		}
		p.mutex.Lock()
		defer p.mutex.Unlock()
		p.controller = openapicontroller.NewAggregationController(&downloader, aggregator)
		for _, f := range p.queued {
			f(p.controller)
		}
		p.queued = nil
	})
}

func (p *prebuiltOpenAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p.documents != nil {
		select {
		case <-p.built:
		default:
			p.documents.ServeHTTP(w, r)
			return
		}
	}
	p.build()
	if p.handler == nil {
		http.Error(w, "the OpenAPI specification could not be built", http.StatusServiceUnavailable)
		return
	}
	p.handler.ServeHTTP(w, r)
}

// Run waits until the documents will not do, then is the aggregator's controller.
func (p *prebuiltOpenAPI) Run(stopCh <-chan struct{}) {
	select {
	case <-stopCh:
		return
	case <-p.built: // by the first question
	case <-p.added:
		time.Sleep(openAPIDelay)
	}
	p.build()
	if p.controller != nil {
		p.controller.Run(stopCh)
	}
}

func (p *prebuiltOpenAPI) do(f func(*openapicontroller.AggregationController)) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.controller == nil {
		p.queued = append(p.queued, f)
		return
	}
	f(p.controller)
}

// AddAPIService is told about every group's version: the server's own, which are registered at its start, and those
// of custom resources and of other servers.
func (p *prebuiltOpenAPI) AddAPIService(handler http.Handler, apiService *v1.APIService) {
	if apiService.Labels[autoregister.AutoRegisterManagedLabel] != "onstart" {
		p.addedOnce.Do(func() { close(p.added) })
	}
	p.do(func(c *openapicontroller.AggregationController) { c.AddAPIService(handler, apiService) })
}

func (p *prebuiltOpenAPI) UpdateAPIService(handler http.Handler, apiService *v1.APIService) {
	p.do(func(c *openapicontroller.AggregationController) { c.UpdateAPIService(handler, apiService) })
}

func (p *prebuiltOpenAPI) RemoveAPIService(name string) {
	p.do(func(c *openapicontroller.AggregationController) { c.RemoveAPIService(name) })
}

// documents are the specification's two forms, each packed by gzip, from the program's folder.
type documents struct {
	json, protobuf []byte
	time           time.Time
}

func readDocuments() *documents {
	self, err := os.Executable()
	if err != nil {
		return nil
	}
	d := &documents{time: time.Now()}
	folder := filepath.Dir(self)
	if d.json, err = os.ReadFile(filepath.Join(folder, "openapi.json.gz")); err != nil {
		return nil
	}
	if d.protobuf, err = os.ReadFile(filepath.Join(folder, "openapi.pb.gz")); err != nil {
		return nil
	}
	return d
}

func (d *documents) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	data := d.json
	w.Header().Set("Content-Type", "application/json")
	if strings.Contains(r.Header.Get("Accept"), "protobuf") {
		data = d.protobuf
		w.Header().Set("Content-Type", "application/octet-stream")
	}
	w.Header().Add("Vary", "Accept, Accept-Encoding")
	etag := sha256.Sum256(data)
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Etag", fmt.Sprintf("\"%X\"", etag))
	} else if reader, err := gzip.NewReader(bytes.NewReader(data)); err == nil {
		if plain, err := io.ReadAll(reader); err == nil {
			data = plain
			w.Header().Set("Etag", fmt.Sprintf("\"%X-plain\"", etag))
		}
	}
	http.ServeContent(w, r, "", d.time, bytes.NewReader(data))
}
