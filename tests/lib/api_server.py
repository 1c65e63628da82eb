#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A stand-in for a cluster's API, for the tests of `status` and `apply`.

    api_server.py FOLDER

Makes a certificate and FOLDER/kubeconfig, says on one line which port of 127.0.0.1 it listens on, and serves /readyz,
/api/v1/nodes and objects (api_objects.py) until its standard input ends. FOLDER/log gets a line for each request.
These files are read anew each time, and may be missing: FOLDER/delay, seconds to wait before the TLS handshake, as a slow
guest does; FOLDER/readyz, the status to give to /readyz (200); FOLDER/refuse, {NAME: {"code": …, "message": …, "details":
…}}, objects that are refused; FOLDER/pods, what is wrong with all pods, as ImagePullBackOff (ready); FOLDER/die_at, the
number of the PATCH at which the server ends.
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
import urllib.parse

from api_objects import Cluster

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


def read_request(stream, data):
    """Method, target, body, and what came after them; None: no more requests."""
    while b"\r\n\r\n" not in data:
        more = stream.recv(65536)
        if not more:
            return None
        data += more
    head, data = data.split(b"\r\n\r\n", 1)
    lines = head.decode().split("\r\n")
    length = next((int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length:")), 0)
    while len(data) < length:
        data += stream.recv(65536)
    method, target, _ = lines[0].split(" ")
    return method, target, data[:length], data[length:]


def answer(cluster, method, target, body):
    path, _, query = target.partition("?")
    if path == "/readyz":
        return int(setting("readyz", "200")), "ok"
    if path == "/api/v1/nodes":
        return 200, NODES
    with open(os.path.join(FOLDER, "log"), "a", encoding="ascii") as log:
        log.write(f"{method} {target}\n")
    return cluster.answer(method, path, dict(urllib.parse.parse_qsl(query)), body)


def respond(stream, cluster):
    data = b""
    while request := read_request(stream, data):
        method, target, body, data = request
        try:
            status, value = answer(cluster, method, target, body)
        except SystemExit:
            os._exit(0)
        text = (value if isinstance(value, str) else json.dumps(value)).encode()
        stream.sendall(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(text), text))


def serve(connection, context, cluster):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    time.sleep(float(setting("delay", "0")))
    try:
        with connection, context.wrap_socket(connection, server_side=True) as stream:
            respond(stream, cluster)
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
    cluster = Cluster(setting)

    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0], context, cluster), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()


main()
