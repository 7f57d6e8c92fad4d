"""What a connection is to a reader of the log, and how it goes."""

from __future__ import annotations

import asyncio
import gc
import warnings

from aiormq.exceptions import ChannelInvalidStateError
from yarl import URL

from worker.broker.connection import Connection, text_of


def test_a_connection_that_was_never_opened_goes_in_silence() -> None:
    """Pitfall: the library starts a task when it is collected, which never runs on a loop that has ended."""

    async def make() -> Connection:
        return Connection(URL("amqp://127.0.0.1:1/"))

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(None)  # as asyncio.run leaves it
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        loop.run_until_complete(make())
        gc.collect()
    loop.close()
    assert [str(warning.message) for warning in said] == []


def test_a_closed_channel_is_told_without_its_address() -> None:
    """The same trouble has the same text each time."""
    assert (
        text_of(ChannelInvalidStateError('<Channel: "1" at 0x7ff14894cf50> closed'))
        == "the channel is closed"
    )


def test_a_broker_that_fell_silent_is_told_in_words() -> None:
    """Without heartbeats the library cancels its reader, of which the error's name alone would say nothing."""
    assert "no heartbeat" in text_of(asyncio.CancelledError())
    assert text_of(asyncio.CancelledError("INTERNAL_ERROR")) == "INTERNAL_ERROR"
