"""Sends results to the `reply_to` queues of callers: best effort, and without delaying any job.

A caller may be gone, its queue full or forbidden, which can cost the channel; and RabbitMQ ends the whole connection of
whoever publishes to a direct reply-to that names no process of its cluster, which anybody can write into a job. So
replies use a connection of their own, and handing a reply over does not wait.
"""

from __future__ import annotations

import asyncio

from aiormq.abc import AbstractChannel
from aiormq.exceptions import PublishError
from msgspec.structs import replace

from worker.broker.connection import means_loss, text_of
from worker.broker.delivery import TRANSIENT
from worker.broker.link import Link
from worker.broker.sizes import fitted_properties
from worker.contract.job import Job
from worker.contract.message import Message
from worker.contract.reply_to import DIRECT, refusal_of
from worker.observability.log import Log
from worker.settings import BrokerSettings

_AT_A_TIME = 16
_MOST_WAITING = 1000


class Replies:
    """Called with each result whose job named a `reply_to`; `run` sends those that may go there."""

    def __init__(self, settings: BrokerSettings, log: Log, *, worker: str) -> None:
        self._link = Link("reply", settings, _nothing, log, worker=worker, confirms=False)
        self._allowed = settings.reply_to_prefixes
        self._own_prefix = settings.prefix
        self._timeout = settings.publish_timeout
        self._log = log
        self._waiting: asyncio.Queue[tuple[Message, Job]] = asyncio.Queue(_MOST_WAITING)
        self._channel: AbstractChannel | None = None
        self._opening = asyncio.Lock()

    def __call__(self, result: Message, reply_to: str, job: Job) -> None:
        """Hand over the result of a job for a caller; what can't be sent is logged and dropped."""
        if reason := refusal_of(reply_to, self._allowed, self._own_prefix):
            self._log.info("reply.refused", **_named(job), reply_to=reply_to, reason=reason)
            return
        try:
            self._waiting.put_nowait((replace(result, exchange="", routing_key=reply_to), job))
        except asyncio.QueueFull:
            self._say_lost(job, reply_to, f"{_MOST_WAITING} replies wait already")

    async def run(self) -> None:
        """Send what is handed over, until cancelled; connects only where a reply may be sent at all."""
        if not self._allowed:
            return
        async with asyncio.TaskGroup() as senders:
            senders.create_task(self._link.run())
            for _ in range(_AT_A_TIME):
                senders.create_task(self._send_each())

    async def flush(self, seconds: float) -> None:
        """Wait until all replies are sent, for `seconds` at most."""
        waiting = asyncio.ensure_future(self._waiting.join())
        await asyncio.wait({waiting}, timeout=seconds)
        waiting.cancel()

    async def _send_each(self) -> None:
        while True:
            message, job = await self._waiting.get()
            try:
                async with asyncio.timeout(self._timeout):
                    await self._send(message)
            except PublishError:
                self._say_lost(job, message.routing_key, "there is no such queue")
            except BaseException as error:
                if not (isinstance(error, TimeoutError) or means_loss(error)):
                    raise
                self._say_lost(job, message.routing_key, text_of(error))
            finally:
                self._waiting.task_done()

    async def _send(self, message: Message) -> None:
        channel = await self._open_channel()
        await channel.basic_publish(
            message.body,
            exchange=message.exchange,
            routing_key=message.routing_key,
            properties=fitted_properties(
                message.properties,
                channel.connection.connection_tune.frame_max or 0,
                delivery_mode=TRANSIENT,
                user_id=None,
            ),
            # With `mandatory`, the broker returns a direct reply-to message even when it has delivered it.
            mandatory=not message.routing_key.startswith(f"{DIRECT}."),
        )

    async def _open_channel(self) -> AbstractChannel:
        async with self._opening:
            if self._channel is None or self._channel.is_closed:
                self._channel = await self._link.side_channel()
            return self._channel

    def _say_lost(self, job: Job, reply_to: str, reason: str) -> None:
        self._log.warning("reply.lost", **_named(job), reply_to=reply_to, reason=reason)


async def _nothing(_channel: AbstractChannel, _generation: int) -> None:
    """Prepare nothing: replies have a channel of their own, which may be lost without the connection."""


def _named(job: Job) -> dict[str, str | None]:
    """Return the fields of a line that name a job; its account is to be hashed in all of them."""
    return {"job_id": job.job_id, "account": job.account_number or None, "unread": job.unread}
