package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"strings"
)

const kubeconfigText = `apiVersion: v1
kind: Config
clusters:
- name: default
  cluster:
    server: %s
    %s
contexts:
- name: default
  context:
    cluster: default
    user: default
current-context: default
preferences: {}
users:
- name: default
  user:
    %s
    %s
`

// kubeconfigWithFiles names the files of a certificate: for the servers on this machine.
func kubeconfigWithFiles(server string, p *pki, name string) string {
	return fmt.Sprintf(kubeconfigText, server, "certificate-authority: "+p.cert("server-ca"),
		"client-certificate: "+p.cert(name), "client-key: "+p.key(name))
}

// kubeconfigWithData carries the certificate inside: for people.
func kubeconfigWithData(server string, p *pki, name string) (string, error) {
	var fields []string
	for _, item := range [][2]string{
		{"certificate-authority-data", p.cert("server-ca")},
		{"client-certificate-data", p.cert(name)},
		{"client-key-data", p.key(name)},
	} {
		data, err := os.ReadFile(item[1])
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(item[0], "client-certificate") {
			// The leaf alone: a reader of this file finds the end of its life in the first certificate.
			data = []byte(strings.SplitAfter(string(data), "-----END CERTIFICATE-----\n")[0])
		}
		fields = append(fields, item[0]+": "+base64.StdEncoding.EncodeToString(data))
	}
	return fmt.Sprintf(kubeconfigText, server, fields[0], fields[1], fields[2]), nil
}
