#!/usr/bin/env python3
"""Writes dashboards/*.json. What each panel shows stands here, where a change can be read; Grafana's own
form is made from it. Run it after a change; `make check-ops` fails when it was forgotten."""

import json
import pathlib

G = 'job="gatherer", instance=~"$instance"'
D = 'job="deduplicator", instance=~"$instance"'
WIDTH = 24


def rate(metric, labels, by, span="$__rate_interval"):
    return f"sum by ({by}) (rate({metric}{{{labels}}}[{span}]))"


def quantile(q, metric, labels, by):
    return (
        f"histogram_quantile({q}, sum by ({by}, le) "
        f"(rate({metric}_bucket{{{labels}}}[$__rate_interval])))"
    )


def row(title):
    return {"type": "row", "title": title}


def panel(title, unit, *queries, about="", kind="timeseries", width=8, limit=None, lowest=0):
    """`queries` are (expression, legend); `limit` is where it turns red."""
    return {
        "type": kind, "title": title, "unit": unit, "queries": queries, "about": about,
        "width": width, "limit": limit, "lowest": lowest,
    }


def stat(title, unit, expression, about="", limit=None):
    return panel(title, unit, (expression, ""), about=about, kind="stat", width=4, limit=limit)


GATHERER_OVERVIEW = [
    stat("Gatherers that answer", "short", f"sum(up{{{G}}})"),
    stat("Markets", "short", f"max(gatherer_markets_active{{{G}}})"),
    stat("Frames a second", "short", f"sum(rate(gatherer_frames_total{{{G}}}[$__rate_interval]))"),
    stat("Rows a second", "short", f"sum(rate(gatherer_rows_written_total{{{G}}}[$__rate_interval]))"),
    stat("Databases that take rows", "short", f"sum(gatherer_database_up{{{G}}})"),
    stat("The exchange pauses", "bool_yes_no", f"max(gatherer_exchange_paused{{{G}}})"),
    row("What comes"),
    panel("Frames", "cps", (rate("gatherer_frames_total", G, "instance"), "{{instance}}"),
          about="Read from the journal: they stop while a database is away, and come at once afterwards."),
    panel("Bytes", "Bps", (rate("gatherer_frame_bytes_total", G, "instance"), "{{instance}}")),
    panel("Rows by log", "cps", (rate("gatherer_rows_written_total", G, "log"), "{{log}}")),
    row("How late"),
    panel("Exchange to socket", "s",
          (quantile(0.5, "gatherer_exchange_to_socket_seconds", G, "instance"), "{{instance}} p50"),
          (quantile(0.99, "gatherer_exchange_to_socket_seconds", G, "instance"), "{{instance}} p99"),
          about="Between two clocks: see their offset."),
    panel("Socket to commit, p99", "s",
          (quantile(0.99, "gatherer_socket_to_commit_seconds", G, "instance, log"), "{{instance}} {{log}}"),
          about="Age of a batch's oldest row at its commit.", limit=5),
    panel("Clock offset", "s", (f"gatherer_clock_offset_seconds{{{G}}}", "{{instance}} {{source}}"),
          about="How far the exchange's clock is ahead of ours, by its replies and, at least, by its frames.",
          lowest=None),
    row("Journal and machine"),
    panel("Journal: what the database does not have yet", "percentunit",
          (f"instance:gatherer_journal_needed:ratio{{{G}}}", "{{instance}}"),
          about="Of the room that it may take. At 1 recording pauses.", limit=0.8),
    panel("Journal on disk", "bytes",
          (f"gatherer_journal_bytes{{{G}}}", "{{instance}} all"),
          (f"gatherer_journal_needed_bytes{{{G}}}", "{{instance}} needed")),
    panel("Free on the journal's file system", "bytes", (f"gatherer_journal_free_bytes{{{G}}}", "{{instance}}")),
    panel("Processor", "percentunit", (rate("process_cpu_seconds_total", G, "instance"), "{{instance}}"),
          about="1 is one core."),
    panel("Memory", "bytes", (f"process_resident_memory_bytes{{{G}}}", "{{instance}}")),
    panel("Open files", "short", (f"process_open_fds{{{G}}}", "{{instance}}")),
]

