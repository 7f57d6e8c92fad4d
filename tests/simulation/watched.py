"""What the worker's own parts are watched through: the sessions it opens, whom it turns to in an outage, its log."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar, cast

from tests.simulation.connection import Connection
from tests.simulation.intake import Intake
from tests.simulation.lcm import Lcm
from tests.simulation.plan import Plan
from worker.contract.intake import PauseReason
from worker.contract.lookup import LookupRequest, LookupResult
from worker.lcm.handshake import SessionOpener
from worker.lcm.not_opened import Way
from worker.lcm.pool import Pool
from worker.lcm.socket import Socket

_T = TypeVar("_T")
_EARLY = "said something before it had read the request"


class Opener(SessionOpener):
    """The real opener, which knows greetings and errors, with the scripted LCM in the network's place."""

    def __init__(self, plan: Plan, lcm: Lcm) -> None:
        super().__init__(plan.lcm, "worker-1")
        self.connections: dict[int, Connection] = {}
        self._lcm = lcm

    async def _connect(self, slot: int, _way: Way) -> Socket:
        connection = self.connections[slot] = await self._lcm.connect(slot)
        return cast(Socket, connection)


class Sides:
    """The pool and the intake as the keeper sees them; sees that one probe at a time is under way."""

    def __init__(self, pool: Pool, intake: Intake, violated: Callable[[str], None]) -> None:
        self._pool = pool
        self._intake = intake
        self._violated = violated
        self._probes = 0

    @property
    def backing_off(self) -> bool:
        return self._pool.backing_off

    def reject_waiters(self, reason: str) -> None:
        self._pool.reject_waiters(reason)

    def pause(self, reason: PauseReason) -> None:
        self._intake.pause(reason)

    def resume(self, reason: PauseReason) -> None:
        self._intake.resume(reason)

    async def depth(self) -> int:
        return await self._intake.depth()

    async def probe(self) -> bool:
        return await self._alone(self._pool.probe)

    async def take_one(self, within: float) -> bool:
        return await self._alone(partial(self._intake.take_one, within))

    async def look_up(self, request: LookupRequest) -> LookupResult:
        return await self._alone(partial(self._intake.look_up, request))

    async def _alone(self, probe: Callable[[], Awaitable[_T]]) -> _T:
        self._probes += 1
        if self._probes > 1:
            self._violated(f"{self._probes} probes are under way at the same time")
        try:
            return await probe()
        finally:
            self._probes -= 1


class Log:
    """The worker's log: into the trace, and looked at for what must not be in it."""

    def __init__(self, note: Callable[..., None], violated: Callable[[str], None], opener: Opener) -> None:
        self._note = note
        self._violated = violated
        self._opener = opener

    def info(self, event: str, **fields: Any) -> None:
        self._note("log:", event, fields)
        if event == "lcm.session_closed" and fields["reason"] == _EARLY:
            connection = self._opener.connections[fields["session"]]
            if not connection.spoke_early:
                self._violated(f"connection {connection.number} was taken to have replied early")

    debug = warning = error = info

    def exception(self, event: str, **fields: Any) -> None:
        self._violated(f"a defect of the worker's own: {event} {fields} {sys.exc_info()[1]!r}")
