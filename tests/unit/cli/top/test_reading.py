"""From bytes to events: whatever else stands in a log is skipped and counted."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.cli.top.reading import LONGEST_LINE, Reader, event_of

LINE = b'{"timestamp":"2026-01-31T12:00:00.5Z","level":"info","event":"worker.ready","worker":"w-1","prefetch":64}'
MIB = 1 << 20


def read(*pieces: bytes) -> tuple[int, int, int]:
    """Return how many events, lines and skipped lines there are."""
    reader = Reader()
    events = sum(len(reader.feed(piece)) for piece in pieces) + len(reader.end())
    return events, reader.lines, reader.skipped


@pytest.mark.parametrize(
    "prefix", [b"", b"worker-1  | ", b"\x1b[36mworker-1 |\x1b[0m ", b"Jan 31 host lcm-worker[1]: "]
)
def test_a_prefix_is_passed_over(prefix: bytes) -> None:
    """A line may stand behind what `docker compose logs` or the journal puts before it."""
    event = event_of(prefix + LINE + b"\r")
    assert event is not None
    assert (event.worker, event.event, event.timestamp.microsecond) == ("w-1", "worker.ready", 500_000)


@pytest.mark.parametrize(
    "line",
    [
        b"Starting worker-1 ...",
        b"{",
        b"{}",
        b"[1]",
        b"\xff\xfe{\xff",
        b'{"level":"info","event":"another programs","message":"no worker, no timestamp"}',
        LINE.replace(b"2026-01-31", b"yesterday "),
        LINE.replace(b"2026-01-31", b"9999-12-31"),
        LINE.replace(b"2026-01-31T12:00:00.5Z", b"0001-01-01T00:00:00+23:59"),
        LINE.replace(b'"w-1"', b"7"),
        LINE.replace(b"w-1", b"\xff"),
        LINE.replace(b"64", b"[" * 100_000),
        LINE.replace(b"prefetch", b"in_flight").replace(b"64", b"9" * 15),
        LINE.replace(b"prefetch", b"waiting").replace(b"64", b"-1"),
        LINE.replace(b"prefetch", b"queue_ms").replace(b"64", b"1.7e308"),
        LINE.replace(b"prefetch", b"duration_ms").replace(b"64", b"-1e15"),
        LINE[:-10],
        LINE + LINE,
    ],
)
def test_what_is_no_line_of_ours_is_skipped(line: bytes) -> None:
    """Garbage between two good lines is counted as skipped, and both are read."""
    assert read(LINE + b"\n" + line + b"\n\n" + LINE + b"\n") == (2, 3, 1)


@given(st.integers(1, 50), st.integers(1, 400))
def test_pieces_are_put_together(lines: int, size: int) -> None:
    """Cut anywhere, a log has the same events, the last of them without a line break."""
    log = b"\n".join([LINE] * lines)
    assert read(*(log[at : at + size] for at in range(0, len(log), size))) == (lines, lines, 0)


def test_a_partial_last_line_is_skipped() -> None:
    """A log that ends within a line has one line skipped."""
    assert read(LINE + b"\n", LINE[:50]) == (1, 2, 1)


@pytest.mark.parametrize(("more", "skipped"), [(-1, 0), (0, 0), (1, 1)], ids=["under", "at", "over"])
def test_a_line_has_so_many_bytes(more: int, skipped: int) -> None:
    """A line of the largest size, without its end, is an event; one byte more is skipped."""
    line = LINE[:-1] + b',"x":"' + b"x" * (LONGEST_LINE + more - len(LINE) - 7) + b'"}'
    assert len(line) == LONGEST_LINE + more
    size = MIB // 4
    pieces = [(line + b"\n")[start : start + size] for start in range(0, len(line) + 1, size)]
    assert read(*pieces) == (1 - skipped, 1, skipped)


@pytest.mark.parametrize("ended", [True, False])
def test_a_huge_line_is_never_held(ended: bool) -> None:
    """A line of 10 MB is counted as skipped, takes a small part of that in memory, and spoils no other line."""
    piece = b"x" * (MIB // 4)

    def log() -> Iterator[bytes]:
        yield LINE + b'\n{"a":"'
        for _ in range(40):
            yield piece
        if ended:
            yield b'"}\n' + LINE + b"\n"

    tracemalloc.start()
    found = read(*log())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == ((2, 3, 1) if ended else (1, 2, 1))
    assert peak < 3 * LONGEST_LINE
