"""What the pipeline sends: results, dead letters, and copies for the retry queues.

No job waits in its place for a queue that does not take its message: a result is parked in the undelivered queue, a
job whose dead letter or parked result is not taken is deferred. Only a refused retry copy has no other place; it is
published again until it is taken, and the intake is paused meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from msgspec.structs import replace

from worker.broker.confirms import Silence
from worker.broker.publisher import Publisher
from worker.broker.routes import Routes, Trouble
from worker.broker.topology import UNDELIVERED_KEY, Topology
from worker.common.callbacks import ignore
from worker.common.clock import SYSTEM_CLOCK, Clock
from worker.contract.disposition import Sent
from worker.contract.errors import Deferred, NotTaken, PublishRefused, Unroutable
from worker.contract.message import Message
from worker.contract.outbox import IsWanted
from worker.observability.log import Log

ROUTING_KEY_HEADER = "outcome-routing-key"
"""On a parked result: the routing key that it had. It is taken off when the result is sent again."""

SILENCE = Silence(among_confirms=3.0, alone=8.0)
"""How long the confirm of a result, a dead letter or a parked result may take.

A quorum queue elects another leader within some 7 s, in which nothing on its channel is confirmed.
"""
_PATIENCE = 3.0  # seconds for which the dead-letter queue and the undelivered queue may refuse
_OWN_FIRST_PAUSE, _OWN_LONGEST_PAUSE = 5.0, 30.0  # between two tries of one of these queues


class Outbox:
    """Publishes for the pipeline, and knows which routes take nothing.

    `on_refusal` is told, with true, when a retry copy is refused, and with false when that is over. `on_parked` is
    called with each result that was parked.
    """

    def __init__(
        self,
        publisher: Publisher,
        topology: Topology,
        log: Log,
        *,
        on_refusal: Callable[[bool], object] = ignore,
        on_parked: Callable[[], object] = ignore,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.routes = Routes()
        self.link = publisher.link
        self.copies_refused = ""
        self._publisher = publisher
        self._topology = topology
        self._log = log
        self._on_refusal = on_refusal
        self._on_parked = on_parked
        self._monotonic = clock.monotonic
        self._own_queues = Routes(_OWN_FIRST_PAUSE, _OWN_LONGEST_PAUSE)
        self._refused_copies = 0

    async def result(self, message: Message, is_wanted: IsWanted, *, has_dead_letter: bool = False) -> Sent:
        """Publish a result, or park it where no queue takes it.

        With `has_dead_letter`, a result that is returned is not parked: the dead-letter queue has the job.

        Raises:
            StaleDelivery, MessageTooLarge: see `Publisher.publish`.
            Deferred: nor could it be parked.
        """
        try:
            await self.try_result(message, is_wanted, keep_returned=not has_dead_letter)
        except Unroutable:
            if has_dead_letter:
                return Sent.RETURNED
        except NotTaken:
            pass
        else:
            return Sent.DELIVERED
        await self._park(message, is_wanted)
        return Sent.PARKED

    async def try_result(self, message: Message, is_wanted: IsWanted, *, keep_returned: bool = True) -> None:
        """Publish a result where its route takes messages, or as the canary of one that did not.

        Raises:
            StaleDelivery, MessageTooLarge, NotTaken: see `Publisher.publish`.
        """
        route = message.routing_key
        try:
            canary = self._admit(self.routes, route)
            await self._publisher.publish(message, is_wanted, silence=SILENCE, alone=canary)
        except NotTaken as error:
            if keep_returned or not isinstance(error, Unroutable):
                self._note_trouble(route, error)
            raise
        if trouble := self._over(self.routes, route, message):
            self._log.info(
                "result.route_recovered",
                routing_key=route,
                seconds=round(self._monotonic() - trouble.since, 1),
                parked=trouble.kept,
            )

    async def dead(self, message: Message, is_wanted: IsWanted) -> None:
        """Publish a dead letter.

        Raises:
            StaleDelivery, MessageTooLarge: see `Publisher.publish`.
            Deferred: the dead-letter queue does not take it.
        """
        await self._fallback(message, is_wanted, "the dead-letter queue does not take it")

    async def retry(self, message: Message, is_wanted: IsWanted) -> None:
        """Publish a copy for a retry queue; waits until it is taken. Raises StaleDelivery, MessageTooLarge."""
        refused = False

        def note(error: NotTaken) -> None:
            nonlocal refused
            if not refused:
                refused = True
                self._count_refused(+1, error)

        try:
            await self._publisher.publish(message, is_wanted, patience=math.inf, on_refusal=note)
        finally:
            if refused:
                self._count_refused(-1)

    async def _park(self, message: Message, is_wanted: IsWanted) -> None:
        parked = parked_copy(message, self._topology.undelivered)
        await self._fallback(
            parked, is_wanted, "neither its result's queue nor the undelivered queue takes it"
        )
        if message.routing_key in self.routes:
            self.routes[message.routing_key].kept += 1
        self._on_parked()

    async def _fallback(self, message: Message, is_wanted: IsWanted, why: str) -> None:
        route = message.exchange
        try:
            canary = self._admit(self._own_queues, route)
            patience = 0.0 if canary else _PATIENCE
            await self._publisher.publish(
                message, is_wanted, patience=patience, silence=SILENCE, alone=canary
            )
        except NotTaken as error:
            refused = isinstance(error, PublishRefused)
            if self._own_queues.not_taken(route, str(error), self._monotonic(), refused=refused):
                self._log.error("queue.refuses", exchange=route, error=str(error), remedy=_REFUSING)
            raise Deferred(f"{why}: {error}") from error
        if self._over(self._own_queues, route, message):
            self._log.info("queue.takes_again", exchange=route)

    def _admit(self, routes: Routes, route: str) -> bool:
        """Return whether a message is the canary of a route; raises NotTaken where that is known to take nothing.

        A canary is to have its own channel: it must not block others, and an old channel may refuse for ever.
        """
        canary = route in routes
        if not routes.admits(route, self._monotonic()):
            raise NotTaken(routes[route].reason)
        return canary

    def _over(self, routes: Routes, route: str, message: Message) -> Trouble | None:
        """Take note that a message was taken; return the trouble that is over."""
        trouble = routes.taken(route)
        if trouble is not None and trouble.refused:
            self._publisher.channels.retire_shared(message.exchange, "the broker refused on this channel")
        return trouble

    def _note_trouble(self, route: str, error: NotTaken) -> None:
        refused = isinstance(error, PublishRefused)
        if self.routes.not_taken(route, str(error), self._monotonic(), refused=refused):
            self._log.warning(
                "result.undelivered", routing_key=route, reason=str(error), remedy=_remedy(error)
            )

    def _count_refused(self, change: int, error: NotTaken | None = None) -> None:
        before, self._refused_copies = self._refused_copies, self._refused_copies + change
        if error is not None and not before:
            self.copies_refused = str(error)
            self._log.error("copies.refused", error=str(error), remedy=_REFUSING)
            self._on_refusal(True)
        elif not self._refused_copies:
            self.copies_refused = ""
            self._on_refusal(False)


def parked_copy(message: Message, undelivered: str) -> Message:
    """Return a result as it is parked."""
    headers = {**message.properties.headers, ROUTING_KEY_HEADER: message.routing_key}
    properties = replace(message.properties, headers=headers)
    return Message(undelivered, UNDELIVERED_KEY, message.body, properties)


_REFUSING = (
    "see the policies and the length limit of the queues bound there, and the user's permissions;"
    " a queue that was deleted is declared again where broker.declare is 'active'"
)


def _remedy(error: NotTaken) -> str:
    kept = "such results are parked in the undelivered queue and sent when the route takes them again"
    match error:
        case Unroutable():
            return f"bind a queue to the results exchange for this routing key; {kept}"
        case PublishRefused():
            return f"a queue bound for this routing key is full, or the user may not publish there; {kept}"
    return f"a queue bound for this routing key does not answer, as without a majority of its nodes; {kept}"
