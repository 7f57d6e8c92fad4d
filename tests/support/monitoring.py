"""The queries in config/prometheus and config/grafana, and what is wrong with one by the metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

CONFIG = Path(__file__).parents[2] / "config"
ALERTS = CONFIG / "prometheus" / "alerts.yml"
PROMETHEUS = CONFIG / "prometheus" / "prometheus.yml"
DASHBOARDS = CONFIG / "grafana" / "dashboards"

# What Grafana puts in by itself, or by what Prometheus answers.
_GRAFANAS = {"__rate_interval": "5m", "__auto": "5m", "__range": "6h", "job": "lcm-outcome-worker"}
_SERIES = re.compile(r"\b((?:lcm_worker|rabbitmq)_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)[=!][=~]?"([^"]*)"')
_BY = re.compile(r"by \(([^)]*)\)")
_OF_THE_SCRAPE = {"job", "instance"}

Known = Mapping[str, Mapping[str, set[str]]]
"""By the name of a metric's samples and by label: the values that the label has."""


class Query(NamedTuple):
    """A query, and the alert or panel that it is of."""

    where: str
    text: str


def promtool(*arguments: str | Path, told: str = "") -> str:
    """Run promtool, and return what it says; the test fails where promtool finds fault, or is not installed.

    `told` is its standard input.
    """
    tool = shutil.which("promtool")
    if tool is None:
        pytest.fail("promtool is missing: run `sudo apt-get install prometheus`, then try again")
    done = subprocess.run(  # noqa: S603 - our own words
        [tool, *arguments], input=told, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def alerts() -> list[dict[str, Any]]:
    """Return the rules of all alerts."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alert_queries() -> list[Query]:
    return [Query(rule["alert"], rule["expr"]) for rule in alerts()]


def dashboard(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DASHBOARDS / f"{name}.json").read_text())
    return found


def dashboard_queries(name: str) -> list[Query]:
    """Return the queries of a dashboard's panels and annotations, with its variables as they are at first."""
    board = dashboard(name)
    values = _GRAFANAS | {
        variable["name"]: variable["query"]
        for variable in board["templating"]["list"]
        if variable["type"] == "textbox"
    }

    def filled(text: str) -> str:
        return re.sub(r"\$\{?(\w+)(?::raw\})?", lambda found: values[found[1]], text)

    notes = [Query(note["name"], note.get("target", note)["expr"]) for note in board["annotations"]["list"]]
    targets = [Query(panel["title"], each["expr"]) for panel in board["panels"] for each in panel["targets"]]
    return [Query(query.where, filled(query.text)) for query in notes + targets]


def known_from(page: str) -> Known:
    """Return what a page of metrics holds."""
    known: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = known.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return known


def mistakes(query: Query, known: Known, prefix: str) -> Iterator[str]:
    """Tell of each metric with a prefix, label and value in a query of PromQL that does not exist."""
    series = [found for found in _SERIES.findall(query.text) if found[0].startswith(prefix)]
    for name, matchers in series:
        if name not in known:
            yield f"{query.where}: there is no {name}"
            continue
        for label, value in _MATCHER.findall(matchers):
            if label in _OF_THE_SCRAPE:
                continue
            # An alternative that matches nothing is as wrong as a value.
            wanted = value.split("|") if re.fullmatch(r"[\w|]+", value) else [value]
            values = known[name].get(label, set())
            yield from (
                f"{query.where}: {name} has no {label} {each}"
                for each in wanted
                if not any(re.fullmatch(each, value) for value in values)
            )
    labels = _OF_THE_SCRAPE.union(*(known.get(name, {}) for name, _ in series))
    if series:
        yield from (
            f"{query.where}: nothing has a label {label}"
            for grouping in _BY.findall(query.text)
            for label in grouping.split(", ")
            if label not in labels
        )
