"""One schedule: settings, jobs and LCM's ills, all drawn from a seed, and printable."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from worker.settings import LcmSettings, OutageSettings, RetrySettings

# All times are multiples of this, exact in binary, so that events meet in one moment often.
STEP = 0.25

CONNECT_ILLS = (
    "refused",
    "401",
    "503",
    "too slow",
    "accepts and closes",
    "accepts and resets",
    "accepts, being full",
)
REPLY_ILLS = (
    "at the timeout",
    "late",
    "twice",
    "another's reply later",
    "messages before",
    "message before the pong",
    "wrong subtopic",
    "wrong subtopic first",
    "garbage",
    "malformed",
    "too large",
    "rejection",
    "error",
    "silence",
    "close",
    "close, being full",
    "error, being full",
    "reset",
    "cut while idle",
    "closed while idle",
    "slow pong",
    "pong last",
    "no pong",
)


@dataclass(slots=True, frozen=True)
class Job:
    """One job: its account, when it comes, and when (None: never) it is cancelled, goes stale, or expires."""

    number: int
    account: str
    comes: float
    cancelled: float | None = None
    stale: float | None = None
    deadline: float | None = None


@dataclass(slots=True, frozen=True)
class Plan:
    """All that is drawn before a run; what LCM does is drawn from these ills when it is called upon.

    From `well_at` on LCM has no ills. `stop_at`: the worker stops there, whatever it is doing.
    """

    seed: int
    lcm: LcmSettings
    retry: RetrySettings
    outage: OutageSettings
    jobs: Sequence[Job]
    connect_ills: Sequence[str]
    reply_ills: Sequence[str]
    severity: float
    well_at: float
    stop_at: float | None
    readies_itself: bool

    def __str__(self) -> str:
        lcm, retry, outage = self.lcm, self.retry, self.outage
        ills = ", ".join([*self.connect_ills, *self.reply_ills])
        first = "opens a session first" if self.readies_itself else "opens sessions when asked"
        end = "at the end" if self.stop_at is None else f"at {self.stop_at:g} s"
        lines = [
            f"seed {self.seed}",
            f"  lcm: {_settings(lcm)} greeting={bool(lcm.greeting)}",
            f"  retry: {_settings(retry)}",
            f"  outage: {_settings(outage)}",
            f"  LCM: in {self.severity:.0%} of cases one of {ills}; well from {self.well_at:g} s on",
            f"  worker: {first}; stops {end}",
        ]
        for job in self.jobs:
            own = (("cancelled", job.cancelled), ("stale", job.stale), ("deadline", job.deadline))
            times = "".join(f", {name} at {at:g} s" for name, at in own if at is not None)
            lines.append(f"  job {job.number} for {job.account!r} comes at {job.comes:g} s{times}")
        return "\n".join(lines)


def draw_moment(draw: random.Random) -> float:
    """Draw how long something takes that is soon done: mostly no time at all."""
    drawn = draw.random()
    return 0.0 if drawn < 0.6 else STEP if drawn < 0.9 else 2 * STEP


def _settings(section: LcmSettings | RetrySettings | OutageSettings) -> str:
    """Return the settings that are drawn."""
    drawn = section.model_fields_set
    return " ".join(
        f"{name}={value:g}" for name, value in section if name in drawn and isinstance(value, int | float)
    )


def draw_plan(seed: int, draw: random.Random) -> Plan:
    """Draw a schedule: small, and of a shape that few others have."""
    choice, chance = draw.choice, draw.random
    ills = draw.sample(REPLY_ILLS, choice((1, 1, 2, 3, 5)))
    return Plan(
        seed,
        _lcm(
            sessions=choice((1, 1, 2, 2, 3, 4)),
            reply_timeout=choice((1, 2, 4)),
            connect_timeout=choice((1, 2)),
            max_exchanges=choice((0, 0, 0, 1, 2, 3)),
            max_rate=choice((0, 0, 0, 1, 4)),
            share=chance() < 0.6,
            greets=chance() < 0.1,
        ),
        _retry(choice((1, 2, 3)), choice((0, 0.25, 1)), choice((1, 4)), choice((3, 60))),
        _outage(choice((1, 2, 3, 5)), choice((0.5, 1, 2)), choice((2, 8)), choice((3, 10, 600))),
        _jobs(draw),
        draw.sample(CONNECT_ILLS, choice((1, 1, 2))) if chance() < 0.4 else (),
        ills,
        severity=choice((0.1, 0.3, 0.6, 1.0)),
        well_at=STEP * draw.randrange(4, choice((12, 40, 40, 120))),
        stop_at=STEP * draw.randrange(1, 60) if chance() < 0.1 else None,
        readies_itself=chance() < 0.3,
    )


def _jobs(draw: random.Random) -> list[Job]:
    choice, below = draw.choice, draw.randrange
    count, accounts, spread = (
        choice((3, 3, 3, 3, 4, 4, 5, 6, 12)),
        choice((1, 2, 3, 12)),
        choice((1, 4, 20, 60)),
    )
    jobs = []
    for number in range(1, count + 1):
        comes = STEP * below(spread)
        fate: dict[str, float] = {}
        if draw.random() < 0.3:
            fate[choice(("cancelled", "cancelled", "stale", "deadline"))] = comes + STEP * below(
                choice((4, 24))
            )
        jobs.append(Job(number, f"a{below(accounts)}", comes, **fate))
    return jobs


@lru_cache(maxsize=8192)
def _lcm(*, greets: bool, **settings: Any) -> LcmSettings:
    greeting = [{"send": "Login", "await": "LoginResponse"}] if greets else []
    return LcmSettings.model_validate({"url": "ws://lcm/", "greeting": greeting} | settings)


@lru_cache(maxsize=1024)
def _retry(attempts: int, first_delay: float, max_delay: float, budget: float) -> RetrySettings:
    return RetrySettings(attempts=attempts, first_delay=first_delay, max_delay=max_delay, budget=budget)


@lru_cache(maxsize=1024)
def _outage(failures: int, probe_delay: float, probe_max_delay: float, hold: float) -> OutageSettings:
    return OutageSettings(
        failures=failures, probe_delay=probe_delay, probe_max_delay=probe_max_delay, hold=hold
    )
