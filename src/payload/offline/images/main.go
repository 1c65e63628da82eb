// Command images writes the container images that the payload brings along, as one tar archive.
//
//	images OUT.tar PAUSE BUSYBOX PAGE
//
// PAUSE and BUSYBOX are static programs, PAGE the script that writes the web image's page. The archive is an OCI
// image layout with Docker's manifest.json beside it, so that every importer takes it. Equal input gives equal
// bytes: no times, no users, a fixed order. Layers are not compressed: the payload's filesystem does that.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sort"
	"strings"
	"time"
)

// image is what goes into one image, and the names it gets.
type image struct {
	names  []string
	config map[string]any
	files  []file
}

type file struct {
	path   string // relative; a folder ends in /
	mode   int64
	data   []byte
	target string // of a symbolic link
}

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: images OUT.tar PAUSE BUSYBOX PAGE")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintf(os.Stderr, "images: %v\n", err)
		os.Exit(1)
	}
}

func run(out, pausePath, busyboxPath, pagePath string) error {
	pause, err := os.ReadFile(pausePath)
	if err != nil {
		return err
	}
	web, err := webImage(busyboxPath, pagePath)
	if err != nil {
		return err
	}
	archive, err := writeArchive([]image{pauseImage(pause), web})
	if err != nil {
		return err
	}
	return os.WriteFile(out, archive, 0o644)
}

// pauseImage holds a pod's namespaces. Besides its own name it has those that K3s releases ask for, so that
// they start pods where no registry can be reached.
func pauseImage(pause []byte) image {
	return image{
		names: []string{"localhost/k3s-vm/pause:1", "docker.io/rancher/pause:3.1",
			"docker.io/rancher/mirrored-pause:3.1", "docker.io/rancher/mirrored-pause:3.6"},
		config: map[string]any{"Entrypoint": []string{"/pause"}, "User": "65535:65535"},
		files:  []file{{path: "pause", mode: 0o755, data: pause}},
	}
}

// webImage answers on port 8080 with a page that says which pod it is.
func webImage(busyboxPath, pagePath string) (image, error) {
	busybox, err := os.ReadFile(busyboxPath)
	if err != nil {
		return image{}, err
	}
	page, err := os.ReadFile(pagePath)
	if err != nil {
		return image{}, err
	}
	applets, err := exec.Command(busyboxPath, "--list").Output()
	if err != nil {
		return image{}, fmt.Errorf("%s --list: %w", busyboxPath, err)
	}
	files := []file{
		{path: "bin/", mode: 0o755},
		{path: "bin/busybox", mode: 0o755, data: busybox},
		{path: "etc/", mode: 0o755},
		{path: "etc/group", mode: 0o644, data: []byte("root:x:0:\nnogroup:x:65534:\n")},
		{path: "etc/passwd", mode: 0o644, data: []byte("root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")},
		{path: "tmp/", mode: 0o1777},
		{path: "www/", mode: 0o755},
		{path: "www/cgi-bin/", mode: 0o755},
		{path: "www/cgi-bin/index.cgi", mode: 0o755, data: page},
	}
	for _, applet := range strings.Fields(string(applets)) {
		if applet != "busybox" {
			files = append(files, file{path: "bin/" + applet, mode: 0o777, target: "busybox"})
		}
	}
	sort.Slice(files, func(i, j int) bool { return files[i].path < files[j].path })
	return image{
		names: []string{"localhost/k3s-vm/web:1", "docker.io/k3s-vm/web:1"},
		config: map[string]any{
			"Cmd":          []string{"/bin/httpd", "-f", "-v", "-p", "8080", "-h", "/www"},
			"Env":          []string{"PATH=/bin"},
			"ExposedPorts": map[string]any{"8080/tcp": map[string]any{}},
			// As the first process of a container busybox has no handler for SIGTERM, and so the kernel
			// keeps it from it: every stop would take the pod's whole grace period.
			"StopSignal": "SIGKILL",
			"WorkingDir": "/",
		},
		files: files,
	}, nil
}

// descriptor names a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    map[string]string `json:"platform,omitempty"`
}

// dockerImage is an entry of Docker's manifest.json.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func writeArchive(images []image) ([]byte, error) {
	blobs := map[string][]byte{}
	add := func(mediaType string, data []byte) descriptor {
		sum := sha256.Sum256(data)
		digest := hex.EncodeToString(sum[:])
		blobs["blobs/sha256/"+digest] = data
		return descriptor{MediaType: mediaType, Digest: "sha256:" + digest, Size: len(data)}
	}
	platform := map[string]string{"architecture": runtime.GOARCH, "os": "linux"}
	var manifests []descriptor
	var docker []dockerImage
	for _, i := range images {
		layerData, err := tarOf(i.files)
		if err != nil {
			return nil, err
		}
		layer := add("application/vnd.oci.image.layer.v1.tar", layerData)
		configData, err := json.Marshal(map[string]any{
			"architecture": platform["architecture"], "os": platform["os"], "config": i.config,
			"created": "1970-01-01T00:00:00Z",
			"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{layer.Digest}},
			"history": []any{map[string]any{"created": "1970-01-01T00:00:00Z", "created_by": "k3s-vm"}},
		})
		if err != nil {
			return nil, err
		}
		config := add("application/vnd.oci.image.config.v1+json", configData)
		manifestData, err := json.Marshal(map[string]any{
			"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
			"config": config, "layers": []descriptor{layer},
		})
		if err != nil {
			return nil, err
		}
		manifest := add("application/vnd.oci.image.manifest.v1+json", manifestData)
		manifest.Platform = platform
		for _, name := range i.names {
			manifest.Annotations = map[string]string{
				"io.containerd.image.name":          name,
				"org.opencontainers.image.ref.name": name[strings.LastIndex(name, ":")+1:],
			}
			manifests = append(manifests, manifest)
		}
		blob := func(d descriptor) string { return "blobs/sha256/" + strings.TrimPrefix(d.Digest, "sha256:") }
		docker = append(docker, dockerImage{blob(config), i.names, []string{blob(layer)}})
	}

	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": manifests})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(docker)
	if err != nil {
		return nil, err
	}
	files := []file{
		{path: "oci-layout", mode: 0o644, data: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{path: "index.json", mode: 0o644, data: index},
		{path: "manifest.json", mode: 0o644, data: manifest},
		{path: "blobs/", mode: 0o755},
		{path: "blobs/sha256/", mode: 0o755},
	}
	var paths []string
	for path := range blobs {
		paths = append(paths, path)
	}
	sort.Strings(paths)
	for _, path := range paths {
		files = append(files, file{path: path, mode: 0o644, data: blobs[path]})
	}
	return tarOf(files)
}

func tarOf(files []file) ([]byte, error) {
	var out bytes.Buffer
	archive := tar.NewWriter(&out)
	for _, f := range files {
		header := &tar.Header{Name: f.path, Mode: f.mode, Size: int64(len(f.data)), ModTime: time.Unix(0, 0),
			Format: tar.FormatUSTAR, Typeflag: tar.TypeReg}
		switch {
		case strings.HasSuffix(f.path, "/"):
			header.Typeflag = tar.TypeDir
		case f.target != "":
			header.Typeflag, header.Linkname = tar.TypeSymlink, f.target
		}
		if err := archive.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := archive.Write(f.data); err != nil {
			return nil, err
		}
	}
	err := archive.Close()
	return out.Bytes(), err
}
