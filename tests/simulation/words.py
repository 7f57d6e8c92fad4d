"""What the scripted LCM says, by the ill that it suffers from."""

from __future__ import annotations

from functools import lru_cache

from tests.simulation.connection import Sign
from tests.support.lcm import good
from worker.simulator import documents

UNASKED = documents.UNASKED["state-sync"]
_WRONG = documents.wrong_subtopic("of nobody", frozenset())
# What is said ahead of the reply, what in its place, and which of the sandbox's faults that is.
AHEAD: dict[str | None, list[bytes]] = {
    "messages before": [UNASKED, UNASKED],
    "wrong subtopic first": [_WRONG],
}
IN_PLACE: dict[str | None, list[bytes | Sign]] = {
    "silence": [],
    "wrong subtopic": [_WRONG],
    "too large": [Sign.TOO_LARGE],
    "close": [Sign.CLOSE],
    "close, being full": [Sign.FULL],
    "error, being full": [documents.full()],
    "reset": [Sign.RESET],
}
BAD: dict[str | None, str] = {
    "garbage": "not-json",
    "malformed": "boolean",
    "rejection": "refuse",
    "error": "error",
}


@lru_cache(maxsize=256)
def good_reply(account: str) -> bytes:
    return good(account)


@lru_cache(maxsize=256)
def bad_reply(ill: str | None, account: str) -> bytes:
    return documents.BAD[BAD[ill]](account, frozenset())
