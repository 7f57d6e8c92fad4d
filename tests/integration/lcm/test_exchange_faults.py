"""One exchange, and all that can come in place of a good reply: what it is called, what becomes of the session."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from tests.support.lcm import ACCOUNT, Ends, good, names, opened, peer, reply
from tests.support.waiting import settled, until
from worker.contract.errors import (
    ConnectionLost,
    JobError,
    LcmError,
    LcmRejected,
    MalformedReply,
    ReplyTimeout,
    ReplyTooLarge,
)
from worker.simulator.documents import UNASKED
from worker.simulator.server import Behaviour, Simulator

LONG = 30.0
SOON = 0.02


def always(fault: str, **switches: Any) -> Behaviour:
    """Return a behaviour of this one fault."""
    return Behaviour(faults={fault: 1}, **switches)


@pytest.mark.parametrize("fault", ["refuse", "refuse-plain"])
async def test_a_rejection_leaves_the_session_good(fault: str) -> None:
    """An error about the account is an answer: LCM's own words are kept, and the session goes on."""
    async with Simulator(always(fault)) as lcm, opened(lcm.url) as session:
        for _ in range(2):
            with pytest.raises(LcmRejected) as raised:
                await session.exchange(ACCOUNT, LONG)
            assert raised.value.remote_message
        lcm.behaviour = Behaviour()
        assert names(await session.exchange(ACCOUNT, LONG), ACCOUNT)


ENDING: list[tuple[str, type[JobError], float]] = [
    ("error", LcmError, LONG),
    ("silence", ReplyTimeout, SOON),
    ("freeze", ReplyTimeout, SOON),
    ("slow", ReplyTimeout, SOON),
    ("wrong-subtopic", ReplyTimeout, SOON),
    ("close", ConnectionLost, LONG),
    ("reset", ConnectionLost, LONG),
    ("huge", ReplyTooLarge, LONG),
    *(
        (fault, MalformedReply, LONG)
        for fault in ("cut-off", "not-json", "nan", "deep", "boolean", "strings", "no-response", "no-id")
    ),
]


@pytest.mark.parametrize(("fault", "error", "timeout_s"), ENDING)
async def test_a_failure_ends_the_session(fault: str, error: type[JobError], timeout_s: float) -> None:
    """Whatever is no answer ends the session, once and at once; it can't be asked again, and LCM sees it go."""
    ends = Ends()
    async with Simulator(always(fault)) as lcm:
        async with opened(lcm.url, ends) as session:
            with pytest.raises(error):
                await session.exchange(ACCOUNT, timeout_s)
            assert (session.alive, session.answered, len(ends.reasons)) == (False, 0, 1)
            with pytest.raises(ConnectionLost):
                await session.exchange("another", LONG)
            # LCM takes note of an exchange once nothing more will come of it.
            await until(lambda: len(lcm.record) == 1)
            if fault != "freeze":
                await until(lambda: lcm.live == 0)
        assert len(ends.reasons) == 1


@pytest.mark.parametrize("fault", ["empty", "sliced", "binary"])
async def test_unusual_replies_that_are_good(fault: str) -> None:
    """An empty list, a reply in fragments of one byte and one in a binary frame are answers."""
    async with Simulator(always(fault)) as lcm, opened(lcm.url) as session:
        items = await session.exchange(ACCOUNT, LONG)
        assert items == () if fault == "empty" else names(items, ACCOUNT)
        assert session.alive


async def test_too_many_fragments() -> None:
    """A reply in more fragments than the library takes is malformed, not lost."""

    async def crumble(lcm: ServerConnection) -> None:
        await lcm.recv()
        await lcm.send((b" " for _ in range(10_000)), text=True)

    async with peer(crumble) as url, opened(url) as session:
        with pytest.raises(MalformedReply, match="fragments"):
            await session.exchange(ACCOUNT, LONG)
        assert not session.alive


NAMING: dict[str, Callable[[str | int], bytes]] = {
    "beside the reply": lambda named: reply([], account_number=named),
    "under data": lambda named: reply([], data={"AccountNumber": named}),
    "in the reply": lambda named: reply([], message={"response": [], "accountNumber": named}),
    "in an outcome": lambda named: reply([{"OutComeID": "3", "Description": "Busy", "AccountNumber": named}]),
    "in a rejection": lambda named: reply(
        [], message={"success": False, "msg": "no", "ACCOUNTNUMBER": named}
    ),
}


