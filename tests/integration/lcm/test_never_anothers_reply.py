"""Promise 2: no outcome list is ever attributed to another account, whatever the peer says and whenever.

LCM's replies name no request, so one hole is left that no client can close: a double that LCM sends only after it
has read the next request on that session. Therefore the peers here send what they have to say for one request
before they read the next; an answer that is late without any before it may come at any time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from tests.support.lcm import SOON, Ends, good, names, peer
from tests.support.log import RecordingLog
from tests.support.settings import lcm_settings
from tests.support.waiting import outcome_of, settled
from worker.common.clock import Clock
from worker.contract.errors import (
    ConnectionLost,
    JobError,
    LcmError,
    LcmRejected,
    MalformedReply,
    ReplyTimeout,
)
from worker.contract.lookup import LookupRequest
from worker.contract.outcomes import OutcomeList
from worker.lcm.handshake import SessionOpener
from worker.lcm.lookup import build_lookup
from worker.lcm.outcome_list import ReplyMemory
from worker.lcm.pool import Pool
from worker.lcm.session import Ended, Session
from worker.lcm.socket import Socket
from worker.settings import OutageSettings, RetrySettings
from worker.simulator import documents


@pytest.fixture(autouse=True, scope="module")
def soon_lasting() -> Iterator[None]:
    """Let a session have lasted after a moment that these many runs can wait for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worker.lcm.session._LASTS_AFTER", 0.01)
        yield


HARMLESS = ["unasked", "other-channel", "heartbeat"]
FRAMES: dict[str, Callable[[str], bytes]] = {
    "good": good,
    "refuse": lambda account: documents.BAD["refuse"](account, frozenset()),
    "error": lambda account: documents.BAD["error"](account, frozenset()),
    "malformed": lambda account: documents.BAD["no-id"](account, frozenset()),
    "cut-off": lambda account: good(account)[:-1],
    "garbage": lambda _: b"garbage",
    "unasked": lambda _: documents.UNASKED["outcome-set"],
    "other-channel": lambda _: documents.UNASKED["other-channel"],
    "heartbeat": lambda _: documents.UNASKED["heartbeat"],
}
ANSWERS = ("good", "refuse")


class Wire:
    """Takes the place of a websocket: what the peer says is put into it, and arrives in the same order."""

    def __init__(self) -> None:
        self.fault = ""
        self.sent = 0
        self.aborted = False
        self.transport = self
        self.slow_to_read = False
        self.behind_fence = False
        self._on_closed: Callable[[ConnectionClosed], object]
        self._loop = asyncio.get_running_loop()

    def adopt(
        self, on_message: Callable[[bytes], object], on_closed: Callable[[ConnectionClosed], object]
    ) -> None:
        self.say, self._on_closed = on_message, on_closed

    def ask(self, _request: bytes, *, fenced: bool) -> None:
        if not self.aborted:
            self.sent += 1
            self.behind_fence = fenced and self.slow_to_read

    def read(self) -> None:
        """Read what was sent so far, and so answer the ping in it."""
        self.behind_fence = False

    def abort(self) -> None:
        self.aborted = True
        self._loop.call_soon(self._on_closed, ConnectionClosedError(None, None))


KIND = st.sampled_from(list(FRAMES))


