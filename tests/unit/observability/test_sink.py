"""A log whose reader stalls, or whose disk is full, stops nothing, and tells afterwards how much was lost."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import pytest

from worker.observability.sink import MOST_KEPT, Sink


@contextmanager
def pipe() -> Iterator[tuple[int, Sink]]:
    """Give the reading end of a small pipe, and a sink that writes to the other end."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(writing, "wb", buffering=0) as stream, os.fdopen(reading, "rb", buffering=0):
        yield reading, Sink(stream)


def read(descriptor: int, enough: threading.Event) -> list[bytes]:
    """Read lines until the sink has caught up and nothing more is in the pipe."""
    os.set_blocking(descriptor, False)
    found = b""
    while True:
        done = enough.is_set()
        try:
            found += os.read(descriptor, 65_536)
        except BlockingIOError:
            if done:
                return found.splitlines()
            enough.wait(0.01)


@pytest.fixture(params=["own pipe", "somebody else's pipe"])
def owned(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sink open the pipe once more, or refuse that, as for a user who does not own it."""

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    if request.param != "own pipe":
        monkeypatch.setattr("worker.observability.sink.os.open", refuse)


@pytest.mark.usefixtures("owned")
def test_a_reader_that_stalls_gets_every_line_that_fits() -> None:
    """Lines that the pipe can't take wait, in their order, until the reader goes on; nothing waits for it."""
    lines = [f"line {number} ".encode() + b"x" * 500 for number in range(200)]
    dropped: list[int] = []
    with pipe() as (reading, sink):
        sink.on_dropped = dropped.append
        for line in lines:
            sink.msg(line)
        assert sink._waiting
        assert read(reading, sink._caught_up) == lines
        sink.msg(b"afterwards")
        assert os.read(reading, 100) == b"afterwards\n"
    assert dropped == []


@pytest.mark.usefixtures("owned")
def test_what_waits_is_bounded_and_what_is_dropped_is_counted() -> None:
    """Beyond the bound the newest lines are dropped; their number is told behind the last line that was kept."""
    line = b"x" * 10_000
    with pipe() as (reading, sink):
        sink.on_dropped = lambda lines: sink.msg(f"dropped {lines}".encode())
        for _ in range(1000):
            sink.msg(line)
            assert len(sink._waiting) <= MOST_KEPT
        stalled = sink.dropped
        found = read(reading, sink._caught_up)
    *kept, last = found
    assert set(kept) == {line}
    assert last == f"dropped {1000 - len(kept)}".encode()
    assert stalled == sink.dropped == 1000 - len(kept)


def test_the_descriptor_stays_blocking_for_others() -> None:
    """Other processes may share the pipe: the flags of the descriptor that was given are not changed."""
    with pipe() as (_, sink):
        sink.msg(b"line")
        assert os.get_blocking(sink._stream.fileno())


def test_a_line_cut_by_a_full_disk_does_not_swallow_the_next() -> None:
    """After part of a line was written, the next one starts on a line of its own, and the lost one is told."""
    written = BytesIO()
    room = [3, 0]

    def write(data: bytes) -> int:
        limit = room.pop(0) if room else len(data)
        if not limit:
            raise OSError(errno.ENOSPC, "No space left on device")
        return written.write(data[:limit])

    sink = Sink(BytesIO())
    sink._write = write
    sink.on_dropped = lambda lines: sink.msg(f"dropped {lines}".encode())
    sink.msg(b"one line")
    sink.msg(b"another")
    assert written.getvalue() == b"one\nanother\ndropped 1\n"


class Written:
    """A stream that tells when something was written."""

    def __init__(self) -> None:
        self.data = b""
        self.came = asyncio.Event()

    def write(self, data: bytes) -> int:
        self.data += data
        self.came.set()
        return len(data)

    def flush(self) -> None:
        """Do nothing: it keeps nothing back."""

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        raise OSError


async def test_lines_that_may_wait_go_out_together_and_by_themselves() -> None:
    """A line is written soon although nothing follows, with those that came meanwhile, and then the next ones are."""
    stream = Written()
    sink = Sink(stream)
    for lines in ((b"a", b"b"), (b"c",)):
        stream.data = b""
        stream.came.clear()
        for line in lines:
            sink.soon(line)
        assert stream.data == b""
        await stream.came.wait()
        assert stream.data == b"\n".join(lines) + b"\n"


async def test_a_line_that_may_not_wait_stays_behind_those_before_it() -> None:
    """The order of lines is that in which they were logged, whichever of them could wait."""
    stream = Written()
    sink = Sink(stream)
    sink.soon(b"a")
    sink.soon(b"b")
    sink.msg(b"c")
    assert stream.data == b"a\nb\nc\n"
    sink.soon(b"d")
    sink.flush()
    assert stream.data == b"a\nb\nc\nd\n"


def test_without_an_event_loop_no_line_waits() -> None:
    """Nothing would write it later."""
    stream = BytesIO()
    sink = Sink(stream)
    sink.soon(b"a")
    assert stream.getvalue() == b"a\n"


async def test_each_line_that_may_wait_counts_where_it_is_dropped() -> None:
    """Lines that are gathered while the reader stalls are dropped and counted one by one."""
    stream = Written()
    sink = Sink(stream)
    sink._waiting += bytes(MOST_KEPT)
    for _ in range(3):
        sink.soon(b"line")
    sink.flush()
    assert sink.dropped == 3
