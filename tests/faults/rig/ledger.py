"""The books of a fault test, kept on a real broker: publishes the jobs and collects what becomes of them."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterable
from contextlib import suppress
from itertools import count
from typing import Any, Protocol, Self
from urllib.parse import unquote, urlsplit

import aiormq
import msgspec
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage
from aiormq.exceptions import DeliveryError

from tests.faults.rig.books import Books, Dead, some
from tests.faults.rig.broker_line import LOST, close, connect, open_channel
from tests.faults.rig.job_ids import job_id_of
from tests.support.patience import PATIENCE
from worker.broker.connection import means_loss
from worker.broker.declare import declare
from worker.broker.topology import topology_of
from worker.settings import BrokerSettings

_POLL = 0.25  # longer than the age of what a node of the sandbox reports of its queues
_PATIENCE = 60.0 * PATIENCE
_LENGTH = re.compile(r"'?([^',{\[]+)'?,\s*\[\{messages,\s*(\d+)\}\]")


class Evaluates(Protocol):
    """A node or a cluster, which is asked for the lengths of its queues."""

    async def eval(self, expression: str) -> str: ...


class NotSettled(AssertionError):
    """Jobs had no end, or queues were not empty, at the deadline; the text says which."""


class Ledger(Books):
    """Publishes jobs, collects every result, and looks at the dead-letter queue without taking from it.

    It declares the topology, so `settings` must be the worker's own broker section, with URLs that lead straight to
    the broker and not through a proxy; any connection that it loses it makes anew. `broker` is the Node or Cluster,
    `window` how many publishes wait for their confirm at a time. Results are taken from the start on, or, with
    `collect` false, from `start_collecting` or `settled` on; `results` names the queue to take them from where that is
    not the topology's own. `empty_is_right` where LCM may answer with no outcomes.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        broker: Evaluates,
        *,
        window: int = 200,
        collect: bool = True,
        results: str = "",
        empty_is_right: bool = False,
    ) -> None:
        super().__init__(empty_is_right=empty_is_right)
        self._settings = settings
        self._topology = topology_of(settings)
        self._results_queue = results or self._topology.results
        self._broker = broker
        self._window = window
        self._collect = collect
        self._numbers = count(1)
        self._collecting: asyncio.Task[None] | None = None
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._left: list[AbstractConnection] = []
        self._connecting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await declare(await self._publishing(), self._topology)
        if self._collect:
            self.start_collecting()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._collecting is not None:
            self._collecting.cancel()
            await asyncio.gather(self._collecting, return_exceptions=True)
        for connection in (*self._left, self._connection):
            if connection is not None:
                await close(connection)

    def start_collecting(self) -> None:
        """Take results off their queue from now on."""
        if self._collecting is None:
            self._collecting = asyncio.get_running_loop().create_task(self._collect_results())

    async def submit(self, accounts: Iterable[str], **fields: Any) -> list[str]:
        """Publish a job for each account and return their ids, once all are confirmed.

        `fields` are further fields of each job's body.
        """
        jobs = [(f"job-{next(self._numbers)}", account) for account in accounts]
        for start in range(0, len(jobs), self._window):
            part = jobs[start : start + self._window]
            await asyncio.gather(*(self.submit_job(job_id, account, **fields) for job_id, account in part))
        return [job_id for job_id, _ in jobs]

    async def submit_job(self, job_id: str, account: str, **fields: Any) -> None:
        """Publish one job and wait until it is confirmed, again where the connection is lost before that.

        Raises:
            TimeoutError: the broker did not take it within a minute.
        """
        self.begun[job_id] = account
        body = msgspec.json.encode({"job_id": job_id, "account_number": account, **fields})
        properties = aiormq.spec.Basic.Properties(message_id=job_id, delivery_mode=2)
        async with asyncio.timeout(_PATIENCE):
            while True:
                try:
                    channel = await self._publishing()
                    try:
                        await channel.basic_publish(
                            body, routing_key=self._topology.jobs, properties=properties, mandatory=True
                        )
                    except DeliveryError:
                        # RabbitMQ 3.10 may refuse on a channel for ever after the queue's leader has changed.
                        self._leave(channel)
                        raise
                except (Exception, asyncio.CancelledError) as error:
                    if not means_loss(error):
                        raise
                    await asyncio.sleep(_POLL)
                else:
                    self.accounts[job_id] = account
                    return

    async def settled(self, deadline: float = 60.0) -> None:
        """Wait until every job has an end and nothing is left in the jobs and retry queues, in hand or not.

        Raises:
            NotSettled: not so within `deadline` seconds.
        """
        self.start_collecting()
        lengths: dict[str, int] | None = None
        empty_before = False
        try:
            async with asyncio.timeout(PATIENCE * deadline):
                while True:
                    lengths = await self.lengths()
                    empty = lengths is not None and not self._waiting_in(lengths)
                    if empty and empty_before:
                        with suppress(*LOST):
                            await self.look_at_dead()
                        if not self.lost and not (lengths or {}).get(self._results_queue):
                            return
                    empty_before = empty
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            raise NotSettled(self._missing(lengths, deadline)) from None

    async def lengths(self) -> dict[str, int] | None:
        """Return how many messages each queue holds, in hand or not; None while the broker can't say."""
        vhost = unquote(urlsplit(self._settings.urls[0]).path[1:]) or "/"
        # Only the leader's node knows, and amqqueue:get_pid names it. The names are made atoms, since Erlang's tools
        # differ in how they write binaries. A stream holds what it holds, and has no such leader.
        asked = (
            "[{binary_to_atom(element(4, amqqueue:get_name(Q)), utf8), rpc:call(element(2, amqqueue:get_pid(Q)), "
            f'rabbit_amqqueue, info, [Q, [messages]], 5000)}} || Q <- rabbit_amqqueue:list(<<"{vhost}">>), '
            "amqqueue:get_type(Q) =/= rabbit_stream_queue]"
        )
        try:
            said = await self._broker.eval(asked)
        except Exception:  # noqa: BLE001 - the node is being stopped, killed or started by the test
            return None
        found = dict(_LENGTH.findall(said))
        asked_for = {queue.name for queue in self._topology.queues}
        return {name: int(length) for name, length in found.items()} if asked_for <= found.keys() else None

    async def look_at_dead(self) -> None:
        """Read the dead-letter queue anew, and leave everything there."""
        async with open_channel(self._url) as channel:
            queue = await channel.queue_declare(self._topology.dead, passive=True)
            expected = queue.message_count or 0
            arrived: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
            await channel.basic_consume(self._topology.dead, arrived.put)
            async with asyncio.timeout(_PATIENCE):
                dead = [_dead(await arrived.get()) for _ in range(expected)]
        self.dead = {}
        for letter in dead:
            self.dead.setdefault(letter.job_id, []).append(letter)

    def _waiting_in(self, lengths: dict[str, int]) -> dict[str, int]:
        kept = {self._topology.results, self._topology.dead}
        ours = {queue.name for queue in self._topology.queues} - kept
        return {name: length for name, length in lengths.items() if length and name in ours}

    def _missing(self, lengths: dict[str, int] | None, deadline: float) -> str:
        queues = "the broker did not say what its queues hold" if lengths is None else f"queues: {lengths}"
        return (
            f"not settled after {deadline:g} s: {self.counts()}; without an end: {some(self.lost)}; {queues}"
        )

    @property
    def _url(self) -> str:
        return random.choice(self._settings.urls)  # noqa: S311 - no secret; so that a dead node is passed over

    def _leave(self, channel: AbstractChannel) -> None:
        """Use another connection from now on; this one stays open until the end for what others publish on it."""
        if self._channel is channel and self._connection is not None:
            self._left.append(self._connection)
            self._channel = self._connection = None

    async def _publishing(self) -> AbstractChannel:
        async with self._connecting:
            if self._channel is None or self._channel.is_closed:
                if self._connection is not None:
                    await close(self._connection)
                self._connection = await connect(self._url)
                # Otherwise a job that no queue takes would count as accepted.
                self._channel = await self._connection.channel(on_return_raises=True)
            return self._channel

    async def _collect_results(self) -> None:
        while True:
            with suppress(*LOST):
                async with open_channel(self._url) as channel:
                    await self._collect_from(channel)
            await asyncio.sleep(_POLL)

    async def _collect_from(self, channel: AbstractChannel) -> None:
        """Take results until the channel or the consumer is gone."""

        async def take(message: DeliveredMessage) -> None:
            self.take_result(
                message.body,
                message_id=message.header.properties.message_id or "",
                redelivered=bool(message.redelivered),
            )
            with suppress(*LOST):  # then it comes again
                await channel.basic_ack(message.delivery_tag or 0, wait=False)

        cancelled = asyncio.Event()
        channel.on_consumer_cancel_callbacks.add(lambda _: cancelled.set())
        await channel.basic_qos(prefetch_count=self._window)
        await channel.basic_consume(self._results_queue, take)
        ended = asyncio.get_running_loop().create_task(cancelled.wait())
        try:
            await asyncio.wait({ended, channel.closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()


def _dead(message: DeliveredMessage) -> Dead:
    properties = message.header.properties
    headers = properties.headers or {}
    job_id = job_id_of(
        message.body,
        message_type=properties.message_type,
        message_id=properties.message_id,
        headers=headers,
    )
    return Dead(
        job_id, str(headers.get("outcome-error-code", "")), str(headers.get("outcome-error-reason", ""))
    )
