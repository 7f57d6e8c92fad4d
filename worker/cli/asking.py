"""Asks LCM for many accounts, without a broker: what `lookup` does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any
from uuid import uuid4

import msgspec
import structlog

from worker import result
from worker.errors import InvalidJob, JobError, SessionNotOpened
from worker.inquiry import Inquiry
from worker.job import Job, decode
from worker.lcm.lookup import Lookup, build_lookup
from worker.lcm.pool import Pool
from worker.lcm.session import SessionOpener
from worker.message import Properties
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class Found:
    """What one lookup came to; `body` is the same JSON as a result's on the broker."""

    account: str
    body: bytes
    outcomes: tuple[result.Outcome, ...] = ()
    error: JobError | None = None


Show = Callable[[Found], None]
_Accounts = asyncio.Queue[str | None]


async def look_up_all(settings: Settings, accounts: Iterable[str], show: Show) -> bool:
    """Look up every account, as many at once as there are sessions, and show each as it comes.

    Returns whether all succeeded.

    Raises:
        SessionNotOpened: LCM can't be reached.
    """
    away: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with AsyncExitStack() as stack:
        pool = Pool(
            SessionOpener(settings.lcm, settings.worker.name),
            settings.lcm,
            settings.outage,
            structlog.wrap_logger(structlog.ReturnLogger(), processors=[_drop]),
            on_away=lambda error: None if away.done() else away.set_result(str(error)),
        )
        stack.push_async_callback(pool.close)
        work = _Work(build_lookup(pool, settings.lcm, settings.retry), settings.worker.name, show)
        lanes_wanted = settings.lcm.sessions
        waiting = _read_beside(accounts, lanes_wanted)
        lanes = [asyncio.ensure_future(work.lane(waiting)) for _ in range(lanes_wanted)]
        finished: asyncio.Future[list[None]] = asyncio.gather(*lanes)
        ends: set[asyncio.Future[Any]] = {finished, away}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if away.done():
            finished.cancel()
            await asyncio.gather(finished, return_exceptions=True)
            raise SessionNotOpened(away.result())
        finished.result()
    return work.all_succeeded


def _read_beside(accounts: Iterable[str], ahead: int) -> _Accounts:
    """Read accounts, a few ahead, in a thread: reading may block on a pipe. After the last comes None."""
    waiting: _Accounts = asyncio.Queue(ahead)
    loop = asyncio.get_running_loop()

    def read() -> None:
        for account in chain(accounts, [None]):
            handing_over = waiting.put(account)
            try:
                asyncio.run_coroutine_threadsafe(handing_over, loop).result()
            except RuntimeError:  # the loop has ended: nobody waits for the rest
                handing_over.close()
                return

    # A daemon: that input never ends must not keep the command from ending.
    threading.Thread(target=read, daemon=True).start()
    return waiting


class _Work:
    """One account after the other, in as many lanes as there are sessions."""

    def __init__(self, look_up: Lookup, worker: str, show: Show) -> None:
        self.all_succeeded = True
        self._look_up = look_up
        self._worker = worker
        self._show = show

    async def lane(self, accounts: _Accounts) -> None:
        while (account := await accounts.get()) is not None:
            found = await self._find(account)
            self.all_succeeded &= found.error is None
            self._show(found)
        accounts.put_nowait(None)  # for the other lanes

    async def _find(self, account: str) -> Found:
        started = time.monotonic()
        try:
            job = _job(account)
        except InvalidJob as error:
            return self._failed(account, error.job, error, 0, started)
        inquiry = Inquiry(account)
        try:
            answer = await self._look_up(inquiry)
        except JobError as error:
            return self._failed(account, job, error, inquiry.exchanges, started)
        normalized = result.normalize(answer.items)
        message = result.succeeded(
            job,
            normalized,
            exchange="",
            source="shared" if answer.shared else "lcm",
            attempts=inquiry.exchanges,
            looked_up_at=answer.answered_at,
            completed_at=datetime.now(UTC),
            duration_ms=(time.monotonic() - started) * 1000,
            worker=self._worker,
        )
        return Found(account, message.body, normalized.outcomes)

    def _failed(self, account: str, job: Job, error: JobError, attempts: int, started: float) -> Found:
        message = result.failed(
            job,
            error,
            exchange="",
            attempts=attempts,
            completed_at=datetime.now(UTC),
            duration_ms=(time.monotonic() - started) * 1000,
            worker=self._worker,
        )
        return Found(account, message.body, error=error)


def _job(account: str) -> Job:
    """Make a job as a producer would, so that the same rules hold for the account number. Raises InvalidJob."""
    job_id = f"lookup-{uuid4()}"
    try:
        body = msgspec.json.encode({"account_number": account})
    except UnicodeEncodeError as error:
        unread = Job(job_id=job_id, account_number="", correlation_id=job_id)
        raise InvalidJob("account_number must be text in UTF-8", job=unread) from error
    return decode(body, Properties(message_id=job_id))


def _drop(*_: object) -> str:
    raise structlog.DropEvent
