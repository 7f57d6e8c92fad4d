"""What `lookup` does: asks LCM for many accounts, without a broker."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any
from uuid import uuid4

import msgspec
import structlog

from worker.cli.common import note
from worker.cli.lookup.reading import Asked
from worker.common.tasks import cancel, start
from worker.contract import outcomes, result
from worker.contract.errors import InvalidJob, JobError, SessionNotOpened
from worker.contract.job import Job
from worker.contract.job_reader import read_job
from worker.contract.lookup import Lookup, LookupRequest
from worker.contract.message import Properties
from worker.lcm.handshake import SessionOpener
from worker.lcm.lookup import build_lookup
from worker.lcm.pool import Pool
from worker.settings import Scrubber, Settings


@dataclass(frozen=True, slots=True)
class AccountResult:
    """The result for one account; `body` is the same JSON as a result's on the broker."""

    account: str
    body: bytes
    outcomes: tuple[outcomes.Outcome, ...] = ()
    error: JobError | None = None


Show = Callable[[AccountResult], None]
_Accounts = asyncio.Queue[Asked | None]
_TRIES = 3


async def look_up_all(settings: Settings, accounts: Iterable[Asked], show: Show) -> None:
    """Look up every account, as many at once as there are sessions.

    Args:
        settings: which LCM, and how to ask it.
        accounts: account numbers, read in a thread.
        show: called with the result of each account, in the order in which they come.

    Raises:
        SessionNotOpened: LCM can't be reached, or no more.
        Deferred: LCM had no room for a session for as long as `outage.hold`.
    """
    reach = _Reach()
    async with AsyncExitStack() as stack:
        pool = Pool(
            SessionOpener(settings.lcm, settings.worker.name, Scrubber(settings)),
            settings.lcm,
            settings.outage,
            structlog.wrap_logger(structlog.ReturnLogger(), processors=[_drop]),
            on_away=lambda error: reach.not_opened(error, others=pool.counts()["opening"] > 1),
            on_opened=reach.opened,
        )
        stack.push_async_callback(pool.close)
        lookups = _Lookups(build_lookup(pool, settings.lcm, settings.retry), settings.worker.name, show)
        waiting = _read_in_thread(accounts, settings.lcm.sessions)
        tasks = [start(lookups.run(waiting)) for _ in range(settings.lcm.sessions)]
        finished = asyncio.gather(*tasks)
        try:
            ends: set[asyncio.Future[Any]] = {finished, reach.lost}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if reach.lost.done():
                raise reach.lost.result()
            finished.result()
        finally:
            await cancel(finished, *tasks)


class _Reach:
    """Tells when LCM can't be reached: where no first session can be opened, or later none in `_TRIES` tries in a row.

    `lost` is done then.
    """

    def __init__(self) -> None:
        self.lost: asyncio.Future[SessionNotOpened] = asyncio.get_running_loop().create_future()
        self._reached = False
        self._failures = 0

    def opened(self) -> None:
        self._reached = True
        self._failures = 0

    def not_opened(self, error: SessionNotOpened, *, others: bool) -> None:
        """Take note that none is open; `others` are being opened still."""
        self._failures += 1
        if self._reached and self._failures < _TRIES:
            note(f"{error.message}; trying again")
        elif (self._reached or error.refused or not others) and not self.lost.done():
            self.lost.set_result(error)


def _read_in_thread(accounts: Iterable[Asked], ahead: int) -> _Accounts:
    """Return a queue that a thread fills, since reading may block on a pipe. After the last account comes None."""
    waiting: _Accounts = asyncio.Queue(ahead)
    loop = asyncio.get_running_loop()

    def read() -> None:
        for account in chain(accounts, [None]):
            putting = waiting.put(account)
            try:
                asyncio.run_coroutine_threadsafe(putting, loop).result()
            except (RuntimeError, CancelledError):
                # The loop is closed, or is being closed.
                putting.close()
                return

    # A daemon thread, so that the command can end while its input goes on.
    threading.Thread(target=read, daemon=True).start()
    return waiting


class _Lookups:
    """Looks up accounts from a queue; `run` is to be called as many times as there are sessions."""

    def __init__(self, look_up: Lookup, worker: str, show: Show) -> None:
        self._look_up = look_up
        self._worker = worker
        self._show = show

    async def run(self, accounts: _Accounts) -> None:
        while (asked := await accounts.get()) is not None:
            self._show(await self._result_for(asked))
        accounts.put_nowait(None)  # for the other tasks

    async def _result_for(self, asked: Asked) -> AccountResult:
        started, account = time.monotonic(), asked.account
        try:
            job = _job_for(asked)
        except InvalidJob as error:
            return self._failed(account, error.job, error, self._completion(0, started))
        request = LookupRequest(account)
        try:
            found = await self._look_up(request)
        except JobError as error:
            return self._failed(account, job, error, self._completion(request.exchanges, started))
        completion = self._completion(request.exchanges, started)
        message = result.succeeded(job, found, completion, amqp_exchange="")
        return AccountResult(account, message.body, found.items.normalized.outcomes)

    def _completion(self, attempts: int, started: float) -> result.Completion:
        duration_ms = (time.monotonic() - started) * 1000
        return result.Completion(attempts, datetime.now(UTC), duration_ms, self._worker)

    def _failed(
        self, account: str, job: Job, error: JobError, completion: result.Completion
    ) -> AccountResult:
        message = result.failed(job, error, completion, amqp_exchange="")
        return AccountResult(account, message.body, error=error)


def _job_for(asked: Asked) -> Job:
    """Make a job as a producer would, so that the same rules apply to the account number. Raises InvalidJob."""
    job_id = f"lookup-{uuid4()}"
    unread = Job(job_id=job_id, account_number="", correlation_id=job_id)
    if asked.mistake:
        raise InvalidJob(asked.mistake, job=unread)
    try:
        body = msgspec.json.encode({"account_number": asked.account})
    except UnicodeEncodeError as error:
        raise InvalidJob("account_number must be text in UTF-8", job=unread) from error
    return read_job(body, Properties(message_id=job_id))


def _drop(*_: object) -> str:
    raise structlog.DropEvent
