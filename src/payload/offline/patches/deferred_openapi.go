package apiserver

import (
	"net/http"
	"sync"
	"time"

	"k8s.io/klog/v2"
	v1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	openapicontroller "k8s.io/kube-aggregator/pkg/controllers/openapi"
	openapiaggregator "k8s.io/kube-aggregator/pkg/controllers/openapi/aggregator"
)

// openAPIDelay is how long after its start the API server merges its parts' specifications, unless somebody
// asks for the result earlier.
const openAPIDelay = 60 * time.Second

// deferredOpenAPI merges the specifications of the chained API servers after the start instead of before it.
// Merging means writing, parsing and writing again several megabytes of JSON. It stands in for the aggregator's
// controller, and keeps what it is told until that exists.
type deferredOpenAPI struct {
	server *APIAggregator
	once   sync.Once
	built  chan struct{}
	wanted chan struct{}
	asked  sync.Once

	mutex      sync.Mutex
	controller *openapicontroller.AggregationController
	queued     []func(*openapicontroller.AggregationController)
	handler    http.Handler
}

func newDeferredOpenAPI(s *APIAggregator) *deferredOpenAPI {
	d := &deferredOpenAPI{server: s, built: make(chan struct{}), wanted: make(chan struct{})}
	s.GenericAPIServer.Handler.NonGoRestfulMux.Handle("/openapi/v2", d)
	return d
}

// Handle takes the handler that the aggregator registers.
func (d *deferredOpenAPI) Handle(_ string, handler http.Handler) { d.handler = handler }

func (d *deferredOpenAPI) build() {
	d.once.Do(func() {
		defer close(d.built)
		downloader := openapiaggregator.NewDownloader()
		aggregator, err := openapiaggregator.BuildAndRegisterAggregator(&downloader,
			d.server.GenericAPIServer.NextDelegate(),
			d.server.GenericAPIServer.Handler.GoRestfulContainer.RegisteredWebServices(),
			d.server.openAPIConfig, d)
		if err != nil {
			klog.Errorf("cannot merge the OpenAPI specifications: %v", err)
			return
		}
		d.mutex.Lock()
		defer d.mutex.Unlock()
		d.controller = openapicontroller.NewAggregationController(&downloader, aggregator)
		for _, f := range d.queued {
			f(d.controller)
		}
		d.queued = nil
	})
}

func (d *deferredOpenAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.asked.Do(func() { close(d.wanted) })
	d.build()
	if d.handler == nil {
		http.Error(w, "the OpenAPI specification could not be built", http.StatusServiceUnavailable)
		return
	}
	d.handler.ServeHTTP(w, r)
}

// Run waits for a quiet moment or the first question, then is the aggregator's controller.
func (d *deferredOpenAPI) Run(stopCh <-chan struct{}) {
	select {
	case <-stopCh:
		return
	case <-d.wanted:
	case <-time.After(openAPIDelay):
	}
	d.build()
	if d.controller != nil {
		d.controller.Run(stopCh)
	}
}

func (d *deferredOpenAPI) do(f func(*openapicontroller.AggregationController)) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.controller == nil {
		d.queued = append(d.queued, f)
		return
	}
	f(d.controller)
}

func (d *deferredOpenAPI) AddAPIService(handler http.Handler, apiService *v1.APIService) {
	d.do(func(c *openapicontroller.AggregationController) { c.AddAPIService(handler, apiService) })
}

func (d *deferredOpenAPI) UpdateAPIService(handler http.Handler, apiService *v1.APIService) {
	d.do(func(c *openapicontroller.AggregationController) { c.UpdateAPIService(handler, apiService) })
}

func (d *deferredOpenAPI) RemoveAPIService(name string) {
	d.do(func(c *openapicontroller.AggregationController) { c.RemoveAPIService(name) })
}
