"""What the screen shows at several widths and heights."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.support.html import Document
from worker.cli.terminal import Terminal
from worker.cli.top.reading import Event, Reader
from worker.cli.top.report import report
from worker.cli.top.screen import Screen
from worker.cli.top.summary import document
from worker.cli.top.tally import Tally

SAID = "bad\x1b[2Jwörds 電話" * 20
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
NOW = 10.0


def event(
    name: str, at: float = 0.0, *, worker: str = "host-1-4711", level: str = "info", **fields: Any
) -> Event:
    return Event(timestamp=NOON + timedelta(seconds=at), level=level, event=name, worker=worker, **fields)


def busy_tally(workers: int = 3) -> Tally:
    """A log of outages, failures and several workers."""
    tally = Tally()
    for number in range(workers):
        tally.feed(
            [
                event("worker.started", worker=f"host-{number}-4711"),
                event("worker.ready", worker=f"host-{number}-4711"),
            ]
        )
    for number in range(300):
        about: dict[str, Any] = {"worker": f"host-{number % workers}-4711", "at": number / 10}
        times: dict[str, Any] = {"duration_ms": 8.2, "lcm_ms": 6.4, "queue_ms": 2.1, "publish_ms": 1.3}
        tally.feed([event("job.succeeded", **about, **times)])
    tally.feed(
        [
            event("worker.stats", 30, worker="host-0-4711", in_flight=17, busy=4, idle=1, opening=0, waiting=2),
            event("job.failed", 31, level="warning", error="lcm_rejected", reason="no", said=SAID),
            event("lcm.session_closed", 31, reason="no reply in time"),
            event("lcm.outage_started", 32, worker="host-0-4711", level="warning", reason="can't be\r\nreached"),
            event("worker.paused", 32, worker="host-0-4711", level="warning", reason="outage"),
            event("worker.stats", 35, worker="host-0-4711", in_flight=17, busy=4, idle=1, opening=0, waiting=2),
            event("broker.lost", 36, worker="host-1-4711", level="warning", role="publish", reason="reset " * 90),
            event("worker.stopped", 37, worker="host-2-4711"),
        ]
    )  # fmt: skip
    return tally


def shown(tally: Tally, width: int = 80, height: int | None = None, **options: Any) -> list[str]:
    stream = io.StringIO()
    console = Terminal(file=stream, width=width, height=height or 25, color_system=None, force_terminal=True)
    console.print(Screen(tally, 1234, 5, height=height, **options), end="")
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("width", [20, 40, 80, 160])
@pytest.mark.parametrize("height", [1, 5, 10, 24, 50, None])
@pytest.mark.parametrize("workers", [3, 40])
def test_every_size_fits(width: int, height: int | None, workers: int) -> None:
    """No line is longer than the width, there are no more lines than the height, and no control characters."""
    lines = shown(busy_tally(workers), width, height, now=NOW, hint="q quit")
    assert max(map(cell_len, lines)) <= width
    assert len(lines) <= (height or 1000)
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("width", [80, 160])
def test_all_that_matters_is_shown(width: int) -> None:
    """Without a limit of height every panel is there, with its numbers, at either width."""
    text = "\n".join(shown(busy_tally(), width))
    for part in (
        "top: 1,234 lines until 2026-01-31 12:00:37 UTC, 5 skipped",
        "succeeded 300  retry_later 0  deferred 0  failed 1  stale 0",
        "in flight 17  busy 4  idle 1  opening 0  waiting 2  at 12:00:",
        "outages 1",
        "broker lost 1",
        "O LCM outage  B broker lost or blocked",
        "to 12:00:38 UTC",
        "duration_ms",
        "8.2",
        "lcm_rejected",
        "bad\\x1b[2Jwörds",
        "can't be\\r\\nreached",
        "no reply in time",
        "stopped",
        "paused (outage",
        "…",
    ):
        assert part in text


def test_the_bar_stands_below_the_jobs_of_the_same_time() -> None:
    """Spark line and bar have a column for each second: jobs until the 31st, troubles from the 32nd on."""
    lines = shown(busy_tally())
    sparks = next(line for line in lines if line.startswith("jobs/s"))[10:]
    bar = next(line for line in lines if line.startswith("troubles"))[10:].rstrip()
    assert set(sparks[:30]) == {"█"}
    assert sparks[32:].strip() == ""
    assert bar == "·" * 32 + "OOOO" + "B" + "·"


def test_a_terminal_of_24_lines_has_the_most_important() -> None:
    """At 80 by 24 no blank line is wasted, and counts, latency, workers, failures and warnings are all there."""
    lines = shown(busy_tally(40), 80, 24, now=NOW)
    assert len(lines) == 24
    assert all(lines)
    for title in ("jobs", "sessions", "latency", "worker 3/40", "error", "warning or error"):
        assert any(line.startswith(title) for line in lines)
    assert lines[lines.index(next(line for line in lines if line.startswith("worker 3/40"))) + 1].startswith(
        "host-0-4711"
    )


def test_very_few_lines_keep_the_counts() -> None:
    """On eight lines there are the time line and the counts."""
    lines = shown(busy_tally(), 80, 8)
    assert any(line.startswith("jobs/s") for line in lines)
    assert any("succeeded 300" in line for line in lines)


def test_the_newest_seconds_fill_the_width() -> None:
    """Live, of a long log the newest seconds are shown, a column each; asked for the whole, its first too."""
    tally = Tally()
    tally.feed(event("job.succeeded", second) for second in range(1000))
    newest, whole = shown(tally, whole=False), shown(tally, whole=True)
    assert "1 s each, 12:15:30 to 12:16:40 UTC" in "".join(newest)
    assert "15 s each, 12:00:00 to 12:16:45 UTC" in "".join(whole)


def test_an_encoding_without_blocks_has_other_steps() -> None:
    """Where the terminal can only show ASCII, the spark line is made of that."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="replace")
    Terminal(file=stream, width=80).print(Screen(busy_tally(), 1, 0))
    stream.seek(0)
    assert "#####" in stream.read()


