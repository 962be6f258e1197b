"""Terraform's files: they parse, checkov finds nothing that is not explained, names are the runbook's, no
policy allows a star, and what machines run at their first start is sound."""

import contextlib
import http.server
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading

import hcl2
import yaml

from report import ROOT, none, require, run
from sandbox import free_port

FOLDER = ROOT / "terraform"
# Those that the deployment was promised with.
VARIABLES = {
    "project", "environment", "aws_region", "vpc_cidr", "gatherer_count", "gatherer_instance_type",
    "deduplicator_instance_type", "rds_instance_class", "gatherer_volume_size", "rds_storage_size",
}
OUTPUTS = {"gatherer_ips", "deduplicator_ip", "rds_endpoint", "s3_bucket"}

# What a template is given, as Terraform would.
SAMPLES = {
    "gatherer.sh": {
        "gatherer": "gatherer-1", "region": "us-east-1", "secrets": "kalshi-data/prod",
        "key_secret": "kalshi-api-key-1", "package": "s3://packages/kalshi_0.1.0_arm64.deb",
        "volume": "vol0123456789abcdef0", "deduplicator_cidr": "10.0.128.0/20",
    },
    "deduplicator.sh": {
        "region": "us-east-1", "secrets": "kalshi-data/prod",
        "package": "s3://packages/kalshi_0.1.0_arm64.deb",
        "production_host": "kalshi-data-prod.abc.us-east-1.rds.amazonaws.com",
        "gatherers": "gatherer-1 gatherer-2 gatherer-3", "archive": "s3://kalshi-data-prod-archive-1",
    },
}


def merger_passwords():
    """The secrets that the deduplicator's machine reads and rotates."""
    listed = re.search(r"merger_passwords = \[(.*?)\]", (FOLDER / "keys.tf").read_text())
    return re.findall(r'"([\w-]+)"', listed[1])


def granted(template):
    """Secrets that the machine of a template may read, and those that it may rotate (iam.tf)."""
    if template == "deduplicator.sh":
        return {*merger_passwords()}, {*merger_passwords()}
    policy = re.search(r'"aws_iam_role_policy" "gatherer" \{(.*?)\n\}\n', (FOLDER / "iam.tf").read_text(), re.DOTALL)

    def of(statement):
        resources = re.search(rf'"{statement}".*?Resource\s*=(.*?)\n      \}}', policy[1], re.DOTALL)
        return {name.replace("${local.gatherers[count.index]}", "gatherer-1").replace("${count.index + 1}", "1")
                for name in re.findall(r'main\["(.*?)"\]\.arn', resources[1])}

    return of("ReadItsSecrets"), of("RotateItsPassword")


def unquoted(value):
    """python-hcl2 keeps the quotes of a string."""
    return value.strip('"') if isinstance(value, str) else value


def parse(path):
    with path.open() as file:
        return hcl2.load(file)


def names(kind):
    return {
        unquoted(name)
        for path in FOLDER.glob("*.tf")
        for block in parse(path).get(kind, [])
        for name in block
        if not name.startswith("__")
    }


def told_variables():
    """The names that the runbook gives values to."""
    text = (ROOT / "docs/runbook.md").read_text()
    block = re.search(r"cat > prod.tfvars << 'END'\n(.*?)\nEND\n", text, re.DOTALL)
    require(block, "the runbook writes no prod.tfvars")
    return {line.split("=")[0].strip() for line in block[1].splitlines()}


def objects(text):
    """The innermost `{...}` that holds each `Effect`, with everything inside it."""
    found, open_at = [], []
    for at, character in enumerate(text):
        if character == "{":
            open_at.append(at)
        elif character == "}" and open_at:
            start = open_at.pop()
            inner = text[start + 1 : at]
            # What stands at the object's own depth.
            flat = inner
            while (shorter := re.sub(r"\{[^{}]*\}", "", flat)) != flat:
                flat = shorter
            if re.search(r"\bEffect\s*=", flat):
                found.append(inner)
    return found


def stars(path):
    """Statements that allow every action or every resource. A bucket's policy that denies is none."""
    text = path.read_text()
    statements = objects(text)
    require(len(statements) == len(re.findall(r"\bEffect\s*=", text)), f"{path.name}: a policy is not read")
    for statement in statements:
        if not re.search(r'\bEffect\s*=\s*"Allow"', statement):
            continue
        for key in ["Action", "Resource", "NotAction", "NotResource"]:
            value = re.search(rf"\b{key}\s*=\s*(\[.*?\n?\s*\](?=\s*\n)|[^\n]*)", statement, re.DOTALL)
            for one in re.findall(r'"([^"]*)"', value[1]) if value else []:
                if key.startswith("Not") or one == "*" or (key == "Action" and "*" in one):
                    yield f"{path.name}: {key} {one}"


