"""What each delivery's lookup did, step by step, and whether it was counted right."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.simulation.plan import Job
from worker.contract.errors import Deferred, LookupFailed
from worker.contract.job import Producer
from worker.contract.lookup import LookupRequest
from worker.lcm.outage import OutageMonitor


@dataclass(slots=True)
class Delivery:
    """One delivery of a job: what was asked for it, and when the keeper was told of the end of an exchange.

    `steps` has the number of each request on its connection (1 is the first), and 0 for each end. `in_doubt` is the
    account that is asked for in its task, where that is to tell whether LCM is out; that costs it nothing.
    """

    job: Job
    request: LookupRequest
    steps: list[int] = field(default_factory=list)
    charged: int = 0
    probing: bool = False
    in_doubt: str = ""
    told: LookupFailed | None = None
    failed_probe: LookupFailed | None = None

    def begin_anew(self) -> None:
        """Forget the requests since the last end: what LCM had no room for was none."""
        while any(self.steps[-1:]):
            self.steps.pop()


class Books:
    """Stands before the real keeper, and notes what it is told, by the task that tells.

    `on_probe` is called when an exchange is let through as a probe.
    """

    def __init__(
        self, keeper: OutageMonitor, on_probe: Callable[[], None], violated: Callable[[str], None]
    ) -> None:
        self._keeper = keeper
        self._on_probe = on_probe
        self._violated = violated
        self._answered: set[str] = set()
        self._deliveries: dict[asyncio.Task[object], Delivery] = {}

    @property
    def out(self) -> str:
        return self._keeper.out

    @property
    def doubted(self) -> str:
        self._current.in_doubt = self._keeper.doubted
        return self._keeper.doubted

    def not_settled(self) -> None:
        self._keeper.not_settled()

    def admit_probe(self, producer: Producer) -> bool:
        admitted = self._keeper.admit_probe(producer)
        self._current.probing = admitted
        if admitted:
            self._on_probe()
        return admitted

    def answered(self, account: str) -> None:
        self._keeper.answered(account)
        self._answered.add(account)
        if self._current.in_doubt:
            return
        if not any(self._current.steps[-1:]):
            self._violated(f"job {self._current.job.number} was answered without having asked")
        self._ended()

    def not_answered(self, account: str, error: LookupFailed, producer: Producer) -> None:
        self._keeper.not_answered(account, error, producer)
        delivery = self._current
        if delivery.in_doubt:
            return
        delivery.told = error
        delivery.failed_probe = error if delivery.probing else None
        self._ended()

    def open(self, delivery: Delivery) -> None:
        """Begin with a delivery whose lookup is made in this very task."""
        task = asyncio.current_task()
        assert task is not None
        self._deliveries[task] = delivery

    def on_request(self, request: int, account: str) -> None:
        """A request leaves for LCM, in the task of whom it is for."""
        delivery = self._current
        expected = delivery.in_doubt or delivery.request.account
        turned_away = delivery.in_doubt or delivery.request.turned_away
        if turned_away and account != expected and account in self._answered:
            return  # LCM is to show that it has room.
        if not delivery.in_doubt:
            if turned_away:
                delivery.begin_anew()
            delivery.steps.append(request)
        if expected != account:
            self._violated(f"asked for {account} on behalf of {expected}")

    def close(self, delivery: Delivery, error: BaseException | None) -> None:
        """Compare what the delivery was charged with what took place; `error` is how it ended."""
        cause = error.__cause__ if isinstance(error, Deferred) else None
        if cause is not None and cause is not delivery.told:
            # It failed during an outage that was not its to probe, which stays charged.
            delivery.steps.append(0)
            delivery.charged += 1
        if cause is not None and cause is delivery.failed_probe:
            # A probe that fails costs its job nothing.
            delivery.charged -= 1
        counted, expected = delivery.request.exchanges, delivery.charged
        # Who is cancelled in mid-exchange was charged for it.
        allowed = {expected, expected + 1} if isinstance(error, asyncio.CancelledError) else {expected}
        if counted not in allowed:
            self._violated(
                f"job {delivery.job.number} was charged {counted} exchanges, not {expected}: {delivery.steps}"
            )
        steps = delivery.steps
        for index in range(len(steps) - 1):
            earlier, later = steps[index : index + 2]
            if earlier and later and not (earlier > 1 and later == 1):
                self._violated(
                    f"job {delivery.job.number}: repeated other than once, on a fresh session: {steps}"
                )
        if any(steps[index : index + 3].count(0) == 0 for index in range(len(steps) - 2)):
            self._violated(f"job {delivery.job.number}: repeated more than once in one attempt: {steps}")

    @property
    def _current(self) -> Delivery:
        task = asyncio.current_task()
        assert task is not None
        return self._deliveries[task]

    def _ended(self) -> None:
        delivery = self._current
        delivery.steps.append(0)
        delivery.charged += 1
        delivery.probing = False
