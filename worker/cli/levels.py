"""The levels of findings, which `check` and `status` tell: how each is shown, and the exit status that it asks for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.broker.admin.inspect import Finding

STYLES = {
    "ok": "green",
    "new": "cyan",
    "unknown": "yellow",
    "warn": "yellow",
    "stuck": "red",
    "alarm": "red",
    "missing": "red",
    "wrong": "red",
    "away": "red",
    "refused": "red",
}
# The highest of all lines counts: a mistake to correct ranks above what may come back by itself.
_STATUS = dict.fromkeys(STYLES, 0) | {
    "stuck": 1,
    "alarm": 1,
    "away": 1,
    "refused": 1,
    "missing": 2,
    "wrong": 2,
}


def exit_status(findings: Iterable[Finding]) -> int:
    """Return 2 where something has to be corrected first, 1 where broker, LCM or work stand still, else 0."""
    return max(_STATUS[finding.level] for finding in findings)