def test_an_empty_log_has_its_line() -> None:
    """Before the first line, the screen says that there was none."""
    assert shown(Tally())[0].startswith("top: 1,234 lines, 5 skipped")


TIMES = st.sampled_from(
    [
        "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00",
        "1970-01-01T00:00:00Z", "1970-01-01T00:00:00+23:59", "2999-12-31T23:59:59.999999-23:59",
        "2026-01-31T12:00:00", "2026-01-31T12:00:00.5Z", "2026-02-30T12:00:00Z", "2026-01-31",
    ]
)  # fmt: skip
NAMES = st.sampled_from(
    [
        "job.succeeded", "job.retry_later", "job.failed", "worker.started", "worker.paused", "worker.resumed",
        "worker.stats", "worker.stopped", "broker.lost", "broker.blocked", "lcm.session_closed",
        "lcm.outage_started", "lcm.outage_ended",
    ]
)  # fmt: skip
ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 10**15, 2**63, 2**64, 10**400, -0.0, 1e308, -1e308, 5e-324])
    | st.text(st.characters() | st.sampled_from("\x1b\x00\ud800\n"), max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
LINES = st.lists(
    st.fixed_dictionaries(
        {
            "timestamp": TIMES,
            "level": st.sampled_from(["info", "error"]) | ANY,
            "event": NAMES,
            "worker": ANY,
        },
        optional=dict.fromkeys(Event.__struct_fields__[4:], ANY),
    ).map(lambda line: json.dumps(line).encode())
    | st.binary(max_size=20),
    max_size=6,
)


@settings(max_examples=300)
@given(LINES)
@example(
    [
        b'{"timestamp":"2026-01-31T12:00:00Z","level":"i","event":"worker.stats","worker":"w","in_flight":1e400}'
    ]
)
def test_whatever_a_line_holds_there_is_a_screen_a_document_and_a_page(lines: list[bytes]) -> None:
    """Any time, number or text in a line is counted or skipped; all of it is shown, without control characters."""
    reader, tally = Reader(), Tally(detailed=True)
    tally.feed(reader.feed(b"\n".join([*lines, b""])))
    msgspec.json.encode(document(tally, lines=reader.lines, skipped=reader.skipped))
    Document(report(tally, lines=reader.lines, skipped=reader.skipped))
    for options in ({"now": NOW, "whole": False}, {"whole": True}):
        text = "\n".join(shown(tally, 120, **options))
        assert "\x1b[2J" not in text
        assert "\x00" not in text


def test_a_silent_worker_is_told_first_and_rates_fall_while_nothing_comes() -> None:
    """Live, a worker that is silent is shown as such, and a log that stops has the rate fall and time go on."""
    tally = Tally()
    for at in range(60):
        names = ["a", "b"] if at < 10 else ["a"]
        tally.feed([event("job.succeeded", at, worker=name, duration_ms=8.2) for name in names], float(at))

    def screen(now: float) -> list[str]:
        console = Terminal(file=io.StringIO(), width=120)
        with console.capture() as capture:
            console.print(Screen(tally, 70, 0, now=now, whole=False))
        return capture.get().splitlines()

    first = screen(59.0)
    later = screen(120.0)
    row = next(index for index, line in enumerate(first) if line.startswith("worker"))
    assert not any("silent" in line for line in first)
    assert "silent 111 s" in later[row + 1] or "silent 111 s" in "".join(later)
    assert "now 1.0" in "".join(first)
    assert "now 0.0" in "".join(later)
    assert "to 12:02:01 UTC" in "".join(later)
