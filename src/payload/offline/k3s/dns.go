package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// dns is the cluster's name server: what CoreDNS does for services, after Kubernetes' "DNS-Based Service
// Discovery" specification, version 1.1.0, and a forwarder for every other name.
type dns struct {
	domain    string
	upstreams []string

	mutex     sync.RWMutex
	synced    [2]bool // services, endpoints
	services  map[string]serviceObject
	endpoints map[string]endpointsObject
}

type portObject struct {
	Name     string
	Port     uint16
	Protocol string
}

type serviceObject struct {
	Metadata meta
	Spec     struct {
		Type         string
		ClusterIP    string
		ExternalName string
		Ports        []portObject
	}
}

type endpointAddress struct {
	IP       string
	Hostname string
}

type endpointsObject struct {
	Metadata meta
	Subsets  []struct {
		Addresses         []endpointAddress
		NotReadyAddresses []endpointAddress
		Ports             []portObject
	}
}

func newDNS(c *config) *dns {
	return &dns{domain: c.domain, upstreams: resolvers("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"),
		services: map[string]serviceObject{}, endpoints: map[string]endpointsObject{}}
}

// resolvers reads the name servers that this machine itself uses; without any, QEMU's user-mode network has one.
func resolvers(files ...string) (out []string) {
	for _, file := range files {
		data, _ := os.ReadFile(file)
		for _, line := range strings.Split(string(data), "\n") {
			fields := strings.Fields(line)
			if len(fields) < 2 || fields[0] != "nameserver" {
				continue
			}
			if ip := net.ParseIP(fields[1]); ip != nil && !ip.IsLoopback() {
				out = append(out, net.JoinHostPort(fields[1], "53"))
			}
		}
		if len(out) > 0 {
			return out
		}
	}
	return []string{"10.0.2.3:53"}
}

func (d *dns) resetServices(items []serviceObject) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.services, d.synced[0] = map[string]serviceObject{}, true
	for _, item := range items {
		d.services[item.Metadata.key()] = item
	}
}

func (d *dns) changeService(item serviceObject, gone bool) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.services[item.Metadata.key()] = item
	if gone {
		delete(d.services, item.Metadata.key())
	}
}

func (d *dns) resetEndpoints(items []endpointsObject) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.endpoints, d.synced[1] = map[string]endpointsObject{}, true
	for _, item := range items {
		d.endpoints[item.Metadata.key()] = item
	}
}

func (d *dns) changeEndpoints(item endpointsObject, gone bool) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.endpoints[item.Metadata.key()] = item
	if gone {
		delete(d.endpoints, item.Metadata.key())
	}
}

// listen answers on that address over UDP and TCP.
func (d *dns) listen(address string) error {
	udp, err := net.ListenPacket("udp4", address)
	if err != nil {
		return err
	}
	tcp, err := net.Listen("tcp4", address)
	if err != nil {
		udp.Close()
		return err
	}
	go d.serveUDP(udp)
	go d.serveTCP(tcp)
	return nil
}

func (d *dns) serveUDP(conn net.PacketConn) {
	busy := make(chan struct{}, 256) // a flood of questions must not eat the guest's memory
	for {
		buffer := make([]byte, 2048)
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		busy <- struct{}{}
		go func() {
			defer func() { <-busy }()
			if answer := d.answer(buffer[:n], "udp"); answer != nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}()
	}
}

func (d *dns) serveTCP(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			for {
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				message, err := readFrame(conn)
				if err != nil {
					return
				}
				answer := d.answer(message, "tcp")
				if answer == nil || writeFrame(conn, answer) != nil {
					return
				}
			}
		}()
	}
}

// Over TCP a message is preceded by its length in two bytes.
func readFrame(conn io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	message := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(conn, message)
	return message, err
}

func writeFrame(conn io.Writer, message []byte) error {
	_, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...))
	return err
}

