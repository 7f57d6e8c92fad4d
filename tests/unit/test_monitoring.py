"""The alerts and dashboards in config/ ask only for what exists, and each alert is raised when it should be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.monitoring import (
    ALERTS,
    PROMETHEUS,
    Query,
    alert_queries,
    alerts,
    known_from,
    mistakes,
    promtool,
)
from worker.observability.metrics import Metrics, Now

TOP = Path(__file__).parents[2]
RUNBOOK = TOP / "docs" / "operations.md"
CASES = TOP / "tests" / "data" / "alerts.test.yml"
WORKERS = known_from(
    Metrics(version="1")
    .page(
        Now(
            sessions=dict.fromkeys(("busy", "idle", "opening"), 0),
            links=dict.fromkeys(("consume", "publish"), True),
            fleet=dict.fromkeys(("workers", "sessions", "rate"), 1.0),
            expiries={"lcm.cert_file": 1.0},
        )
    )
    .decode()
)


def anchors(page: Path) -> set[str]:
    """Return what links to the headings of a page end with."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_prometheus_takes_the_configuration() -> None:
    """Its own tool finds no fault with the settings that are given to start with, nor with the rules."""
    promtool("check", "config", PROMETHEUS)
    assert f"{len(alerts())} rules found" in promtool("check", "rules", ALERTS)


def test_each_alert_is_raised_when_it_should_be() -> None:
    """Prometheus evaluates made-up series: each alert is raised by some, with its words, and not by others."""
    promtool("test", "rules", CASES)
    raised: set[str] = set()
    quiet: set[str] = set()
    for case in yaml.safe_load(CASES.read_text())["tests"]:
        for expected in case["alert_rule_test"]:
            (raised if expected["exp_alerts"] else quiet).add(expected["alertname"])
    assert raised == quiet == {rule["alert"] for rule in alerts()}


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_the_cases_notice_an_alert_that_is_never_raised(tmp_path: Path, rule: dict[str, Any]) -> None:
    """Without an alert its cases fail, so they do evaluate it."""
    (tmp_path / "alerts.yml").write_text(
        ALERTS.read_text().replace(f"alert: {rule['alert']}\n", "alert: Another\n")
    )
    cases = yaml.safe_load(CASES.read_text()) | {"rule_files": ["alerts.yml"]}
    (tmp_path / "cases.yml").write_text(yaml.safe_dump(cases))
    with pytest.raises(AssertionError, match=rule["alert"]):
        promtool("test", "rules", tmp_path / "cases.yml")


def test_each_alert_leads_to_the_runbook() -> None:
    """Each has a severity and a link to a heading that exists, and the runbook lists the alerts, and no other."""
    links = {rule["annotations"]["runbook"] for rule in alerts()}
    assert links <= {f"docs/operations.md#{anchor}" for anchor in anchors(RUNBOOK)}
    assert {rule["labels"]["severity"] for rule in alerts()} == {"critical", "warning"}
    section = RUNBOOK.read_text().split("\n## Alerts\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE) == [rule["alert"] for rule in alerts()]


@pytest.mark.parametrize("query", alert_queries(), ids=lambda query: query.where)
def test_alerts_ask_for_metrics_that_workers_have(query: Query) -> None:
    """Each metric, label and value is one of /metrics."""
    assert list(mistakes(query, WORKERS, "lcm_worker")) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sum(lcm_worker_gone)", "there is no lcm_worker_gone"),
        ('lcm_worker_deliveries_total{result=~"succeeded|lost"}', "has no result lost"),
        ('lcm_worker_ready{zone="a"}', "has no zone a"),
        ("sum by (zone) (lcm_worker_ready)", "nothing has a label zone"),
    ],
)
def test_a_query_for_what_does_not_exist_is_noticed(text: str, said: str) -> None:
    """A made-up mistake is found, so the rule can fail."""
    [mistake] = mistakes(Query("made up", text), WORKERS, "lcm_worker")
    assert mistake.startswith("made up: ")
    assert mistake.endswith(said)
