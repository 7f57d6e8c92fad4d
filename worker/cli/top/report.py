"""A tally as one HTML page that opens without a network: plots with zoom over tables, for an incident's ticket.

Texts of logs are hostile: each is made printable and escaped. Beside that, the page names by hash the one style and the
one script that a browser may use, so that a text which got through would still be carried out by none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from worker.cli.top.series import plots
from worker.cli.top.summary import document
from worker.cli.top.tally import Tally
from worker.common.content_policy import by_hash
from worker.common.text import printable

_HERE = Path(__file__)
_STYLE = _HERE.with_suffix(".css").read_text(encoding="utf-8")
_SCRIPT = _HERE.with_suffix(".js").read_text(encoding="utf-8")
_NUMBER = '<td class="n">'
_NO_DECIMALS = 100
_LATENCY_NAMES = ("whole job", "LCM's answer", "age on arrival", "publishing")


def report(tally: Tally, *, lines: int, skipped: int) -> bytes:
    """Return the page. The tally must be detailed."""
    found = document(tally, lines=lines, skipped=skipped)
    allowed = f"style-src {by_hash(_STYLE)}; script-src {by_hash(_SCRIPT)}"
    policy = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>lcm-worker, {_span(found)}</title><style>{_STYLE}</style>"
    )
    body = f"{_header(found)}{_plots(tally) if tally.last else ''}{''.join(_tables(found))}"
    return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'.encode()


def _span(found: Mapping[str, Any]) -> str:
    if not found["from"]:
        return "an empty log"
    return f"{_time(found['from'])} to {_time(found['to'])} UTC"


def _time(moment: str | None) -> str:
    return moment[:19].replace("T", " ") if moment else ""


def _header(found: Mapping[str, Any]) -> str:
    workers, skipped = len(found["workers"]) + found["workers_forgotten"], found["skipped_lines"]
    read = f"{found['lines']:,} lines of {workers:,} worker{'' if workers == 1 else 's'}"
    passed = f", {skipped:,} skipped" if skipped else ""
    return f"<header><h1>{_span(found)}</h1><p>{read}{passed}</p></header>"


def _plots(tally: Tally) -> str:
    # Within a script only "<" could end it.
    data = msgspec.json.encode(plots(tally)).decode().replace("<", "\\u003c")
    return (
        '<section id="plots"><p><button id="whole" disabled>whole log</button> '
        "<span>Drag over a plot to zoom; times are UTC.</span></p>"
        "<noscript>The plots need a script, which is in this file; the tables below do not.</noscript></section>"
        f'<script type="application/json" id="data">{data}</script><script>{_SCRIPT}</script>'
    )


def _tables(found: Mapping[str, Any]) -> Iterable[str]:
    sessions, outages = found["sessions"], found["outages"]
    sums = {
        **{f"jobs {name}": count for name, count in found["jobs"].items()},
        "deliveries per second, mean": found["jobs_per_second"],
        "sessions opened": sessions["opened"],
        "sessions not opened": sessions["failed_to_open"],
        "sessions closed": sessions["closed"],
        "LCM outages, of all workers": outages["started"],
        "seconds of those that ended": outages["ended_seconds"],
        **{f"pauses: {reason}": count for reason, count in found["pauses"].items()},
    }
    yield '<div class="pair">'
    yield _table("In sum", ("", ""), sums.items())
    yield _table(
        "Latency, ms",
        ("", "p50", "p95", "p99", "max", "jobs"),
        (
            (name, *(latency[column] for column in ("p50", "p95", "p99", "max", "count")))
            for name, latency in zip(_LATENCY_NAMES, found["latency"].values(), strict=True)
            if latency["count"]
        ),
    )
    yield "</div>"
    yield _table(
        "Failures by error code",
        ("error", "failed", "retried", "last", "last message"),
        (
            (code, failure["failed"], failure["retried"], _time(failure["last"]), failure["message"])
            for code, failure in sorted(found["failures"].items(), key=lambda item: -item[1]["failed"])
        ),
    )
    yield _table(
        "Workers",
        ("worker", "state at the end", "jobs", "failed", "p99 ms", "first line", "last line"),
        (
            (
                worker["name"],
                _state(worker),
                sum(worker["jobs"].values()),
                worker["jobs"]["failed"],
                worker["duration_ms"]["p99"],
                _time(worker["from"]),
                _time(worker["to"]),
            )
            for worker in found["workers"]
        ),
    )
    yield _table(
        "Warnings and errors, the newest first",
        ("event", "times", "last", "worker", "text"),
        (
            (notice["event"], notice["count"], _time(notice["last"]), notice["worker"], notice["text"])
            for notice in reversed(found["notices"])
        ),
    )
    yield _table(
        "Sessions closed, by reason",
        ("times", "reason"),
        ((count, reason) for reason, count in Counter(sessions["closed_by"]).most_common()),
    )


def _state(worker: Mapping[str, Any]) -> str:
    silent = [f"silent for {worker['silent_seconds']:,.0f} s"] if worker["silent_seconds"] else []
    troubles = ", ".join((*silent, *worker["troubles"]))
    return f"{worker['state']} ({troubles})" if troubles else str(worker["state"])


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str | float]]) -> str:
    """Return a table, "" where it has no rows; numbers stand to the right."""
    filled = [[_cell(value) for value in row] for row in rows]
    if not filled:
        return ""
    numeric = [cell.startswith(_NUMBER) for cell in filled[0]]
    head = "".join(
        f"{_NUMBER.replace('td', 'th') if is_number else '<th>'}{name}</th>"
        for name, is_number in zip(columns, numeric, strict=True)
    )
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in filled)
    thead = f"<thead><tr>{head}</tr></thead>" if any(columns) else ""
    return f'<section><h2>{title}</h2><div class="wide"><table>{thead}<tbody>{body}</tbody></table></div></section>'


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return f"<td>{escape(printable(value))}</td>"
    # As many digits as are exact, within 5 %.
    exact = isinstance(value, int) or value >= _NO_DECIMALS
    return f"{_NUMBER}{value:,.{0 if exact else 1}f}</td>"
