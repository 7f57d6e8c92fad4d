"""The answers of `/livez` and `/readyz`. Pure."""

from __future__ import annotations

from enum import Enum

import msgspec


class NotReady(Enum):
    """Every reason for not being ready: its code, what it means, and what to do about it."""

    STARTING = (
        "starting",
        "no session with LCM has been opened yet",
        "nothing, unless it lasts: see lcm.session_failed in the log",
    )
    OUTAGE = (
        "lcm_outage",
        "LCM is out; jobs are deferred",
        "look at LCM, the way to it, and our credentials where it refuses them; jobs wait, and work resumes by itself",
    )
    FLEET = (
        "fleet",
        "this worker's beats are not read back, so that it can't know its share of LCM's sessions",
        "see broker.unreachable and broker.lost with the role fleet in the log, and the leader of the fleet's stream",
    )
    GUARD = (
        "guard",
        "nearly all jobs failed in the same way; only a few are tried at a time",
        "see guard.tripped in the log for the producers and the error; where no job comes, submit one that succeeds",
    )
    COPIES_REFUSED = (
        "copies_refused",
        "a retry queue takes no copies, so no jobs are taken",
        "see the policies and the length of the retry queues at the broker",
    )
    NOT_CONSUMING = (
        "not_consuming",
        "the broker delivers no jobs to this worker",
        "see broker.unreachable and broker.lost in the log",
    )
    NOT_PUBLISHING = (
        "not_publishing",
        "there is no connection to publish results by",
        "see broker.unreachable and broker.lost in the log",
    )
    BLOCKED = (
        "broker_blocked",
        "the broker has a memory or disk alarm and takes no messages",
        "free memory or disk at the broker (rabbitmq-diagnostics alarms); see whether the results are consumed",
    )
    DRAINING = (
        "draining",
        "the worker was asked to stop and finishes what it has in hand",
        "nothing: it ends within worker.shutdown_grace",
    )

    @property
    def code(self) -> str:
        return self.value[0]

    @property
    def meaning(self) -> str:
        return self.value[1]

    @property
    def remedy(self) -> str:
        return self.value[2]


class Reason(msgspec.Struct, frozen=True):
    """One reason, as it stands in the body of an answer; `detail` is what is known beyond the code's meaning."""

    code: str
    meaning: str
    detail: str = ""
    remedy: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """The body of an answer: `ok` exactly when there are no reasons against it."""

    ok: bool
    reasons: tuple[Reason, ...] = ()


def verdict(reasons: dict[NotReady, str]) -> Verdict:
    """Return the verdict of these reasons, each with its detail."""
    told = (Reason(why.code, why.meaning, detail, why.remedy) for why, detail in reasons.items())
    return Verdict(not reasons, tuple(told))
