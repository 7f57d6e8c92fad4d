"""The state of the circuit breaker: when LCM is out, and when it is back. Pure: `now` and jitter come in.

An outage starts in one of two ways: no session can be opened, or the exchanges of `failures` different accounts
fail in a row, the two that LCM answered last among them. The accounts must differ, since an LCM that never answers one
account is not out. An outage ends by the opposite of what started it: a session that opens, or a probing exchange that
LCM answers.

There may be many accounts for which LCM answers badly or never. So where different accounts have failed, and one that
LCM answered last has not, it is `doubted` only whether LCM is out: that account is to be asked for. Where LCM answers,
the failures are those of the accounts, and are charged to their jobs. In an outage every other probe asks for the
account that LCM answered last, and the others for jobs that wait, of other producers than those whose have failed
where there are any.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from worker.common.backoff import Jitter, backoff
from worker.contract.job import NOBODY, Producer

_REACH, _FURTHEST = 250, 2000
"""Among so many jobs that wait a probe looks for one: twice as many with each, up to the latter. Those before it are
deferred, which costs the broker something and LCM nothing."""

_DOUBLINGS = 10  # more would make no difference, but large numbers


@dataclass(frozen=True, slots=True)
class Outage:
    """One outage: since when (as `now` counts), why by the last failure, and what has been tried.

    `by_exchanges` where sessions open but exchanges fail: then only an exchange can prove the end.
    """

    since: float
    reason: str
    by_exchanges: bool
    refused: bool = False
    probes: int = 0

    def probed(self, reason: str, *, refused: bool) -> Outage:
        """Return it after one more probe, which failed for this reason."""
        return replace(self, reason=reason, refused=refused, probes=self.probes + 1)


class Breaker:
    """Takes note of how openings and exchanges end, and decides when an outage starts, ends, and is probed."""

    def __init__(self, failures: int, probe_delay: float, probe_max_delay: float) -> None:
        self.outage: Outage | None = None
        self._answered: tuple[str, ...] = ()
        self._limit = failures
        self._first = probe_delay
        self._longest = probe_max_delay
        self._failed: set[str] = set()
        self._producers: set[Producer] = set()

    def __repr__(self) -> str:
        if self.outage is None:
            return f"<Breaker closed, {len(self._failed)} accounts failed in a row>"
        kind = "exchanges" if self.outage.by_exchanges else "sessions"
        return f"<Breaker open by {kind}, {self.outage.probes} probes>"

    def session_opened(self) -> Outage | None:
        """Return the outage that this ends."""
        return None if self.outage is None or self.outage.by_exchanges else self._end()

    def session_not_opened(self, reason: str, now: float, *, refused: bool = False) -> Outage | None:
        """Return the outage that this starts; during one, count it as a probe."""
        if self.outage is not None:
            self.outage = self.outage.probed(reason, refused=refused)
            return None
        return self._start(Outage(now, reason, by_exchanges=False, refused=refused))

    def answered(self, account: str) -> Outage | None:
        """LCM answered, be it with an error about the account; return the outage that this ends."""
        if self.answered_last != account:
            self._answered = (account, self.answered_last) if self._answered else (account,)
        self._forget()
        return self._end()

    def not_answered(
        self, account: str, reason: str, now: float, producer: Producer = NOBODY
    ) -> Outage | None:
        """Return the outage that the failure of an exchange starts; during one, count it as a probe."""
        self._failed.add(account)
        self._producers.add(producer)
        if self.outage is not None:
            self.outage = self.outage.probed(reason, refused=self.outage.refused)
            return None
        if len(self._failed) < self._limit or self.doubted:
            return None
        return self._start(Outage(now, reason, by_exchanges=True))

    @property
    def answered_last(self) -> str:
        """The account that LCM answered last, "" before the first answer."""
        return self._answered[0] if self._answered else ""

    @property
    def doubted(self) -> str:
        """The account to ask for, where LCM may be out or answer badly for some accounts alone; "" where not."""
        if self.outage is not None or len(self._failed) < self._limit:
            return ""
        return next((account for account in self._answered if account not in self._failed), "")

    def not_settled(self) -> None:
        """The account in doubt could not be asked for; failures count anew."""
        self._forget()

    def has_failed(self, producer: Producer) -> bool:
        """Whether an exchange for this producer is among those that have failed since LCM answered last."""
        return producer in self._producers

    def probe_delay(self, jitter: Jitter) -> float:
        """Return the seconds until the next probe: between half and all of a doubling from the first delay on.

        After a refusal (401, 403, a wrong certificate) it is the longest delay at once, so that LCM locks nobody out.
        """
        outage = self.outage
        if outage is None:
            return 0.0
        doublings = math.inf if outage.refused else outage.probes
        return backoff(self._first, self._longest, doublings, jitter)

    def reach(self, waiting: int, jitter: Jitter) -> int:
        """Return among how many of the jobs that wait the next probe looks for one: none at first, then ever more.

        LCM may answer badly for all that wait first, and those behind them are not to wait for a probe of each.
        """
        if self.outage is None or not self.outage.probes:
            return 0
        furthest = min(waiting, _FURTHEST, _REACH * 2 ** min(self.outage.probes, _DOUBLINGS))
        return int(jitter(furthest / 2, furthest))

    def look_delay(self, jitter: Jitter) -> float:
        """Return the seconds until the next look for a job to probe with, which costs LCM nothing."""
        return backoff(self._first, self._longest, 0, jitter)

    def _start(self, outage: Outage) -> Outage:
        if not outage.by_exchanges:
            self._forget()  # exchanges that failed while LCM went away say nothing about their accounts
        self.outage = outage
        return outage

    def _forget(self) -> None:
        self._failed.clear()
        self._producers.clear()

    def _end(self) -> Outage | None:
        ended, self.outage = self.outage, None
        return ended
