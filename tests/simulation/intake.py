"""What stands where the consumer and the pipeline do: a queue, deliveries in hand, and what comes of each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from tests.simulation.books import Books, Delivery
from tests.simulation.loop import VirtualLoop
from tests.simulation.plan import Job
from tests.support.lcm import START, names
from worker.contract.errors import Deferred, Expired, JobError, LcmRejected, StaleDelivery
from worker.contract.intake import PauseReason
from worker.contract.lookup import Lookup, LookupRequest, LookupResult

DEFERRED_FOR = 8.0
_NOBODYS = 0  # the number of a job that there is not


class Intake:
    """Starts jobs as they come, unless paused or full; who is put off comes again, everything else is an end."""

    def __init__(
        self,
        loop: VirtualLoop,
        books: Books,
        look_up: Lookup,
        prefetch: int,
        *,
        moment: Callable[[], float],
        note: Callable[..., None],
        violated: Callable[[str], None],
    ) -> None:
        self.left: dict[int, Job] = {}
        self.in_hand: dict[int, asyncio.Task[bool]] = {}
        self._loop = loop
        self._books = books
        self._look_up = look_up
        self._prefetch = prefetch
        self._moment = moment
        self._note = note
        self._violated = violated
        self._queue: deque[Job] = deque()
        self._paused: set[PauseReason | None] = set()
        self._cancelled = {_NOBODYS}
        self._lurker: asyncio.Future[None] | None = None

    def pause(self, reason: PauseReason | None) -> None:
        self._note("intake: paused for", reason)
        self._paused.add(reason)

    def resume(self, reason: PauseReason) -> None:
        self._note("intake: resumed from", reason)
        self._paused.discard(reason)
        self._loop.call_later(self._moment(), self._go_on)

    async def take_one(self, within: float) -> bool:
        """Take one job in spite of a pause, waiting for it if need be, and see it to its end."""
        if takes := self._moment():
            await asyncio.sleep(takes)
        if not self._queue:
            self._lurker = self._loop.create_future()
            await asyncio.wait({self._lurker}, timeout=within)
        if not self._queue:
            return False
        await asyncio.wait({self._start(self._queue.popleft())})
        return True

    async def depth(self) -> int:
        if takes := self._moment():
            await asyncio.sleep(takes)
        return len(self._queue)

    def expect(self, job: Job) -> None:
        """Have a job come, and be cancelled, at its times."""
        self.left[job.number] = job
        self._loop.call_at(job.comes, self._come, job)
        if job.cancelled is not None:
            self._loop.call_at(job.cancelled, self.cancel, job.number)

    def cancel(self, number: int) -> None:
        """Cancel a job that is in hand; one that isn't stays where it is."""
        if (task := self.in_hand.get(number)) is not None and not task.done():
            self._note("job", number, "is cancelled")
            self._cancelled.add(number)
            task.cancel()

    def stop(self) -> list[asyncio.Task[bool]]:
        """Start nothing more, and cancel what is in hand."""
        self.pause(None)
        hands = list(self.in_hand.items())
        for number, _ in hands:
            self.cancel(number)
        return [task for _, task in hands]

    def _come(self, job: Job) -> None:
        self._queue.append(job)
        if self._lurker is not None and not self._lurker.done():
            self._lurker.set_result(None)
        self._go_on()

    def _go_on(self) -> None:
        while self._queue and not self._paused and len(self.in_hand) < self._prefetch:
            self._start(self._queue.popleft())

    def _start(self, job: Job) -> asyncio.Task[bool]:
        task = self.in_hand[job.number] = self._loop.create_task(self._work(job), name=f"job-{job.number}")
        task.add_done_callback(partial(self._let_go, job))
        return task

    def _let_go(self, job: Job, task: asyncio.Task[bool]) -> None:
        """Have what was put off come again, later; all else is at its end, be it before it could begin."""
        del self.in_hand[job.number]
        if not task.cancelled() and task.result():
            self._loop.call_later(DEFERRED_FOR, self._come, job)
        else:
            del self.left[job.number]
        self._go_on()

    async def look_up(self, request: LookupRequest) -> LookupResult:
        """Look up an account that no job asks for now, as the prober does."""
        job = Job(_NOBODYS, request.account, self._loop.time(), stale=self._loop.time())
        answer, error = await self._ask(job, request)
        if answer is None:
            assert error is not None
            raise error
        return answer

    async def _work(self, job: Job) -> bool:
        """See one delivery to its end; return whether it was put off."""
        deadline = None if job.deadline is None else START + timedelta(seconds=job.deadline)
        request = LookupRequest(
            job.account, deadline, lambda: job.stale is None or self._loop.time() < job.stale
        )
        _, error = await self._ask(job, request)
        return isinstance(error, Deferred)

    async def _ask(
        self, job: Job, request: LookupRequest
    ) -> tuple[LookupResult | None, BaseException | None]:
        delivery = Delivery(job, request)
        self._books.open(delivery)
        self._note("job", job.number, "for", job.account, "asks")
        answer: LookupResult | None = None
        error: BaseException | None = None
        try:
            answer = await self._look_up(request)
        except BaseException as raised:  # noqa: BLE001 - whatever it is, it is what came of it
            error = raised.with_traceback(None)
        self._note("job", job.number, "ends:", type(error or answer).__name__, error or "")
        self._books.close(delivery, error)
        if answer is not None:
            self._look_at_answer(job, answer)
        else:
            self._look_at_error(job, error)
        return answer, error

    def _look_at_answer(self, job: Job, answer: LookupResult) -> None:
        if not answer.items or not names(answer.items, job.account):
            self._violated(f"job {job.number} for {job.account} was given {answer.items}")

    def _look_at_error(self, job: Job, error: BaseException | None) -> None:
        match error:
            case asyncio.CancelledError():
                documented = job.number in self._cancelled
            case StaleDelivery():
                documented = job.stale is not None and job.stale <= self._loop.time()
            case Expired():
                documented = job.deadline is not None
            case LcmRejected():
                documented = f":{job.account} |" in error.remote_message
            case _:
                documented = isinstance(error, JobError | Deferred)
        if not documented:
            self._violated(f"job {job.number} for {job.account} ended by {error!r}")
