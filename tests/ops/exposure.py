"""What Terraform's network and production let in and out, and how the executable is supplied: what neither
checkov nor a compiler says."""

import re

from report import none, require, run
from terraform import FOLDER, parse, unquoted


def resources(kind):
    """Names to bodies of every resource of a kind."""
    found = {}
    for path in sorted(FOLDER.glob("*.tf")):
        for block in parse(path).get("resource", []):
            for name, bodies in block.items():
                if unquoted(name) == kind:
                    found.update({unquoted(own): body for own, body in bodies.items() if not own.startswith("__")})
    require(found, f"no {kind}")
    return found


def value(body, key):
    """An attribute; python-hcl2 has it in a list, like a block that may be there twice."""
    found = body.get(key)
    return unquoted(found[0] if isinstance(found, list) and len(found) == 1 else found)


def group(body, key):
    """The security group that an attribute names."""
    named = re.search(r"aws_security_group\.(\w+)\.id", str(value(body, key)))
    return named and named[1]


def ingress():
    """Who may come in: the deduplicator to the databases, and Prometheus to what it is told to read."""
    for name, rule in resources("aws_vpc_security_group_ingress_rule").items():
        if name == "monitoring":
            # Nobody, unless somebody names networks.
            if "var.monitoring_cidrs" not in str(rule) or "0.0.0.0/0" in str(rule):
                yield f"{name}: from other networks than var.monitoring_cidrs"
            continue
        ports = (str(value(rule, "from_port")), str(value(rule, "to_port")))
        if value(rule, "cidr_ipv4") or value(rule, "cidr_ipv6"):
            yield f"{name}: from a network, not from a security group"
        if ports != ("5432", "5432") or group(rule, "referenced_security_group_id") != "deduplicator":
            yield f"{name}: ports {ports} from {value(rule, 'referenced_security_group_id')}"


def egress():
    """Where machines may go: the exchange, packages and AWS by TLS; the deduplicator to the databases."""
    for name, rule in resources("aws_vpc_security_group_egress_rule").items():
        ports = (str(value(rule, "from_port")), str(value(rule, "to_port")))
        anywhere = value(rule, "cidr_ipv4") or value(rule, "cidr_ipv6")
        to_database = group(rule, "security_group_id") == "deduplicator" and group(rule, "referenced_security_group_id") in {"gatherer", "production"}
        if not (anywhere and ports == ("443", "443") or not anywhere and ports == ("5432", "5432") and to_database):
            yield f"{name}: ports {ports} to {anywhere or value(rule, 'referenced_security_group_id')}"


def inline_rules():
    """Rules inside a group would stand beside those that are read above."""
    for name, body in resources("aws_security_group").items():
        if "ingress" in body or "egress" in body:
            yield f"{name}: rules inside the group"


def production():
    """What must hold of the database in which everything ends."""
    (name, body), = resources("aws_db_instance").items()
    wanted = {
        "manage_master_user_password": "true", "storage_encrypted": "true", "deletion_protection": "true",
        "publicly_accessible": "false", "skip_final_snapshot": "false", "multi_az": "var.rds_multi_az",
        "backup_retention_period": "var.rds_backup_days",
    }
    for key, right in wanted.items():
        if (found := str(value(body, key)).strip("${}").lower()) != right:
            yield f"{name}: {key} is {found}, not {right}"
    if value(body, "username") in {None, "admin", "postgres", "rdsadmin"}:
        yield f"{name}: RDS refuses the user {value(body, 'username')}"
    days = variable("rds_backup_days")
    if int(value(days, "default")) < 7 or not re.search(r"rds_backup_days\s*>=\s*7", str(days.get("validation"))):
        yield "rds_backup_days: fewer than 7 days can be asked for"
    (_, settings), = resources("aws_db_parameter_group").items()
    settings = {value(one, "name"): value(one, "value") for one in settings["parameter"]}
    for key, right in {"rds.force_ssl": "1", "password_encryption": "scram-sha-256"}.items():
        if str(settings.get(key)) != right:
            yield f"{key} is {settings.get(key)}, not {right}"


def bucket():
    """What must hold of the archive's bucket that checkov leaves open."""
    text = (FOLDER / "archive.tf").read_text()
    denied = re.search(r'Effect\s*=\s*"Deny".*?"aws:SecureTransport"\s*=\s*"false"', text, re.DOTALL)
    if not denied:
        yield "its policy does not refuse what comes without TLS"
    (_, rules), = resources("aws_s3_bucket_lifecycle_configuration").items()
    if not any("abort_incomplete_multipart_upload" in rule for rule in rules["rule"]):
        yield "what was uploaded in part stays for ever"
    actions = set(re.findall(r'"(s3:[A-Z]\w+)"', (FOLDER / "iam.tf").read_text()))
    for action in actions - {"s3:GetObject", "s3:PutObject", "s3:ListBucket", "s3:AbortMultipartUpload"}:
        yield f"a machine may do {action}"


def variable(name):
    for block in parse(FOLDER / "variables.tf")["variable"]:
        for own, body in block.items():
            if unquoted(own) == name:
                return body
    require(False, f"no variable {name}")


def check():
    """Who may reach what, and what production is like."""
    none([*ingress(), *egress(), *inline_rules()], "the network")
    none(production(), "production")
    none(bucket(), "the archive's bucket")
    rules = len(resources("aws_vpc_security_group_ingress_rule")) + len(resources("aws_vpc_security_group_egress_rule"))
    return f"{rules} rules of the network; production is private, encrypted and backed up"


def check_supply():
    """Licences, bans and sources of every crate; no crate from elsewhere than the registry; no unsafe code."""
    main = (FOLDER.parent / "src/main.rs").read_text()
    require("#![forbid(unsafe_code)]" in main, "unsafe code is not forbidden")
    lock = (FOLDER.parent / "Cargo.lock").read_text()
    crates = len(re.findall(r"^\[\[package\]\]", lock, re.MULTILINE))
    sources = set(re.findall(r'^source = "([^"]+)"', lock, re.MULTILINE))
    none(sources - {"registry+https://github.com/rust-lang/crates.io-index"}, "crates from elsewhere")
    run("cargo", "deny", "--locked", "--offline", "--log-level", "error", "check", "bans", "licenses", "sources")
    return f"{crates} crates: licences, bans and sources are as deny.toml has them"