WEBSOCKET_HEALTH = [
    stat("Sessions subscribed", "short", f"sum(gatherer_websocket_connections{{{G}}})"),
    stat("Sessions planned", "short", f"sum(gatherer_websocket_connections_planned{{{G}}})"),
    stat("Refused by the exchange", "short", f"sum(gatherer_sessions_refused{{{G}}})", limit=1),
    stat("Order books", "short", f"max(gatherer_books{{{G}}})"),
    stat("Markets without a session", "short", f"max(gatherer_markets_unplaced{{{G}}})", limit=1),
    stat("The exchange pauses", "bool_yes_no", f"max(gatherer_exchange_paused{{{G}}})"),
    row("Sessions"),
    panel("Subscribed, of those planned", "percentunit",
          (f"instance:gatherer_websocket_connections:ratio{{{G}}}", "{{instance}}"),
          about="Healthy from 14/15 on, unhealthy below 2/3."),
    panel("Connections made", "cps", (rate("gatherer_websocket_connects_total", G, "instance"), "{{instance}}"),
          about="To the exchange; after the start each is a reconnect."),
    panel("Order books with a snapshot, of those wanted", "percentunit",
          (f"instance:gatherer_books:ratio{{{G}}}", "{{instance}}")),
    row("Sequence"),
    panel("Gaps", "cps", (rate("gatherer_sequence_gaps_total", G, "instance"), "{{instance}}"),
          about="Numbers of a subscription that were missing; coverage has each."),
    panel("Resets and repeats", "cps",
          (rate("gatherer_sequence_resets_total", G, "instance"), "{{instance}} resets"),
          (rate("gatherer_sequence_duplicates_total", G, "instance"), "{{instance}} repeats")),
    panel("Second copies from doubled channels", "cps",
          (rate("gatherer_copies_skipped_total", G, "instance"), "{{instance}}"),
          about="Trades, tickers and lifecycle come over two sessions each; one row is kept."),
    row("What the exchange says"),
    panel("Error frames", "cps", (rate("gatherer_exchange_errors_total", G, "instance"), "{{instance}}")),
    panel("Lists of markets", "cps",
          (rate("gatherer_market_lists_total", G, "instance"), "{{instance}} read"),
          (rate("gatherer_market_list_failures_total", G, "instance"), "{{instance}} failed")),
    panel("REST poller", "cps", (rate("gatherer_polls_total", G, "instance, result"), "{{instance}} {{result}}")),
    panel("Longest wait for a poll", "s", (f"gatherer_poll_age_seconds{{{G}}}", "{{instance}}")),
]

