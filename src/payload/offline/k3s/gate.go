package main

import (
	"io"
	"net"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// gate is a door to the API server for its clients on this machine, and is there before the API server is.
//
// A client that is refused a connection waits, ever longer, before it tries again: after the half minute that an
// API server needs to start under emulation it may sleep for another half. A connection that is merely not
// answered yet costs it nothing: it is answered the moment the gate opens. So the kubelet and its like are
// started long before the API server listens, and lose no time.
type gate struct {
	address  string // where clients connect
	target   string
	listener net.Listener

	mutex  sync.Mutex
	opened chan struct{} // closed while the door is open
}

func newGate(address, target string) (*gate, error) {
	listener, err := net.Listen("tcp4", address)
	if err != nil {
		return nil, err
	}
	g := &gate{address: address, target: target, listener: listener, opened: make(chan struct{})}
	go g.serve()
	return g, nil
}

func (g *gate) url() string { return "https://" + g.address }

// open lets the clients through.
func (g *gate) open() {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	select {
	case <-g.opened:
	default:
		close(g.opened)
	}
}

// shut makes the clients wait again. Connections that are through stay.
func (g *gate) shut() {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	select {
	case <-g.opened:
		g.opened = make(chan struct{})
	default:
	}
}

func (g *gate) door() <-chan struct{} {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	return g.opened
}

func (g *gate) serve() {
	for {
		conn, err := g.listener.Accept()
		if err != nil {
			return
		}
		go g.pass(conn.(*net.TCPConn))
	}
}

func (g *gate) pass(conn *net.TCPConn) {
	defer conn.Close()
	<-g.door()
	if abandoned(conn) {
		return
	}
	server, err := net.DialTimeout("tcp4", g.target, 5*time.Second)
	if err != nil {
		return
	}
	defer server.Close()
	done := make(chan struct{}, 2)
	forward := func(to, from *net.TCPConn) {
		_, _ = io.Copy(to, from)
		_ = to.CloseWrite()
		done <- struct{}{}
	}
	go forward(server.(*net.TCPConn), conn)
	go forward(conn, server.(*net.TCPConn))
	<-done
	<-done
}

// abandoned says whether the client has hung up while it waited. Passing its greeting on would only cost the API
// server a handshake with nobody, just when it has the most to do.
func abandoned(conn *net.TCPConn) bool {
	const established = 1 // TCP_ESTABLISHED
	state := byte(established)
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) {
		var info [104]byte // struct tcp_info; its first byte is the state
		size := uint32(len(info))
		_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, syscall.IPPROTO_TCP, syscall.TCP_INFO,
			uintptr(unsafe.Pointer(&info[0])), uintptr(unsafe.Pointer(&size)), 0)
		if errno == 0 {
			state = info[0]
		}
	})
	return state != established
}
