package handler

import (
	"sync"
	"time"

	"github.com/go-openapi/spec"
	"github.com/golang/protobuf/proto"
	"github.com/googleapis/gnostic/compiler"
	openapi_v2 "github.com/googleapis/gnostic/openapiv2"
	jsoniter "github.com/json-iterator/go"
)

// lazySpec makes the forms of a specification when they are first asked for. Kubernetes 1.20 makes all of them,
// for every API server of its chain, before it listens: half of its start. Later releases do it as it is done here.
type lazySpec struct {
	json, pb lazyBytes
}

type lazyBytes struct {
	once sync.Once
	make func() ([]byte, error)
	data []byte
	etag string
	time time.Time
}

func (l *lazyBytes) get() ([]byte, string, time.Time) {
	l.once.Do(func() {
		data, err := l.make()
		if err != nil {
			return // served as an empty document, which every client takes for "no specification"
		}
		l.data, l.etag = data, computeETag(data)
	})
	return l.data, l.etag, l.time
}

func newLazySpec(build func() *spec.Swagger) *lazySpec {
	now := time.Now()
	l := &lazySpec{}
	l.json = lazyBytes{time: now, make: func() ([]byte, error) {
		return jsoniter.ConfigCompatibleWithStandardLibrary.Marshal(build())
	}}
	l.pb = lazyBytes{time: now, make: func() ([]byte, error) {
		data, _, _ := l.json.get()
		document, err := parse(data)
		if err != nil {
			return nil, err
		}
		return proto.Marshal(document)
	}}
	return l
}

func parse(data []byte) (*openapi_v2.Document, error) {
	var object map[string]interface{}
	if err := jsoniter.ConfigCompatibleWithStandardLibrary.Unmarshal(data, &object); err != nil {
		return nil, err
	}
	return openapi_v2.NewDocument(jsonToYAML(object), compiler.NewContext("$root", nil))
}

// ToDocument takes a specification to the form that models are made of. As JSON: JSON is YAML, but its parser needs a
// tenth of the time.
func ToDocument(openapiSpec *spec.Swagger) (*openapi_v2.Document, error) {
	data, err := jsoniter.ConfigCompatibleWithStandardLibrary.Marshal(openapiSpec)
	if err != nil {
		return nil, err
	}
	return parse(data)
}

// NewLazyOpenAPIService serves a specification that is built when it is asked for.
func NewLazyOpenAPIService(build func() *spec.Swagger) *OpenAPIService {
	return &OpenAPIService{lazy: newLazySpec(build)}
}

// UpdateSpec replaces the specification that is served.
func (o *OpenAPIService) UpdateSpec(openapiSpec *spec.Swagger) error {
	l := newLazySpec(func() *spec.Swagger { return openapiSpec })
	o.rwMutex.Lock()
	defer o.rwMutex.Unlock()
	o.lazy = l
	return nil
}

func (o *OpenAPIService) current() *lazySpec {
	o.rwMutex.RLock()
	defer o.rwMutex.RUnlock()
	return o.lazy
}

func (o *OpenAPIService) getSwaggerBytes() ([]byte, string, time.Time)   { return o.current().json.get() }
func (o *OpenAPIService) getSwaggerPbBytes() ([]byte, string, time.Time) { return o.current().pb.get() }
