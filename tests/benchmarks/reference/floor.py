"""The floor: what the same libraries cost where nothing stands between them, and nothing is checked or logged.

The channel beneath aio-pika, the websocket library's protocol without its input and output, ping and request in one
write, and msgspec.
"""

from __future__ import annotations

import asyncio
from typing import cast

import aiormq
import msgspec
import uvloop
from aiormq import spec
from aiormq.abc import DeliveredMessage
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import WebSocketURI, parse_uri

from tests.benchmarks.reference.command import JOBS, KEY, RESULTS, Given, given, say_ready


class Job(msgspec.Struct):
    job_id: str
    account_number: str


class Outcome(msgspec.Struct):
    id: str = msgspec.field(name="OutComeID")
    description: str = msgspec.field(name="Description")


class Payload(msgspec.Struct):
    response: list[Outcome]


class Reply(msgspec.Struct):
    message: Payload


class ResultOutcome(msgspec.Struct):
    id: str
    description: str


class Result(msgspec.Struct):
    job_id: str
    account_number: str
    status: str
    outcomes: list[ResultOutcome]


_read_job = msgspec.json.Decoder(Job).decode
_read_reply = msgspec.json.Decoder(Reply).decode
_encode = msgspec.json.Encoder().encode


class Session(asyncio.Protocol):
    """One connection to LCM."""

    def __init__(self, url: WebSocketURI) -> None:
        self.opened = asyncio.get_running_loop().create_future()
        self._websocket = ClientProtocol(url)
        self._reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._websocket.send_request(self._websocket.connect())
        self._write()

    def data_received(self, data: bytes) -> None:
        self._websocket.receive_data(data)
        for event in self._websocket.events_received():
            if not isinstance(event, Frame):
                self.opened.set_result(None)
            elif event.opcode is Opcode.TEXT:
                self._reply.set_result(bytes(event.data))

    async def ask(self, account: str) -> list[Outcome]:
        """Return the outcomes of an account."""
        self._reply = asyncio.get_running_loop().create_future()
        request = {
            "channel": "LCM",
            "topic": "WebService",
            "subtopic": "SetCallOutComeOffline",
            "data": {"AccountNumber": account},
        }
        self._websocket.send_ping(b"")
        self._websocket.send_text(_encode(request))
        self._write()
        return _read_reply(await self._reply).message.response

    def _write(self) -> None:
        self._transport.write(b"".join(self._websocket.data_to_send()))


async def work(told: Given) -> None:
    loop = asyncio.get_running_loop()
    lcm = parse_uri(told.lcm)
    free: asyncio.Queue[Session] = asyncio.Queue()
    for _ in range(told.sessions):
        _, session = await loop.create_connection(lambda: Session(lcm), lcm.host, lcm.port)
        await session.opened
        free.put_nowait(session)
    connection = await aiormq.connect(told.broker)
    channel = await connection.channel()
    await channel.basic_qos(prefetch_count=told.prefetch)

    async def handle(message: DeliveredMessage) -> None:
        job = _read_job(message.body)
        session = await free.get()
        outcomes = await session.ask(job.account_number)
        free.put_nowait(session)
        listed = [ResultOutcome(outcome.id, outcome.description) for outcome in outcomes]
        body = _encode(Result(job.job_id, job.account_number, "succeeded", listed))
        properties = spec.Basic.Properties(delivery_mode=2)
        await channel.basic_publish(body, exchange=RESULTS, routing_key=KEY, properties=properties)
        assert message.delivery_tag is not None
        await channel.basic_ack(message.delivery_tag)

    await channel.basic_consume(JOBS, handle)
    say_ready()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(work(given()))
