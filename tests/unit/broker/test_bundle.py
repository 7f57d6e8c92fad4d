"""Frames that are written close to each other go out together, in their order, and none stays behind."""

from __future__ import annotations

import asyncio

from worker.broker.bundle import Bundle


async def test_what_comes_alone_goes_out_at_once() -> None:
    """Nothing waits where nothing was written just before."""
    written: list[bytes] = []
    bundle = Bundle(written.append)
    bundle.add(b"a")
    assert written == [b"a"]


async def test_what_follows_closely_goes_out_together() -> None:
    """All that is added soon after a write goes out in the next one, in order, without being asked for."""
    written: list[bytes] = []
    both = asyncio.Event()

    def write(frames: bytes) -> None:
        written.append(frames)
        if len(written) == 2:
            both.set()

    bundle = Bundle(write)
    for frame in (b"a", b"b", b"c", b"d"):
        bundle.add(frame)
    assert written == [b"a"]
    await both.wait()
    assert written == [b"a", b"bcd"]


async def test_what_waits_goes_ahead_of_what_is_written_otherwise() -> None:
    """A flush writes what waits, and a second one has nothing to write."""
    written: list[bytes] = []
    bundle = Bundle(written.append)
    bundle.add(b"a")
    bundle.add(b"b")
    bundle.flush()
    bundle.flush()
    assert written == [b"a", b"b"]
    bundle.add(b"c")
    bundle.flush()
    assert written == [b"a", b"b", b"c"]