DEDUPLICATOR_SYNC = [
    stat("Lag", "s", f"max(dedup_sync_lag_seconds{{{D}}})", limit=5,
         about="Age of the newest merged row while rows wait."),
    stat("Rows waiting", "short", f"sum(dedup_sync_lag_rows{{{D}}})"),
    stat("Gatherers connected", "short", f"sum(dedup_gatherer_connected{{{D}}})"),
    stat("Production connected", "bool_yes_no", f"min(dedup_production_connected{{{D}}})"),
    stat("Rows written a second", "short", f"sum(rate(dedup_records_written_total{{{D}}}[$__rate_interval]))"),
    stat("Markets copied", "short", f'sum(dedup_market_sync_rows{{{D}, table="markets"}})'),
    row("How far behind"),
    panel("Lag", "s", (f"dedup_sync_lag_seconds{{{D}}}", "{{table}}"), limit=30),
    panel("Rows waiting", "short", (f"sum by (gatherer) (dedup_sync_lag_rows{{{D}}})", "{{gatherer}}")),
    panel("Gatherers connected", "bool_on_off", (f"dedup_gatherer_connected{{{D}}}", "{{gatherer}}")),
    row("How late"),
    panel("Exchange to production, p99", "s",
          (quantile(0.99, "dedup_exchange_to_production_seconds", D, "table"), "{{table}}"), limit=30),
    panel("Exchange to production, p50", "s",
          (quantile(0.5, "dedup_exchange_to_production_seconds", D, "table"), "{{table}}")),
    panel("Gatherer's socket to production, p99", "s",
          (quantile(0.99, "dedup_received_to_production_seconds", D, "table"), "{{table}}")),
    row("What is merged"),
    panel("Rows read", "cps", (rate("dedup_records_read_total", D, "gatherer"), "{{gatherer}}")),
    panel("Rows written", "cps", (rate("dedup_records_written_total", D, "table"), "{{table}}")),
    panel("Duplicates among the rows read", "percentunit",
          (f"table:dedup_duplicates:ratio_30m{{{D}}}", "{{table}}"),
          (f"instance:dedup_duplicates:expected_ratio{{{D}}}", "expected"),
          about="Three gatherers that see the same give two thirds."),
    row("Series, events and markets"),
    panel("Rows", "short", (f"dedup_market_sync_rows{{{D}}}", "{{table}}")),
    panel("Changes", "cps", (rate("dedup_market_sync_changes_total", D, "table, change"), "{{table}} {{change}}")),
    panel("Since the last list", "s",
          (f"time() - dedup_market_sync_last_success_timestamp_seconds{{{D}}}", "{{table}}")),
    panel("Pages", "cps", (rate("dedup_market_sync_pages_total", D, "table"), "{{table}}")),
    panel("Failures", "cps",
          (rate("dedup_market_sync_errors_total", D, "table"), "{{table}} lists"),
          (rate("dedup_market_sync_refused_total", D, "table"), "{{table}} objects without a key"),
          (rate("dedup_market_sync_unreadable_fields_total", D, "table"), "{{table}} values")),
    panel("Sessions with production made anew", "cps", (rate("dedup_retries_total", D, "table"), "{{table}}")),
]

DATABASE_PERFORMANCE = [
    stat("Production answers in", "s", f"max(dedup_production_ping_seconds{{{D}}})", limit=0.2),
    stat("Production connected", "bool_yes_no", f"min(dedup_production_connected{{{D}}})"),
    stat("Gatherers' databases up", "short", f"sum(gatherer_database_up{{{G}}})"),
    stat("Commits a second, production", "short", f"sum(rate(dedup_batches_total{{{D}}}[$__rate_interval]))"),
    stat("Partitions dropped", "short", f"sum(dedup_partitions_dropped_total{{{D}}})"),
    stat("Retention waits", "bool_yes_no", f"max(dedup_retention_waits{{{D}}})", limit=1),
    row("Production"),
    panel("A transaction, p99", "s", (quantile(0.99, "dedup_batch_seconds", D, "table"), "{{table}}")),
    panel("Answer time", "s", (f"dedup_production_ping_seconds{{{D}}}", "{{instance}}"), limit=0.2),
    panel("Rows a transaction", "short",
          (f"{rate('dedup_records_written_total', D, 'table')} / ({rate('dedup_batches_total', D, 'table')} > 0)",
           "{{table}}")),
    panel("Rows that the unique key decided", "cps", (rate("dedup_staged_rows_total", D, "table"), "{{table}}"),
          about="Rows that were neither certainly new nor certainly there; they take the slower way."),
    panel("Conflicts and broken sessions", "cps",
          (rate("dedup_conflicts_total", D, "table"), "{{table}} conflicts"),
          (rate("dedup_retries_total", D, "table"), "{{table}} sessions made anew")),
    panel("Retention", "short",
          (f"dedup_partitions_dropped_total{{{D}}}", "{{table}} dropped"),
          (f"dedup_retention_waits{{{D}}}", "{{table}} waits for a consumer")),
    row("Gatherers' databases"),
    panel("A transaction, p99", "s",
          (quantile(0.99, "gatherer_batch_seconds", G, "instance, log"), "{{instance}} {{log}}")),
    panel("Commits", "cps", (rate("gatherer_batch_seconds_count", G, "instance"), "{{instance}}")),
    panel("Rows a transaction", "short",
          (f"{rate('gatherer_rows_written_total', G, 'log')} / "
           f"({rate('gatherer_batch_seconds_count', G, 'log')} > 0)", "{{log}}")),
    panel("Takes rows", "bool_on_off", (f"gatherer_database_up{{{G}}}", "{{instance}}")),
    panel("Not committed yet", "bytes",
          (f"gatherer_journal_written_position{{{G}}} - gatherer_journal_committed_position{{{G}}}",
           "{{instance}}"),
          about="Between what the journal took and what every log has passed."),
    panel("Retention", "short",
          (f"gatherer_parts_dropped_total{{{G}}}", "{{instance}} {{log}} parts dropped")),
    panel("Past retention, waiting for a consumer", "s",
          (f"max by (instance) (gatherer_retention_overdue_seconds{{{G}}})", "{{instance}}"), limit=86400),
]

