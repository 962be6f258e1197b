"""A proxy before a server of S3 that does to requests what a bad day does.

    storm.py UPSTREAM_PORT SEED [FAULT ...]      FAULT: slowdown, error, corrupt, forget, cut

Prints its own port, then for each fault a line when it happens. slowdown and error answer 503 and 500
in place of the server; corrupt changes a byte of a Parquet file on its way in; forget lets the server
do what was asked and then closes the connection without an answer; cut closes it before anything was
asked. About half of the requests meet a fault, but never more than three one after the other.
"""

import http.client
import random
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

upstream, seed, *faults = sys.argv[1:]
random.seed(int(seed))
lock = threading.Lock()
row = 0

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


def choose():
    """The fault of the next request, or None."""
    global row
    with lock:
        fault = random.choice(faults) if faults and row < 3 and random.random() < 0.5 else None
        row = row + 1 if fault else 0
        return fault


class Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body, headers=()):
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name.lower() == "content-length" for name, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = choose()
        if fault == "corrupt" and not (self.command == "PUT" and ".parquet" in self.path and body):
            fault = None
        if fault:
            print(f"{fault} {self.command} {self.path}", flush=True)
        if fault == "slowdown":
            return self.answer(503, SLOW_DOWN)
        if fault == "error":
            return self.answer(500, b"<Error><Code>InternalError</Code></Error>")
        if fault == "cut":
            self.close_connection = True
            return None
        if fault == "corrupt":
            at = random.randrange(len(body))
            body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1:]
        headers = {
            name: value for name, value in self.headers.items()
            if name.lower() not in ("connection", "host")
            and not (fault == "corrupt" and name.lower().startswith("x-amz-checksum"))
        }
        headers["Host"] = f"127.0.0.1:{upstream}"
        server = http.client.HTTPConnection("127.0.0.1", int(upstream))
        server.request(self.command, self.path, body=body, headers=headers)
        found = server.getresponse()
        content = found.read()
        if fault == "forget":
            self.close_connection = True
            return None
        kept = [
            (name, value) for name, value in found.getheaders()
            if name.lower() not in ("connection", "transfer-encoding", "date", "server")
        ]
        return self.answer(found.status, content, kept)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any


server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
server.daemon_threads = True
print(server.server_address[1], flush=True)
server.serve_forever()
