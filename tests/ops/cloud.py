"""What a machine of `firstboot.py` finds beyond its network card, in a network namespace of its own: AWS' services
(moto's), the metadata service that gives a machine its rights, the simulated exchange, and the way to Debian's
mirror. Whatever is asked by TLS is asked at port 443, and nothing else leads out.

It is told by one line of JSON what to serve, says by another when all of it is there, and ends when its input does."""

import http.server
import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

PUBLIC = "203.0.113.10"
METADATA = "169.254.169.254"


def pump(one, other):
    """Both ways, until both are closed."""

    def way(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass  # The other end is gone, which the next line passes on.
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR if end is source else socket.SHUT_WR)
            except OSError:
                pass  # It was closed already.

    back = threading.Thread(target=way, args=(other, one), daemon=True)
    back.start()
    way(one, other)
    back.join()
    one.close()
    other.close()


def listen(address, serve):
    """Serves each connection in a thread of its own."""
    listener = socket.create_server(address, backlog=256)

    def one(connection):
        try:
            serve(connection)
        except OSError as error:
            print(f"{address}: {error}", file=sys.stderr, flush=True)
            connection.close()

    def loop():
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    threading.Thread(target=loop, daemon=True).start()


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def static(folder):
    class Page(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=folder)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def metadata():
    """The service that gives a machine the rights of its role, to whoever brings a token alone (IMDSv2). Moto's own
    does not say for how long a token is good, which AWS' clients want to know."""
    token = os.urandom(16).hex()
    role = "/latest/meta-data/iam/security-credentials"
    rights = {"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z",
              "AccessKeyId": "ASIAFIRSTBOOT", "SecretAccessKey": os.urandom(20).hex(), "Token": os.urandom(40).hex()}

    class Page(http.server.BaseHTTPRequestHandler):
        def answer(self, status, text):
            body = text.encode()
            self.send_response(status)
            self.send_header("X-aws-ec2-metadata-token-ttl-seconds", "21600")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_PUT(self):
            self.answer(*((200, token) if self.path == "/latest/api/token" else (404, "")))

        def do_GET(self):
            if self.headers.get("X-aws-ec2-metadata-token") != token:
                return self.answer(401, "")
            until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 21600))
            found = {role: "machine", f"{role}/machine": json.dumps(rights | {"Expiration": until})}
            text = found.get(self.path.rstrip("/"))
            return self.answer(404, "") if text is None else self.answer(200, text)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer((METADATA, 80), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main():
    told = json.loads(sys.stdin.readline())
    ip("link", "set", "lo", "up")
    for address in [PUBLIC, METADATA, *told["addresses"], *told["mirrors"]]:
        ip("address", "add", f"{address}/32", "dev", "lo")
    # From one machine to another.
    pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    aws, files = free_port(), static(told["files"])
    log = open(told["log"], "a")
    children = [subprocess.Popen([told["moto"], "-H", "127.0.0.1", "-p", str(aws)], stdin=subprocess.DEVNULL,
                                 stdout=log, stderr=log)]
    words = ["sandbox", "exchange", "--duration", "1h", "--markets", "20", "--rate", "100"]
    exchange = subprocess.Popen([told["kalshi"], *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=log, text=True)
    children.append(exchange)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        said = json.loads(exchange.stdout.readline())
        port = int(said["rest_url"].split("/")[2].split(":")[1])
        ports = {"exchange": port, "aws": aws, "files": files}

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(told["certificate"], told["key"])
        asked = {}

        def hear(connection, name, _):
            asked[connection] = name

        context.sni_callback = hear

        def terminate(connection):
            secure = context.wrap_socket(connection, server_side=True)
            name = asked.pop(secure, None)
            place = told["names"].get(name) or ("aws" if name and name.endswith(".amazonaws.com") else None)
            if not place:
                raise OSError(f"nobody is {name}")
            pump(secure, socket.create_connection(("127.0.0.1", ports[place])))

        listen((PUBLIC, 443), terminate)
        metadata()
        for address, name in told["mirrors"].items():
            def through(one, name=name):
                # Whoever started this is outside.
                outside = socket.socket(socket.AF_UNIX)
                outside.connect(told["outside"])
                outside.sendall(f"{name}\n".encode())
                pump(one, outside)

            listen((address, 443), through)
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", aws)).close()
                break
            except OSError:
                if time.monotonic() > deadline or children[0].poll() is not None:
                    raise
                time.sleep(0.1)
        print(json.dumps({"exchange": said, "aws": aws, "pid": os.getpid()}), flush=True)
        sys.stdin.read()
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait()
        log.close()


if __name__ == "__main__":
    main()
