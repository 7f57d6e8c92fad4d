"""The present state of the worker: whether it is live and ready, and its gauges."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any

import msgspec

from worker import __version__
from worker.broker.consumer import Consumer
from worker.broker.outbox import Outbox
from worker.broker.undelivered import Resender
from worker.common.clock import SYSTEM_CLOCK
from worker.contract.intake import PauseReason
from worker.guard import Guard
from worker.lcm.outage import OutageMonitor
from worker.lcm.pool import Pool
from worker.lcm.share import Part, ShareKeeper
from worker.observability.failures import Failures
from worker.observability.http import Page, Pages
from worker.observability.metrics import CONTENT_TYPE, Metrics, Now
from worker.observability.readiness import NotReady, Reason, Verdict, verdict
from worker.observability.status_page import View, status_page

_LOST_SUPERVISOR = Reason(
    "supervisor_ended",
    "what keeps a connection to the broker up has ended",
    remedy="restart the worker; jobs are safe in the broker",
)


class Status:
    """Reads the state of the components; `dropped` tells how many lines the log has lost.

    `supervisors`, `draining`, `reached_lcm` and `expiries` are set by the app.
    """

    def __init__(
        self,
        consumer: Consumer,
        outbox: Outbox,
        resender: Resender,
        pool: Pool,
        outages: OutageMonitor,
        *,
        share: ShareKeeper,
        guard: Guard,
        dropped: Callable[[], int],
    ) -> None:
        self._consumer = consumer
        self._outbox = outbox
        self._resender = resender
        self._publish_link = outbox.link
        self._pool = pool
        self._outages = outages
        self._share = share
        self._guard = guard
        self._dropped = dropped
        self.supervisors: Sequence[asyncio.Task[Any]] = ()
        self.draining = False
        self.reached_lcm = False
        self.expiries: Mapping[str, float] = {}

    def live(self) -> Verdict:
        """Tell whether the worker can recover by itself; if not, it has to be restarted."""
        ended = not self.draining and any(task.done() for task in self.supervisors)
        return Verdict(not ended, (_LOST_SUPERVISOR,) if ended else ())

    def ready(self) -> Verdict:
        """Tell whether jobs are taken and can be finished."""
        return verdict(self._against())

    def now(self) -> Now:
        """Return the gauges of this moment."""
        sessions = self._pool.counts()
        waiting = sessions.pop("waiting")
        return Now(
            against=tuple(self._against()),
            out=bool(self._outages.out),
            in_flight=self._consumer.in_flight,
            sessions=sessions,
            waiting=waiting,
            links={link.role: link.is_up for link in (self._consumer.link, self._publish_link)},
            blocked=self._publish_link.blocked,
            undelivered=self._resender.waiting,
            fleet=_gauges_of(self._share.part()),
            tripped=self._guard.tripped,
            dropped=self._dropped(),
            expiries=self.expiries,
        )

    def _against(self) -> dict[NotReady, str]:
        against: dict[NotReady, str] = {}
        if self.draining:
            against[NotReady.DRAINING] = f"{self._consumer.in_flight} deliveries in hand"
        if self._outages.out:
            against[NotReady.OUTAGE] = self._outages.out
        elif not self._share.hears:
            against[NotReady.FLEET] = ""
        elif not (self.reached_lcm or self._has_no_part):
            against[NotReady.STARTING] = repr(self._pool)
        if PauseReason.COPIES in self._consumer.paused:
            against[NotReady.COPIES_REFUSED] = self._outbox.copies_refused
        if PauseReason.GUARD in self._consumer.paused:
            against[NotReady.GUARD] = self._guard.trouble
        if not (self._consumer.consuming or against or self._has_no_part):
            against[NotReady.NOT_CONSUMING] = self._why_not_consuming()
        if not self._publish_link.is_up:
            against[NotReady.NOT_PUBLISHING] = self._publish_link.trouble
        if self._publish_link.blocked:
            against[NotReady.BLOCKED] = f"for {self._publish_link.blocked_for:.0f} s"
        return against

    @property
    def _has_no_part(self) -> bool:
        """Whether other workers have all that LCM admits: this one stands by, and there is nothing wrong with it."""
        return self._consumer.paused == {PauseReason.NO_SHARE} and self._consumer.link.is_up

    def _why_not_consuming(self) -> str:
        paused = ", ".join(sorted(reason.value for reason in self._consumer.paused))
        return f"paused: {paused}" if paused else self._consumer.link.trouble


def _gauges_of(part: Part | None) -> dict[str, float]:
    if part is None:
        return {}
    told = {"workers": part.workers, "sessions": part.sessions, "rate": part.rate}
    return {name: value for name, value in told.items() if value is not None}


def pages_of(
    status: Status,
    metrics: Metrics,
    failures: Failures,
    *,
    worker: str = "",
    hide: Callable[[str], str] = str,
    at: Callable[[], datetime] = SYSTEM_CLOCK.now,
) -> Pages:
    """Return what is served, by path, its texts without secrets. A verdict that is not good has status 503."""

    def view() -> View:
        live, ready, now = status.live(), status.ready(), status.now()
        return View(worker, __version__, at(), live, ready, now, metrics.deliveries, failures)

    return {
        "/": lambda: status_page(view(), hide),
        "/livez": lambda: _page(status.live(), hide),
        "/readyz": lambda: _page(status.ready(), hide),
        "/metrics": lambda: Page(metrics.page(status.now()), CONTENT_TYPE),
    }


def _page(said: Verdict, hide: Callable[[str], str]) -> Page:
    status = HTTPStatus.OK if said.ok else HTTPStatus.SERVICE_UNAVAILABLE
    return Page(hide(msgspec.json.encode(said).decode()).encode() + b"\n", status=status)
