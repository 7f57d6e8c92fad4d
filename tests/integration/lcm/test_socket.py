"""A session's frames, one by one: those that come with the handshake, fences and pongs, fragments, one write."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from zlib import compress

import pytest
from websockets.frames import Close, Frame, Opcode

from tests.support.lcm import ACCOUNT, Ends, good, names, opened
from tests.support.patience import PATIENCE
from tests.support.raw_peer import RawPeer, more, pong, raw_peer, text
from tests.support.settings import lcm_settings
from tests.support.waiting import settled, until
from worker.contract.errors import ConnectionLost, JobError, MalformedReply, ReplyTooLarge, SessionNotOpened
from worker.lcm.flood import MOST_FRAGMENTS
from worker.lcm.handshake import SessionOpener
from worker.lcm.not_opened import Way
from worker.lcm.session import Session
from worker.simulator.documents import UNASKED
from worker.simulator.server import Simulator

LONG = 30.0
SHORT = 5.0
HEARTBEAT = UNASKED["heartbeat"]


def close(code: int, words: str = "") -> Frame:
    """Return a goodbye."""
    return Frame(Opcode.CLOSE, Close(code, words).serialize())


async def answer_in_turn(lcm: RawPeer) -> None:
    """Answer each request, the ping ahead of it first, until the client is gone."""
    while True:
        await answer(lcm, text(good(ACCOUNT)))


async def answer(lcm: RawPeer, *frames: Frame) -> None:
    """Answer one request, the ping ahead of it first."""
    *pings, _ = await lcm.hear_request()
    lcm.say(*map(pong, pings), *frames)


async def ask(session: Session) -> None:
    """Make an exchange that is answered."""
    assert names(await session.exchange(ACCOUNT, LONG), ACCOUNT)


async def test_what_comes_with_the_handshake_reaches_the_session() -> None:
    """Messages in the handshake's own segment, more than the library queues, are all heard, and so is what follows."""

    async def talk(lcm: RawPeer) -> None:
        await lcm.accept(*[text(HEARTBEAT)] * 100)
        await answer_in_turn(lcm)

    async with raw_peer(talk) as url, opened(url) as session:
        await until(lambda: session.unsolicited == 100)
        await ask(session)
        await ask(session)


async def test_a_message_half_of_which_comes_with_the_handshake() -> None:
    """Fragments before and after the session took over are one message, which is heard before the reply."""

    async def talk(lcm: RawPeer) -> None:
        await lcm.accept(text(HEARTBEAT[:5], fin=False), more(HEARTBEAT[5:9], fin=False))
        await answer(lcm, more(HEARTBEAT[9:]), text(good(ACCOUNT)))
        await answer_in_turn(lcm)

    async with raw_peer(talk) as url, opened(url) as session:
        await ask(session)
        assert session.unsolicited == 1


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([text(good("nobody"))], "replied with no request in flight"),
        ([close(4401, "expired")], "closed by LCM with code 4401 (unauthorized)"),
        ([text(HEARTBEAT), close(1000)], "closed by LCM with code 1000"),
        ([text(HEARTBEAT), text(good("nobody")), close(1000)], "replied with no request in flight"),
        # More than the library queues before it pauses reading.
        ([text(HEARTBEAT)] * 100 + [text(good("nobody"))], "replied with no request in flight"),
    ],
)
async def test_an_end_that_comes_with_the_handshake(frames: list[Frame], reason: str) -> None:
    """A session that LCM ends in the handshake's own segment says so, once, and asks nothing."""
    ends = Ends()

    async def talk(lcm: RawPeer) -> None:
        await lcm.accept(*frames)
        assert (await lcm.hear()).opcode is Opcode.CLOSE

    async with raw_peer(talk) as url, opened(url, ends) as session:
        assert not await session.lasts()
        assert (ends.reasons, session.unsolicited) == ([reason], frames.count(text(HEARTBEAT)))
        with pytest.raises(ConnectionLost):
            await session.exchange(ACCOUNT, LONG)