def check_names():
    variables, outputs = names("variable"), names("output")
    none(VARIABLES - variables, "variables that are missing")
    none(OUTPUTS - outputs, "outputs that are missing")
    told = told_variables()
    none(told - variables, "variables of the runbook that do not exist")
    required = {
        unquoted(name)
        for path in FOLDER.glob("*.tf")
        for block in parse(path).get("variable", [])
        for name, body in block.items()
        if isinstance(body, dict) and "default" not in body
    }
    none(required - told, "variables without a default that the runbook does not give")
    text = (ROOT / "docs/runbook.md").read_text()
    none((name for name in outputs if f"`{name}`" not in text), "outputs that the runbook does not name")
    used = set(re.findall(r"\bvar\.(\w+)", "".join(p.read_text() for p in FOLDER.glob("*.tf"))))
    none(variables ^ used, "variables that are not both declared and used")
    none((name for name in [*merger_passwords(), "gatherer-$n-db-password", "kalshi-api-key-$n"] if name not in text),
         "secrets that the runbook gives no value")
    return len(variables), len(outputs)


def checkov(folder):
    """Failed checks; a skip must have a reason."""
    output = run(
        pathlib.Path(sys.executable).parent / "checkov", "--directory", folder, "--framework", "terraform",
        "--output", "json", "--quiet", "--compact", "--soft-fail", "--skip-download",
        env={"PATH": "/usr/bin:/bin", "HOME": tempfile.gettempdir(), "LOG_LEVEL": "ERROR"},
    )
    report = json.loads(output[output.index("{"):])
    require(report["summary"]["passed"] > 20 or folder != FOLDER, f"checkov read nothing: {report['summary']}")
    require(report["summary"]["parsing_errors"] == 0, "checkov cannot parse a file")
    return report["summary"]["passed"], [
        f"{check['check_id']} {check['resource']}: {check['check_name']}"
        for check in report["results"]["failed_checks"]
    ]


def check():
    files = sorted(FOLDER.rglob("*.tf"))
    for path in files:
        parse(path)
    variables, outputs = check_names()
    none((star for path in files for star in stars(path)), "policies that allow everything")
    text = "".join(path.read_text() for path in files)
    none((line for line in re.findall(r"#checkov:skip=.*", text)
          if not re.fullmatch(r"#checkov:skip=\w+: .{20,}", line)), "skips without a reason")
    for pattern, what in [
        (r'http_tokens\s*=\s*"(?!required")', "IMDSv1 is allowed"),
        (r"(?:from|to)_port\s*=\s*22\b", "a port for SSH"),
        (r"publicly_accessible\s*=\s*true", "production is public"),
        (r'\busername\s*=\s*"admin"', "RDS refuses this user"),
        (r"\n\s*(?:password|secret_string)\s*=", "a secret in Terraform's state"),
    ]:
        require(not re.search(pattern, text), what)
    hops = re.findall(r"http_put_response_hop_limit\s*=\s*(\S+)", text)
    require(hops == ["1"] * text.count('resource "aws_instance"'), "containers of a machine can get its role")
    passed, failed = checkov(FOLDER)
    none(failed, "checkov")
    return f"{len(files)} files, {variables} variables, {outputs} outputs, {passed} checks of checkov pass"


def render(path, **others):
    """As templatefile() does, for the only forms that are used: a name, and an escaped `$`. `others` are values in
    place of the samples."""
    values = SAMPLES[path.name] | others
    text = path.read_text()
    require("%{" not in text, f"{path.name}: directives are not rendered here")

    def value(match):
        if match[0].startswith("$$"):
            return "${"
        require(match[1] in values, f"{path.name}: {match[1]} is not given")
        return values[match[1]]

    rendered = re.sub(r"\$\$\{|\$\{(\w+)\}", value, text)
    given = set(re.findall(r"(?<!\$)\$\{(\w+)\}", text))
    none(given ^ set(values), f"{path.name}: names that are not both given and used")
    passed = re.search(rf'templates/{path.name}", \{{(.*?)\n  \}}\)', (FOLDER / "machines.tf").read_text(),
                       re.DOTALL)
    none(given ^ set(re.findall(r"^\s+(\w+)\s*=", passed[1], re.MULTILINE)),
         f"{path.name}: names that machines.tf does not give, or gives in vain")
    return rendered


def configurations(scripts):
    """What the scripts write to /etc/kalshi, by the role that reads it."""
    gatherer = re.search(r"gatherer.yaml <<'END'\n(.*?)\nEND\n", scripts["gatherer.sh"], re.DOTALL)
    block = re.search(r"\n\{\n(.*?)\n\} >/etc/kalshi/deduplicator.yaml", scripts["deduplicator.sh"], re.DOTALL)
    return {"gatherer": gatherer[1] + "\n", "deduplicator": run("bash", "-euc", block[1])}


