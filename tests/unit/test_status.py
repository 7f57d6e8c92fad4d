"""Whether a worker is live and ready, and every reason against it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from worker.broker.consumer import Consumer
from worker.broker.outbox import Outbox
from worker.broker.undelivered import Resender
from worker.contract.intake import PauseReason
from worker.guard import Guard
from worker.lcm.outage import OutageMonitor
from worker.lcm.pool import Pool
from worker.lcm.share import Part, ShareKeeper
from worker.observability.failures import Failures
from worker.observability.metrics import CONTENT_TYPE, Metrics, Now
from worker.observability.readiness import NotReady, Reason
from worker.status import Status, pages_of


class Parts:
    """The parts of a worker that is ready, for the test to change, and their status."""

    def __init__(self) -> None:
        self.consume_link = SimpleNamespace(role="consume", is_up=True, trouble="")
        self.publish_link = SimpleNamespace(
            role="publish", is_up=True, trouble="", blocked=False, blocked_for=0.0
        )
        self.consumer = SimpleNamespace(
            link=self.consume_link, consuming=True, paused=frozenset[PauseReason](), in_flight=3
        )
        self.outbox = SimpleNamespace(link=self.publish_link, copies_refused="the broker refused it")
        self.pool = SimpleNamespace(counts=lambda: {"busy": 2, "idle": 1, "opening": 0, "waiting": 5})
        self.outages = SimpleNamespace(out="")
        self.part: Part | None = None
        self.share = SimpleNamespace(hears=True, part=lambda: self.part)
        self.status = Status(
            cast(Consumer, self.consumer),
            cast(Outbox, self.outbox),
            cast(Resender, SimpleNamespace(waiting=7)),
            cast(Pool, self.pool),
            cast(OutageMonitor, self.outages),
            share=cast(ShareKeeper, self.share),
            guard=cast(Guard, SimpleNamespace(tripped=2, trouble="2 of 3 producers, by lcm_rejected")),
            dropped=lambda: 9,
        )
        self.status.reached_lcm = True

    def pause(self, *reasons: PauseReason) -> None:
        self.consumer.paused = frozenset(reasons)
        self.consumer.consuming = False

    def reasons(self) -> dict[str, str]:
        """Return the code and the detail of each reason for not being ready."""
        return {reason.code: reason.detail for reason in self.status.ready().reasons}


def draining(parts: Parts) -> None:
    parts.status.draining = True


def outage(parts: Parts) -> None:
    parts.outages.out = "HTTP 503"
    parts.pause(PauseReason.OUTAGE)


def starting(parts: Parts) -> None:
    parts.status.reached_lcm = False


def guarding(parts: Parts) -> None:
    parts.pause(PauseReason.GUARD)


def refused(parts: Parts) -> None:
    parts.pause(PauseReason.COPIES)


def suspecting(parts: Parts) -> None:
    parts.pause(PauseReason.SUSPECT)


def not_consuming(parts: Parts) -> None:
    parts.consumer.consuming = False
    parts.consume_link.trouble = "connection refused"


def not_publishing(parts: Parts) -> None:
    parts.publish_link.is_up = False
    parts.publish_link.trouble = "connection reset"


def blocked(parts: Parts) -> None:
    parts.publish_link.blocked, parts.publish_link.blocked_for = True, 34.6


REASONS: list[tuple[Callable[[Parts], None], str, str]] = [
    (draining, "draining", "3 deliveries in hand"),
    (outage, "lcm_outage", "HTTP 503"),
    (starting, "starting", "namespace("),
    (guarding, "guard", "2 of 3 producers, by lcm_rejected"),
    (refused, "copies_refused", "the broker refused it"),
    (suspecting, "not_consuming", "paused: suspect"),
    (not_consuming, "not_consuming", "connection refused"),
    (not_publishing, "not_publishing", "connection reset"),
    (blocked, "broker_blocked", "for 35 s"),
]


def test_a_worker_with_nothing_against_it_is_ready() -> None:
    """It consumes, can publish, and has reached LCM."""
    verdict = Parts().status.ready()
    assert verdict.ok
    assert verdict.reasons == ()


@pytest.mark.parametrize(("change", "code", "detail"), REASONS)
def test_each_reason_makes_it_not_ready(change: Callable[[Parts], None], code: str, detail: str) -> None:
    """One reason is enough, and it is the only one given, with what is known of it."""
    parts = Parts()
    change(parts)
    assert not parts.status.ready().ok
    assert [reason.code for reason in parts.status.now().against] == [code]
    assert list(parts.reasons()) == [code]
    assert parts.reasons()[code].startswith(detail)


def test_reasons_come_together() -> None:
    """All that is against it is told at once, except that it doesn't consume where another reason explains that."""
    parts = Parts()
    for change, _, _ in REASONS:
        change(parts)
    assert set(parts.reasons()) == {
        "draining", "lcm_outage", "not_publishing", "broker_blocked"
    }  # fmt: skip
    parts = Parts()
    not_consuming(parts)
    not_publishing(parts)
    assert set(parts.reasons()) == {"not_consuming", "not_publishing"}


