"""The alerts and dashboards in config/ ask only for what exists, and each alert is raised when it should be."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.log import RecordingLog
from tests.support.monitoring import (
    ALERTS,
    DASHBOARDS,
    PROMETHEUS,
    Query,
    alert_queries,
    alerts,
    dashboard,
    dashboard_queries,
    known_from,
    mistakes,
    promtool,
)
from worker.contract.disposition import Disposition, Ending
from worker.observability.job_log import JobLog
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


@pytest.mark.parametrize(
    "query", alert_queries() + dashboard_queries("metrics"), ids=lambda query: query.where
)
def test_queries_ask_for_metrics_that_workers_have(query: Query) -> None:
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


def test_prometheus_takes_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    """Each is a query of PromQL."""
    queries = dashboard_queries("metrics")
    rules = [{"record": f"query:{number}", "expr": query.text} for number, query in enumerate(queries)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    assert f"{len(queries)} rules found" in promtool("check", "rules", tmp_path / "rules.yml")


def test_the_dashboard_shows_what_alerts_are_about() -> None:
    """Each metric that an alert asks for is in a panel."""
    asked, shown = (
        {name for query in queries for name in re.findall(r"(?:lcm_worker|rabbitmq)_\w+", query.text)}
        for queries in (alert_queries(), dashboard_queries("metrics"))
    )
    assert asked <= shown


@pytest.mark.parametrize("name", ["metrics", "logs"])
def test_a_dashboard_is_whole(name: str) -> None:
    """Panels have numbers and places of their own, their data source is a variable, and every variable exists."""
    board = dashboard(name)
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    source = {"type": {"metrics": "prometheus", "logs": "loki"}[name], "uid": f"${{{name}}}"}
    assert variables[name]["type"] == "datasource"
    assert variables[name]["query"] == source["type"]
    assert all(each["datasource"] == source for each in board["panels"] + board["annotations"]["list"])
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    cells = [cell for panel in board["panels"] for cell in cells_of(**panel["gridPos"])]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)
    texts = " ".join(query.text for query in dashboard_queries(name)) + str(board)
    assert set(re.findall(r"\$(?!__)\{?(\w+)", texts)) == set(variables)


def test_the_dashboards_lead_to_each_other() -> None:
    """The link of each is the address of the other one, and there are no others."""
    boards = [dashboard(file.stem) for file in DASHBOARDS.iterdir()]
    assert {link["url"] for board in boards for link in board["links"]} == {
        f"/d/{board['uid']}" for board in boards
    }
    assert len(boards) == 2


def cells_of(x: int, y: int, w: int, h: int) -> Iterator[tuple[int, int]]:
    """Yield what a panel covers of the grid."""
    return ((x + right, y + down) for right in range(w) for down in range(h))


def logged() -> Iterator[tuple[str, set[str]]]:
    """Yield the event of each call in the package that logs one, with the fields that it gives by name."""
    for file in (TOP / "worker").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                event = node.args[0].value
                if isinstance(event, str) and re.fullmatch(r"[a-z]+\.[a-z_]+", event):
                    yield event, {keyword.arg for keyword in node.keywords if keyword.arg}


def test_queries_of_the_log_name_events_and_fields_that_exist() -> None:
    """Each event is one that the worker logs, and each field one that a line has."""
    log = RecordingLog()
    JobLog(log)(Disposition(Ending.SUCCEEDED))
    [job] = log.of(Ending.SUCCEEDED.event)
    calls = {ending.event: set(job) for ending in Ending}
    for event, fields in logged():
        calls[event] = calls.get(event, set()) | fields
    known = {"timestamp", "level", "event", "worker"}.union(*calls.values())
    for query in dashboard_queries("logs"):
        # With the quotes of JSON around it, where lines are chosen by a part of them that may go on.
        whole = re.findall(r"(?:job|worker|lcm|guard)\.[a-z_]+(?=[|\"])", query.text)
        begun = re.findall(r'"((?:job|worker|lcm|guard)\.[a-z_]*)`', query.text)
        assert set(whole) <= calls.keys(), query
        assert all(any(event.startswith(each) for event in calls) for each in begun), query
        extracted = re.findall(r'(\w+)="(\w+)"', query.text.partition("| json")[2].partition("|")[0])
        assert {name for name, field in extracted if name == field} == {field for _, field in extracted}
        used = re.findall(r"by \(([\w, ]+)\)|unwrap (\w+)|\{\{\.(\w+)\}\}", query.text)
        named = {name for groups in used for group in groups for name in group.split(", ") if name}
        assert named <= {field for _, field in extracted} <= known, query


def test_the_provisioned_files_are_those_that_exist() -> None:
    """Grafana is told of a data source of each kind, and of one folder of dashboards."""
    provisioning = DASHBOARDS.parent / "provisioning"
    [sources] = (yaml.safe_load(file.read_text()) for file in (provisioning / "datasources").iterdir())
    [providers] = (yaml.safe_load(file.read_text()) for file in (provisioning / "dashboards").iterdir())
    assert {source["type"] for source in sources["datasources"]} == {"prometheus", "loki"}
    [provider] = providers["providers"]
    assert provider["options"]["path"] in (TOP / "docs" / "operations.md").read_text()
