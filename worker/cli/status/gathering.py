"""Gathers what a status is made of: from the broker, from its management API, from the workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from worker.broker.admin.dead_letter import read_dead_letter
from worker.broker.admin.dead_letters import browse, ours_of
from worker.broker.admin.observer import Counted, Look, Observer
from worker.broker.admin.statistics import QueueStatistics, Statistics, statistics_of
from worker.broker.topology import Topology, topology_of
from worker.cli.status.workers import FleetState, fleet_state
from worker.contract.errors import BrokerAway, SettingsError, TopologyError, WorkerError
from worker.settings import Settings

_NO_LEADER = "the management API says that too few of its nodes run to elect a leader"
_UNSEEN = Counted("unknown")
_UNTOLD = QueueStatistics()


@dataclass(slots=True)
class Reason:
    """Dead letters of one error code; `oldest` is when the first of them failed, None where none of them tells."""

    code: str
    count: int = 0
    oldest: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """All that is known at a moment; what is not known is None, and `away`, `untold` and `unread` say why.

    `look` is None where the broker is away, `fleet` where no worker tells, as where no limit is shared, `statistics`
    where the management API is away, or was not asked. `reasons` are those of the dead letters, where they were looked
    at.
    """

    at: datetime
    topology: Topology
    look: Look | None = None
    away: str = ""
    statistics: Statistics | None = None
    untold: str = ""
    fleet: FleetState | None = None
    reasons: Sequence[Reason] | None = None
    unread: str = ""

    def queue(self, name: str) -> Counted:
        """Return what is known of a queue; one that the topology does not have is unknown."""
        counted = self.look.queues.get(name, _UNSEEN) if self.look else _UNSEEN
        # Without a leader the broker counts no messages, and says 0.
        if counted.state == "ok" and not self.told(name).has_leader:
            return Counted("unknown", why=_NO_LEADER)
        return counted

    def told(self, name: str) -> QueueStatistics:
        """Return what the management API tells of a queue."""
        return self.statistics.queues.get(name, _UNTOLD) if self.statistics else _UNTOLD

    def age(self, name: str) -> float | None:
        """Return the age of a queue's oldest message in seconds; None where nobody tells, or there is none."""
        oldest_at = self.told(name).oldest_at
        return None if oldest_at is None else max(0.0, self.at.timestamp() - oldest_at)

    @property
    def retry_queues(self) -> tuple[str, ...]:
        """The names of the retry queues, the shortest delay first."""
        return tuple(f"{self.topology.retry}.{step.key}" for step in self.topology.retry_steps)


@dataclass(frozen=True, slots=True)
class Gatherer:
    """Gathers by these settings; `management` is the URL of the management API, "" where it is not to be asked."""

    settings: Settings
    management: str = ""
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    @property
    def name(self) -> str:
        """The name of the connections, which the broker shows."""
        return f"{self.settings.worker.name} status"

    async def gather(self, observer: Observer, *, reasons: bool = False) -> Status:
        """Look once; with `reasons` at the dead letters, too. Raises BrokerAway."""
        look = await observer.look()
        topology = topology_of(self.settings.broker)
        statistics, untold_why = await self._statistics()
        found, unread = await self._reasons(topology.dead) if reasons else (None, "")
        return Status(
            at=self.now(),
            topology=topology,
            look=look,
            statistics=statistics,
            untold=untold_why,
            fleet=await self._fleet(observer),
            reasons=found,
            unread=unread,
        )

    def away(self, why: str) -> Status:
        """Return the status of a broker that does not answer."""
        return Status(at=self.now(), topology=topology_of(self.settings.broker), away=why)

    async def _fleet(self, observer: Observer) -> FleetState | None:
        now = self.now()
        try:
            told = await observer.beats(now)
        except TopologyError:
            return None  # another user may read it
        return None if told is None else fleet_state([(each.beat, each.at) for each in told], now)

    async def _statistics(self) -> tuple[Statistics | None, str]:
        if not self.management:
            return None, ""
        try:
            return await statistics_of(self.settings.broker, self.management), ""
        except (BrokerAway, SettingsError) as error:
            return None, str(error)

    async def _reasons(self, queue: str) -> tuple[Sequence[Reason] | None, str]:
        try:
            return await _by_code(self.settings, queue, self.name), ""
        except WorkerError as error:
            return None, str(error)


async def _by_code(settings: Settings, queue: str, name: str) -> list[Reason]:
    """Return the dead letters by their code, the most frequent first; each look counts as a delivery of each."""
    found: dict[str, Reason] = {}
    ours = ours_of(settings.broker)
    async with browse(settings.broker, queue, name=name) as browser:
        async for delivery in browser.deliveries():
            letter = read_dead_letter(delivery, ours)
            reason = found.setdefault(letter.code, Reason(letter.code))
            reason.count += 1
            if letter.failed_at is not None:
                reason.oldest = min(reason.oldest or letter.failed_at, letter.failed_at)
    return sorted(found.values(), key=lambda reason: (-reason.count, reason.code))