def test_several_pauses_are_named() -> None:
    """A worker that is paused says for what, rather than what its connection suffers from."""
    parts = Parts()
    parts.consume_link.trouble = "connection refused"
    parts.pause(PauseReason.SUSPECT, PauseReason.OUTAGE)
    assert parts.reasons() == {"not_consuming": "paused: outage, suspect"}


def test_an_outage_comes_before_the_start() -> None:
    """A worker that starts while LCM is out says that LCM is out."""
    parts = Parts()
    starting(parts)
    outage(parts)
    assert list(parts.reasons()) == ["lcm_outage"]


@pytest.mark.parametrize("change", [change for change, _, _ in REASONS])
async def test_what_passes_by_itself_leaves_it_live(change: Callable[[Parts], None]) -> None:
    """A worker that can get ready again by itself is not to be restarted for it."""
    parts = Parts()
    supervisor = asyncio.get_running_loop().create_future()
    parts.status.supervisors = [cast(asyncio.Task[None], supervisor)]
    change(parts)
    assert parts.status.live().ok


async def test_without_a_supervisor_it_is_dead() -> None:
    """Where what keeps up a connection has ended nothing brings it back, unless it ended for the stop."""
    parts = Parts()
    ended, going = (asyncio.get_running_loop().create_future() for _ in range(2))
    ended.set_result(None)
    parts.status.supervisors = [cast(asyncio.Task[None], going), cast(asyncio.Task[None], ended)]
    verdict = parts.status.live()
    assert not verdict.ok
    assert [reason.code for reason in verdict.reasons] == ["supervisor_ended"]
    draining(parts)
    assert parts.status.live().ok


def test_the_numbers_of_the_moment() -> None:
    """The gauges are those of the parts, and the waiters stand apart from the sessions."""
    parts = Parts()
    blocked(parts)
    parts.consume_link.is_up = False
    assert parts.status.now() == Now(
        against=(NotReady.BLOCKED,),
        out=False,
        in_flight=3,
        sessions={"busy": 2, "idle": 1, "opening": 0},
        waiting=5,
        links={"consume": False, "publish": True},
        blocked=True,
        undelivered=7,
        tripped=2,
        dropped=9,
    )
    outage(parts)
    assert parts.status.now().out


def test_pages_say_good_or_bad_by_their_status() -> None:
    """`/livez` and `/readyz` answer 200 or 503 with the reasons as JSON, `/metrics` with the gauges of the moment."""
    parts = Parts()
    pages = pages_of(parts.status, Metrics(version="1"), Failures())
    ready = pages["/readyz"]()
    assert (ready.status, msgspec.json.decode(ready.body)) == (200, {"ok": True, "reasons": []})
    not_publishing(parts)
    ready = pages["/readyz"]()
    [reason] = msgspec.json.decode(ready.body)["reasons"]
    assert ready.status == 503
    assert msgspec.convert(reason, Reason).detail == "connection reset"
    assert pages["/livez"]().status == 200
    metrics = pages["/metrics"]()
    assert metrics.content_type == CONTENT_TYPE
    assert b"\nlcm_worker_ready 0.0\n" in metrics.body


def test_the_page_for_people_is_there_whatever_the_state() -> None:
    """`/` is status 200 also of a worker that is not ready, and tells why, what to do, and no secret."""
    parts = Parts()
    pages = pages_of(
        parts.status, Metrics(version="1"), Failures(), hide=lambda text: text.replace("reset", "***")
    )
    assert b'<b class="good">ready</b>' in pages["/"]().body
    not_publishing(parts)
    page = pages["/"]()
    assert page.status == 200
    assert b'<b class="bad">not ready</b>' in page.body
    assert b"connection ***" in page.body
    assert NotReady.NOT_PUBLISHING.remedy.encode() in page.body