@pytest.mark.parametrize("naming", NAMING.values(), ids=list(NAMING))
@pytest.mark.parametrize("other", ["18|1|2|0|0|44|275", 275])
async def test_a_reply_that_names_another_account_is_not_believed(
    naming: Callable[[str | int], bytes], other: str | int
) -> None:
    """Nothing says that replies name an account; one that does, and names another, is another's."""

    async def answer(connection: ServerConnection) -> None:
        for named in (ACCOUNT, f" {ACCOUNT} ", other):
            await connection.recv()
            await connection.send(naming(named).decode())
        await connection.wait_closed()

    async with peer(answer) as url, opened(url) as session:
        for _ in range(2):
            with suppress(LcmRejected):
                await session.exchange(ACCOUNT, LONG)
        with pytest.raises(MalformedReply, match="another account") as raised:
            await session.exchange(ACCOUNT, LONG)
        assert raised.value.remote_message == ""
        assert not session.alive


async def test_an_unasked_message_may_name_any_account() -> None:
    """It is about something else, and is passed over as ever."""

    async def tell(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(reply([], topic="Calls", data={"AccountNumber": "another"}).decode())
        await connection.send(good(ACCOUNT).decode())
        await connection.wait_closed()

    async with peer(tell) as url, opened(url) as session:
        assert names(await session.exchange(ACCOUNT, LONG), ACCOUNT)
        assert (session.unsolicited, session.alive) == (1, True)


@pytest.mark.parametrize("fault", ["twice", "unprompted"])
async def test_a_second_reply_ends_the_session(fault: str) -> None:
    """Pitfall `the peer sends a reply twice`: a reply with none in flight closes the session."""
    ends = Ends()
    async with Simulator(always(fault, unprompted_after=0.001)) as lcm, opened(lcm.url, ends) as session:
        assert names(await session.exchange(ACCOUNT, LONG), ACCOUNT)
        await until(lambda: ends.reasons or session.unsolicited)
        assert (session.alive, ends.reasons) == (False, ["replied with no request in flight"])


async def test_a_late_reply_finds_nobody() -> None:
    """Pitfall `a request times out, its reply comes later`: the session was aborted by then, unanswered."""
    async with Simulator(always("late", late_by=0.1)) as lcm, opened(lcm.url) as session:
        with pytest.raises(ReplyTimeout, match=r"0\.02 s"):
            await session.exchange(ACCOUNT, SOON)
        await until(lambda: lcm.live == 0)
        assert lcm.record[0].replied is None


async def test_unasked_messages_are_skipped_and_counted() -> None:
    """Everything that is published as arriving unasked, between request and reply, changes nothing."""
    behaviour = Behaviour(unasked=("all",), variants=frozenset({"mixed"}) - {"single-object"}, open_id=True)
    async with Simulator(behaviour) as lcm, opened(lcm.url) as session:
        for number in range(5):
            items = await session.exchange(f"{number}", LONG)
            assert " ".join(items[-1][1].split()) in (f"Account {number}", "")
        assert session.unsolicited == 5 * len(UNASKED) + 1


@pytest.mark.parametrize("settings", [{}, {"session_errors": ["agent NOT_LOGGED in"]}])
async def test_listed_errors_end_the_session(settings: dict[str, Any]) -> None:
    """An error of `lcm.session_errors`, such as by default not logged in, is about this session, which is closed."""
    async with Simulator(always("not-logged-in")) as lcm, opened(lcm.url, **settings) as session:
        with pytest.raises(LcmError):
            await session.exchange(ACCOUNT, LONG)
        assert not session.alive


async def test_an_error_out_of_turn_ends_the_session() -> None:
    """LCM saying that it is unwell, while nothing was asked, ends a session that nobody can trust now."""

    async def complain(lcm: ServerConnection) -> None:
        await lcm.send('{"channel":"LCM","topic":"Error","data":{"msg":"reconnecting"}}')
        await lcm.wait_closed()

    ends = Ends()
    async with peer(complain) as url, opened(url, ends):
        await until(lambda: ends.reasons)
        assert ends.reasons == ["LCM reported an error"]


@pytest.mark.parametrize("waits", [0, 1, 2, 3, 5, 10])
async def test_a_cancelled_exchange_ends_the_session(waits: int) -> None:
    """Cancelled before, while or after the request is out, an exchange takes its session with it."""
    ends = Ends()
    async with Simulator(always("silence")) as lcm, opened(lcm.url, ends) as session:
        asking = asyncio.ensure_future(session.exchange(ACCOUNT, LONG))
        await settled(waits + 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert ends.reasons == ["cancelled in mid-exchange"]
        await until(lambda: lcm.live == 0)


async def test_cancelled_when_the_reply_is_there_already() -> None:
    """A cancellation that crosses the reply ends the session too: whether the reply was heard is not looked at."""
    async with Simulator() as lcm, opened(lcm.url) as session:
        asking = asyncio.ensure_future(session.exchange(ACCOUNT, LONG))
        for _ in range(100_000):
            if session.answered:
                break
            await asyncio.sleep(0)
        assert not asking.done()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not session.alive


async def test_one_exchange_at_a_time() -> None:
    """A second exchange at the same time is a defect, which is said; the first one is not harmed."""
    async with Simulator(Behaviour(delay=0.02)) as lcm, opened(lcm.url) as session:
        asking = asyncio.ensure_future(session.exchange(ACCOUNT, LONG))
        await settled(1)
        with pytest.raises(RuntimeError, match="second exchange"):
            await session.exchange("another", LONG)
        assert names(await asking, ACCOUNT)
        assert lcm.max_in_flight == 1


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_closed_in_mid_exchange(how: str) -> None:
    """Whoever waits for the reply hears of the end at once, even from a peer that has stopped running."""
    ends = Ends()
    async with Simulator(always("freeze")) as lcm, opened(lcm.url, ends) as session:
        asking = asyncio.ensure_future(session.exchange(ACCOUNT, LONG))
        await until(lambda: lcm.record)
        if how == "close":
            await session.close()
        else:
            session.abort("the worker stops")
        with pytest.raises(ConnectionLost):
            await asking
        assert ends.reasons == ["closed in mid-exchange" if how == "close" else "the worker stops"]


@pytest.mark.parametrize("busy", [False, True])
async def test_keepalive_notices_a_dead_peer(busy: bool) -> None:
    """Pitfall `a dead peer`: pings find out, in an exchange or idle, long before its reply is overdue."""
    ends = Ends()
    patience = {"ping_interval": 0.05, "ping_timeout": 0.05}
    async with Simulator() as lcm, opened(lcm.url, ends, **patience) as session:
        await session.exchange(ACCOUNT, LONG)
        if busy:
            lcm.behaviour = always("freeze")
            with pytest.raises(ConnectionLost):
                await session.exchange(ACCOUNT, LONG)
        else:
            [connection] = lcm._live
            connection.freeze()
        await until(lambda: ends.reasons)
        assert not session.alive


async def test_nothing_is_left_to_complain_about() -> None:
    """Errors that nobody asks for any more are let go of: asyncio reports none as never retrieved."""
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    for fault, _, _ in ENDING:
        async with Simulator(always(fault)) as lcm:
            for cancelled_after in (2, 20, None):
                async with opened(lcm.url) as session:
                    asking = asyncio.ensure_future(session.exchange(ACCOUNT, SOON))
                    if cancelled_after is not None:
                        await settled(cancelled_after)
                        asking.cancel()
                    await asyncio.wait([asking])
                    if not asking.cancelled():
                        assert asking.exception() is not None
    gc.collect()
    await settled()
    assert complaints == []


async def test_a_reply_that_is_read_with_its_double() -> None:
    """Two replies in one piece: the first is the answer, and the session has ended before it can be asked again."""

    async def double(lcm: ServerConnection) -> None:
        async for _ in lcm:
            with_double: list[bytes] = []
            transport = lcm.transport
            lcm.transport = _Gather(with_double)  # type: ignore[assignment]
            for _ in range(2):
                await lcm.send(good(ACCOUNT), text=True)
            lcm.transport = transport
            transport.write(b"".join(with_double))

    async with peer(double) as url, opened(url) as session:
        assert names(await session.exchange(ACCOUNT, LONG), ACCOUNT)
        assert not session.alive


class _Gather:
    """Takes a transport's place, and keeps what is written."""

    def __init__(self, written: list[bytes]) -> None:
        self._written = written

    def write(self, data: bytes) -> None:
        self._written.append(data)

    def is_closing(self) -> bool:
        return False
