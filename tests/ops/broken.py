"""Whether the checks would see it: breaks one thing after the other in a copy of the repository, and the part
that guards it must fail. A check that passes whatever it is given is none.

    tests/ops/check broken
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from report import ROOT, none, require, run

# Part, file, what stands there, what is put in its place.
BREAKS = [
    # What a unit may do.
    ("units", "systemd/gatherer.service", "ProtectSystem=strict\n", ""),
    ("units", "systemd/deduplicator.service", "CapabilityBoundingSet=\n", ""),
    ("units", "systemd/kalshi-verify.service", "User=kalshi\n", ""),
    ("units", "systemd/kalshi-rotate.service", "NoNewPrivileges=yes\n", "NoNewPrivileges=no\n"),
    ("units", "systemd/gatherer.service", "RestartPreventExitStatus=64\n", ""),
    ("units", "systemd/gatherer.service", "StartLimitIntervalSec=0\n", ""),
    ("units", "systemd/gatherer.service", "LimitCORE=0\n", ""),
    # Secrets that a process list, a unit or Terraform's state would show.
    ("units", "systemd/gatherer.service", "EnvironmentFile=", "Environment=PGPASSWORD=x\nEnvironmentFile="),
    ("terraform", "terraform/production.tf", "manage_master_user_password   = true", 'password = "x"'),
    # Machines.
    ("terraform", "terraform/machines.tf", 'http_tokens                 = "required"', 'http_tokens                 = "optional"'),
    ("terraform", "terraform/machines.tf", "http_put_response_hop_limit = 1", "http_put_response_hop_limit = 2"),
    # What terraform validate and terraform fmt would say.
    ("provider", "terraform/machines.tf", "http_tokens                 =", "http_token                  ="),
    ("provider", "terraform/production.tf", "  instance_class = var.rds_instance_class\n", ""),
    ("provider", "terraform/production.tf", "  parameter {", "  parametr {"),
    ("provider", "terraform/network.tf", 'resource "aws_nat_gateway"', 'resource "aws_nat_gate"'),
    ("provider", "terraform/network.tf", "enable_dns_support   =", "enable_dns_support ="),
    # The archive's bucket.
    ("terraform", "terraform/archive.tf", "block_public_acls       = true", "block_public_acls       = false"),
    ("terraform", "terraform/archive.tf", "block_public_policy     = true", "block_public_policy     = false"),
    ("terraform", "terraform/archive.tf", "ignore_public_acls      = true", "ignore_public_acls      = false"),
    ("terraform", "terraform/archive.tf", "restrict_public_buckets = true", "restrict_public_buckets = false"),
    ("terraform", "terraform/archive.tf", 'sse_algorithm     = "aws:kms"', 'sse_algorithm     = "AES256"'),
    ("terraform", "terraform/archive.tf", 'status = "Enabled"\n  }\n}', 'status = "Suspended"\n  }\n}'),
    ("exposure", "terraform/archive.tf", "aws:SecureTransport", "aws:ViaAWSService"),
    ("exposure", "terraform/archive.tf", "    abort_incomplete_multipart_upload {\n      days_after_initiation = 1\n    }\n", ""),
    ("exposure", "terraform/iam.tf", '"s3:PutObject"]', '"s3:PutObject", "s3:DeleteObject"]'),
    # Who may do what.
    ("terraform", "terraform/iam.tf", '"s3:PutObject"]', '"s3:*"]'),
    ("terraform", "terraform/iam.tf", '"secretsmanager:GetSecretValue"', '"secretsmanager:*"'),
    # The network.
    ("terraform", "terraform/network.tf", "from_port         = 443", "from_port         = 22"),
    ("exposure", "terraform/network.tf", "referenced_security_group_id = aws_security_group.deduplicator.id",
     'cidr_ipv4                    = "10.0.0.0/8"'),
    ("exposure", "terraform/network.tf", "  to_port           = 443", "  to_port           = 65535"),
    ("exposure", "terraform/network.tf", "var.monitoring_cidrs)", '["0.0.0.0/0"])'),
    # Production.
    ("terraform", "terraform/production.tf", "storage_encrypted     = true", "storage_encrypted     = false"),
    ("terraform", "terraform/production.tf", "deletion_protection       = true", "deletion_protection       = false"),
    ("terraform", "terraform/production.tf", "publicly_accessible    = false", "publicly_accessible    = true"),
    ("terraform", "terraform/production.tf", '"kalshi_admin"', '"admin"'),
    ("exposure", "terraform/production.tf", "multi_az               = var.rds_multi_az", "multi_az               = false"),
    ("exposure", "terraform/production.tf", "backup_retention_period   = var.rds_backup_days", "backup_retention_period   = 1"),
    ("exposure", "terraform/variables.tf", "rds_backup_days >= 7", "rds_backup_days >= 1"),
    ("exposure", "terraform/production.tf", 'name  = "rds.force_ssl"\n    value = "1"', 'name  = "rds.force_ssl"\n    value = "0"'),
    # Crates.
    ("supply", "deny.toml", '    "MIT",\n', ""),
    ("supply", "deny.toml", 'crate = "native-tls"', 'crate = "rustls"'),
    ("supply", "src/main.rs", "#![forbid(unsafe_code)]\n", ""),
    ("supply", "Cargo.lock", 'source = "registry+https://github.com/rust-lang/crates.io-index"',
     'source = "git+https://github.com/example/crate"'),
]


def copied(work):
    """What is in the repository, as it lies there now."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, listed):
        target = work / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, target, follow_symlinks=False)


def fails(work, part):
    """Whether a part fails in the copy, and what it says."""
    script = work / "tests/ops/check.py"
    done = subprocess.run([sys.executable, script, "/bin/false", part], cwd=work, text=True, check=False,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    said = done.stdout.strip()
    # A check that fell over has seen nothing.
    return done.returncode == 1 and "FAILED" in said and "Traceback" not in said, said


def check():
    work = pathlib.Path(tempfile.mkdtemp(prefix="kalshi-broken-"))
    unseen = []
    try:
        copied(work)
        for part in sorted({part for part, *_ in BREAKS}):
            failed, said = fails(work, part)
            require(not failed and "ok" in said, f"{part} fails with nothing broken: {said}")
        for part, name, right, wrong in BREAKS:
            path = work / name
            text = path.read_text()
            what = f"{name}: {right.strip()!r} as {wrong.strip()!r}"
            require(right in text, f"{what}: that does not stand there")
            path.write_text(text.replace(right, wrong, 1))
            failed, said = fails(work, part)
            print(f"  {'seen  ' if failed else 'UNSEEN'} {part:<10} {what}", flush=True)
            if not failed:
                unseen.append(f"{part}: {what}\n{said}")
            path.write_text(text)
    finally:
        shutil.rmtree(work)
    none(unseen, "broken, and the check passed")
    return f"{len(BREAKS)} faults, each seen by the part that guards it"