COMPLETENESS = [
    stat("Books that contradicted the exchange", "short",
         f"sum(increase(gatherer_integrity_failures_total{{{G}}}[$__range]))", limit=1),
    stat("Books compared", "short", f"sum(increase(gatherer_audits_total{{{G}}}[$__range]))"),
    stat("Sequence gaps", "short", f"sum(increase(gatherer_sequence_gaps_total{{{G}}}[$__range]))"),
    stat("Frames not decoded", "short", f"sum(gatherer_decode_errors_total{{{G}}}) or vector(0)", limit=1),
    stat("Logs refused", "short", f"sum(increase(dedup_refusals_total{{{D}}}[$__range]))", limit=1),
    stat("Alerts that fire", "short", 'count(ALERTS{alertstate="firing", alertname!="AlertsArrive"}) or vector(0)',
         limit=1),
    row("Does the record hold?"),
    panel("Books compared", "cps", (rate("gatherer_audits_total", G, "instance"), "{{instance}}"),
          about="Each time the replayed book must equal a snapshot that the exchange sent in its place."),
    panel("Contradictions", "percentunit",
          (f"instance:gatherer_integrity_failures:ratio_1h{{{G}}}", "{{instance}}"), limit=0.01),
    panel("The market that waits longest for its audit", "s",
          (f"gatherer_audit_age_seconds{{{G}}}", "{{instance}}")),
    panel("Polled books beside the replayed ones", "cps",
          (rate("gatherer_polled_books_total", G, "instance, result"), "{{instance}} {{result}}"),
          about="A book that moves may differ: REST has no place in the stream."),
    panel("Crossed books", "cps", (rate("gatherer_crossed_books_total", G, "instance"), "{{instance}}")),
    row("What was not seen"),
    panel("Sequence gaps", "cps", (rate("gatherer_sequence_gaps_total", G, "instance"), "{{instance}}")),
    panel("Order books with a snapshot, of those wanted", "percentunit",
          (f"instance:gatherer_books:ratio{{{G}}}", "{{instance}}")),
    panel("Journal", "short",
          (f"gatherer_journal_holes_total{{{G}}}", "{{instance}} holes"),
          (f"gatherer_journal_pauses_total{{{G}}}", "{{instance}} pauses")),
    panel("Frames that were not understood", "short",
          (f"gatherer_unknown_frames_total{{{G}}}", "{{instance}} unknown type"),
          (f"gatherer_unknown_fields_total{{{G}}}", "{{instance}} unknown field")),
    row("What redundancy brings"),
    panel("Rows that production had already", "percentunit",
          (f"{rate('dedup_duplicates_skipped_total', D, 'gatherer')} / "
           f"({rate('dedup_records_read_total', D, 'gatherer')} > 0)", "{{gatherer}}"),
          about="The gatherer whose rows come first has the fewest. Table contributions counts what each alone had."),
    panel("Logs not read further", "short", (f"sum by (gatherer) (dedup_refusals_total{{{D}}})", "{{gatherer}}")),
    panel("Rows dropped before they were read", "short",
          (f"sum by (gatherer) (dedup_dropped_unread_total{{{D}}})", "{{gatherer}}"), limit=1),
    panel("Rows past retention", "short", (f"sum by (gatherer) (dedup_past_retention_total{{{D}}})", "{{gatherer}}")),
]