async def test_a_connection_that_is_gone_before_the_session_takes_it_over() -> None:
    """Lost while the opening was still at work, it ends the session at once, after what LCM had said by then."""

    async def talk(lcm: RawPeer) -> None:
        await lcm.accept(text(HEARTBEAT))

    ends = Ends()
    async with raw_peer(talk) as url:
        socket = await SessionOpener(lcm_settings(url), "worker-1")._connect(1, Way())
        await socket.wait_closed()
        session = Session(socket, 1, frozenset(), ends)
    assert (ends.reasons, session.unsolicited, await session.lasts()) == (["connection lost"], 1, False)


async def test_fence_and_request_are_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request goes out behind a ping, in a single write with it."""
    async with Simulator() as lcm, opened(lcm.url) as session:
        written: list[bytes] = []
        monkeypatch.setattr(session._socket, "transport", _Recording(session._socket.transport, written))
        for _ in range(3):
            await ask(session)
    assert [raw[0] & 0x0F for raw in written] == [Opcode.PING] * 3
    # A masked ping of eight bytes, then the text.
    assert [raw[14] & 0x0F for raw in written] == [Opcode.TEXT] * 3


class _Recording:
    """Takes a transport's place, and notes what is written until the session says goodbye."""

    def __init__(self, transport: asyncio.Transport, written: list[bytes]) -> None:
        self._transport = transport
        self._written = written

    def write(self, data: bytes) -> None:
        if data[0] & 0x0F != Opcode.CLOSE:
            self._written.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def test_a_later_pong_passes_the_fence() -> None:
    """A peer may answer only the newest ping: a keepalive's pong after the fence counts as the fence's."""

    async def talk(lcm: RawPeer) -> None:
        await lcm.accept()
        await answer(lcm, text(good(ACCOUNT)))
        await lcm.hear_request()
        keepalive = await lcm.hear()
        assert keepalive.opcode is Opcode.PING
        lcm.say(pong(keepalive), text(good(ACCOUNT)))
        await answer_in_turn(lcm)

    async with raw_peer(talk) as url, opened(url, ping_interval=0.2, ping_timeout=LONG) as session:
        for _ in range(3):
            await ask(session)


async def test_what_another_session_is_owed_is_no_answer_to_a_first_request() -> None:
    """Pitfall: LCM may know sessions by name, and send on a new one the reply that came too late for the one before."""
    asked = asyncio.Event()

    async def talk(lcm: RawPeer) -> None:
        await lcm.accept()
        await asked.wait()
        lcm.say(text(good("another")))
        await answer_in_turn(lcm)

    async with raw_peer(talk) as url, opened(url) as session:
        asking = asyncio.ensure_future(session.exchange(ACCOUNT, LONG))
        await settled()
        asked.set()
        with pytest.raises(ConnectionLost, match="before it had read the request"):
            await asking


@pytest.mark.parametrize("foreign", [False, True])
async def test_no_other_pong_passes_the_fence(foreign: bool) -> None:
    """Neither the pong of a keepalive before the fence nor one that answers no ping counts as the fence's."""
    held = asyncio.Event()

    async def talk(lcm: RawPeer) -> None:
        await lcm.accept()
        await answer(lcm, text(good(ACCOUNT)))
        keepalive = await lcm.hear()
        assert keepalive.opcode is Opcode.PING
        held.set()
        *_, fence, _request = await lcm.hear_request()
        assert fence.opcode is Opcode.PING
        lcm.say(Frame(Opcode.PONG, b"x" * 8) if foreign else pong(keepalive), text(good(ACCOUNT)))
        await lcm.hear()

    async with raw_peer(talk) as url, opened(url, ping_interval=0.2, ping_timeout=LONG) as session:
        await ask(session)
        await held.wait()
        with pytest.raises(ConnectionLost, match="before it had read the request"):
            await session.exchange(ACCOUNT, LONG)


async def test_a_pong_that_answers_nothing_passes_no_fence() -> None:
    """A pong may come unasked: it does not count as the fence's where no other ping is under way either."""

    async def talk(lcm: RawPeer) -> None:
        await lcm.accept()
        await answer(lcm, text(good(ACCOUNT)))
        await lcm.hear_request()
        lcm.say(Frame(Opcode.PONG, b"x" * 8), text(good(ACCOUNT)))
        await lcm.hear()

    async with raw_peer(talk) as url, opened(url, ping_interval=LONG, ping_timeout=LONG) as session:
        await ask(session)
        with pytest.raises(ConnectionLost, match="before it had read the request"):
            await session.exchange(ACCOUNT, LONG)