// answer returns the answer to a message, or nil for one that deserves none.
func (d *dns) answer(message []byte, network string) []byte {
	q, err := parseQuestion(message)
	if err != nil {
		return nil
	}
	limit := q.maxSize
	if network == "tcp" {
		limit = 65535
	}
	if q.flags&0x7800 != 0 || q.class != 1 {
		return q.reply(rcodeNotDone, false, limit, nil, nil, nil)
	}

	reverse := reverseAddress(q.name)
	if q.name != d.domain && !strings.HasSuffix(q.name, "."+d.domain) {
		if reverse != nil {
			if names := d.namesOf(reverse); len(names) > 0 {
				var answers []record
				for _, name := range names {
					answers = append(answers, nameRecord(typePTR, name))
				}
				return q.reply(0, true, limit, answers, nil, nil)
			}
		}
		if answer := d.forward(message, network); answer != nil {
			return answer
		}
		return q.reply(rcodeFailure, false, limit, nil, nil, nil)
	}

	found, ready := d.lookup(strings.TrimSuffix(strings.TrimSuffix(q.name, d.domain), "."))
	if !ready {
		return q.reply(rcodeFailure, false, limit, nil, nil, nil)
	}
	if found == nil {
		return q.reply(rcodeNoName, true, limit, nil, []record{startOfAuthority(d.domain)}, nil)
	}
	return d.answerFound(q, found, limit)
}

// found is what a name of the cluster stands for.
type found struct {
	addresses []net.IP
	alias     string   // an ExternalName service
	services  []record // SRV
	extra     []record // the addresses of the SRV records' targets
}

func (d *dns) answerFound(q *question, f *found, limit int) []byte {
	var answers, extra []record
	if f.alias != "" {
		answers = append(answers, nameRecord(typeCNAME, f.alias))
		if q.qtype == typeA {
			for _, ip := range d.resolve(f.alias) {
				answers = append(answers, addressRecord(f.alias, ip))
			}
		}
	}
	if q.qtype == typeA || q.qtype == typeANY {
		for _, ip := range f.addresses {
			answers = append(answers, addressRecord("", ip))
		}
	}
	if q.qtype == typeSRV || q.qtype == typeANY {
		answers, extra = append(answers, f.services...), f.extra
	}
	if len(answers) == 0 { // the name exists, but nothing of that type
		return q.reply(0, true, limit, nil, []record{startOfAuthority(d.domain)}, nil)
	}
	return q.reply(0, true, limit, answers, nil, extra)
}

// lookup finds a name, given without the cluster's domain; nil if it does not exist. It is not ready before
// the first list has come: a "no such name" then would be wrong and be remembered.
func (d *dns) lookup(name string) (f *found, ready bool) {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	if !d.synced[0] || !d.synced[1] {
		return nil, false
	}
	labels := strings.Split(name, ".")
	n := len(labels)
	switch {
	case name == "" || name == "svc" || name == "pod":
		return &found{}, true
	case labels[n-1] == "pod" && n == 3: // 10-42-0-7.NAMESPACE.pod
		if ip := net.ParseIP(strings.ReplaceAll(labels[0], "-", ".")); ip != nil && ip.To4() != nil {
			return &found{addresses: []net.IP{ip}}, true
		}
		return nil, true
	case labels[n-1] != "svc":
		return nil, true
	case n == 2:
		for _, service := range d.services {
			if service.Metadata.Namespace == labels[0] {
				return &found{}, true
			}
		}
		return nil, true
	}
	namespace, name := labels[n-2], labels[n-3]
	service, ok := d.services[namespace+"/"+name]
	if !ok {
		return nil, true
	}
	full := fmt.Sprintf("%s.%s.svc.%s", name, namespace, d.domain)
	endpoints := d.endpoints[namespace+"/"+name]
	switch {
	case service.Spec.Type == "ExternalName":
		if n == 3 {
			return &found{alias: strings.ToLower(strings.TrimSuffix(service.Spec.ExternalName, "."))}, true
		}
		return nil, true
	case n == 3:
		return lookupService(service, endpoints, full, "", ""), true
	case n == 5 && strings.HasPrefix(labels[0], "_") && strings.HasPrefix(labels[1], "_"): // _http._tcp.NAME
		f := lookupService(service, endpoints, full, labels[0][1:], labels[1][1:])
		f.addresses = nil
		if len(f.services) == 0 {
			return nil, true
		}
		return f, true
	case n == 4: // HOST.NAME: one pod of a headless service
		f := &found{}
		for _, subset := range endpoints.Subsets {
			for _, a := range subset.Addresses {
				if hostOf(a) == labels[0] {
					f.addresses = append(f.addresses, net.ParseIP(a.IP))
				}
			}
		}
		if len(f.addresses) == 0 {
			return nil, true
		}
		return f, true
	}
	return nil, true
}

