"""A bare publisher of account numbers from a file, one a line: pipelined, each confirmed, nothing checked."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path

import aiormq
import orjson
import uvloop
from aiormq import spec
from aiormq.abc import AbstractChannel

from tests.benchmarks.reference.command import JOBS

_IN_FLIGHT = 500
_KEY = "job"


async def publish(channel: AbstractChannel, lines: Iterable[tuple[int, str]]) -> None:
    for number, line in lines:
        body = orjson.dumps({"account_number": line.strip(), "job_id": f"bare-{number}"})
        properties = spec.Basic.Properties(delivery_mode=2)
        await channel.basic_publish(body, exchange=JOBS, routing_key=_KEY, properties=properties)


async def main(url: str, path: Path) -> None:
    connection = await aiormq.connect(url)
    channel = await connection.channel()
    with path.open() as file:
        lines = enumerate(file)
        await asyncio.gather(*(publish(channel, lines) for _ in range(_IN_FLIGHT)))
    await connection.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], Path(sys.argv[2])))
