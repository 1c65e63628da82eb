package handler

import (
	"sync"
	"time"

	"github.com/go-openapi/spec"
	jsoniter "github.com/json-iterator/go"
)

// lazySpec makes the forms of a specification when they are first asked for. Kubernetes 1.20 makes all of them,
// for every API server of its chain, before it listens: half of its start. Later releases do it as it is done here.
type lazySpec struct {
	json, pb, gz lazyBytes
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

func newLazySpec(openapiSpec *spec.Swagger) *lazySpec {
	now := time.Now()
	l := &lazySpec{}
	l.json = lazyBytes{time: now, make: func() ([]byte, error) {
		return jsoniter.ConfigCompatibleWithStandardLibrary.Marshal(openapiSpec)
	}}
	l.pb = lazyBytes{time: now, make: func() ([]byte, error) {
		data, _, _ := l.json.get()
		var document map[string]interface{}
		if err := jsoniter.ConfigCompatibleWithStandardLibrary.Unmarshal(data, &document); err != nil {
			return nil, err
		}
		return ToProtoBinary(document)
	}}
	l.gz = lazyBytes{time: now, make: func() ([]byte, error) {
		data, _, _ := l.pb.get()
		return toGzip(data), nil
	}}
	return l
}

// UpdateSpec replaces the specification that is served.
func (o *OpenAPIService) UpdateSpec(openapiSpec *spec.Swagger) error {
	l := newLazySpec(openapiSpec)
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
func (o *OpenAPIService) getSwaggerPbGzBytes() ([]byte, string, time.Time) {
	return o.current().gz.get()
}
