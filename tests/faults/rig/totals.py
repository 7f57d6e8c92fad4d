"""The figures of many runs in one table: `python -m tests.faults.rig.totals faults-*.json`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from tests.faults.rig.report import COUNTED

_FIGURES = ("faults_injected", *COUNTED)


def totals(runs: Iterable[list[dict[str, Any]]]) -> dict[str, Counter[str]]:
    """Add up the records of these runs: for each row, and for `all`, the tests, those that failed, and each figure."""
    sums: dict[str, Counter[str]] = {}
    for record in (record for run in runs for record in run):
        for row in (record["row"], "all"):
            found = sums.setdefault(row, Counter())
            found.update({"tests": 1, "failed": not record["passed"]})
            found.update({name: record[name] for name in _FIGURES})
    return {
        row: sums[row]
        for row in sorted(sums, key=lambda row: (row == "all", int(row) if row != "all" else 0))
    }


def as_table(sums: dict[str, Counter[str]]) -> str:
    """Return the sums as a Markdown table."""
    names = ("tests", "failed", *_FIGURES)
    lines = [
        "| row | " + " | ".join(name.replace("_", " ") for name in names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    lines += [
        f"| {row} | " + " | ".join(f"{found[name]:,}" for name in names) + " |" for row, found in sums.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(
        as_table(totals(msgspec.json.decode(Path(file).read_bytes()) for file in sys.argv[1:])) + "\n"
    )
