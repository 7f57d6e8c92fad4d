"""The page with plots: its numbers are those of the log, and no text of a log is carried out."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from tests.support.html import Document
from worker.cli.top.reading import Event
from worker.cli.top.report import report
from worker.cli.top.tally import Tally

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOSTILE = "</script><script>alert(1)</script><img src=//evil onerror='alert(2)'>\"\x1b[31m\u202e<!--<script>"


def event(name: str, at: float = 0.0, *, worker: str = "w-1", level: str = "info", **fields: Any) -> Event:
    return Event(timestamp=NOON + timedelta(seconds=at), level=level, event=name, worker=worker, **fields)


def page(*events: Event, skipped: int = 0) -> Document:
    tally = Tally(detailed=True)
    tally.feed(events)
    return Document(report(tally, lines=len(events) + skipped, skipped=skipped))


def data(found: Document) -> dict[str, Any]:
    """Return what the script plots."""
    read: dict[str, Any] = msgspec.json.decode(found.code[1])
    return read


def series(found: Document, chart: int) -> dict[str, list[float | None]]:
    return {one["name"]: one["values"] for one in data(found)["charts"][chart]["series"]}


def incident() -> Sequence[Event]:
    stats: dict[str, Any] = {"busy": 2, "idle": 3, "waiting": 4}
    return (
        event("worker.started", 0),
        event("worker.stats", 1, **stats),
        event("job.succeeded", 1, duration_ms=20.0, lcm_ms=10.0),
        event("job.failed", 1, error="lcm_rejected", reason="rejected", level="warning", duration_ms=2000.0),
        event("lcm.session_closed", 2, reason="1006"),
        event("lcm.outage_started", 3, level="error", reason="refused"),
        event("job.retry_later", 5, error="timeout", reason="no reply"),
        event("lcm.outage_ended", 5, seconds=2.0),
        event("worker.paused", 7, reason="guard", level="warning"),
        event("worker.resumed", 8, still_paused=[]),
        event("lcm.session_opened", 9),
        event("worker.stopped", 10),
    )


def test_all_plots_are_on_one_axis() -> None:
    """Each series has a value for each slot, from the first line of the log to its last."""
    read = data(page(*incident()))
    assert (read["start"], read["seconds"], read["count"]) == (int(NOON.timestamp()), 1, 11)
    lengths = {len(one["values"]) for chart in read["charts"] for one in chart["series"]}
    assert lengths == {11}


def test_the_plots_are_the_numbers_of_the_log() -> None:
    """Deliveries, percentiles, failures, sessions, outages and pauses stand in the slots in which they were."""
    found = page(*incident())
    results, lcm, whole, codes, sessions = (series(found, chart) for chart in range(5))
    assert {name: [at for at, value in enumerate(values) if value] for name, values in results.items()} == {
        "succeeded": [1], "retry_later": [5], "failed": [1],
    }  # fmt: skip
    assert [name for name in lcm if lcm[name][1] == 10 and lcm[name][5] is None] == ["p50", "p95", "p99"]
    assert 19 <= (whole["p50"][1] or 0) <= 21
    assert whole["p99"][1] == 2000
    assert [codes["lcm_rejected"][1], codes["timeout"][5]] == [1, 1]
    assert sessions["open"] == [0, 5, 4, 4, 4, 4, 4, 4, 4, 5, 0]
    assert sessions["exchanges that wait for one"] == [0, *[4] * 9, 0]
    spans = {lane["name"]: lane["spans"] for lane in data(found)["lanes"]}
    assert spans == {"LCM outage": [[3, 6]], "paused by guard": [[7, 9]], "broker lost or blocked": []}


def test_a_long_log_is_divided_into_longer_slots() -> None:
    """Rates stay per second, percentiles are those of all jobs of a slot, and sums stay what they were."""
    found = page(*(event("job.succeeded", second, lcm_ms=float(10 + second % 2)) for second in range(5000)))
    read = data(found)
    assert (read["seconds"], read["count"]) == (8, 625)
    assert set(series(found, 0)["succeeded"][1:-1]) == {1.0}
    assert 9.5 <= (series(found, 1)["p50"][1] or 0) <= 10.5
    assert series(found, 1)["p99"][1] == 11.0


def test_the_sessions_of_workers_add_up_in_whatever_order_their_logs_are_read() -> None:
    """Also where the log of one is read after that of another; who fell silent has none any more."""
    one = [
        event("worker.started", 0, stats_interval=1.0),
        event("worker.stats", 1, busy=2, stats_interval=1.0),
    ]
    other = [event("worker.stats", at, worker="w-2", idle=3) for at in range(10)]
    for events in ((*one, *other), (*other, *one)):
        assert series(page(*events), 4)["open"] == [3] * 10
    late = [event("worker.stats", at, busy=2) for at in (1, 9)]
    assert series(page(*other, *late), 4)["open"] == [3, *[5] * 9]


def test_there_are_few_codes_in_a_plot_and_none_is_left_out() -> None:
    """Beyond seven codes, the others are one series."""
    found = page(
        *(event("job.failed", 0, error=f"e{number}") for number in range(20) for _ in range(21 - number))
    )
    codes = series(found, 3)
    assert list(codes) == [*(f"e{number}" for number in range(7)), "(others)"]
    assert sum(values[0] or 0 for values in codes.values()) == sum(range(2, 22))


def test_the_tables_are_there_without_a_script() -> None:
    """What the summary tells stands in tables, times in UTC."""
    found = page(*incident(), skipped=3)
    text = "|".join(found.texts)
    for part in (
        "2026-01-31 12:00:00 to 2026-01-31 12:00:10 UTC|15 lines of 1 worker, 3 skipped",
        "jobs succeeded|1",
        "pauses: guard|1",
        "whole job|",
        "lcm_rejected|1|0|2026-01-31 12:00:01|rejected",
        "w-1|stopped|3|1|",
        "lcm.outage_started|1|2026-01-31 12:00:03|w-1|refused",
        "1|1006",
    ):
        assert part in text


def test_no_text_of_a_log_is_carried_out() -> None:
    """Hostile texts in each field bring no element and no attribute, end no script, and are there as their letters."""
    harmless = page(*incident())
    found = page(
        *(
            event(
                line.event,
                at,
                worker=HOSTILE,
                level=line.level,
                error=HOSTILE if line.error else None,
                reason=HOSTILE,
                said=HOSTILE,
            )
            for at, line in enumerate(incident())
        ),
        event(HOSTILE, 11, level="error", message=HOSTILE),
    )
    assert (found.tags, found.attributes) == (harmless.tags, harmless.attributes)
    assert [tag for tag, _ in found.elements if tag == "script"] == ["script", "script"]
    assert len(found.code) == 3
    assert "<" not in found.code[1]
    assert HOSTILE in series(found, 3)
    shown = HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert {"jobs succeeded", shown} <= set(found.texts)


def test_a_browser_may_use_what_is_in_the_page_and_nothing_else() -> None:
    """One style and one script are allowed, each by its hash; nothing comes from elsewhere or goes there."""
    found = page(*incident())
    style, _, script = found.code
    style_hash, script_hash = (
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in (style, script)
    )
    assert found.meta("Content-Security-Policy") == (
        f"default-src 'none'; style-src {style_hash}; script-src {script_hash}; base-uri 'none'; form-action 'none'"
    )
    assert not {"src", "href", "action", "style"} & found.attributes
    assert "://" not in style + script.replace("http://www.w3.org/2000/svg", "")


def test_the_script_knows_each_field_and_makes_no_markup_of_texts() -> None:
    """What it plots are the fields that are there; it sets texts as text alone."""
    found = page(*incident())
    script = found.code[2]
    assert not [
        way
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval")
        if way in script
    ]
    read = data(found)
    fields = {*read, *read["lanes"][0], *read["charts"][0], *read["charts"][0]["series"][0]}
    assert [field for field in fields if field not in script] == []
    colours = {one["style"] for chart in read["charts"] for one in chart["series"]}
    assert [name for name in colours if f"--{name}:" not in found.code[0]] == []


def test_an_empty_log_has_a_page() -> None:
    """It says so, and plots nothing."""
    found = page()
    assert "an empty log" in found.texts
    assert "script" not in found.tags
