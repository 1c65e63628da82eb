package main

import (
	"archive/tar"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// importsFile remembers which archives have been imported. It lives in containerd's own folder, so that it goes
// when the images go.
const importsFile = agentFolder + "/containerd/k3s-vm-imports.json"

type imported struct {
	Size    int64
	ModTime int64
	Digests []string // of the images' manifests, where the archive's index could be read
}

// importImages imports the archives in the folders, except those that were imported before and whose images
// are still there. An import costs a second or two under emulation, looking for files nothing.
func importImages(folders ...string) {
	done := map[string]imported{}
	if data, err := os.ReadFile(importsFile); err == nil {
		_ = json.Unmarshal(data, &done)
	}
	seen := map[string]bool{}
	for _, folder := range folders {
		entries, _ := os.ReadDir(folder)
		for _, entry := range entries {
			path := filepath.Join(folder, entry.Name())
			if real, err := filepath.EvalSymlinks(path); err == nil {
				path = real
			}
			info, err := os.Stat(path)
			if err != nil || !info.Mode().IsRegular() || seen[path] || !isArchive(path) {
				continue
			}
			seen[path] = true
			now := imported{Size: info.Size(), ModTime: info.ModTime().Unix()}
			if old, ok := done[path]; ok && old.Size == now.Size && old.ModTime == now.ModTime && present(old.Digests) {
				continue
			}
			began := time.Now()
			if out, err := runCtrCommand("images", "import", path); err != nil {
				logf("cannot import %s: %v: %s", path, err, out)
				continue
			}
			logf("imported %s in %s", path, time.Since(began).Round(100*time.Millisecond))
			now.Digests = manifestDigests(path)
			done[path] = now
			if data, err := json.Marshal(done); err == nil {
				_ = writeFile(importsFile, data, 0o600)
			}
		}
	}
}

func isArchive(path string) bool {
	for _, suffix := range []string{".tar", ".tar.gz", ".tgz", ".tar.zst"} {
		if strings.HasSuffix(path, suffix) {
			return true
		}
	}
	return false
}

func runCtrCommand(args ...string) (string, error) {
	cmd := exec.Command(program("ctr"), args...)
	cmd.Env = append(childEnvironment(), "CONTAINERD_ADDRESS="+containerdSocket, "CONTAINERD_NAMESPACE=k8s.io")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// present says whether containerd's store holds all these blobs. It drops those of an image that is removed.
func present(digests []string) bool {
	for _, digest := range digests {
		algorithm, sum, _ := strings.Cut(digest, ":")
		blob := filepath.Join(agentFolder, "containerd/io.containerd.content.v1.content/blobs", algorithm, sum)
		if _, err := os.Stat(blob); err != nil {
			return false
		}
	}
	return true
}

// manifestDigests reads index.json of an uncompressed OCI archive; of others nothing is known.
func manifestDigests(path string) (digests []string) {
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	archive := tar.NewReader(file)
	for {
		header, err := archive.Next()
		if err != nil {
			return nil
		}
		if header.Name != "index.json" {
			continue
		}
		var index struct{ Manifests []struct{ Digest string } }
		if json.NewDecoder(io.LimitReader(archive, 1<<20)).Decode(&index) != nil {
			return nil
		}
		for _, manifest := range index.Manifests {
			digests = append(digests, manifest.Digest)
		}
		return digests
	}
}