@contextlib.contextmanager
def secret_manager(asked):
    """One that has no secret, and notes the names that it is asked for."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.add(request["SecretId"].removeprefix("kalshi-data/prod/"))
            body = b'{"__type": "ResourceNotFoundException", "Message": "not here"}'
            self.send_response(400)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def check_configurations(platform):
    """The executable understands what the machines are configured with. Nothing that it points to is here,
    which `--check` says too, by another exit code than that of a wrong configuration."""
    scripts = {path.name: render(path) for path in (FOLDER / "templates").iterdir()}
    with tempfile.TemporaryDirectory(prefix="kalshi-configs-") as folder:
        key = pathlib.Path(folder) / "kalshi.pem"
        shutil.copy(platform.directory / "config/gatherer-1.pem", key)
        for path in pathlib.Path(folder).iterdir():
            path.chmod(0o400)
        for name, text in configurations(scripts).items():
            for told, here in [
                ("https://external-api.kalshi.com", "http://127.0.0.1:1"),
                ("wss://external-api-ws.kalshi.com", "ws://127.0.0.1:1"),
                ("/etc/kalshi/rds-ca-bundle.pem", "/etc/ssl/certs/ca-certificates.crt"),
                ("/var/lib/kalshi", folder),
                ("0.0.0.0:8080", f"127.0.0.1:{free_port()}"),
                ("0.0.0.0:9090", f"127.0.0.1:{free_port()}"),
                (".internal", ".invalid"),
            ]:
                text = text.replace(told, here)
            path = pathlib.Path(folder) / f"{name}.yaml"
            path.write_text(text)
            role = {"gatherer": "gather", "deduplicator": "dedup"}[name]
            asked = set()
            with secret_manager(asked) as address:
                for words in [[role, "--check"], ["rotate-password", "--all", "--dry-run"]]:
                    done = subprocess.run(
                        [platform.kalshi, *words, "--config", path],
                        env={"CREDENTIALS_DIRECTORY": folder, "KALSHI_KEY_ID": "id",
                             "PRODUCTION_HOST": "127.0.0.1", "PATH": "/usr/bin:/bin", "AWS_REGION": "us-east-1",
                             "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "none",
                             "AWS_SECRET_ACCESS_KEY": "none"},
                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                        timeout=120,
                    )
                    require(done.returncode == 1,
                            f"{' '.join(words)} with {name}.yaml: exit code {done.returncode}:\n{done.stdout}")
            # Whoever rotates a secret asks for it first.
            none(granted(f"{name}.sh")[1] ^ asked, f"{name}: secrets that are not both rotated and granted")
    return "both configurations are understood"


def check_scripts():
    templates = sorted((FOLDER / "templates").iterdir())
    none({path.name for path in templates} ^ set(SAMPLES), "templates without sample values")
    scripts = {path.name: render(path) for path in templates}
    # The scripts that a script writes, and the configurations.
    for name, text in list(scripts.items()):
        for inner in re.findall(r"<<'END'\n(#!/bin/bash\n.*?)\nEND\n", text, re.DOTALL):
            scripts[f"{name}: inner"] = inner + "\n"
    for name, text in scripts.items():
        run("bash", "-n", input=text)
        run("shellcheck", "--shell=bash", "-", input=text)
        require(len(text) < 16_000, f"{name} is longer than user data may be")
    configs = {name: yaml.safe_load(text) for name, text in configurations(scripts).items()}
    require(configs["gatherer"]["gatherer_id"] == "gatherer-1", "gatherer.yaml is not YAML")
    config = configs["deduplicator"]
    require([one["id"] for one in config["gatherers"]] == ["gatherer-1", "gatherer-2", "gatherer-3"],
            "deduplicator.yaml lacks gatherers")
    for template in SAMPLES:
        text = scripts[template]
        named = set(re.findall(r"(?:kalshi-data/prod/|first_password \w+ )([\w-]+)", text))
        readable, rotated = granted(template)
        key = {name for name in readable if name.startswith("kalshi-api-key-")}
        none((named | key | {SAMPLES[template].get("key_secret", "")} - {""}) ^ readable,
             f"{template}: secrets that are not both used and granted")
        none(rotated - named, f"{template}: secrets that are rotated and not used")
        none(re.findall(r"^.*password_file.*$", text, re.MULTILINE), f"{template}: a password that does not rotate")
    # A key comes as a unit's credential: what the configuration takes is what the unit loads and the machine
    # fetches. Nothing else is loaded, because a unit whose credential is missing does not start.
    text = scripts["gatherer.sh"]
    loaded = set(re.findall(r"^LoadCredential=([\w.-]+):", text, re.MULTILINE))
    none(loaded ^ set(re.findall(r"\$\{CREDENTIALS_DIRECTORY\}/([\w.-]+)", text)),
         "gatherer: credentials that unit and configuration do not share")
    none((name for name in loaded if f"/{name}.new" not in text), "gatherer: credentials that nobody fetches")
    require("CREDENTIALS_DIRECTORY" not in scripts["deduplicator.sh"], "deduplicator: credentials that nobody loads")
    for template, units in [("gatherer.sh", ["gatherer.service", "kalshi-rotate.service"]),
                            ("deduplicator.sh", ["deduplicator.service", "kalshi-verify.service",
                                                 "kalshi-rotate.service"])]:
        none((unit for unit in units if unit not in scripts[template]), f"{template}: units without a drop-in")
        require("LoadCredential=" in scripts[template], f"{template}: units keep credentials that are not there")
    return f"{len(scripts)} scripts pass bash -n and shellcheck"