// lookupService gives a service's addresses, and SRV records of its ports: all, or the one that is named.
func lookupService(service serviceObject, endpoints endpointsObject, full, port, protocol string) *found {
	f := &found{}
	wanted := func(p portObject) bool {
		return p.Name != "" && (port == "" || p.Name == port && strings.EqualFold(p.Protocol, protocol))
	}
	if ip := net.ParseIP(service.Spec.ClusterIP); ip != nil {
		f.addresses = []net.IP{ip}
		for _, p := range service.Spec.Ports {
			if wanted(p) {
				f.services = append(f.services, serviceRecord(p.Port, full))
				f.extra = []record{addressRecord(full, ip)}
			}
		}
		return f
	}
	for _, subset := range endpoints.Subsets { // headless: the pods themselves
		for _, a := range subset.Addresses {
			ip := net.ParseIP(a.IP)
			if ip == nil || ip.To4() == nil {
				continue
			}
			f.addresses = append(f.addresses, ip)
			for _, p := range subset.Ports {
				if wanted(p) {
					target := hostOf(a) + "." + full
					f.services = append(f.services, serviceRecord(p.Port, target))
					f.extra = append(f.extra, addressRecord(target, ip))
				}
			}
		}
	}
	return f
}

func hostOf(a endpointAddress) string {
	if a.Hostname != "" {
		return strings.ToLower(a.Hostname)
	}
	return strings.ReplaceAll(a.IP, ".", "-")
}

// reverseAddress reads D.C.B.A.in-addr.arpa.
func reverseAddress(name string) net.IP {
	labels := strings.Split(strings.TrimSuffix(name, ".in-addr.arpa"), ".")
	if !strings.HasSuffix(name, ".in-addr.arpa") || len(labels) != 4 {
		return nil
	}
	return net.ParseIP(labels[3] + "." + labels[2] + "." + labels[1] + "." + labels[0])
}

func (d *dns) namesOf(ip net.IP) (names []string) {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	for _, service := range d.services {
		if service.Spec.ClusterIP == ip.String() {
			names = append(names, service.Metadata.Name+"."+service.Metadata.Namespace+".svc."+d.domain)
		}
	}
	return names
}

// forward asks the machine's own name servers, over the network that the question came by.
func (d *dns) forward(message []byte, network string) []byte {
	for _, upstream := range d.upstreams {
		if answer, err := exchange(message, network, upstream); err == nil {
			return answer
		}
	}
	return nil
}

func exchange(message []byte, network, upstream string) ([]byte, error) {
	conn, err := net.DialTimeout(network, upstream, 2*time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	if network == "tcp" {
		if err := writeFrame(conn, message); err != nil {
			return nil, err
		}
		return readFrame(conn)
	}
	if _, err := conn.Write(message); err != nil {
		return nil, err
	}
	answer := make([]byte, 4096)
	for {
		n, err := conn.Read(answer)
		if err != nil {
			return nil, err
		}
		if n >= headerLength && answer[0] == message[0] && answer[1] == message[1] {
			return answer[:n], nil
		}
	}
}

// resolve gives the addresses behind an ExternalName, in the cluster or outside.
func (d *dns) resolve(name string) (out []net.IP) {
	if strings.HasSuffix(name, "."+d.domain) {
		if f, _ := d.lookup(strings.TrimSuffix(name, "."+d.domain)); f != nil {
			return f.addresses
		}
		return nil
	}
	addresses, _ := net.LookupIP(name)
	for _, ip := range addresses {
		if ip.To4() != nil {
			out = append(out, ip)
		}
	}
	return out
}
