"""Invariant I3, read off the wire: a job is acknowledged only after the confirm of what takes its place."""

from __future__ import annotations

from collections import defaultdict

from tests.faults.rig.amqp_frames import AmqpFrame, Content
from tests.support.wire.record import FROM_WORKER, Recorder, Seen

_PLACES = (".results", ".retry", ".dead", ".undelivered")
_BEGINNINGS = {"basic.publish", "basic.deliver"}


def wire_violations(recorder: Recorder) -> list[str]:
    """Return, a line for each, the acks that came too early; both connections of each worker must be recorded.

    What takes a delivery's place is a publish of the same job, to the results, retry, dead or undelivered exchange,
    that began after the delivery and was confirmed before the ack. One that the broker returned does not, unless it
    is a failed result, which need not reach anybody; and none stands in for two deliveries.
    """
    if recorder.full:
        return [f"the record is full after {len(recorder.entries)} frames: raise the limit of its Recorder"]
    check = _Check()
    for seen in recorder.entries:
        if isinstance(seen.frame, AmqpFrame):
            check.take(seen, seen.frame)
    return check.violations


class _Check:
    def __init__(self) -> None:
        self.violations: list[str] = []
        self._began: dict[Content, int] = {}
        self._confirmed: dict[str, list[Content]] = defaultdict(list)
        self._closing: set[tuple[int, int | None]] = set()

    def take(self, seen: Seen, frame: AmqpFrame) -> None:
        channel = (seen.connection, frame.channel)
        if frame.kind == "channel.close" and seen.direction is not FROM_WORKER:
            self._closing.add(channel)
        elif frame.kind == "channel.closeok":
            self._closing.discard(channel)
        elif frame.kind in _BEGINNINGS and frame.content is not None:
            self._began[frame.content] = seen.seq
        elif frame.kind == "basic.ack" and seen.direction is FROM_WORKER:
            # One that crosses with the broker's closing of its channel is discarded there, and does nothing.
            if channel not in self._closing:
                self._acked(seen, frame)
        elif frame.kind == "basic.ack":
            for publish in filter(_takes_a_place, frame.settles):
                self._confirmed[publish.job_id].append(publish)

    def _acked(self, seen: Seen, frame: AmqpFrame) -> None:
        where = f"frame {seen.seq}, connection {seen.connection}, channel {frame.channel}"
        if not frame.settles:
            self.violations.append(f"{where}: ack of tag {frame.tag}, which is not an open delivery")
        for delivery in frame.settles:
            if not self._spend(delivery):
                self.violations.append(
                    f"{where}: ack of job {delivery.job_id!r}, delivered in frame {self._began.get(delivery)},"
                    " before the confirm of anything that takes its place"
                )

    def _spend(self, delivery: Content) -> bool:
        """Use up what stands in for a delivery, one publish for each exchange; false where there is none."""
        began = self._began.get(delivery, -1)
        confirmed = self._confirmed[delivery.job_id]
        stand_ins: dict[str, Content] = {}
        for publish in confirmed:
            if self._began.get(publish, -1) > began:
                stand_ins.setdefault(publish.exchange, publish)
        for publish in stand_ins.values():
            confirmed.remove(publish)
        return bool(stand_ins)


def _takes_a_place(publish: Content) -> bool:
    if publish.returned and not publish.routing_key.startswith("result.failed"):
        return False
    return publish.exchange.endswith(_PLACES)