@pytest.mark.parametrize(
    ("ping_interval", "begun"),
    [(LONG, "behind the reply before"), (LONG, "ahead of the pong"), (0.0, "behind the reply before")],
)
async def test_a_message_begun_before_the_request_was_read_is_no_answer(
    ping_interval: float, begun: str
) -> None:
    """A second copy of a reply ends behind the next request's pong, but it began before that request was read."""
    reply = good(ACCOUNT)
    begin, end = text(reply[:9], fin=False), more(reply[9:])

    async def talk(lcm: RawPeer) -> None:
        await lcm.accept()
        early = begun == "behind the reply before"
        await answer(lcm, text(reply), *[begin] * early)
        *pings, _ = await lcm.hear_request()
        lcm.say(*[begin] * (not early), *map(pong, pings), end)
        await lcm.hear()

    async with raw_peer(talk) as url, opened(url, ping_interval=ping_interval, ping_timeout=LONG) as session:
        await ask(session)
        with pytest.raises(ConnectionLost, match="before it had read the request"):
            await session.exchange(ACCOUNT, LONG)


@pytest.mark.parametrize("turns", [0, 1])
async def test_cancelled_before_or_after_its_first_step(turns: int) -> None:
    """An exchange cancelled before its first step leaves the session as it was; a step later it takes it along."""
    async with Simulator() as lcm, opened(lcm.url) as session:
        asking = asyncio.ensure_future(session.exchange(ACCOUNT, LONG))
        await settled(turns)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert (session.alive, session.exchanges) == (not turns, turns)
        if session.alive:
            await ask(session)


async def test_as_many_fragments_as_are_taken() -> None:
    """A reply in so many fragments is read, and each message has its own count."""
    reply = good(ACCOUNT)

    async def talk(lcm: RawPeer) -> None:
        await lcm.accept()
        while True:
            *pings, _ = await lcm.hear_request()
            empty = [more(b"", fin=False)] * (MOST_FRAGMENTS - 2)
            lcm.say(*map(pong, pings), text(reply[:9], fin=False), *empty, more(reply[9:]))

    async with raw_peer(talk) as url, opened(url) as session:
        await ask(session)
        await ask(session)


