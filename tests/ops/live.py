"""A real Prometheus on a running platform: every metric that a rule or a panel names is there, every
expression can be evaluated, no panel is empty, and promtool finds nothing to say of the metrics."""

import http.server
import importlib.util
import json
import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import urllib.parse

import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import rules
from report import ROOT, Failed, none, require, run
from sandbox import free_port, get, program, wait_for

# Samples at one a second that a panel's rate is made of.
SCRAPES = 45
VARIABLES = {"$instance": ".+", "$__rate_interval": "30s", "$__range": "5m"}
WORDS = {"and", "or", "unless", "offset", "bool"}


def metrics(expression):
    """The names of metrics in an expression: what is left without strings, matchers, ranges, label lists,
    functions and operators."""
    text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", text)
    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    names = re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?!\s*\(|[\w:])", text)
    return {name for name in names if name not in WORDS}


class Verified:
    """What `kalshi verify` leaves for node_exporter, served as that serves it."""

    def __init__(self, platform):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="kalshi-textfile-"))
        self.file = self.home / "kalshi_verify.prom"
        config = next(platform.parent.glob("kalshi-sandbox-*/config/deduplicator-1.yaml"))
        # 2 is an answer too: a platform that has run for a minute has little to be judged by.
        run(platform.kalshi, "verify", "all", "--config", config, "--since", "10m",
            "--textfile", self.file, codes=(0, 2))

    def __enter__(self):
        textfile = self.file

        class Page(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(textfile.read_bytes())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        shutil.rmtree(self.home, ignore_errors=True)


class Prometheus:
    """Debian's, with the repository's own configuration and rules; only the addresses are others."""

    def __init__(self, platform, verified):
        self.platform, self.verified = platform, verified

    def __enter__(self):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="kalshi-prometheus-"))
        config = yaml.safe_load((rules.PROMETHEUS / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        jobs = {job["job_name"]: job for job in config["scrape_configs"]}
        for name, job in jobs.items():
            for one in job["static_configs"]:
                one["targets"] = [self.verified.address] if name == "node" else [self.platform.metrics_address(one["labels"]["instance"])]
        shutil.copytree(rules.PROMETHEUS / "rules", self.home / "rules")
        (self.home / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.address = f"127.0.0.1:{free_port()}"
        self.log = (self.home / "log").open("w")
        self.process = subprocess.Popen(
            [program("prometheus"), f"--config.file={self.home}/prometheus.yml",
             f"--storage.tsdb.path={self.home}/data", f"--web.listen-address={self.address}"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )
        try:
            wait_for("Prometheus", 60, self.has_scraped)
        except BaseException:
            self.__exit__()
            raise
        return self

    def has_scraped(self):
        if self.process.poll() is not None:
            raise Failed(f"Prometheus ended: {(self.home / 'log').read_text()}")
        return get(f"http://{self.address}/-/ready")[0] == 200 and len(self.query("up == 1")) == 5

    def ask(self, path, **arguments):
        arguments = urllib.parse.urlencode(arguments)
        answer = json.loads(get(f"http://{self.address}/api/v1/{path}?{arguments}")[1])
        if answer["status"] != "success":
            raise Failed(f"Prometheus refuses {arguments}: {answer['error']}")
        return answer["data"]

    def query(self, expression):
        """(labels, value) of each series."""
        result = self.ask("query", query=expression)["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.home, ignore_errors=True)


def dashboards():
    """The generator, as a module."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "etc/grafana/generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def panels():
    """(where, expression) of every panel, as Grafana would send it."""
    for path in sorted((ROOT / "etc/grafana/dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                expression = target["expr"]
                for variable, value in VARIABLES.items():
                    expression = expression.replace(variable, value)
                yield f"{path.stem}: {panel['title']}", expression


def check_dashboards():
    """What can be seen without data."""
    none(
        (path.name for path, text in dashboards().files()
         if not path.is_file() or path.read_text() != text),
        "dashboards that etc/grafana/generate.py makes otherwise: run it",
    )
    count = 0
    for path in sorted((ROOT / "etc/grafana/dashboards").glob("*.json")):
        dashboard = json.loads(path.read_text())
        shown = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
        names = {variable["name"] for variable in dashboard["templating"]["list"]}
        require("instance" in names, f"{path.name}: no variable for the instance")
        none((panel["title"] for panel in shown
              if not panel["fieldConfig"]["defaults"].get("unit")), f"{path.name}: panels without a unit")
        # Two of one title in one row of panels would be told apart by nobody.
        require(len({panel["id"] for panel in shown}) == len(shown), f"{path.name}: ids are not unique")
        count += len(shown)
    for path in (ROOT / "etc/grafana/provisioning").glob("*/*.yml"):
        require(yaml.safe_load(path.read_text())["apiVersion"] == 1, f"{path.name}: not a provisioning")
    return f"{count} panels"


def lint(platform, name):
    """What curl gets is linted by promtool; OpenMetrics, which Prometheus asks for, is read by the letter."""
    url = f"http://{platform.metrics_address(name)}/metrics"
    run("promtool", "check", "metrics", input=get(url)[1], silent=True)
    families = list(text_string_to_metric_families(get(url, Accept="application/openmetrics-text")[1]))
    require(families, f"{name}: no metrics")
    return len(families)


def check_reload(platform, name):
    """A file that is wrong is refused, said in the metrics, and good again once it is."""
    file = platform.roles[name]["file"]
    url = f"http://{platform.metrics_address(name)}/metrics"

    def ask(value):
        os.kill(platform.process_of(name), signal.SIGHUP)
        wait_for(f"{name}: kalshi_config_last_reload_successful {value}", 30, lambda: re.search(
            rf"^kalshi_config_last_reload_successful {value}$", get(url)[1], re.MULTILINE))

    text = file.read_text()
    try:
        file.write_text(text + "no_such_key: 1\n")
        ask(0)
    finally:
        file.write_text(text)
    ask(1)


def check(platform):
    check_reload(platform, "gatherer-3")
    check_reload(platform, "deduplicator-1")
    # Counters of what goes wrong begin with the first time that it does.
    for key in range(3):
        platform.exchange(f"garbage?key={key}&channel=orderbook_delta")
    families = lint(platform, "gatherer-1") + lint(platform, "deduplicator-1")
    with Verified(platform) as verified, Prometheus(platform, verified) as prometheus:
        wait_for("enough scrapes", 120, lambda: prometheus.query(
            f"min(count_over_time(up[5m])) >= {SCRAPES}") and prometheus.query("ALERTS"))
        known = set(prometheus.ask("label/__name__/values"))
        wanted = [*rules.expressions(), *panels()]
        none(
            sorted({f"{name} (in {where})" for where, expression in wanted
                    for name in metrics(expression) if name not in known}),
            "metrics that do not exist",
        )
        for where, expression in wanted:
            try:
                prometheus.query(expression)
            except Failed as error:
                raise Failed(f"{where}: {error}") from error
        none(
            (f"{where}: {expression}" for where, expression in panels()
             if not any(math.isfinite(value) for _, value in prometheus.query(expression))),
            "panels without data",
        )
        broken = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]
                  if rule["health"] != "ok"]
        none((f"{rule['name']}: {rule['lastError']}" for rule in broken), "rules that fail")
        critical = prometheus.query('ALERTS{alertstate="firing", severity="critical"}')
        none((labels["alertname"] for labels, _ in critical), "critical alerts on a healthy platform")
    return f"{families} metrics, {len(wanted)} expressions evaluated"
