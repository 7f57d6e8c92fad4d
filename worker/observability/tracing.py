"""Tracing: what the app puts around the stations of a job, so that each becomes a span.

Where no traces are asked for, that is nothing: the stations stay as they are, and OpenTelemetry is not even imported.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol

from worker.contract.disposition import Disposition
from worker.contract.lookup import Lookup
from worker.contract.message import Delivery
from worker.contract.outbox import Outbox

P = ParamSpec("P")
Handle = Callable[Concatenate[Delivery, P], Coroutine[Any, Any, Disposition]]


class Tracer(Protocol):
    """Puts spans around stations. Each method returns what takes the place of the station it is given."""

    def handling(self, handle: Handle[P], /) -> Handle[P]:
        """Trace the handling of deliveries, which is the parent of all below."""

    def exchanging(self, exchange: Lookup, /) -> Lookup:
        """Trace exchanges with LCM."""

    def publishing(self, outbox: Outbox, /) -> Outbox:
        """Trace what is published for a job."""

    async def close(self) -> None:
        """Send what was not sent yet, within a few seconds."""


class Untraced:
    """The tracer that leaves every station as it is."""

    def handling(self, handle: Handle[P], /) -> Handle[P]:
        return handle

    def exchanging(self, exchange: Lookup, /) -> Lookup:
        return exchange

    def publishing(self, outbox: Outbox, /) -> Outbox:
        return outbox

    async def close(self) -> None:
        pass
