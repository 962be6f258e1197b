"""Prometheus' rules: their syntax, that each alert is tested firing and quiet, and leads somewhere."""

import re

import yaml

from report import ROOT, none, require, run

PROMETHEUS = ROOT / "etc/prometheus"
SEVERITIES = {"critical", "warning", "info", "none"}
# Those that the platform is deployed for.
WANTED = ["AllGatherersDown", "DeduplicatorDown", "SyncLagCritical", "RDSConnectionFailure"]


def groups():
    for path in sorted((PROMETHEUS / "rules").glob("*.yml")):
        yield from yaml.safe_load(path.read_text())["groups"]


def alerts():
    return [rule for group in groups() for rule in group["rules"] if "alert" in rule]


def expressions():
    """(where, expression) of every rule."""
    for group in groups():
        for rule in group["rules"]:
            yield rule.get("alert") or rule["record"], rule["expr"]


def anchors(path):
    """The anchors that headings of a Markdown file get."""
    found = set()
    is_code = False
    for line in path.read_text().splitlines():
        if line.startswith("```"):
            is_code = not is_code
        heading = re.match(r"#+ (.*)", line)
        if heading and not is_code:
            text = re.sub(r"[^\w\- ]", "", heading[1].lower())
            found.add(text.strip().replace(" ", "-"))
    return found


def incomplete():
    for alert in alerts():
        name, notes = alert["alert"], alert.get("annotations", {})
        if alert.get("labels", {}).get("severity") not in SEVERITIES:
            yield f"{name}: no severity"
        if "for" not in alert:
            yield f"{name}: no `for`"
        for note in ["summary", "description", "runbook"]:
            if not notes.get(note):
                yield f"{name}: no {note}"
        path, _, anchor = notes.get("runbook", "").partition("#")
        if not (ROOT / path).is_file() or anchor not in anchors(ROOT / path):
            yield f"{name}: {notes.get('runbook')} leads nowhere"


def untested():
    firing, quiet = set(), set()
    for path in sorted((PROMETHEUS / "tests").glob("*.yml")):
        for test in yaml.safe_load(path.read_text())["tests"]:
            for case in test.get("alert_rule_test", []):
                (firing if case["exp_alerts"] else quiet).add(case["alertname"])
            for case in test.get("promql_expr_test", []):
                name = re.search(r'alertname="(\w+)"', case["expr"])
                if name:
                    (firing if case["exp_samples"] else quiet).add(name[1])
    for alert in alerts():
        for tested, how in [(firing, "firing"), (quiet, "quiet")]:
            if alert["alert"] not in tested:
                yield f"{alert['alert']} is not tested {how}"


def check():
    run("promtool", "check", "config", PROMETHEUS / "prometheus.yml")
    run("promtool", "test", "rules", *sorted((PROMETHEUS / "tests").glob("*.yml")))
    names = [alert["alert"] for alert in alerts()]
    require(len(names) == len(set(names)), "two alerts have one name")
    none((name for name in WANTED if name not in names), "alerts that are missing")
    none(incomplete(), "alerts that lack something")
    none(untested(), "alerts without a test")
    return f"{len(names)} alerts, each tested firing and quiet"
