"""deploy/prometheus and deploy/grafana: promtool takes them, and every metric they name is one of the code."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

import promql_parser
import pytest
import yaml
from manifests import DEPLOY, ROOT
from prometheus_client import REGISTRY

import posthouse
from posthouse.api.app import OPERATIONS
from posthouse.config.schema import ROLES
from posthouse.storage.queue.base import Lane

RULES = yaml.safe_load((DEPLOY / "prometheus" / "rules.yaml").read_text())["groups"]
ALERTS = [pytest.param(rule, id=rule["alert"]) for group in RULES for rule in group["rules"]]
DASHBOARD = json.loads((DEPLOY / "grafana" / "posthouse.json").read_text())
PANELS = [
    pytest.param(panel, id=f"{panel['id']} {panel['title']}") for panel in DASHBOARD["panels"] if panel["type"] != "row"
]

OTHERS = {
    # Prometheus itself, and the client's own process collector.
    "up", "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds",
    # postgres_exporter, kafka_exporter, redis_exporter, elasticsearch_exporter
    "pg_stat_activity_count", "pg_stat_database_xact_commit", "pg_stat_database_xact_rollback", "pg_database_size_bytes",
    "kafka_consumergroup_lag", "kafka_brokers", "kafka_topic_partition_under_replicated_partition",
    "redis_memory_used_bytes", "redis_commands_processed_total", "elasticsearch_indices_docs",
    "elasticsearch_cluster_health_status", "elasticsearch_jvm_memory_used_bytes", "elasticsearch_jvm_memory_max_bytes",
}  # fmt: skip
"""Metrics that are not ours."""


@cache
def ours() -> dict[str, frozenset[str]]:
    """Each metric of the code with its labels, as it is scraped (a histogram also as its parts)."""
    for module in walk_packages(posthouse.__path__, "posthouse."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    found: dict[str, frozenset[str]] = {}
    for collector in set(REGISTRY._collector_to_names):
        labels = frozenset(getattr(collector, "_labelnames", ()))
        for metric in collector.collect() if not hasattr(collector, "describe") else collector.describe():
            if metric.name.startswith("posthouse_"):
                for suffix in {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(
                    metric.type, ("",)
                ):
                    found[metric.name + suffix] = labels
    return found


def selectors(expression: str) -> Iterator[Any]:
    """Every vector selector of an expression."""

    def walk(node: Any) -> Iterator[Any]:
        if isinstance(node, promql_parser.VectorSelector):
            yield node
        for part in ("expr", "lhs", "rhs", "vector_selector", "param"):
            if (inner := getattr(node, part, None)) is not None and not isinstance(inner, str):
                yield from walk(inner)
        for inner in getattr(node, "args", None) or ():
            yield from walk(inner)

    yield from walk(promql_parser.parse(expression))


def check(expression: str) -> set[str]:
    """The metrics of an expression, each known, with labels that it has."""
    named: set[str] = set()
    for selector in selectors(expression):
        named.add(selector.name)
        if selector.name in OTHERS:
            continue
        assert selector.name in ours(), f"no such metric: {selector.name}"
        labels = {matcher.name for matcher in selector.matchers.matchers}
        assert labels <= ours()[selector.name] | {"le", "job", "instance"}, f"{selector.name} lacks a label of {labels}"
    assert named, expression
    return named


def test_promtool_takes_the_rules() -> None:
    script = ROOT / "scripts" / "services" / "promtool.sh"
    found = subprocess.run(["bash", str(script), "path"], capture_output=True, text=True, timeout=100, check=False)
    if found.returncode and os.environ.get("CI") != "true":
        pytest.skip(f"promtool cannot be had here: {found.stderr.strip()}")
    ran = subprocess.run(
        [found.stdout.strip(), "check", "rules", "--lint-fatal", str(DEPLOY / "prometheus" / "rules.yaml")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{len(ALERTS)} rules found" in ran.stdout


@pytest.mark.parametrize("rule", ALERTS)
def test_an_alert_says_what_is_wrong_what_to_do_and_where_it_is_told(rule: dict[str, Any]) -> None:
    check(rule["expr"])
    assert rule["labels"]["severity"] in {"page", "ticket"}
    notes = rule["annotations"]
    assert notes["summary"].endswith(".")
    assert len(notes["description"]) > 40
    page, _, anchor = notes["runbook"].partition("#")
    assert f'<a id="{anchor}"></a>' in (ROOT / page).read_text()
    for command in re.findall(r"`(posthouse [a-z]+)", notes["description"]):
        assert command in (ROOT / "docs" / "reference" / "cli.md").read_text()


def test_alert_names_are_one_each() -> None:
    names = [rule.values[0]["alert"] for rule in ALERTS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_shows_what_there_is(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    for target in panel["targets"]:
        check(target["expr"].replace("$__rate_interval", "5m").replace("$job", "posthouse"))


def test_panels_have_their_own_places_and_numbers() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_metric_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    for name, labels in ours().items():
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        (row,) = re.findall(rf"^\| `{base}` \|.*$", page, re.MULTILINE)
        assert set(filter(None, row.split(" | ")[2].split(", "))) == labels


def test_values_of_labels_are_those_of_the_code() -> None:
    """Names of operations, lanes, stages and states in expressions are not invented."""
    known = {
        "operation": {operation.id for operation in OPERATIONS},
        "lane": {lane.name.lower() for lane in Lane},
        "stage": {"render", "relay", "store", "index"},
        "state": {"delivered", "bounced", "deferred", "failed"},
        "outcome": {"full", "network", "deferred", "lost"},
        "result": {"ok", "miss"},
        "version": {"failed"},
    }
    assert {"store", "index", "render"} <= set(ROLES)
    seen: set[str] = set()
    for rule in ALERTS:
        for selector in selectors(rule.values[0]["expr"]):
            for matcher in selector.matchers.matchers:
                if matcher.name in known and not re.search(r"[\[.]", matcher.value):
                    assert set(matcher.value.split("|")) <= known[matcher.name], (matcher.name, matcher.value)
                    seen.add(matcher.name)
    assert {"operation", "lane", "stage", "state"} <= seen
