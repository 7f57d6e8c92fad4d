"""What a connection is to a reader of the log, and how it goes."""

from __future__ import annotations

import asyncio
import gc
import warnings

import pytest
from aiormq.exceptions import AMQPError, ChannelClosed, ChannelInvalidStateError
from yarl import URL

from tests.support.settings import broker_settings
from worker.broker.connection import Connection, broker_call, connect_any, files_of, text_of
from worker.contract.errors import BrokerAway


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


def test_the_text_of_a_loss_is_short_and_names_no_object_of_the_library() -> None:
    """The same trouble has the same text, whatever the library and the broker put into it."""
    assert text_of(AMQPError("no frame of <Connection: 'amqp' at 0x7ff1> now")) == "no frame of (…) now"
    assert len(text_of(AMQPError("PLAIN " * 10_000))) == 500


def test_a_channel_that_was_closed_without_a_word_is_told_as_closed() -> None:
    """A broker may say that it has closed a channel as we asked, although nobody did."""
    assert text_of(ChannelClosed(None, None)) == "closed"
    assert text_of(ChannelClosed(404, "NOT_FOUND")) == "404 NOT_FOUND"


def test_a_broker_that_fell_silent_is_told_in_words() -> None:
    """Without heartbeats the library cancels its reader, of which the error's name alone would say nothing."""
    assert "no heartbeat" in text_of(asyncio.CancelledError())
    assert text_of(asyncio.CancelledError("INTERNAL_ERROR")) == "INTERNAL_ERROR"


HOSTS = ["rabbit..example.com", "a" * 70, "xn--" + "é" * 70, "xn--a.example", ".", "host_" + "ü" * 300]


@pytest.mark.parametrize("host", HOSTS)
async def test_a_host_that_no_name_server_could_know_is_told(host: str) -> None:
    """A name that IDNA can't encode is an address like any other that can't be reached, and names the setting."""
    settings = broker_settings(f"amqp://guest:guest@{host}/")
    with pytest.raises(BrokerAway, match=r"see broker\.url"):
        await connect_any(settings, files_of(settings), name="test")


async def lost_when_cancelled(timeout: float, waiting: asyncio.Event) -> None:  # noqa: ASYNC109 - it is passed on
    """Call the broker as the library does where the connection is lost while the caller is cancelled."""
    async with broker_call(timeout):
        try:
            waiting.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ChannelInvalidStateError("closed") from None


async def test_a_call_that_is_cancelled_ends_as_cancelled_whatever_the_library_makes_of_it() -> None:
    """Else a link whose broker leaves in the moment of its cancellation would go on for ever."""
    waiting = asyncio.Event()
    calling = asyncio.ensure_future(lost_when_cancelled(60.0, waiting))
    await waiting.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling


async def test_a_call_that_is_late_is_told_whatever_the_library_makes_of_it() -> None:
    """The time-out cancels the call, too, and is no cancellation of the task's."""
    with pytest.raises(BrokerAway):
        await lost_when_cancelled(0.0, asyncio.Event())
