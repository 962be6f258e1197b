"""The whole platform on this machine, for as long as a part of the checks needs it."""

import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import yaml

from report import Failed

START_SECONDS_MAX = 180


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def get(url, method="GET", **headers):
    """Status and body; a refusal is an answer too."""
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def wait_for(what, seconds, ready):
    """Asks `ready` until it gives something, and gives that."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = ready()
        except (OSError, ValueError):
            found = None
        if found:
            return found
        if time.monotonic() > deadline:
            raise Failed(f"{what} did not come within {seconds} s")
        time.sleep(0.25)


class Sandbox:
    """`kalshi sandbox` and where its parts are. Leaving the context ends everything."""

    def __init__(self, kalshi):
        self.kalshi = pathlib.Path(kalshi).resolve()
        self.roles = {}

    def __enter__(self):
        self.parent = pathlib.Path(tempfile.mkdtemp(prefix="kalshi-ops-"))
        # PostgreSQL's own user has to pass through it.
        self.parent.chmod(0o711)
        self.log = (self.parent / "sandbox.log").open("w")
        self.process = subprocess.Popen(
            [self.kalshi, "sandbox", "--markets", "20", "--rate", "200", "--duration", "20m",
             "--archive",
             "--dir", self.parent],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )
        try:
            wait_for("the sandbox", START_SECONDS_MAX, self.is_up)
        except BaseException:
            self.__exit__()
            raise
        return self

    def is_up(self):
        if self.process.poll() is not None:
            raise Failed(f"the sandbox ended: {(self.parent / 'sandbox.log').read_text()}")
        for path in self.parent.glob("kalshi-sandbox-*/config/*.yaml"):
            role = yaml.safe_load(path.read_text())
            role["file"] = path
            self.roles[path.stem] = role
        return len(self.roles) == 4 and all(
            get(f"http://{role['server']['health']}/health")[0] == 200 for role in self.roles.values()
        )

    @property
    def directory(self):
        return self.roles["gatherer-1"]["file"].parents[1]

    def metrics_address(self, name):
        return self.roles[name]["server"]["metrics"]

    def process_of(self, name):
        """The process that runs a role."""
        file = os.fsencode(self.roles[name]["file"])
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if file in path.read_bytes().split(b"\0"):
                    return int(path.parent.name)
            except OSError:
                pass  # It has ended.
        raise Failed(f"no process runs {name}")

    def exchange(self, call):
        """Tells the simulated exchange to do something."""
        address = self.roles["gatherer-1"]["api"]["rest_url"].split("/trade-api")[0]
        status, body = get(f"{address}/sandbox/{call}", method="POST")
        if status != 200:
            raise Failed(f"the simulated exchange refuses {call}: {body}")

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            # Its warden ends what it started.
            self.process.kill()
            self.process.wait()
        self.log.close()
        deadline = time.monotonic() + 30
        while any(self.parent.glob("kalshi-sandbox-*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        shutil.rmtree(self.parent, ignore_errors=True)


def program(name, *places):
    """A program on the PATH, or in one of the places where it may be instead."""
    found = shutil.which(name) or next((p for p in places if os.access(p, os.X_OK)), None)
    if not found:
        raise Failed(f"{name} is missing: run .ci/install ops")
    return found