class OneSession(RuleBasedStateMachine):
    """A session that is asked, answered, cancelled, kept waiting, cut and told nonsense, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.memory = ReplyMemory()
        self.runner.run(self._open())
        self.asked = 0

    async def _open(self) -> None:
        self.wire, self.ends = Wire(), Ends()
        self.account, self.condemned = "nobody", False
        self.session = Session(cast(Socket, self.wire), 1, frozenset(), self.ends, memory=self.memory)

    async def _ask(self, patience: float = 1000) -> asyncio.Future[OutcomeList]:
        """Start an exchange, on another session where this one refuses to be used again."""
        self.asked += 1
        self.account = f"account {self.asked}"
        if self.condemned:
            sent = self.wire.sent
            with pytest.raises(ConnectionLost):
                await self.session.exchange(self.account, patience)
            assert self.wire.sent == sent
            await self._open()
            self.account = f"account {self.asked}"
        asking = asyncio.ensure_future(self.session.exchange(self.account, patience))
        await settled()
        return asking

    async def _hear(self, kinds: list[str]) -> None:
        for kind in kinds:
            self.wire.say(FRAMES[kind](self.account))
        await settled()

    @rule(before=st.lists(st.sampled_from(HARMLESS), max_size=2), kind=KIND, after=st.lists(KIND, max_size=2))
    def exchange(self, before: list[str], kind: str, after: list[str]) -> None:
        """Ask, and let the peer say something in reply, perhaps with more after it in one go."""

        async def exchange() -> None:
            asking = await self._ask()
            await self._hear([*before, kind, *after])
            telling = [said for said in (kind, *after) if said not in HARMLESS]
            if not telling:
                assert not asking.done()
                await self._hear(telling := ["good"])
            self.condemned = telling[0] not in ANSWERS or len(telling) > 1
            end = await outcome_of(_result(asking))
            if telling[0] == "good":
                assert isinstance(end, OutcomeList)
                assert names(end, self.account)
            elif telling[0] == "refuse":
                assert isinstance(end, LcmRejected)
                assert self.account in end.remote_message
            else:
                assert isinstance(end, LcmError | MalformedReply)

        self.runner.run(exchange())

    @rule()
    def wait_in_vain(self) -> None:
        """Ask, and let the peer take too long."""

        async def wait_in_vain() -> None:
            end = await outcome_of(_result(await self._ask(patience=0)))
            assert isinstance(end, ReplyTimeout)
            self.condemned = True

        self.runner.run(wait_in_vain())

    @rule(kinds=st.lists(KIND, max_size=2), turns=st.integers(0, 3))
    def give_up(self, kinds: list[str], turns: int) -> None:
        """Ask, and cancel in the very moment in which the peer says something, or says nothing."""

        async def give_up() -> None:
            asking = await self._ask()
            for kind in kinds:
                self.wire.say(FRAMES[kind](self.account))
            await settled(turns)
            asking.cancel()
            end = await outcome_of(_result(asking))
            telling = [kind for kind in kinds if kind not in HARMLESS]
            if isinstance(end, OutcomeList):
                assert names(end, self.account)
            answered = isinstance(end, OutcomeList | LcmRejected)
            self.condemned = not answered or len(telling) > 1
            await settled()

        self.runner.run(give_up())

    @rule(kind=KIND)
    def speak_unasked(self, kind: str) -> None:
        """Let the peer say something, late or once more, for the account that was asked for last."""
        self.runner.run(self._hear([kind]))
        self.condemned |= kind not in HARMLESS

    @rule(kind=KIND, harmless=st.lists(st.sampled_from(HARMLESS), max_size=2))
    def double_in_the_socket(self, kind: str, harmless: list[str]) -> None:
        """Ask while the peer's second answer to the last request is under way."""

        async def double() -> None:
            if self.condemned or not self.session.exchanges:
                await self._ask_well()
            last = self.account
            self.wire.slow_to_read = True
            asking = await self._ask()
            self.wire.say(FRAMES[kind](last))
            await settled()
            self.wire.read()
            self.wire.slow_to_read = False
            await settled()
            if kind in HARMLESS:
                await self._hear([*harmless, "good"])
                end = await outcome_of(_result(asking))
                assert isinstance(end, OutcomeList)
                assert names(end, self.account)
            else:
                assert isinstance(await outcome_of(_result(asking)), ConnectionLost)
                self.condemned = True

        self.runner.run(double())

    async def _ask_well(self) -> None:
        asking = await self._ask()
        self.condemned = False
        await self._hear(["good"])
        assert isinstance(await outcome_of(_result(asking)), OutcomeList)

    @rule(in_exchange=st.booleans())
    def cut(self, in_exchange: bool) -> None:
        """Let the connection go, in an exchange or between two."""

        async def cut() -> None:
            asking = await self._ask() if in_exchange else None
            self.wire.abort()
            await settled()
            if asking is not None:
                assert isinstance(await outcome_of(_result(asking)), ConnectionLost)
            self.condemned = True

        self.runner.run(cut())

    @invariant()
    def a_session_in_doubt_is_dead(self) -> None:
        """It is alive exactly as long as nothing was amiss; its end is told once, and the wire is cut."""
        assert self.session.alive is not self.condemned
        assert self.wire.aborted is self.condemned
        assert len(self.ends.reasons) == self.condemned

    def teardown(self) -> None:
        self.session.abort("the end")
        self.runner.run(settled())
        self.runner.close()


async def _result(asking: asyncio.Future[OutcomeList]) -> OutcomeList:
    return await asking


TestOneSession = OneSession.TestCase
TestOneSession.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


