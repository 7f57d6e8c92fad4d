"""The same loop on FastStream, a framework for workers, with the same websocket code."""

from __future__ import annotations

import asyncio

import orjson
import uvloop
from faststream.rabbit import Channel, RabbitBroker, RabbitExchange, RabbitQueue
from faststream.rabbit.annotations import RabbitMessage

from tests.benchmarks.reference.command import JOBS, KEY, RESULTS, Given, given, say_ready
from tests.benchmarks.reference.sessions import Sessions, result_of


async def work(told: Given) -> None:
    sessions = Sessions()
    await sessions.open(told.lcm, told.sessions)
    broker = RabbitBroker(told.broker, logger=None)
    results = RabbitExchange(RESULTS, declare=False)
    jobs = RabbitQueue(JOBS, declare=False)

    @broker.subscriber(jobs, channel=Channel(prefetch_count=told.prefetch))
    async def handle(message: RabbitMessage) -> None:
        job = orjson.loads(message.body)
        body = result_of(job, await sessions.ask(job["account_number"]))
        await broker.publish(body, exchange=results, routing_key=KEY, persist=True)

    await broker.start()
    say_ready()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(work(given()))
