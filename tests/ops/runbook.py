"""The runbook: its links lead somewhere, its scripts parse, and what can run here runs and succeeds."""

import pathlib
import re
import shutil
import tempfile

import yaml

from report import ROOT, Failed, none, require, run
from rules import anchors
from sandbox import free_port

RUNBOOK = ROOT / "docs/runbook.md"
# Units that are not ours.
FOREIGN_UNITS = {"postgresql"}

# What stands for the machine of an operator: root's and systemd's part of a command. Units are looked up
# in the repository, logs are those of the sandbox.
SHIMS = {
    "sudo": """
while [ "${1#-}" != "$1" ]; do [ "$1" = -u ] && shift; shift; done
exec "$@"
""",
    "systemctl": f"""
[ -e "{ROOT}/systemd/$2.service" ] || {{ echo "there is no unit $2" >&2; exit 5; }}
case $1 in
start | stop | restart | reload) ;;
is-active | status) echo active ;;
*) echo "systemctl $1 is not known here" >&2; exit 64 ;;
esac
""",
    "journalctl": """
[ "$1" = -u ] || { echo "journalctl without -u is not known here" >&2; exit 64; }
cat "$LOGS/$2-1.log"
""",
}


def blocks():
    """(first line's number, what the fence says, text) of every block of code."""
    found, start = [], None
    for number, line in enumerate(RUNBOOK.read_text().splitlines(), start=1):
        fence = line.lstrip().startswith("```")
        if fence and start is None:
            start, info, text = number, line.strip().strip("`"), []
            indent = len(line) - len(line.lstrip())
        elif fence:
            found.append((start, info, "\n".join(text) + "\n"))
            start = None
        elif start is not None:
            text.append(line[indent:])
    require(start is None, f"the block of line {start} does not end")
    return found


def check():
    text = RUNBOOK.read_text()
    known = anchors(RUNBOOK)
    none((f"#{link}" for link in re.findall(r"\]\(#([^)]+)\)", text) if link not in known),
         "links that lead nowhere")
    units = set(re.findall(r"systemctl (?:start|stop|restart|reload|status|is-active) ([\w-]+)", text))
    units |= set(re.findall(r"journalctl -u ([\w-]+)", text))
    none((unit for unit in units - FOREIGN_UNITS if not (ROOT / f"systemd/{unit}.service").is_file()),
         "units that do not exist")
    paths = re.findall(r"`((?:etc|systemd|terraform|docs)/[\w./*-]+)`", text)
    none((path for path in paths if not any(ROOT.glob(path))), "files that do not exist")
    scripts = [(line, script) for line, info, script in blocks() if info.startswith("sh")]
    for line, script in scripts:
        try:
            run("bash", "-n", input=script)
        except Failed as error:
            raise Failed(f"line {line}: {error}") from error
    return f"{len(scripts)} blocks parse, {len(paths)} files and {len(units)} units exist"


def known_usage(platform):
    """Every `kalshi` command of the text, also those that cannot run here, is one that the executable
    knows, with its options."""
    problems, texts, commands = [], {}, set()
    for words in re.findall(r"\bkalshi ((?:gather|dedup|migrate|verify|rotate-password|archive|sandbox)\b[^`\n|>)]*)",
                            RUNBOOK.read_text()):
        role, *options = words.split()
        if role not in texts:
            try:
                texts[role] = run(platform.kalshi, role, "--help")
            except Failed:
                texts[role] = None
        if texts[role] is None:
            problems.append(f"kalshi {role} is no command")
            continue
        commands.add(words.strip())
        problems += [f"kalshi {role} knows no {option}" for option in options
                     if option.startswith("--") and option not in texts[role]]
    none(sorted(set(problems)), "commands that the executable does not know")
    return len(commands)


def checkable(role, folder):
    """A copy of a role's configuration with free ports and a journal of its own: what it is when the unit
    has been stopped, which the sandbox would not survive."""
    text = role["file"].read_text()
    config = yaml.safe_load(text)
    config["server"] = {key: f"127.0.0.1:{free_port()}" for key in ["health", "metrics"]}
    if "journal" in config:
        config["journal"]["dir"] = str(folder / "journal")
    copy = folder / role["file"].name
    copy.write_text(yaml.safe_dump(config))
    copy.chmod(0o600)
    return copy


def check_commands(platform):
    usages = known_usage(platform)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kalshi-runbook-"))
    try:
        for name, text in SHIMS.items():
            (folder / name).write_text(f"#!/bin/sh{text}")
            (folder / name).chmod(0o755)
        (folder / "kalshi").symlink_to(platform.kalshi)
        count = 0
        for line, info, script in blocks():
            where = re.fullmatch(r"sh run=([\w-]+)", info)
            if not where:
                require("run=" not in info, f"line {line}: {info} is not understood")
                continue
            run_block(platform, folder, line, where[1], script)
            count += 1
    finally:
        shutil.rmtree(folder)
    require(count > 10, f"only {count} blocks can run here")
    return f"{count} blocks ran, {usages} uses of kalshi are known to it"


def run_block(platform, folder, line, where, script):
    role = platform.roles["gatherer-1" if where == "gatherer" else "deduplicator-1"]
    cluster = "gatherer-1" if where == "gatherer" else "production"
    database = role["database" if where == "gatherer" else "production"]
    config = role["file"]
    if "--check" in script:
        config = checkable(role, folder)
    for told, here in [
        ("localhost:8080", role["server"]["health"]),
        ("localhost:9090", role["server"]["metrics"]),
        ("/etc/kalshi/gatherer.yaml", str(config)),
        ("/etc/kalshi/deduplicator.yaml", str(config)),
        ("/etc/prometheus/", f"{ROOT}/etc/prometheus/"),
    ]:
        script = script.replace(told, here)
    environment = {
        "PATH": f"{folder}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(folder),
        "LOGS": str(platform.directory / "logs"),
        "PGHOST": str(platform.directory / cluster),
        "PGPORT": str(database["port"]),
        "PGUSER": "postgres",
    }
    try:
        run("bash", "-euo", "pipefail", "-c", script, cwd=folder, env=environment)
    except Failed as error:
        raise Failed(f"line {line}: {error}") from error
