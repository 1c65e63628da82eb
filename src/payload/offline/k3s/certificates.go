package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"
)

const (
	caLife      = 10 * 365 * 24 * time.Hour
	leafLife    = 365 * 24 * time.Hour
	renewBefore = 90 * 24 * time.Hour
)

// authority is a certificate authority with its key.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// request says what a leaf certificate is to be good for.
type request struct {
	name         string // file name without .crt and .key
	common       string
	organization string
	hosts        []string // names and addresses: makes it a server's certificate
}

// pki holds the three authorities; its folder has K3s' file names.
type pki struct {
	folder                        string
	server, client, requestHeader *authority
}

func (p *pki) cert(name string) string { return filepath.Join(p.folder, name+".crt") }
func (p *pki) key(name string) string  { return filepath.Join(p.folder, name+".key") }

// openPKI loads the authorities, or makes them where there are none.
func openPKI(folder string) (*pki, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	p := &pki{folder: folder}
	errs := make([]error, 4)
	var wait sync.WaitGroup
	for i, item := range []struct {
		name string
		out  **authority
	}{{"server-ca", &p.server}, {"client-ca", &p.client}, {"request-header-ca", &p.requestHeader}} {
		i, item := i, item
		wait.Add(1)
		go func() {
			defer wait.Done()
			*item.out, errs[i] = openAuthority(p.cert(item.name), p.key(item.name), item.name)
		}()
	}
	wait.Add(1)
	go func() { // the key that signs service account tokens
		defer wait.Done()
		if _, err := readKey(p.key("service")); err != nil {
			var data []byte
			if _, data, errs[3] = newKey(); errs[3] == nil {
				errs[3] = writeFile(p.key("service"), data, 0o600)
			}
		}
	}()
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("cannot set up the certificate authorities in %s: %w", folder, err)
		}
	}
	return p, nil
}

// ensure makes every leaf that is missing, damaged, for other names, of another authority, or near its end.
func (p *pki) ensure(ca *authority, requests ...request) error {
	errs := make(chan error, len(requests))
	for _, r := range requests {
		r := r
		go func() {
			if leafIsGood(p.cert(r.name), p.key(r.name), ca, r) {
				errs <- nil
				return
			}
			certPEM, keyPEM, err := ca.issue(r)
			if err == nil {
				err = writeFile(p.key(r.name), keyPEM, 0o600)
			}
			if err == nil {
				err = writeFile(p.cert(r.name), certPEM, 0o644)
			}
			errs <- err
		}()
	}
	var first error
	for range requests {
		if err := <-errs; err != nil && first == nil {
			first = fmt.Errorf("cannot make the certificates: %w", err)
		}
	}
	return first
}

func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

func readKey(path string) (*ecdsa.PrivateKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s holds no key", path)
	}
	return x509.ParseECPrivateKey(block.Bytes)
}

func readCert(path string) (*x509.Certificate, []byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, nil, fmt.Errorf("%s holds no certificate", path)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	return cert, data, err
}

func openAuthority(certPath, keyPath, name string) (*authority, error) {
	cert, certPEM, certErr := readCert(certPath)
	key, keyErr := readKey(keyPath)
	if certErr == nil && keyErr == nil && key.PublicKey.Equal(cert.PublicKey) {
		return &authority{cert, key, certPEM}, nil
	}
	// Half a pair is what a machine that was switched off in the middle of its first start leaves behind.
	if !os.IsNotExist(certErr) || !os.IsNotExist(keyErr) {
		logf("the authority %s is damaged: making another one", name)
	}
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		Subject:               pkix.Name{CommonName: fmt.Sprintf("k3s-vm-%s@%d", name, now.Unix())},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(caLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := writeFile(keyPath, keyPEM, 0o600); err != nil {
		return nil, err
	}
	if err := writeFile(certPath, certPEM, 0o644); err != nil {
		return nil, err
	}
	cert, err = x509.ParseCertificate(der)
	return &authority{cert, key, certPEM}, err
}

// issue makes a key and a certificate for it; the certificate's file carries the authority's after its own.
func (a *authority) issue(r request) (certPEM, keyPEM []byte, err error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	names, addresses := splitHosts(r.hosts)
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: r.common},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(leafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		DNSNames:     names,
		IPAddresses:  addresses,
	}
	if r.organization != "" {
		template.Subject.Organization = []string{r.organization}
	}
	if len(r.hosts) > 0 {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return append(certPEM, a.pem...), keyPEM, nil
}

func leafIsGood(certPath, keyPath string, ca *authority, r request) bool {
	cert, _, err := readCert(certPath)
	if err != nil {
		return false
	}
	key, err := readKey(keyPath)
	if err != nil || !key.PublicKey.Equal(cert.PublicKey) {
		return false
	}
	if !bytes.Equal(cert.RawIssuer, ca.cert.RawSubject) || cert.CheckSignatureFrom(ca.cert) != nil {
		return false
	}
	if time.Now().Before(cert.NotBefore) || time.Now().Add(renewBefore).After(cert.NotAfter) {
		return false
	}
	if cert.Subject.CommonName != r.common || strings.Join(cert.Subject.Organization, ",") != r.organization {
		return false
	}
	names, addresses := splitHosts(r.hosts)
	return sameStrings(names, cert.DNSNames) && sameStrings(stringsOf(addresses), stringsOf(cert.IPAddresses))
}

func splitHosts(hosts []string) (names []string, addresses []net.IP) {
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			addresses = append(addresses, ip)
		} else {
			names = append(names, host)
		}
	}
	return names, addresses
}

func stringsOf(addresses []net.IP) (out []string) {
	for _, ip := range addresses {
		out = append(out, ip.String())
	}
	return out
}

func sameStrings(a, b []string) bool {
	a, b = append([]string{}, a...), append([]string{}, b...)
	sort.Strings(a)
	sort.Strings(b)
	return strings.Join(a, "\x00") == strings.Join(b, "\x00")
}

// fingerprint is what K3s puts into its tokens: an agent knows by it that it talks to the right server.
func fingerprint(certPEM []byte) string {
	sum := sha256.Sum256(certPEM)
	return hex.EncodeToString(sum[:])
}
