"""Sessions with LCM as anyone would write them: connections that are lent out, a request sent, a reply received."""

from __future__ import annotations

import asyncio

import orjson
from websockets.asyncio.client import ClientConnection, connect


class Sessions:
    """Connections to LCM, each used by one job at a time."""

    def __init__(self) -> None:
        self._free: asyncio.Queue[ClientConnection] = asyncio.Queue()

    async def open(self, url: str, count: int) -> None:
        for _ in range(count):
            self._free.put_nowait(await connect(url))

    async def ask(self, account: str) -> list[dict[str, str]]:
        """Return the outcomes of an account."""
        request = {
            "channel": "LCM",
            "topic": "WebService",
            "subtopic": "SetCallOutComeOffline",
            "data": {"AccountNumber": account},
        }
        session = await self._free.get()
        await session.send(orjson.dumps(request).decode())
        reply = orjson.loads(await session.recv())
        self._free.put_nowait(session)
        return [
            {"id": outcome["OutComeID"], "description": outcome["Description"]}
            for outcome in reply["message"]["response"]
        ]


def result_of(job: dict[str, str], outcomes: list[dict[str, str]]) -> bytes:
    """Encode the result of a job."""
    return orjson.dumps(
        {
            "job_id": job["job_id"],
            "account_number": job["account_number"],
            "status": "succeeded",
            "outcomes": outcomes,
        }
    )