BOTH = "kalshi_build_info"
DASHBOARDS = [
    ("gatherer-overview", "Gatherer Overview", "gatherer_frames_total", GATHERER_OVERVIEW),
    ("websocket-health", "WebSocket Health", "gatherer_frames_total", WEBSOCKET_HEALTH),
    ("deduplicator-sync", "Deduplicator Sync", "dedup_production_connected", DEDUPLICATOR_SYNC),
    ("database-performance", "Database Performance", BOTH, DATABASE_PERFORMANCE),
    ("completeness", "Completeness", BOTH, COMPLETENESS),
]

SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def thresholds(limit):
    steps = [{"color": "green", "value": None}]
    if limit is not None:
        steps.append({"color": "red", "value": limit})
    return {"mode": "absolute", "steps": steps}


def grafana_panel(number, spec, place):
    if spec["type"] == "row":
        return {"id": number, "type": "row", "title": spec["title"], "gridPos": place, "collapsed": False,
                "panels": []}
    defaults = {"unit": spec["unit"], "thresholds": thresholds(spec["limit"])}
    options = {"reduceOptions": {"calcs": ["lastNotNull"]}}
    if spec["type"] == "timeseries":
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": 5, "showPoints": "never"}
        if spec["lowest"] is not None:
            defaults["min"] = spec["lowest"]
        if spec["limit"] is not None:
            defaults["custom"]["thresholdsStyle"] = {"mode": "dashed"}
        options = {"legend": {"displayMode": "list", "placement": "bottom"},
                   "tooltip": {"mode": "multi", "sort": "desc"}}
    return {
        "id": number, "type": spec["type"], "title": spec["title"], "description": spec["about"],
        "gridPos": place, "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": expression,
             "legendFormat": legend or "__auto"}
            for index, (expression, legend) in enumerate(spec["queries"])
        ],
    }


def panels(specs):
    x = y = height = 0
    for number, spec in enumerate(specs, start=1):
        width = WIDTH if spec["type"] == "row" else spec["width"]
        if x + width > WIDTH:
            x, y = 0, y + height
        height = {"row": 1, "stat": 4}.get(spec["type"], 8)
        yield grafana_panel(number, spec, {"x": x, "y": y, "w": width, "h": height})
        x += width


def dashboard(uid, title, metric, specs):
    return {
        "uid": f"kalshi-{uid}", "title": title, "tags": ["kalshi"], "schemaVersion": 39, "version": 1,
        "editable": False, "refresh": "30s", "timezone": "utc", "time": {"from": "now-6h", "to": "now"},
        "links": [{"type": "dashboards", "title": "kalshi", "tags": ["kalshi"], "asDropdown": True}],
        "templating": {"list": [
            {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
            {"name": "instance", "label": "Instance", "type": "query", "datasource": SOURCE,
             "query": {"query": f"label_values({metric}, instance)", "refId": "instance"},
             "multi": True, "includeAll": True, "allValue": ".+", "refresh": 2, "sort": 1,
             "current": {"text": "All", "value": "$__all"}},
        ]},
        "panels": list(panels(specs)),
    }


def files():
    """Path to text of every dashboard."""
    folder = pathlib.Path(__file__).parent / "dashboards"
    for uid, *rest in DASHBOARDS:
        yield folder / f"{uid}.json", json.dumps(dashboard(uid, *rest), indent=2) + "\n"


if __name__ == "__main__":
    for path, text in files():
        path.write_text(text)
