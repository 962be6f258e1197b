"""The machines' user data, run: gatherer.sh and deduplicator.sh as Terraform renders them, each in a Debian of its own
with processes, mounts and a network of its own, from an empty disk to rows in production and parts in the archive.

Real: apt and Debian's packages, PostgreSQL, the package, the disk's file system, names, TLS and certificates,
Debian's AWS CLI and the program's own clients of AWS. What stands for something else is in STAND_INS and CHANGES."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

import package
import runbook
import terraform
from cloud import PUBLIC, pump
from package import as_root
from report import ROOT, Failed, none, require, run
from sandbox import wait_for

HERE = pathlib.Path(__file__).resolve().parent

# What is not what a machine of AWS has, and why.
STAND_INS = {
    "systemd": "it does not run in a folder: systemctl.py starts and stops what the units say, without sandboxing",
    "S3, Secrets Manager": "AWS' own are not here: moto's, under their names, by TLS; everybody has all rights",
    "the metadata service": "AWS' is not here: cloud.py answers at its address, as IMDSv2 does",
    "the SSM agent": "Amazon's is not here: an empty package of its name, at the same address",
    "the exchange": "the simulated one, under the real one's names and by TLS",
    "RDS": "a PostgreSQL whose administrator has no more rights than RDS gives, and its authorities one of this run",
    "the EBS volume": "a file behind a loop device, under the volume's name",
    "a session of the Session Manager": "a shell of its user, as it begins: sh, in /usr/bin",
    "the image": "Debian's own for a chroot, with what the cloud's image has beside: sudo, udev's folder of disks",
}
# What is another text in the script that runs, and why.
CHANGES = {
    "deduplicator.sh": [
        ("  region: us-east-1\n", "  region: us-east-1\n  max_age: 5s\n",
         "a row waits for its part for an hour, unless it is told"),
    ],
    "gatherer.sh": [],
}

GATHERER, DEDUPLICATOR, PRODUCTION = "10.0.128.11", "10.0.128.12", "10.0.144.5"
NAME = "kalshi-data/prod"
REGION = "us-east-1"
PRODUCTION_HOST = terraform.SAMPLES["deduplicator.sh"]["production_host"]
ARCHIVE = terraform.SAMPLES["deduplicator.sh"]["archive"].removeprefix("s3://")
PACKAGES, PACKAGE_KEY = terraform.SAMPLES["gatherer.sh"]["package"].removeprefix("s3://").split("/")
VOLUME = terraform.SAMPLES["gatherer.sh"]["volume"]
DISK = f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{VOLUME}"
AGENTS = f"amazon-ssm-{REGION}"
# Names of the exchange and of AWS, and who answers for them. The rest of amazonaws.com is moto's.
NAMES = {
    "external-api.kalshi.com": "exchange", "external-api-ws.kalshi.com": "exchange",
    "truststore.pki.rds.amazonaws.com": "files",
    f"s3.{REGION}.amazonaws.com": "aws", "s3.amazonaws.com": "aws", f"secretsmanager.{REGION}.amazonaws.com": "aws",
    **{f"{bucket}.s3{region}.amazonaws.com": "aws" for bucket in [PACKAGES, ARCHIVE] for region in ["", f".{REGION}"]},
}
# The exchange's key, where a gatherer's unit loads it from, and the copy that its process gets.
HIDDEN_IN = {"/etc/kalshi/credentials/kalshi.pem", "/run/stand-in/credentials/gatherer.service/kalshi.pem"}
SCRIPT_SECONDS_MAX = 900
# What a process is started by that as_root cannot wait for.
AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]
LOG = "/var/log/kalshi-setup.log"
# cloud-init gives a script no more than a path and a language. Debian's AWS CLI trusts a list of its own.
ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8",
               "AWS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt"]


def say(text):
    print(f"       firstboot: {text}", file=sys.stderr, flush=True)


def sources():
    """This machine's sources of Debian, as lines of apt, and how strictly it takes their dates."""
    fields = ["ORIGIN", "REPO_URI", "RELEASE", "COMPONENT"]
    listed = run("apt-get", "indextargets", "--format", "|".join(f"$({field})" for field in fields),
                 "Created-By: Packages")
    lines = set()
    for line in listed.splitlines():
        origin, uri, suite, component = line.split("|")
        if origin == "Debian":
            lines.add(f"deb {uri} {suite} {component}")
    require(lines, "this machine has no lists of Debian's packages: apt-get update")
    dates = [line for line in run("apt-config", "dump").splitlines() if line.startswith("Acquire::Check-")]
    return sorted(lines), dates


