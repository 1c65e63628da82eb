package main

import (
	"encoding/binary"
	"errors"
	"net"
	"strings"
)

// The wire format of RFC 1035, as much of it as answering needs. Names are written without compression, except
// that an answer for the question's own name points back at it.

const (
	typeA     = 1
	typeCNAME = 5
	typeSOA   = 6
	typePTR   = 12
	typeAAAA  = 28
	typeSRV   = 33
	typeANY   = 255

	rcodeFormat    = 1
	rcodeFailure   = 2
	rcodeNoName    = 3
	rcodeNotDone   = 4
	answerSeconds  = 5
	maxUDPAnswer   = 1232
	headerLength   = 12
	maxNameLength  = 255
	maxLabelLength = 63
)

var errDNS = errors.New("malformed DNS message")

type question struct {
	id      uint16
	flags   uint16
	name    string // lower case, no final dot
	qtype   uint16
	class   uint16
	raw     []byte // the question section as it came
	maxSize int    // how large an answer over UDP the client takes
}

// parseQuestion reads a query with exactly one question.
func parseQuestion(message []byte) (*question, error) {
	if len(message) < headerLength {
		return nil, errDNS
	}
	q := &question{id: binary.BigEndian.Uint16(message), flags: binary.BigEndian.Uint16(message[2:]), maxSize: 512}
	if q.flags&0x8000 != 0 || binary.BigEndian.Uint16(message[4:]) != 1 {
		return nil, errDNS
	}
	name, end, err := readName(message, headerLength)
	if err != nil || end+4 > len(message) {
		return nil, errDNS
	}
	q.name = strings.ToLower(name)
	q.qtype = binary.BigEndian.Uint16(message[end:])
	q.class = binary.BigEndian.Uint16(message[end+2:])
	q.raw = message[headerLength : end+4]
	// An OPT record, if it is there, comes last: root name, type 41, and its class is the size.
	if rest := message[end+4:]; binary.BigEndian.Uint16(message[10:]) == 1 && len(rest) >= 11 && rest[0] == 0 &&
		binary.BigEndian.Uint16(rest[1:]) == 41 {
		if size := int(binary.BigEndian.Uint16(rest[3:])); size > q.maxSize {
			q.maxSize = size
		}
		if q.maxSize > maxUDPAnswer {
			q.maxSize = maxUDPAnswer
		}
	}
	return q, nil
}

// readName reads an uncompressed name, which is what a query's first name is.
func readName(message []byte, at int) (string, int, error) {
	var labels []string
	length := 0
	for {
		if at >= len(message) {
			return "", 0, errDNS
		}
		n := int(message[at])
		at++
		if n == 0 {
			return strings.Join(labels, "."), at, nil
		}
		if length += n + 1; n > maxLabelLength || at+n > len(message) || length > maxNameLength {
			return "", 0, errDNS
		}
		labels = append(labels, string(message[at:at+n]))
		at += n
	}
}

func appendName(out []byte, name string) []byte {
	for _, label := range strings.Split(name, ".") {
		if label == "" || len(label) > maxLabelLength {
			continue
		}
		out = append(out, byte(len(label)))
		out = append(out, label...)
	}
	return append(out, 0)
}

// record is a resource record; an empty name stands for the question's.
type record struct {
	name  string
	rtype uint16
	data  []byte
}

func addressRecord(name string, ip net.IP) record { return record{name, typeA, ip.To4()} }

func nameRecord(rtype uint16, target string) record {
	return record{"", rtype, appendName(nil, target)}
}

func serviceRecord(port uint16, target string) record {
	data := []byte{0, 0, 0, 100, 0, 0} // priority 0, weight 100
	binary.BigEndian.PutUint16(data[4:], port)
	return record{"", typeSRV, appendName(data, target)}
}

// startOfAuthority tells how long "there is no such name" may be remembered.
func startOfAuthority(domain string) record {
	data := appendName(nil, "ns.dns."+domain)
	data = appendName(data, "hostmaster."+domain)
	for _, n := range []uint32{1, 7200, 1800, 86400, answerSeconds} {
		data = binary.BigEndian.AppendUint32(data, n)
	}
	return record{domain, typeSOA, data}
}

// reply builds the answer. One that is larger than the limit is cut and marked so: the client asks over TCP.
func (q *question) reply(rcode uint16, authoritative bool, limit int, answers, authority, extra []record) []byte {
	flags := 0x8080 | q.flags&0x7900 | rcode // an answer, recursion is available; opcode and RD as asked
	if authoritative {
		flags |= 0x0400
	}
	out := make([]byte, headerLength, 512)
	binary.BigEndian.PutUint16(out, q.id)
	binary.BigEndian.PutUint16(out[4:], 1)
	out = append(out, q.raw...)
	for section, records := range [][]record{answers, authority, extra} {
		for count, r := range records {
			end := len(out)
			if r.name == "" {
				out = append(out, 0xc0, headerLength)
			} else {
				out = appendName(out, r.name)
			}
			out = binary.BigEndian.AppendUint16(out, r.rtype)
			out = binary.BigEndian.AppendUint16(out, 1)
			out = binary.BigEndian.AppendUint32(out, answerSeconds)
			out = binary.BigEndian.AppendUint16(out, uint16(len(r.data)))
			out = append(out, r.data...)
			if len(out) > limit {
				out = out[:end]
				if section < 2 {
					flags |= 0x0200
				}
				break
			}
			binary.BigEndian.PutUint16(out[6+2*section:], uint16(count+1))
		}
	}
	binary.BigEndian.PutUint16(out[2:], flags)
	return out
}
