"""The answers of `/livez` and `/readyz`. Pure."""

from __future__ import annotations

from enum import Enum

import msgspec


class NotReady(Enum):
    """Every reason for not being ready: its code, and what it means."""

    STARTING = "starting", "no session with LCM has been opened yet"
    OUTAGE = "lcm_outage", "LCM is out; jobs are deferred"
    FLEET = (
        "fleet",
        "this worker's beats are not read back, so that it can't know its share of LCM's sessions",
    )
    GUARD = "guard", "nearly all jobs failed for good in the same way; only a few are tried at a time"
    COPIES_REFUSED = "copies_refused", "a retry queue takes no copies, so no jobs are taken"
    NOT_CONSUMING = "not_consuming", "the broker delivers no jobs to this worker"
    NOT_PUBLISHING = "not_publishing", "there is no connection to publish results by"
    BLOCKED = "broker_blocked", "the broker has a memory or disk alarm and takes no messages"
    DRAINING = "draining", "the worker was asked to stop and finishes what it has in hand"

    @property
    def code(self) -> str:
        return self.value[0]

    @property
    def meaning(self) -> str:
        return self.value[1]


class Reason(msgspec.Struct, frozen=True):
    """One reason, as it stands in the body of an answer; `detail` is what is known beyond the code's meaning."""

    code: str
    meaning: str
    detail: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """The body of an answer: `ok` exactly when there are no reasons against it."""

    ok: bool
    reasons: tuple[Reason, ...] = ()


def verdict(reasons: dict[NotReady, str]) -> Verdict:
    """Return the verdict of these reasons, each with its detail."""
    return Verdict(
        not reasons, tuple(Reason(why.code, why.meaning, detail) for why, detail in reasons.items())
    )
