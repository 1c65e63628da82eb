#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A registry with one image, as a guest reaches it: by HTTPS, with an authority that nobody else knows.

    registry.py FOLDER

Makes FOLDER/ca.pem, says on one line which port of 127.0.0.1 it listens on (10.0.2.2 in a guest), and serves an image
with the static program FOLDER/program, under every name and tag, until its standard input ends. FOLDER/log gets a line
for each request.
"""
import hashlib
import http.server
import json
import os
import ssl
import subprocess
import sys
import threading

from image import layer

FOLDER = sys.argv[1]
CA, KEY, LOG, PROGRAM = (os.path.join(FOLDER, name) for name in ("ca.pem", "key.pem", "log", "program"))
MANIFEST, CONFIG, LAYER = ("application/vnd.oci.image." + name for name in (
    "manifest.v1+json", "config.v1+json", "layer.v1.tar"))


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def image():
    """Its manifest, and everything by digest."""
    contents = layer(PROGRAM)
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/program"]},
                         "rootfs": {"type": "layers", "diff_ids": [digest(contents)]}}).encode()
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest(config), "size": len(config)},
        "layers": [{"mediaType": LAYER, "digest": digest(contents), "size": len(contents)}]}).encode()
    return manifest, {digest(data): data for data in (contents, config, manifest)}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with open(LOG, "a", encoding="ascii") as log:
            log.write(f"{self.command} {self.path}\n")
        path = self.path.partition("?")[0]
        manifest, blobs = image()
        reference = path.rpartition("/")[2]
        data = b"{}" if path == "/v2/" else blobs.get(reference, manifest if "/manifests/" in path else None)
        self.send_response(404 if data is None else 200)
        data = data or b""
        self.send_header("Content-Type", MANIFEST if "/manifests/" in path else "application/octet-stream")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Docker-Content-Digest", digest(data))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    do_HEAD = do_GET

    def log_message(self, format, *args):  # pylint: disable=redefined-builtin
        pass


def main():
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-days", "2", "-subj", "/CN=registry", "-addext", "subjectAltName=IP:10.0.2.2",
                    "-keyout", KEY, "-out", CA], check=True, stderr=subprocess.DEVNULL)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CA, KEY)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


main()
