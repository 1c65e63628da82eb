package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// child is one program that is to run for as long as the payload does.
type child struct {
	name   string
	path   string // the program; it is called by name
	args   []string
	env    []string
	dir    string
	nice   int           // while the cluster starts; see atEase
	expect time.Duration // how long an orderly end may take
	brief  func(orders)  // tells every life of it what to do, on its standard input; nil: it is not told anything

	mutex    sync.Mutex
	process  *os.Process
	stopping bool
	ended    chan struct{} // closed when it has ended for good
}

// spawner starts processes, all on one thread that never ends: a process asked to die with its parent dies
// with the thread that started it, and Go's other threads come and go.
var spawner = func() chan func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
}()

// start runs the child and starts it again, ever more slowly, whenever it ends by itself.
func (c *child) start() {
	c.ended = make(chan struct{})
	go func() {
		defer close(c.ended)
		pause := time.Second / 2
		for {
			began := time.Now()
			err := c.run()
			c.mutex.Lock()
			stopping := c.stopping
			c.mutex.Unlock()
			if stopping {
				return
			}
			if time.Since(began) > time.Minute {
				pause = time.Second / 2
			}
			logf("%s ended (%v); starting it again in %s", c.name, err, pause)
			time.Sleep(pause)
			if pause *= 2; pause > 30*time.Second {
				pause = 30 * time.Second
			}
		}
	}()
}

// run starts the program once and waits for its end.
func (c *child) run() error {
	cmd := exec.Command(c.path, c.args...)
	cmd.Args[0] = c.name
	cmd.Dir = c.dir
	cmd.Env = append(childEnvironment(), c.env...)
	// Its own process group, so that a Ctrl-C on a terminal reaches this program only, which stops all in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if stream := journalStream(c.name); stream != nil {
		cmd.Stdout, cmd.Stderr = stream, stream
		defer stream.Close()
	} else {
		reader, writer, err := os.Pipe()
		if err != nil {
			return err
		}
		cmd.Stdout, cmd.Stderr = writer, writer
		defer writer.Close()
		go prefixLines(c.name, reader)
	}

	if c.brief != nil {
		input, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		ended := make(chan struct{})
		defer close(ended)
		go c.brief(orders{input, ended})
	}

	started := make(chan error)
	spawner <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return err
	}
	c.mutex.Lock()
	c.process = cmd.Process
	if c.nice != 0 {
		_ = syscall.Setpriority(syscall.PRIO_PGRP, cmd.Process.Pid, c.nice)
	}
	if c.stopping { // asked to stop between two lives
		_ = cmd.Process.Signal(syscall.SIGTERM)
	}
	c.mutex.Unlock()
	err := cmd.Wait()
	c.mutex.Lock()
	c.process = nil
	c.mutex.Unlock()
	return err
}

// atEase gives a child that stepped back for the API server's start its normal share of the processors.
func (c *child) atEase() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.nice = 0
	if c.process != nil {
		_ = syscall.Setpriority(syscall.PRIO_PGRP, c.process.Pid, 0)
	}
}

// stopAll asks for the end of every child given and waits; one that takes too long is killed.
func stopAll(children ...*child) {
	var wait sync.WaitGroup
	for _, c := range children {
		if c == nil || c.ended == nil {
			continue
		}
		c := c
		wait.Add(1)
		go func() {
			defer wait.Done()
			c.stop()
		}()
	}
	wait.Wait()
}

func (c *child) stop() {
	c.signal(syscall.SIGTERM)
	limit := c.expect
	if limit == 0 {
		limit = 3 * time.Second
	}
	select {
	case <-c.ended:
	case <-time.After(limit):
		logf("%s did not end within %s: killing it", c.name, limit)
		c.signal(syscall.SIGKILL)
		select {
		case <-c.ended:
		case <-time.After(time.Second):
		}
	}
}

func (c *child) signal(sig syscall.Signal) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.stopping = true
	if c.process != nil {
		_ = c.process.Signal(sig)
	}
}

// childEnvironment is ours without what systemd meant for this process alone: a child's "READY=1" would
// mark the unit as started too early.
func childEnvironment() []string {
	var env []string
	for _, item := range os.Environ() {
		switch key := item[:indexOr(item, '=', len(item))]; key {
		case "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID",
			"JOURNAL_STREAM", "INVOCATION_ID", "KUBECONFIG":
		default:
			env = append(env, item)
		}
	}
	return env
}

func indexOr(s string, b byte, otherwise int) int {
	for i := 0; i < len(s); i++ {
		if s[i] == b {
			return i
		}
	}
	return otherwise
}

// journalStream opens a stream to the journal under the child's own name, when this program logs to the
// journal. Nothing is copied then, and a child's last words are kept even when this program is gone.
func journalStream(name string) *os.File {
	if os.Getenv("JOURNAL_STREAM") == "" {
		return nil
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: "/run/systemd/journal/stdout", Net: "unix"})
	if err != nil {
		return nil
	}
	defer conn.Close()
	// identifier, unit, priority (info), priority prefixes, and copies to syslog, the kernel log, the console
	if _, err = fmt.Fprintf(conn, "%s\nk3s.service\n6\n0\n0\n0\n0\n", name); err != nil {
		return nil
	}
	file, err := conn.File()
	if err != nil {
		return nil
	}
	return file
}

func prefixLines(name string, reader io.ReadCloser) {
	defer reader.Close()
	lines := bufio.NewReaderSize(reader, 64<<10)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			logf("%s: %s", name, line)
		}
		if err != nil {
			return
		}
	}
}

// notify tells systemd about this program's state; without systemd it does nothing.
func notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if path[0] == '@' {
		path = "\x00" + path[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(state))
}

// waitForSocket waits until something listens there.
func waitForSocket(network, address string, stop <-chan struct{}) bool {
	for {
		conn, err := net.DialTimeout(network, address, time.Second)
		if err == nil {
			conn.Close()
			return true
		}
		select {
		case <-stop:
			return false
		case <-time.After(50 * time.Millisecond):
		}
	}
}