def certificates(folder):
    """An authority of this run, and a certificate of it for everybody whom the machines ask."""
    names = ",".join(f"DNS:{name}" for name in [*NAMES, PRODUCTION_HOST])
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=firstboot", "-keyout",
        folder / "ca.key", "-out", folder / "ca.crt", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=firstboot leaf", "-keyout",
        folder / "leaf.key", "-out", folder / "leaf.csr")
    (folder / "leaf.ext").write_text(f"subjectAltName={names}\nbasicConstraints=CA:FALSE\n")
    run("openssl", "x509", "-req", "-in", folder / "leaf.csr", "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key",
        "-CAcreateserial", "-days", "2", "-extfile", folder / "leaf.ext", "-out", folder / "leaf.crt")


def descendant(process, name):
    """The process of that name below one that was started here."""

    def find():
        ids = [process.pid]
        while ids:
            pid = ids.pop()
            if pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == name:
                return pid
            ids += map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        require(process.poll() is None, f"{name} ended with {process.returncode}")
        return None

    return wait_for(name, 30, find)


class Cloud:
    """What the machines reach, and the only way out that they have: by TLS to Debian's mirror."""

    def __init__(self, work, kalshi):
        self.work = work
        moto = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"), "kalshi-moto/venv/bin")
        require((moto / "moto_server").exists(), f"{moto}/moto_server is missing: run .ci/install test")
        self.sources, self.dates = sources()
        hosts = sorted({urllib.parse.urlsplit(line.split()[1]).hostname
                        for line in self.sources})
        self.mirrors = {f"203.0.113.{20 + at}": host for at, host in enumerate(hosts)}
        # The same Debian's, of which the machines are copies.
        run("apt-get", "download", "-q", "sudo", cwd=work)
        self.sudo = next(work.glob("sudo_*.deb"))
        (work / "files/global").mkdir(parents=True)
        shutil.copy(work / "ca.crt", work / "files/global/global-bundle.pem")
        outside = work / "outside"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(outside))
        self.listener.listen(64)
        threading.Thread(target=self.pass_on, daemon=True).start()
        self.errors = (work / "cloud.log").open("w")
        self.process = subprocess.Popen(
            [*AS_ROOT, "unshare", "--net", moto / "python", HERE / "cloud.py"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self.errors, text=True,
        )
        self.process.stdin.write(json.dumps({
            "addresses": ["10.0.0.1", PRODUCTION], "mirrors": self.mirrors, "names": NAMES, "outside": str(outside),
            "files": str(work / "files"), "log": str(work / "services.log"), "moto": str(moto / "moto_server"),
            "kalshi": str(kalshi), "certificate": str(work / "leaf.crt"), "key": str(work / "leaf.key"),
        }) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        require(line, f"the services did not start: {(work / 'cloud.log').read_text()}")
        said = json.loads(line)
        self.exchange, self.aws, self.pid = said["exchange"], said["aws"], said["pid"]
        self.boto = moto / "python"

    def pass_on(self):
        """Connections to the mirror, from whoever has no network to the network that this machine has."""
        def one(inside):
            with inside.makefile("rb", buffering=0) as first:
                host = first.readline().decode().strip()
            proxy = os.environ.get("https_proxy") or os.environ.get("HTTPS_PROXY")
            if not proxy:
                return pump(inside, socket.create_connection((host, 443)))
            way = urllib.parse.urlsplit(proxy)
            connection = socket.create_connection((way.hostname, way.port or 80))
            connection.sendall(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                answer += connection.recv(1) or b"\r\n\r\n"
            return pump(inside, connection)

        while True:
            try:
                inside, _ = self.listener.accept()
            except OSError:
                return  # It was closed: the run is over.
            threading.Thread(target=one, args=(inside,), daemon=True).start()

    def there(self, *command, **options):
        """Runs a command in the services' network."""
        return as_root("nsenter", f"--net=/proc/{self.pid}/ns/net", *command, **options)

    def boto3(self, script, given=None):
        """A script of boto3, whose `client` makes clients of the services; prints its `found` as JSON."""
        head = ("import json, sys, boto3\ngiven = json.load(sys.stdin)\n"
                f"def client(name): return boto3.client(name, region_name='{REGION}', "
                f"endpoint_url='http://127.0.0.1:{self.aws}',"
                " aws_access_key_id='firstboot', aws_secret_access_key='firstboot')\n")
        environment = {"PATH": os.environ["PATH"], "NO_PROXY": "*", "HOME": str(self.work)}
        output = self.there("env", "-i", *[f"{key}={value}" for key, value in environment.items()], self.boto, "-c",
                            f"{head}{script}\nprint(json.dumps(found))", input=json.dumps(given))
        return json.loads(output.splitlines()[-1])

    def secrets(self):
        """Every value that any version of any secret has."""
        return self.boto3("""
asked, found = client("secretsmanager"), []
for one in asked.list_secrets(MaxResults=100)["SecretList"]:
    for version in asked.list_secret_version_ids(SecretId=one["Name"], IncludeDeprecated=True)["Versions"]:
        found.append(asked.get_secret_value(SecretId=one["Name"], VersionId=version["VersionId"])["SecretString"])
""")

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.listener.close()
        self.errors.close()


class Disk:
    """A disk that outlives the machines that it is attached to."""

    def __init__(self, work):
        self.file = work / "disk"
        with self.file.open("w") as file:
            file.truncate(8 << 30)
        self.device = as_root("losetup", "--find", "--show", self.file).strip()

    def close(self):
        as_root("losetup", "--detach", self.device)


class Machine(package.Debian):
    """A Debian with processes, mounts and a network card of its own, until its power is cut."""

    def __init__(self, work, cloud, name, address):
        self.cloud, self.name, self.address = cloud, name, address
        # Another machine may have had the name.
        self.work = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=work))
        self.work.chmod(0o755)
        super().__init__(self.work)
        self.equip()
        self.process = subprocess.Popen(
            [*AS_ROOT, "unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child",
             f"--mount-proc={self.root}/proc", "env", "-i", *ENVIRONMENT, "chroot", self.root, "bash", "-c", f"""
                mount -t tmpfs -o mode=1777 tmpfs /dev/shm
                mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts
                mount -t sysfs -o ro sysfs /sys
                mount -t tmpfs -o mode=755 tmpfs /run
                mkdir -m 1777 /run/lock
                hostname {name}
                touch /run/started
                # It is the father of whoever has none.
                while :; do sleep 3600 & wait -n; done"""],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        self.pid = descendant(self.process, "bash")
        wait_for(name, 30, lambda: self.run("sh", "-c", "! test -e /run/started || echo yes"))
        self.connect()

    def equip(self):
        """What the cloud's image has and that for a chroot has not, and how this machine asks for packages."""

        def put(path, text):
            as_root("tee", self.root / path, input=text)

        # As the image has it: not by TLS.
        plain = [line.replace("https://", "http://") for line in self.cloud.sources]
        put("etc/apt/sources.list", "\n".join(plain) + "\n")
        put("etc/apt/apt.conf.d/90firstboot", "\n".join([*self.cloud.dates, 'Acquire::Languages "none";']) + "\n")
        # Nobody keeps this disk: its packages need not be there after a loss of power.
        put("etc/dpkg/dpkg.cfg.d/firstboot", "force-unsafe-io\n")
        hosts = {name: PUBLIC for name in NAMES}
        hosts |= {name: address for address, name in self.cloud.mirrors.items()}
        hosts |= {"localhost": "127.0.0.1", self.name: "127.0.1.1", PRODUCTION_HOST: PRODUCTION,
                  "gatherer-1.internal": GATHERER}
        put("etc/hosts", "".join(f"{address} {name}\n" for name, address in hosts.items()))
        for path in [self.cloud.work / "ca.crt", *pathlib.Path("/usr/local/share/ca-certificates").glob("*.crt")]:
            as_root("cp", path, self.root / "usr/local/share/ca-certificates/")
        as_root("install", "-m", "0755", HERE / "systemctl.py", self.root / "usr/local/bin/systemctl")
        # Without systemd, packages start by init's scripts what only the stand-in should; not PostgreSQL.
        put("usr/sbin/policy-rc.d", '#!/bin/sh\n[ "$1" = postgresql ] || exit 101\n')
        as_root("chmod", "0755", self.root / "usr/sbin/policy-rc.d")
        as_root("cp", self.cloud.sudo, self.root / "root/sudo.deb")
        as_root("chroot", self.root, "sh", "-euc", "dpkg -i /root/sudo.deb >/dev/null 2>&1; rm /root/sudo.deb; "
                "update-ca-certificates >/dev/null 2>&1; useradd --create-home --shell /bin/sh ssm-user; "
                "echo 'ssm-user ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/ssm-user; rm -rf /var/lib/apt/lists/*")

    def connect(self):
        """The network card, and the way to everybody else."""
        card = f"vm{self.pid}"
        self.cloud.there("ip", "link", "add", card, "type", "veth", "peer", "name", "eth0", "netns", self.pid)
        self.cloud.there("ip", "link", "set", card, "up")
        self.cloud.there("ip", "route", "add", f"{self.address}/32", "dev", card)
        for words in [["link", "set", "lo", "up"], ["address", "add", f"{self.address}/32", "dev", "eth0"],
                      ["link", "set", "eth0", "up"], ["route", "add", "10.0.0.1", "dev", "eth0"],
                      ["route", "add", "default", "via", "10.0.0.1"]]:
            as_root("nsenter", f"--net=/proc/{self.pid}/ns/net", "ip", *words)

    def command(self, *command):
        return ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--net", "--uts", "--ipc", "--root",
                "env", "-i", "-C", "/", *ENVIRONMENT, *map(str, command)]

    def run(self, *command, **options):
        return as_root(*self.command(*command), **options)

    def psql(self, query, database="kalshi_ts"):
        return self.run("runuser", "-u", "postgres", "--", "psql", "-XAtd", database, "-c", query).strip()

    def attach(self, disk):
        """As udev names a disk."""
        number = pathlib.Path(f"/sys/class/block/{pathlib.Path(disk.device).name}/dev").read_text().strip()
        major, minor = number.split(":")
        self.sh(f"mknod {disk.device} b {major} {minor}; mkdir -p {os.path.dirname(DISK)}; ln -s {disk.device} {DISK}")

    def start(self, script):
        """Starts the user data as cloud-init does."""
        path = "/var/lib/cloud/part-001"
        self.sh("mkdir -p /var/lib/cloud")
        self.put(path, script)
        self.run("chmod", "0700", path)
        return subprocess.Popen([*AS_ROOT, *self.command(path)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)

    def log(self):
        return self.run("cat", LOG, codes=(0, 1))

    def end(self, started, what):
        """Waits for the end of a script that was started."""
        try:
            code = started.wait(timeout=SCRIPT_SECONDS_MAX)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{what} did not end:\n{self.tail()}") from error
        require(code == 0, f"{what} ended with {code}:\n{self.tail()}")

    def tail(self):
        logs = self.run("sh", "-c", "tail -n 5 /run/stand-in/*.log", codes=range(256))
        return "\n".join([*self.log().splitlines()[-40:], logs])

    def session(self, script, given=""):
        """What somebody types in a session of the Session Manager; what it prints."""
        first = "cd && exec bash"
        require(f"`{first}`" in runbook.RUNBOOK.read_text(), "the runbook does not say how a session begins")
        self.put("/tmp/typed", script)
        self.run("chmod", "0755", "/tmp/typed")
        return self.run("runuser", "-u", "ssm-user", "--", "env", "HOME=/home/ssm-user", "sh", "-c",
                        f"cd /usr/bin; {first} -euo pipefail /tmp/typed", input=given)

    def cut(self):
        """Ends everything at once, as a loss of power does."""
        if self.process.poll() is None:
            as_root("kill", "-KILL", self.pid, codes=(0, 1))
            self.process.wait()


class Production:
    """A PostgreSQL as RDS has it: by TLS alone, and an administrator who is no superuser."""

    def __init__(self, work, cloud):
        self.data, self.sockets = work / "production", work / "sockets"
        self.programs = pathlib.Path(run(ROOT / ".ci/timescaledb").splitlines()[-1])
        self.password = run("openssl", "rand", "-base64", "24").strip()
        as_root("install", "-d", "-m", "0700", "-o", "postgres", self.data)
        as_root("install", "-d", "-m", "0755", "-o", "postgres", self.sockets)
        self.own("initdb", "-D", self.data, "-U", "rdsadmin", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
        for name in ["leaf.crt", "leaf.key"]:
            as_root("install", "-m", "0600", "-o", "postgres", work / name, self.data / name)
        as_root("tee", self.data / "pg_hba.conf",
                input="local all rdsadmin trust\nhostssl all all 0.0.0.0/0 scram-sha-256\n")
        settings = {"listen_addresses": PRODUCTION, "ssl": "on", "ssl_cert_file": "leaf.crt",
                    "ssl_key_file": "leaf.key", "unix_socket_directories": self.sockets,
                    "password_encryption": "scram-sha-256", "log_min_error_statement": "panic",
                    "log_min_duration_statement": "5000"}
        words = [word for key, value in settings.items() for word in ["-c", f"{key}={value}"]]
        self.log = (work / "production.log").open("w")
        self.process = subprocess.Popen(
            [*AS_ROOT, "nsenter", f"--net=/proc/{cloud.pid}/ns/net", "setpriv", "--reuid=postgres", "--regid=postgres",
             "--init-groups", self.programs / "postgres", "-D", self.data, *words],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, cwd="/",
        )
        wait_for("production", 60, lambda: (self.sockets / ".s.PGSQL.5432").exists() or self.process.poll() is not None)
        require(self.process.poll() is None, f"production did not start: {(work / 'production.log').read_text()}")
        # What RDS' manual says of its role rds_superuser.
        self.psql(f"""CREATE ROLE rds_superuser;
            GRANT pg_monitor, pg_signal_backend, pg_checkpoint, pg_maintain TO rds_superuser WITH ADMIN OPTION;
            CREATE ROLE kalshi_admin LOGIN CREATEROLE CREATEDB PASSWORD '{self.password}' VALID UNTIL 'infinity';
            GRANT rds_superuser TO kalshi_admin""", "postgres")

    def own(self, program, *words, **options):
        return as_root("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", self.programs / program,
                       *words, cwd="/", **options)

    def psql(self, query, database="kalshi_prod"):
        return self.own("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self.sockets, "-U", "rdsadmin", "-d", database,
                        input=query).strip()

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


class Watch:
    """The arguments of every process of this machine, for as long as it looks."""

    def __init__(self):
        self.seen, self.over = set(), threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def look(self):
        while not self.over.wait(0.03):
            for name in os.listdir("/proc"):
                if name.isdigit():
                    with contextlib.suppress(OSError):
                        self.seen.add(pathlib.Path(f"/proc/{name}/cmdline").read_bytes())

    def close(self):
        self.over.set()
        self.thread.join()


def agent(work):
    """A package with the name of the Session Manager's agent."""
    folder = work / "agent"
    (folder / "DEBIAN").mkdir(parents=True)
    (folder / "lib/systemd/system").mkdir(parents=True)
    (folder / "DEBIAN/control").write_text("Package: amazon-ssm-agent\nVersion: 3\nArchitecture: all\n"
                                           "Maintainer: nobody <nobody@example.org>\nDescription: nothing\n")
    (folder / "lib/systemd/system/amazon-ssm-agent.service").write_text(
        "[Unit]\nDescription=nothing\n[Service]\nExecStart=/bin/sleep infinity\n"
        "[Install]\nWantedBy=multi-user.target\n")
    run("dpkg-deb", "--root-owner-group", "--build", folder, work / "agent.deb")
    return work / "agent.deb"


def infrastructure(cloud, work, kalshi, production):
    """What Terraform makes: buckets, and secrets without a value; and the administrator's, which is RDS' own."""
    names = set(terraform.merger_passwords())
    for n in [1, 2, 3]:
        names |= {f"gatherer-{n}-db-password", f"kalshi-api-key-{n}"}
    cloud.boto3("""
for bucket in given["buckets"]:
    client("s3").create_bucket(Bucket=bucket)
for bucket, key, file in given["objects"]:
    client("s3").upload_file(file, bucket, key)
client("s3").put_object_acl(Bucket=given["objects"][1][0], Key=given["objects"][1][1], ACL="public-read")
for name in given["secrets"]:
    client("secretsmanager").create_secret(Name=name)
client("secretsmanager").create_secret(Name="rds!admin", SecretString=given["admin"])
found = None
""", {"buckets": [PACKAGES, ARCHIVE, AGENTS], "secrets": [f"{NAME}/{name}" for name in sorted(names)],
      "objects": [(PACKAGES, PACKAGE_KEY, str(package.built(kalshi, work))),
                  (AGENTS, "latest/debian_arm64/amazon-ssm-agent.deb", str(agent(work)))],
      "admin": json.dumps({"username": "kalshi_admin", "password": production.password})})


def block(mark):
    """The runbook's block that has a text."""
    found = [text for _, _, text in runbook.blocks() if mark in text]
    require(len(found) == 1, f"{len(found)} blocks of the runbook have {mark!r}")
    return found[0]


def script(template, changes, **others):
    text = terraform.render(terraform.FOLDER / "templates" / template, **others)
    for told, here, _ in changes:
        require(text.count(told) == 1, f"{template} has {told!r} {text.count(told)} times")
        text = text.replace(told, here)
    return text


def rows(machine):
    tables = ["orderbook_deltas", "trades", "tickers"]
    return {table: int(machine.psql(f"SELECT count(*) FROM {table}")) for table in tables}


def no_less(before, after, what):
    none((f"{table}: {before[table]}, then {after[table]}" for table in before if after[table] < before[table]), what)


def ready(machine):
    return '"ready":true' in machine.run("curl", "-sS", "localhost:8080/ready", codes=(0, 7))


def hidden(cloud, machines, watch):
    """No secret is in a file of a machine but the exchange's key in its place, nor in arguments of a process."""
    values = set()
    for text in cloud.secrets():
        values |= {text}
        if text.startswith("{"):
            values = values - {text} | {
                line for value in json.loads(text).values() for line in value.splitlines()
                if len(line) > 20 and not line.startswith("---")
            }
    # What is not secret: the key's id, which is a name.
    values -= {key["key_id"] for key in cloud.exchange["keys"]} | {"kalshi_admin"}
    require(len(values) > 20, f"only {len(values)} values of secrets are known")
    told = [words.replace(b"\0", b" ").decode(errors="replace")[:60] for words in list(watch.seen)
            if any(value.encode() in words for value in values)]
    none(told, "secrets in arguments")
    for machine in machines:
        found = machine.run("sh", "-euc", "umask 077; cat >/dev/shm/patterns; grep -rlFas -f /dev/shm/patterns "
                            "/etc /home /root /run /srv /tmp /usr/local /var || true; rm /dev/shm/patterns",
                            input="\n".join(sorted(values)) + "\n").splitlines()
        none(sorted(set(found) - HIDDEN_IN), f"{machine.name}: files that hold a secret")
        looked = machine.run("grep", "-c", ".", LOG).strip()
        require(int(looked) > 50, f"{machine.name}: {LOG} has {looked} lines")
    return len(values)


def check(kalshi):
    kalshi = pathlib.Path(kalshi).resolve()
    work = pathlib.Path(tempfile.mkdtemp(prefix="kalshi-firstboot-"))
    work.chmod(0o755)
    with contextlib.ExitStack() as ends:
        # What failed is told with the end of its log.
        ends.callback(lambda: as_root("rm", "-rf", "--one-file-system", work))
        return walk(kalshi, work, ends)


def walk(kalshi, work, ends):
    certificates(work)
    cloud = Cloud(work, kalshi)
    ends.callback(cloud.close)
    production = Production(work, cloud)
    ends.callback(production.close)
    disk = Disk(work)
    ends.callback(disk.close)
    watch = Watch()
    ends.callback(watch.close)
    infrastructure(cloud, work, kalshi, production)
    gathering = script("gatherer.sh", CHANGES["gatherer.sh"])
    merging = script("deduplicator.sh", CHANGES["deduplicator.sh"], gatherers="gatherer-1")

    def machine(name, address):
        made = Machine(work, cloud, name, address)
        ends.callback(made.cut)
        return made

    # Phase 1 of the runbook. The disk comes while the machine waits for it.
    began = time.monotonic()
    merger = machine("deduplicator", DEDUPLICATOR)
    gatherer = machine("gatherer-1", GATHERER)
    merger_started, gatherer_started = merger.start(merging), gatherer.start(gathering)
    ends.callback(merger_started.kill)
    ends.callback(gatherer_started.kill)
    wait_for("a machine that waits for its disk", SCRIPT_SECONDS_MAX,
             lambda: gatherer_started.poll() is not None or "+ sleep 2" in gatherer.log())
    gatherer.attach(disk)
    merger.end(merger_started, "deduplicator.sh")
    say(f"deduplicator.sh ended after {time.monotonic() - began:.0f} s")
    deploy(cloud, production, merger, gatherer, gatherer_started)
    return live(cloud, production, disk, watch, merger, gatherer, machine, gathering, merging)


def deploy(cloud, production, merger, gatherer, gatherer_started):
    """What the runbook asks of a person, in its own words: phases 1 and 2."""
    keys = [cloud.exchange["keys"][at % len(cloud.exchange["keys"])] for at in range(3)]
    operator = "/home/ssm-user/operator"
    merger.run("install", "-d", "-o", "ssm-user", operator)
    for n, key in enumerate(keys, start=1):
        merger.put(f"{operator}/kalshi-{n}.id", key["key_id"])
        merger.put(f"{operator}/kalshi-{n}.pem", pathlib.Path(key["private_key_file"]).read_text())
    merger.put(f"{operator}/outputs.json", json.dumps({"rds_admin_secret": {"value": "rds!admin"}}))
    own = f"cd {operator}; export AWS_DEFAULT_REGION={REGION}\n"
    merger.session(own + block("put dedup-reader-db-password"))
    gatherer.end(gatherer_started, "gatherer.sh")
    require(gatherer.log().endswith("gatherer-1 records\n"), f"gatherer.sh does not record:\n{gatherer.tail()}")
    require(ready(gatherer), "the gatherer is not ready")
    say("gatherer.sh records")
    wait_for("the gatherer's rows", 60, lambda: all(rows(gatherer).values()))

    password = merger.session(own + block(".rds_admin_secret.value outputs.json"))
    require(password.strip() == production.password, "the runbook's command does not give the administrator's password")
    merger.run("rm", "-r", operator)
    said = merger.session(block("read -rsp"), given=password)
    say("production is made:\n" + said)


def merged(production):
    return int(production.psql("SELECT count(*) FROM orderbook_deltas"))


def archived(cloud):
    return cloud.boto3(f"""
pages = client("s3").get_paginator("list_objects_v2").paginate(Bucket="{ARCHIVE}")
found = [one["Key"] for page in pages for one in page.get("Contents", []) if one["Key"].endswith(".parquet")]
""")


def healthy(machine):
    health = json.loads(machine.run("curl", "-sS", "localhost:8080/health"))
    return health if health["status"] == "healthy" else None


def starts(machine, unit):
    """Starts a unit that ends by itself; its exit code."""
    said = machine.run("systemctl", "start", unit, codes=(0, 1))
    found = re.search(r"ended with (\d+)", said)
    require(found, f"{unit} was passed over")
    return int(found[1])


def live(cloud, production, disk, watch, merger, gatherer, machine, gathering, merging):
    """What then goes on by itself, and what the scripts do when they are run again."""
    wait_for("rows in production", 120, lambda: merged(production))
    wait_for("a part in the archive", 120, lambda: archived(cloud))
    wait_for("a healthy deduplicator", 120, lambda: healthy(merger))

    # The timers' units, with the rights of the machines.
    before = len(cloud.secrets())
    for one in [gatherer, merger]:
        code = starts(one, "kalshi-rotate")
        require(code == 0, f"{one.name}: kalshi-rotate ended with {code}:\n{one.tail()}")
    require(len(cloud.secrets()) > before, "no password was rotated")
    code = starts(merger, "kalshi-verify")
    require(code in (0, 2), f"kalshi-verify ended with {code}:\n{merger.tail()}")
    told = merger.run("curl", "-fsS", "localhost:9100/metrics")
    require("\nkalshi_verify" in told, "node_exporter does not tell what was verified")
    say("passwords are rotated, the record is verified")

    for one, text, what in [(gatherer, gathering, "gatherer.sh"), (merger, merging, "deduplicator.sh")]:
        counted = rows(gatherer)
        one.end(one.start(text), f"{what}, the second time,")
        no_less(counted, rows(gatherer), f"rows after the second run of {what}")
    require(ready(gatherer), "the gatherer is not ready after a second run")
    count = merged(production)
    wait_for("more rows in production after the second runs", 120, lambda: merged(production) > count)
    secrets = hidden(cloud, [gatherer, merger], watch)
    say("the scripts ran again, and no secret is where it should not be")

    # The machine is lost, and another gets its disk. Users of the system have other numbers there.
    counted = rows(gatherer)
    gatherer.cut()
    other = machine("gatherer-1", GATHERER)
    other.sh("for n in $(seq 100 110) $(seq 985 999); do "
             "getent passwd $n >/dev/null || useradd --system --uid $n --user-group other$n; done")
    other.attach(disk)
    other.end(other.start(gathering), "gatherer.sh on another machine")
    require(ready(other), "the other machine is not ready")
    found = rows(other)
    no_less(counted, found, "rows on the other machine")
    wait_for("rows of the other machine in production", 120, lambda: merged(production) >= found["orderbook_deltas"])
    wait_for("a healthy deduplicator", 120, lambda: healthy(merger))
    hidden(cloud, [other], watch)
    return (f"{found['orderbook_deltas']} changes recorded by two machines of one disk, {merged(production)} in "
            f"production, {len(archived(cloud))} parts in the archive; {secrets} secrets are nowhere else")
