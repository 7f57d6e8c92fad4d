"""The bare loop: what anyone would write in an afternoon, without retry, log or checks.

The ratios of `docs/performance.md` are to this program.
"""

from __future__ import annotations

import asyncio

import aio_pika
import orjson
import uvloop
from aio_pika.abc import AbstractIncomingMessage

from tests.benchmarks.reference.command import JOBS, KEY, RESULTS, Given, given, say_ready
from tests.benchmarks.reference.sessions import Sessions, result_of


async def work(told: Given) -> None:
    sessions = Sessions()
    await sessions.open(told.lcm, told.sessions)
    connection = await aio_pika.connect(told.broker)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=told.prefetch)
    results = await channel.get_exchange(RESULTS)
    jobs = await channel.get_queue(JOBS)

    async def handle(message: AbstractIncomingMessage) -> None:
        job = orjson.loads(message.body)
        body = result_of(job, await sessions.ask(job["account_number"]))
        result = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await results.publish(result, KEY)
        await message.ack()

    await jobs.consume(handle)
    say_ready()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(work(given()))
