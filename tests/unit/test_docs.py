"""The runbook is complete: every event that calls for a look, every reason and every metric stands in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from worker.observability.metrics import Metrics
from worker.observability.readiness import NotReady

TOP = Path(__file__).parents[2]
RUNBOOK = (TOP / "docs" / "operations.md").read_text()
# `level` is a variable that holds one of the others; `trace` stands for all.
LOUD = {"warning", "error", "exception", "level"}
EVENT = re.compile(r"[a-z]+\.[a-z_]+")


def section(title: str) -> str:
    """Return the text under a heading of the runbook."""
    return RUNBOOK.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_cells(text: str) -> set[str]:
    """Return what stands in backticks in the first column of a section's table."""
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    return {name for cell in rows for name in re.findall(r"`([^`]+)`", cell)}


def loud_events() -> Iterator[str]:
    """Yield the event of each call in the package that logs at warning or above."""
    for file in (TOP / "worker").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in LOUD:
                texts = [part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant)]
                yield from (text for text in texts if isinstance(text, str) and EVENT.fullmatch(text))


def test_the_runbook_has_every_loud_event() -> None:
    """Each event that is logged at warning or above is explained, and none that doesn't exist."""
    # The level of a job's own line depends on its event.
    events = set(loud_events()) | {"job.failed"}
    assert {"broker.lost", "guard.tripped", "result.undelivered", "lcm.session_failed"} <= events
    assert first_cells(section("Log events at warning or above")) == events


def test_every_test_that_a_document_names_exists() -> None:
    """A link to a test by its name leads to a file that has it."""
    named = {
        (test, page.parent / file)
        for page in (*TOP.glob("*.md"), *TOP.glob("docs/*.md"))
        for test, file in re.findall(r"\[(test_\w+)\]\(([^)]+\.py)\)", page.read_text())
    }
    assert len(named) > 50
    assert [test for test, file in named if f"def {test}(" not in file.read_text()] == []


def test_the_runbook_has_every_reason_for_not_being_ready() -> None:
    """Each code that /readyz can answer with is explained, and no other."""
    assert first_cells(section("Not ready")) == {reason.code for reason in NotReady}


def test_the_runbook_has_every_metric() -> None:
    """Each metric stands there with its type, and no other."""
    families = {(family.name, family.type) for family in Metrics(version="1").families()}
    suffixes = {"counter": "_total", "info": "_info"}
    named = {name + suffixes.get(kind, ""): kind for name, kind in families}
    rows = [line.split("|")[1:3] for line in section("Metrics").splitlines() if line.startswith("| `")]
    assert {name.strip(" `"): kind.strip() for name, kind in rows} == named
