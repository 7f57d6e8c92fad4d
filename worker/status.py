"""How this worker is at the moment: live, ready, and in numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from worker.broker.consumer import Consumer
from worker.broker.link import Link
from worker.health import Page, Pages
from worker.keepers import OutageKeeper
from worker.lcm.pool import Pool
from worker.metrics import CONTENT_TYPE, Metrics, Now
from worker.readiness import NotReady, Reason, Verdict, verdict

_LOST_SUPERVISOR = Reason("supervisor_ended", "what keeps a connection to the broker up has ended")


class Status:
    """Looks at the parts of a worker. `supervisors`, `draining` and `reached_lcm` are for the worker to set."""

    def __init__(self, consumer: Consumer, publish_link: Link, pool: Pool, outages: OutageKeeper) -> None:
        self._consumer = consumer
        self._publish_link = publish_link
        self._pool = pool
        self._outages = outages
        self.supervisors: Sequence[asyncio.Task[Any]] = ()
        self.draining = False
        self.reached_lcm = False

    def live(self) -> Verdict:
        """Tell whether the worker can do its work again by itself, whatever keeps it from that now."""
        ended = not self.draining and any(task.done() for task in self.supervisors)
        return Verdict(not ended, (_LOST_SUPERVISOR,) if ended else ())

    def ready(self) -> Verdict:
        """Tell whether jobs are taken and can be finished."""
        return verdict(self._against())

    def now(self) -> Now:
        """Return what metrics tell of this moment."""
        sessions = self._pool.counts()
        waiting = sessions.pop("waiting")
        return Now(
            ready=not self._against(),
            out=bool(self._outages.out),
            in_flight=self._consumer.in_flight,
            sessions=sessions,
            waiting=waiting,
            links={link.role: link.is_up for link in (self._consumer.link, self._publish_link)},
            blocked=self._publish_link.blocked,
        )

    def _against(self) -> dict[NotReady, str]:
        against: dict[NotReady, str] = {}
        if self.draining:
            against[NotReady.DRAINING] = f"{self._consumer.in_flight} deliveries in hand"
        if self._outages.out:
            against[NotReady.OUTAGE] = self._outages.out
        elif not self.reached_lcm:
            against[NotReady.STARTING] = repr(self._pool)
        if "guard" in self._consumer.paused:
            against[NotReady.GUARD] = ""
        if not (self._consumer.consuming or against):
            against[NotReady.NOT_CONSUMING] = self._why_not_consuming()
        if not self._publish_link.is_up:
            against[NotReady.NOT_PUBLISHING] = self._publish_link.trouble
        if self._publish_link.blocked:
            against[NotReady.BLOCKED] = ""
        return against

    def _why_not_consuming(self) -> str:
        paused = ", ".join(sorted(self._consumer.paused))
        return f"paused: {paused}" if paused else self._consumer.link.trouble


def pages_of(status: Status, metrics: Metrics) -> Pages:
    """Return what is served, by path. A verdict that is not good has the status 503."""
    return {
        "/livez": lambda: _page(status.live()),
        "/readyz": lambda: _page(status.ready()),
        "/metrics": lambda: Page(metrics.page(status.now()), CONTENT_TYPE),
    }


def _page(said: Verdict) -> Page:
    status = HTTPStatus.OK if said.ok else HTTPStatus.SERVICE_UNAVAILABLE
    return Page(msgspec.json.encode(said) + b"\n", status=status)