@pytest.mark.parametrize("in_opening", [False, True])
async def test_one_fragment_too_many(in_opening: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer is told by close code 1009, then cut if it does not go; nothing behind it is heard."""
    monkeypatch.setattr("worker.lcm.handshake._CLOSE_TIMEOUT", 0.05)
    told: list[Frame] = []
    crumbs = [
        text(b"", fin=False),
        *[more(b" ", fin=False)] * (MOST_FRAGMENTS - 1),
        more(b""),
        text(HEARTBEAT),
    ]

    async def talk(lcm: RawPeer) -> None:
        await lcm.accept(*crumbs if in_opening else ())
        if not in_opening:
            await lcm.hear_request()
            lcm.say(*crumbs)
        while True:
            told.append(await lcm.hear())

    ends = Ends()
    async with raw_peer(talk) as url, opened(url, ends, ping_interval=0) as session:
        if not in_opening:
            with pytest.raises(MalformedReply, match="fragments"):
                await session.exchange(ACCOUNT, LONG)
        await until(lambda: ends.reasons)
        assert session.unsolicited == 0
    codes = [Close.parse(frame.data).code for frame in told if frame.opcode is Opcode.CLOSE]
    assert (codes, ends.reasons) == ([1009], ["closed by us with code 1009"])


async def test_fragments_that_are_too_large_together() -> None:
    """`lcm.max_reply` holds for the whole message, in however many fragments it comes."""

    async def talk(lcm: RawPeer) -> None:
        await lcm.accept()
        await lcm.hear_request()
        lcm.say(text(b"[", fin=False), *[more(b" " * 1000, fin=False)] * 100)
        assert (await lcm.hear()).opcode is Opcode.CLOSE

    async with raw_peer(talk) as url, opened(url, max_reply="65536") as session:
        with pytest.raises(ReplyTooLarge):
            await session.exchange(ACCOUNT, LONG)


@pytest.mark.parametrize(("more", "taken"), [(-1, True), (0, True), (1, False)], ids=["under", "at", "over"])
@pytest.mark.parametrize("max_reply", [1000, 100_000], ids=["ours", "the library's"])
async def test_a_reply_has_so_many_bytes(max_reply: int, more: int, taken: bool) -> None:
    """A reply of `lcm.max_reply` bytes is read, whoever reads its frame; one byte more is too large."""

    async def talk(lcm: RawPeer) -> None:
        await lcm.accept()
        await answer(lcm, text(good(ACCOUNT).ljust(max_reply + more)))
        while (await lcm.hear()).opcode is not Opcode.CLOSE:
            pass

    async with raw_peer(talk) as url, opened(url, max_reply=str(max_reply)) as session:
        if taken:
            await ask(session)
        else:
            with pytest.raises(ReplyTooLarge):
                await session.exchange(ACCOUNT, LONG)


MAX_REPLY = 64 * 1024
BOMB = compress(bytes(50 * MAX_REPLY), 9, wbits=-15)


def one_frame() -> Iterator[bytes]:
    """Yield a reply of fifty times the size in one frame."""
    yield b"\x81\x7f" + (50 * MAX_REPLY).to_bytes(8)
    yield from [bytes(4096)] * (50 * MAX_REPLY // 4096)


def fragments() -> Iterator[bytes]:
    """Yield the same in fragments of a hundredth of the size."""
    yield text(b"[", fin=False).serialize(mask=False)
    part = more(bytes(MAX_REPLY // 100), fin=False).serialize(mask=False)
    yield from [part] * 5000


def compressed() -> Iterator[bytes]:
    """Yield the same deflated to a thousandth, though no compression was agreed on."""
    first, *rest = text(BOMB).serialize(mask=False)
    yield bytes([first | 0x40, *rest])


@pytest.mark.parametrize("in_opening", [False, True], ids=["reply", "greeting"])
@pytest.mark.parametrize(
    ("sent", "error"),
    [(one_frame, ReplyTooLarge), (fragments, ReplyTooLarge), (compressed, ConnectionLost)],
)
async def test_a_reply_that_is_far_too_large_is_never_held(
    sent: Callable[[], Iterator[bytes]], error: type[JobError], in_opening: bool
) -> None:
    """Of fifty times `lcm.max_reply`, a few times that is in memory, the peer's own buffers included."""

    async def talk(lcm: RawPeer) -> None:
        await lcm.accept()
        await lcm.hear_request()
        for part in sent():
            lcm._writer.write(part)
            await lcm._writer.drain()
        while (await lcm.hear()).opcode is not Opcode.CLOSE:
            pass

    settings: dict[str, Any] = {"max_reply": str(MAX_REPLY)}
    if in_opening:
        settings["greeting"] = [{"send": "{}", "await": "LoginResponse"}]
    async with raw_peer(talk) as url:
        tracemalloc.start()
        try:
            if in_opening:
                with pytest.raises(SessionNotOpened):
                    await SessionOpener(lcm_settings(url, **settings), "worker-1")(1, Ends())
            else:
                async with opened(url, **settings) as session:
                    with pytest.raises(error):
                        await session.exchange(ACCOUNT, LONG)
                    assert not session.alive
            assert tracemalloc.get_traced_memory()[1] < 12 * MAX_REPLY
        finally:
            tracemalloc.stop()


async def test_compression_that_was_not_asked_for_opens_nothing() -> None:
    """A peer that answers the handshake with permessage-deflate is no LCM."""

    async def talk(lcm: RawPeer) -> None:
        await lcm.accept(extensions="permessage-deflate")
        await lcm.hear()

    async with raw_peer(talk) as url:
        with pytest.raises(SessionNotOpened) as raised:
            await SessionOpener(lcm_settings(url), "worker-1")(1, Ends())
    assert "extension" in raised.value.message


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have whatever waits for the peer to hang up wait for longer than the test does."""
    monkeypatch.setattr("worker.lcm.handshake._CLOSE_TIMEOUT", 2 * PATIENCE * SHORT)


@pytest.mark.usefixtures("patient")
async def test_a_goodbye_that_the_peer_never_ends() -> None:
    """LCM says goodbye in mid-exchange and stays: the exchange is told its code, without waiting for it to go."""

    async def talk(lcm: RawPeer) -> None:
        await lcm.accept()
        await lcm.hear_request()
        lcm.say(close(1012, "restart"))
        while True:
            await lcm.hear()

    async with raw_peer(talk) as url, opened(url, ping_interval=0) as session:
        with pytest.raises(ConnectionLost, match="code 1012") as raised:
            await session.exchange(ACCOUNT, PATIENCE * SHORT)
        assert raised.value.remote_message == "restart"


async def test_a_request_while_the_connection_is_closing() -> None:
    """Nothing goes out behind LCM's goodbye; the exchange fails by the code that it was given with."""
    said = asyncio.Event()
    requests: list[Frame] = []

    async def talk(lcm: RawPeer) -> None:
        await lcm.accept()
        await answer(lcm, text(good(ACCOUNT)), close(1001))
        said.set()
        while True:
            requests.append(await lcm.hear())

    async with raw_peer(talk) as url, opened(url) as session:
        await ask(session)
        with pytest.raises(ConnectionLost, match="code 1001"):
            await session.exchange(ACCOUNT, LONG)
    assert [frame.opcode for frame in requests] == [Opcode.CLOSE]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("where", ["with the handshake", "behind an answer", "later"])
async def test_a_session_is_over_with_the_goodbye(where: str) -> None:
    """LCM says goodbye, is answered and stays: the session ends with LCM's code and reason all the same."""
    ends, said, heard = Ends(), close(1012, "restart"), list[Frame]()
    answered = asyncio.Event()

    async def talk(lcm: RawPeer) -> None:
        await lcm.accept(*[said] * (where == "with the handshake"))
        if where != "with the handshake":
            await answer(lcm, text(good(ACCOUNT)), *[said] * (where == "behind an answer"))
            await answered.wait()
        if where == "later":
            lcm.say(said)
        while True:
            heard.append(await lcm.hear())

    async with raw_peer(talk) as url, opened(url, ends) as session:
        if where != "with the handshake":
            await ask(session)
            answered.set()
        await until(lambda: ends.reasons, deadline=SHORT)
        assert (session.alive, session.said) == (False, "restart")
        with pytest.raises(ConnectionLost, match="had closed"):
            await session.exchange(ACCOUNT, LONG)
    assert ends.reasons == ["closed by LCM with code 1012"]
    assert [frame.opcode for frame in heard] == [Opcode.CLOSE]


@pytest.mark.usefixtures("patient")
async def test_a_session_is_over_with_what_is_no_frame() -> None:
    """What LCM sends to an idle session can't be read: the session ends, though LCM stays."""
    ends = Ends()

    async def talk(lcm: RawPeer) -> None:
        await lcm.accept()
        await answer(lcm, text(good(ACCOUNT)))
        lcm.say_bytes(b"\xff\xff")
        while True:
            await lcm.hear()

    async with raw_peer(talk) as url, opened(url, ends) as session:
        await ask(session)
        await until(lambda: ends.reasons, deadline=SHORT)
    assert ends.reasons == ["closed by us with code 1002"]


@pytest.mark.parametrize("how", ["close", "abort", "cut"])
async def test_a_session_that_has_ended_leaves_nothing_to_collect(how: str) -> None:
    """It goes with its last reference, for a worker may open one for each exchange and collects garbage rarely."""
    ends = Ends()
    async with Simulator() as lcm:
        session = await SessionOpener(lcm_settings(lcm.url), "worker-1")(1, ends)
        await ask(session)
        await ask(session)
        left: list[weakref.ref[object]] = [weakref.ref(session), weakref.ref(session._socket)]
        gc.disable()
        try:
            if how == "close":
                await session.close()
            elif how == "abort":
                session.abort("enough")
            else:
                await lcm.close_sessions()
                await until(lambda: ends.reasons)
            del session
            await until(lambda: lcm.live == 0 and not any(one() for one in left))
        finally:
            gc.enable()
