#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""An HTTPS server that misbehaves on command, for the tests of modules `http` and `payload`.

    https_server.py FOLDER

Makes an authority, its certificates and a client's in FOLDER (ca.pem, client.pem, client.key), says on one
line which ports of 127.0.0.1 it listens on ("good expired wronghost client plain") and serves until its
standard input ends. What a path does is in Handler; the last component is a key, so that each test has its own
count of requests. FOLDER/www is served below /static/.
"""
import collections
import gzip
import hashlib
import http.server
import os
import select
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time

FIRST_PORT, LAST_PORT = 21550, 21699
DATA = bytes(i * 7 % 251 for i in range(3_000_000))
OTHER = bytes(i * 11 % 241 for i in range(3_000_000))


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def make_certificates(folder):
    def at(name):
        return os.path.join(folder, name)

    def key(name):
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", at(name))

    key("ca.key")
    openssl("req", "-x509", "-new", "-key", at("ca.key"), "-subj", "/CN=test authority", "-days", "2",
            "-addext", "basicConstraints=critical,CA:TRUE", "-out", at("ca.pem"))

    def issue(name, names, days="2"):
        key(name + ".key")
        openssl("req", "-new", "-key", at(name + ".key"), "-subj", "/CN=" + name, "-out", at(name + ".csr"))
        with open(at(name + ".ext"), "w") as f:
            f.write("subjectAltName=" + names + "\n")
        openssl("x509", "-req", "-in", at(name + ".csr"), "-CA", at("ca.pem"), "-CAkey", at("ca.key"),
                "-set_serial", str(int.from_bytes(os.urandom(8), "big")), "-days", days,
                "-extfile", at(name + ".ext"), "-out", at(name + ".pem"))

    issue("good", "IP:127.0.0.1,DNS:localhost")
    issue("expired", "IP:127.0.0.1", "-1")
    issue("wronghost", "DNS:elsewhere.example")
    issue("client", "DNS:client")


class State:
    lock = threading.Lock()
    counts = collections.Counter()
    log = []


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder = ""
    plain_port = 0

    def log_message(self, *arguments):
        pass

    def send(self, status, body=b"", headers=(), length=None):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if length != "none":
            self.send_header("Content-Length", str(len(body) if length is None else length))
        else:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_file(self, data, etag='"v1"', ranges=True, check_if_range=True, cut=None, pause=0.0):
        """The whole or the range asked for; @cut: hang up after that many bytes of it."""
        start = 0
        wanted = self.headers.get("Range", "")
        if ranges and wanted.startswith("bytes=") and wanted.endswith("-"):
            if not check_if_range or self.headers.get("If-Range", etag) == etag:
                start = int(wanted[6:-1])
        if start > 0 and start >= len(data):
            return self.send(416, headers=[("Content-Range", f"bytes */{len(data)}")])
        headers = [("ETag", etag)] if etag else []
        if start > 0:
            headers.append(("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}"))
        body = data[start:]
        if cut is None and not pause:
            return self.send(206 if start else 200, body, headers)
        self.send(206 if start else 200, b"", headers, length=len(body))
        end = len(body) if cut is None else cut
        for at in range(0, end, 50_000):
            self.wfile.write(body[at:min(at + 50_000, end)])
            self.wfile.flush()
            time.sleep(pause)
        if cut is not None:
            self.close_connection = True

    def do_POST(self):
        self.do_GET()

    def do_PATCH(self):
        self.do_GET()

    def do_HEAD(self):
        self.do_GET()

    def do_CONNECT(self):
        """As a proxy, to ports of this machine."""
        with State.lock:
            State.counts["/proxied"] += 1
        with socket.create_connection(("127.0.0.1", int(self.path.rpartition(":")[2]))) as far:
            self.send_response(200)
            self.end_headers()
            near = self.connection
            while True:
                for ready in select.select([near, far], [], [])[0]:
                    piece = ready.recv(65536)
                    if not piece:
                        self.close_connection = True
                        return
                    (far if ready is near else near).sendall(piece)

    def do_GET(self):
        path = self.path.split("?")[0]
        with State.lock:
            State.counts[path] += 1
            n = State.counts[path]
            State.log.append((path, self.headers.get("Range", "-"), self.headers.get("If-Range", "-")))
        what, _, rest = path[1:].partition("/")
        getattr(self, "on_" + what.replace("-", "_"), self.on_missing)(rest, n)

    def on_missing(self, rest, n):
        self.send(404, b"no such page\n")

    def on_data(self, rest, n):
        self.send_file(DATA)

    def on_empty(self, rest, n):
        self.send_file(b"")

    def on_cut(self, rest, n):
        """Hangs up in the middle, twice."""
        self.send_file(DATA, cut=700_000 if n <= 2 else None)

    def on_cut_always(self, rest, n):
        self.send_file(DATA, cut=1000)

    def on_noetag(self, rest, n):
        self.send_file(DATA, etag=None, cut=700_000 if n == 1 else None)

    def on_stall(self, rest, n):
        if n > 1:
            return self.send_file(DATA)
        self.send(200, DATA[:1000], [("ETag", '"v1"')], length=len(DATA))
        self.wfile.flush()
        time.sleep(20)

    def on_norange(self, rest, n):
        self.send_file(DATA, ranges=False, cut=700_000 if n == 1 else None)

    def on_changed(self, rest, n):
        """Another version from the second request on, and If-Range is honoured."""
        if n == 1:
            return self.send_file(OTHER, etag='"old"', cut=700_000)
        self.send_file(DATA, etag='"new"')

    def on_liar(self, rest, n):
        """The same, but the range asked for comes from the new version."""
        if n == 1:
            return self.send_file(OTHER, etag='"old"', cut=700_000)
        self.send_file(DATA, etag='"new"', check_if_range=False)

    def on_mixed(self, rest, n):
        """The same, and nothing tells."""
        self.send_file(OTHER if n == 1 else DATA, check_if_range=False, cut=700_000 if n == 1 else None)

    def on_wrong(self, rest, n):
        self.send_file(OTHER)

    def on_flaky(self, rest, n):
        if n <= 2:
            return self.send(503 if n == 1 else 500, b"not now\n")
        self.send_file(DATA)

    def on_five(self, rest, n):
        self.send(500, b"not now\n") if n <= 5 else self.send_file(DATA)

    def on_busy(self, rest, n):
        """Wants to be left alone: /busy/SECONDS/KEY."""
        if n > 1:
            return self.send_file(DATA)
        self.send(429, b"later\n", [("Retry-After", rest.split("/")[0])])

    def on_wrong_range(self, rest, n):
        """Other bytes than those asked for, once."""
        if n != 2:
            return self.send_file(DATA, cut=700_000 if n == 1 else None)
        headers = [("ETag", '"v1"'), ("Content-Range", f"bytes 1000-{len(DATA) - 1}/{len(DATA)}")]
        self.send(206, DATA[1000:], headers)

    def on_back_and_forth(self, rest, n):
        """Always more than a whole MiB, and always another version."""
        self.send_file(DATA, etag=f'"{n}"', cut=1_500_000)

    def on_too_short(self, rest, n):
        self.send(200, DATA, [("ETag", '"v1"')], length=len(DATA) - 10)
        self.close_connection = True

    def on_too_long(self, rest, n):
        if self.headers.get("Range"):
            return self.send(416, headers=[("Content-Range", f"bytes */{len(DATA)}")])
        self.send(200, DATA, [("ETag", '"v1"')], length=len(DATA) + 10)
        self.close_connection = True

    def on_gzip(self, rest, n):
        self.send(200, gzip.compress(DATA), [("ETag", '"v1"'), ("Content-Encoding", "gzip")])

    def on_stall_first(self, rest, n):
        if n == 1:
            time.sleep(20)
        self.send_file(DATA)

    def on_error(self, rest, n):
        self.send(500, b"never\n")

    def on_forbidden(self, rest, n):
        self.send(403, b"no\n")

    def on_nolength(self, rest, n):
        self.send(200, DATA, length="none")

    def on_huge(self, rest, n):
        self.send(200, b"x" * 100_000, length=1 << 50)
        self.close_connection = True

    def on_slow(self, rest, n):
        self.send_file(DATA, pause=0.02)

    def on_redirect(self, rest, n):
        self.send(302, b"elsewhere\n", [("Location", "/" + rest), ("ETag", '"of-the-redirect"')])

    def on_loop(self, rest, n):
        self.send(302, headers=[("Location", self.path)])

    def on_to_http(self, rest, n):
        self.send(302, headers=[("Location", f"http://127.0.0.1:{self.plain_port}/data")])

    def on_delay(self, rest, n):
        time.sleep(3)
        self.send(200, b"late\n")

    def on_hangup(self, rest, n):
        self.close_connection = True
        self.connection.close()

    def on_connection(self, rest, n):
        self.send(200, str(self.client_address[1]).encode())

    def on_echo(self, rest, n):
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        certificate = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        subject = dict(x[0] for x in certificate["subject"])["commonName"] if certificate else "nobody"
        lines = [self.command, subject, self.headers.get("Content-Type", "-"), self.headers.get("X-Test", "-"),
                 self.headers.get("Expect", "-"), hashlib.sha256(body).hexdigest()]
        self.send(201, "\n".join(lines).encode() + b"\n")

    def on_count(self, rest, n):
        with State.lock:
            self.send(200, str(State.counts["/" + rest]).encode())

    def on_log(self, rest, n):
        """Range and If-Range of every request for a path."""
        with State.lock:
            lines = [f"{wanted} {condition}\n" for path, wanted, condition in State.log if path == "/" + rest]
        self.send(200, "".join(lines).encode())

    def on_github(self, rest, n):
        """Channels as they are; releases by a redirect to another address with a query, or to nowhere."""
        folder, _, name = rest.partition("/")
        if name == "channels":
            return self.on_static(rest, n)
        away = os.path.exists(os.path.join(self.folder, "www", folder, "away"))
        where = "https://127.0.0.1:1/away" if away else f"/static/{rest}?sig=a%2Bb%3D&expires=300"
        self.send(302, b"elsewhere\n", [("Location", where)])

    def on_static(self, rest, n):
        path = os.path.join(self.folder, "www", rest.replace("%2B", "+"))
        if ".." in rest or not os.path.isfile(path):
            return self.on_missing(rest, n)
        with open(path, "rb") as f:
            self.send_file(f.read())


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    context = None

    def finish_request(self, request, client_address):
        # In the connection's own thread: a client that says nothing must not hold up the others.
        if self.context:
            request = self.context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def shutdown_request(self, request):
        try:
            super().shutdown_request(request)
        except OSError:
            pass

    def handle_error(self, request, client_address):
        pass


def listen(context):
    for i in range(LAST_PORT - FIRST_PORT + 1):
        port = FIRST_PORT + (os.getpid() * 11 + i) % (LAST_PORT - FIRST_PORT + 1)
        try:
            server = Server(("127.0.0.1", port), Handler)
        except OSError:
            continue
        server.context = context
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return port
    sys.exit("no free port")


def main():
    folder = sys.argv[1]
    make_certificates(folder)
    ports = []
    for name in ("good", "expired", "wronghost", "client"):
        certificate = "good" if name == "client" else name
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(os.path.join(folder, certificate + ".pem"), os.path.join(folder, certificate + ".key"))
        if name == "client":
            context.load_verify_locations(os.path.join(folder, "ca.pem"))
            context.verify_mode = ssl.CERT_REQUIRED
        ports.append(listen(context))
    ports.append(listen(None))
    Handler.folder = folder
    Handler.plain_port = ports[-1]
    print(*ports, flush=True)
    sys.stdin.buffer.read()


main()
