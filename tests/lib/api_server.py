#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A stand-in for a cluster's API, for the tests of `status`.

    api_server.py FOLDER

Makes a certificate and FOLDER/kubeconfig, says on one line which port of 127.0.0.1 it listens on, and serves /readyz
and /api/v1/nodes until its standard input ends. FOLDER/delay holds seconds to wait before the TLS handshake, as a slow
guest does; FOLDER/readyz the status to give to /readyz (200). Both are read anew for each connection, and may be missing.
"""
import base64
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time

FOLDER = sys.argv[1]
CERTIFICATE, KEY = (os.path.join(FOLDER, name) for name in ("api.crt", "api.key"))
NODES = {"kind": "NodeList", "items": [{
    "metadata": {"name": "shop", "labels": {"node-role.kubernetes.io/control-plane": "true"}},
    "status": {"nodeInfo": {"kubeletVersion": "v1.33.1+k3s1"}, "conditions": [{"type": "Ready", "status": "True"}]}}]}


def setting(name, default):
    try:
        with open(os.path.join(FOLDER, name), encoding="ascii") as f:
            return f.read().strip()
    except FileNotFoundError:
        return default


def respond(stream):
    while True:
        request = b""
        while b"\r\n\r\n" not in request:
            data = stream.recv(65536)
            if not data:
                return
            request += data
        status, body = "200", json.dumps(NODES).encode()
        if request.startswith(b"GET /readyz "):
            status, body = setting("readyz", "200"), b"ok"
        stream.sendall(b"HTTP/1.1 %s X\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body))


def serve(connection, context):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    time.sleep(float(setting("delay", "0")))
    try:
        with connection, context.wrap_socket(connection, server_side=True) as stream:
            respond(stream)
    except OSError:
        pass  # a client that did not wait


def write_kubeconfig(port):
    def encoded(path):
        with open(path, "rb") as f:
            return base64.b64encode(f.read()).decode()

    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "shop",
        "clusters": [{"name": "shop", "cluster": {"server": f"https://127.0.0.1:{port}",
                                                  "certificate-authority-data": encoded(CERTIFICATE)}}],
        "contexts": [{"name": "shop", "context": {"cluster": "shop", "user": "shop"}}],
        "users": [{"name": "shop", "user": {"client-certificate-data": encoded(CERTIFICATE),
                                            "client-key-data": encoded(KEY)}}],
    }
    with open(os.path.join(FOLDER, "kubeconfig"), "w", encoding="ascii") as f:
        json.dump(config, f)


def main():
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-days", "2", "-subj", "/CN=shop", "-addext", "subjectAltName=IP:127.0.0.1",
                    "-keyout", KEY, "-out", CERTIFICATE], check=True, stderr=subprocess.DEVNULL)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, KEY)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    write_kubeconfig(port)
    print(port, flush=True)

    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0], context), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()


main()
