package main

import (
	"encoding/json"
	"io"
	"time"
)

// component is a part of Kubernetes. All those of a machine run in one process (the command kubernetes), each from
// the moment it is told to.
type component struct {
	name    string
	args    []string
	defined chan struct{} // closed when args are known
}

func newComponent(name string) *component {
	return &component{name: name, defined: make(chan struct{})}
}

// define says how the component is to be called.
func (c *component) define(args ...string) {
	c.args = args
	close(c.defined)
}

// orders is what one life of the process is told. What is written after its end is lost: the next life begins anew.
type orders struct {
	input io.Writer
	ended <-chan struct{}
}

// run starts the component as soon as it is defined and every condition is met. False when the process ended first.
func (o orders) run(c *component, conditions ...<-chan struct{}) bool {
	if !o.after(append(conditions, c.defined)...) {
		return false
	}
	line, err := json.Marshal(map[string]any{"component": c.name, "args": c.args})
	if err == nil {
		_, err = o.input.Write(append(line, '\n'))
	}
	return err == nil
}

// after waits for all of the conditions. False when the process ended first.
func (o orders) after(conditions ...<-chan struct{}) bool {
	for _, condition := range conditions {
		select {
		case <-condition:
		case <-o.ended:
			return false
		}
	}
	return true
}

// until waits until done says so. False when the process ended first.
func (o orders) until(done func() bool) bool {
	for !done() {
		select {
		case <-o.ended:
			return false
		case <-time.After(200 * time.Millisecond):
		}
	}
	return true
}

// newKubernetes makes the process; brief tells every life of it what to run.
func newKubernetes(brief func(orders)) *child {
	return &child{name: "kubernetes", path: program("kubernetes"), dir: workFolder, env: []string{programPath()},
		brief: brief}
}