class Attentive(Session):
    """A session that hears all that its peer has said so far before it asks again."""

    async def exchange(self, account: str, timeout: float) -> OutcomeList:  # noqa: ASYNC109 - the session's
        try:
            async with asyncio.timeout(timeout):
                await (await self._socket.ping())
        except (TimeoutError, ConnectionClosed):
            self.abort("nothing heard")
        return await super().exchange(account, timeout)


@dataclass
class Peer:
    """Answers each request by the next entry of its script: frames, one after the other, or other deeds."""

    script: list[list[str]]
    cancel: Callable[[str], None]
    used_in_doubt: list[str] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __call__(self, lcm: ServerConnection) -> None:
        in_doubt = False
        async for request in lcm:
            account = msgspec.json.decode(request)["data"]["AccountNumber"]
            if in_doubt:
                self.used_in_doubt.append(account)
            deeds = self.script.pop(0) if self.script else ["good"]
            telling = [deed for deed in deeds if deed not in HARMLESS]
            in_doubt = len(telling) != 1 or telling[0] not in (*ANSWERS, "late")
            for deed in deeds:
                await self._do(deed, lcm, account)

    async def _do(self, deed: str, lcm: ServerConnection, account: str) -> None:
        if deed in FRAMES:
            await lcm.send(FRAMES[deed](account), text=True)
        elif deed == "late":
            self._spawn(self._say_late(lcm, account))
        elif deed == "cancel":
            self.cancel(account)
        elif deed == "close":
            await lcm.close()

    async def _say_late(self, lcm: ServerConnection, account: str) -> None:
        await asyncio.sleep(0.015)
        try:
            await lcm.send(good(account), text=True)
        except ConnectionClosed:
            return

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        await asyncio.gather(*self._tasks)


DEEDS = st.one_of(
    st.just(["good"]),
    st.just(["good", "good"]),
    st.just(["late"]),
    st.just([]),
    st.tuples(st.sampled_from([["cancel"], ["close"]]), st.lists(KIND, max_size=2)).map(
        lambda two: [*two[0], *two[1]]
    ),
    st.lists(KIND, min_size=1, max_size=3),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    script=st.lists(DEEDS, min_size=5, max_size=30),
    sessions=st.integers(1, 3),
    accounts=st.lists(st.integers(0, 7).map("18|{}".format), min_size=5, max_size=25),
)
def test_no_answer_is_anothers(script: list[list[str]], sessions: int, accounts: list[str]) -> None:
    """Through pool, retries and sharing, as fast as they go: each answer names the account it was asked for."""
    asyncio.run(_look_up_all(script, sessions, accounts, Session))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    script=st.lists(DEEDS, min_size=5, max_size=30),
    sessions=st.integers(1, 3),
    accounts=st.lists(st.integers(0, 7).map("18|{}".format), min_size=5, max_size=25),
)
def test_no_session_in_doubt_is_used(script: list[list[str]], sessions: int, accounts: list[str]) -> None:
    """A session that has heard what makes it doubtful gets no further request."""
    scripted = asyncio.run(_look_up_all(script, sessions, accounts, Attentive))
    assert scripted.used_in_doubt == []


async def _look_up_all(
    script: list[list[str]], sessions: int, accounts: list[str], kind: type[Session]
) -> Peer:
    tasks: list[tuple[str, asyncio.Task[None]]] = []

    def cancel(account: str) -> None:
        # The one that leads, if several share the exchange.
        for name, task in tasks:
            if name == account and not task.done() and not task.cancelling():
                task.cancel()
                return

    scripted = Peer(list(script), cancel)
    async with peer(scripted) as url:
        lcm = lcm_settings(url, sessions=sessions, reply_timeout=0.01)
        opener = SessionOpener(lcm, "worker-1")

        async def open_session(slot: int, on_ended: Ended) -> Session:
            session = await opener(slot, on_ended)
            session.__class__ = kind
            return session

        pool = Pool(
            open_session,
            lcm,
            OutageSettings.model_validate(SOON),
            RecordingLog(),
            clock=Clock(sleep=_at_once),
        )
        look_up = build_lookup(pool, lcm, RetrySettings(first_delay=0, max_delay=0))

        async def ask(account: str) -> None:
            answer = await look_up(LookupRequest(account))
            assert names(answer.items, account)

        tasks += [(account, asyncio.ensure_future(ask(account))) for account in accounts]
        async with asyncio.timeout(30):
            ends = await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)
        await pool.close()
        await scripted.finish()
    assert [end for end in ends if not isinstance(end, JobError | asyncio.CancelledError | None)] == []
    return scripted


async def _at_once(_seconds: float) -> None:
    await asyncio.sleep(0)
