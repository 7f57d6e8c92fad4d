"""A peer that says anything, frame by frame, in the greeting and after: the real opener and session stand it all.

As in `test_never_anothers_reply.py`, what the peer says for a request it says before it reads the next one, and nothing
that looks like an outcome list before the first: the hole that no client can close.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode

from tests.support.lcm import Ends, good, names, reply
from tests.support.raw_peer import RawPeer, more, pong, raw_peer, text
from tests.support.settings import lcm_settings
from worker.contract.errors import (
    ConnectionLost,
    LcmError,
    LcmRejected,
    MalformedReply,
    ReplyTimeout,
    ReplyTooLarge,
    SessionNotOpened,
)
from worker.lcm.handshake import SessionOpener
from worker.simulator import documents

GREETING = [{"send": '{"login":1}', "await": "LoginResponse"}]
ENDING = (ConnectionLost, LcmError, MalformedReply, ReplyTimeout, ReplyTooLarge)


@pytest.fixture(autouse=True, scope="module")
def short_waits() -> Iterator[None]:
    """Let a peer that does not go be cut after a moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worker.lcm.handshake._CLOSE_TIMEOUT", 0.01)
        yield


def _login(**message: Any) -> bytes:
    return reply(None, subtopic="LoginResponse", message=message)


# Of an account, the answers; of nobody, what may come at any time.
ANSWERS: dict[str, Callable[[str], bytes]] = {
    "good": good,
    "refuse": lambda account: documents.BAD["refuse"](account, frozenset()),
    "no-id": lambda account: documents.BAD["no-id"](account, frozenset()),
}
MESSAGES: dict[str, bytes] = {
    "login": _login(success=True),
    "login-refused": _login(success=False, errorType="Wrong"),
    "login-unwell": _login(errorType="WS_Error"),
    "error": documents.BAD["error"]("1", frozenset()),
    "garbage": b"garbage \xff",
    "nothing": b"",
    "nested": b"[" * 50_000,
    "huge": b" " * 70_000,
    **documents.UNASKED,
}
FORMS: dict[str, Callable[[bytes], bytes]] = {
    "text": lambda message: _raw(text(message)),
    "binary": lambda message: _raw(Frame(Opcode.BINARY, message)),
    "fragments": lambda message: _raw(text(message[:9], fin=False), more(message[9:])),
    "ping within": lambda message: _raw(
        text(message[:9], fin=False), Frame(Opcode.PING, b"p"), more(message[9:])
    ),
    "unfinished": lambda message: _raw(text(message, fin=False)),
    "continued": lambda message: _raw(more(message)),
    "cut": lambda message: _raw(text(message))[:-3],
    "masked": lambda message: text(message).serialize(mask=True),
    "reserved": lambda message: bytes([0xC1]) + _raw(text(message))[1:],
    "bare": lambda message: message,
}
CONTROLS: dict[str, bytes] = {}


def _raw(*frames: Frame) -> bytes:
    return b"".join(frame.serialize(mask=False) for frame in frames)


CONTROLS.update(
    {
        "ping": _raw(Frame(Opcode.PING, b"x")),
        "pong": _raw(Frame(Opcode.PONG, b"stale")),
        "pings": _raw(*[Frame(Opcode.PING, b"")] * 1100),
        "bye": _raw(Frame(Opcode.CLOSE, Close(1000, "bye").serialize())),
        "refused": _raw(Frame(Opcode.CLOSE, Close(4401, "who").serialize())),
        "code 0": _raw(Frame(Opcode.CLOSE, Close(1000, "").serialize())).replace(b"\x03\xe8", b"\x00\x00"),
    }
)

Saying = tuple[str, str]
"""A form and what is said in it: a message, an answer, or, without a form, a control frame; "hang up" for the end."""

# Mostly what goes well, or scripts would end with their first word.
FORM = st.sampled_from(["text"] * 8 + list(FORMS))
ANY_TIME = st.tuples(FORM, st.sampled_from(["outcome-set", "heartbeat", *MESSAGES])) | st.tuples(
    st.just(""), st.sampled_from([*CONTROLS, "hang up"])
)
WELCOME = st.just([("text", "login")]) | st.lists(st.just(("text", "login")) | ANY_TIME, max_size=4)
ANSWER = st.just([("text", "good")]) | st.lists(
    st.tuples(FORM, st.sampled_from(list(ANSWERS))) | ANY_TIME, max_size=4
)


@dataclass
class Peer:
    """Says `with_handshake` and `welcome`, then for each request the next of its `answers`, behind a pong or not."""

    with_handshake: list[Saying]
    welcome: list[Saying]
    answers: list[tuple[bool, list[Saying]]]
    asked: list[str] = field(default_factory=list)

    async def __call__(self, lcm: RawPeer) -> None:
        await lcm.accept()
        self._say(lcm, self.with_handshake, "nobody")
        await lcm.hear_request()
        self._say(lcm, self.welcome, "nobody")
        while True:
            *pings, request = await lcm.hear_request()
            account = msgspec.json.decode(request.data)["data"]["AccountNumber"]
            self.asked.append(account)
            answers_ping, sayings = self.answers.pop(0) if self.answers else (True, [])
            if answers_ping:
                lcm.say(*[pong(ping) for ping in pings if ping.opcode is Opcode.PING])
            self._say(lcm, sayings, account)

    @staticmethod
    def _say(lcm: RawPeer, sayings: list[Saying], account: str) -> None:
        for form, what in sayings:
            if what == "hang up":
                raise EOFError
            if form:
                message = ANSWERS[what](account) if what in ANSWERS else MESSAGES[what]
                lcm._writer.write(FORMS[form](message))
            else:
                lcm._writer.write(CONTROLS[what])


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(
    with_handshake=st.just([]) | st.lists(ANY_TIME, max_size=2),
    welcome=WELCOME,
    answers=st.lists(st.tuples(st.sampled_from([True, True, False]), ANSWER), min_size=1, max_size=5),
)
def test_an_account_gets_its_own_outcomes_or_a_documented_error(
    with_handshake: list[Saying], welcome: list[Saying], answers: list[tuple[bool, list[Saying]]]
) -> None:
    """Whatever is said and in whichever frames, no other error comes, none hangs, and a session in doubt is over."""
    asyncio.run(_converse(Peer(with_handshake, welcome, list(answers)), len(answers) + 1))


async def _converse(talk: Peer, requests: int) -> None:
    defects: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: defects.append(context))
    ends = Ends()
    async with asyncio.timeout(30), raw_peer(talk) as url:
        lcm = lcm_settings(url, greeting=GREETING, max_reply="65536", connect_timeout="20ms")
        try:
            session = await SessionOpener(lcm, "worker-1")(1, ends)
        except SessionNotOpened:
            return
        answered: list[str] = []
        for number in range(requests):
            account, alive = f"account {number}", session.alive
            try:
                items = await session.exchange(account, 0.02)
                assert names(items, account)
            except LcmRejected:
                pass
            except ENDING:
                assert not session.alive
                continue
            assert alive
            answered.append(account)
        await session.close()
    assert len(ends.reasons) == 1
    # Whoever was answered was heard, and nobody was asked for behind one who was not.
    assert talk.asked[: len(answered)] == answered
    assert len(talk.asked) <= len(answered) + 1
    assert defects == []
