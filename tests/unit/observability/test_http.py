"""The health server's own behaviour, on a real socket."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import tracemalloc
from contextlib import ExitStack, suppress
from email.message import Message
from http.client import HTTPConnection

import pytest

from tests.support.log import RecordingLog
from tests.support.waiting import running, until
from worker.observability import http as health
from worker.observability.http import HealthServer, Page


def ask(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def headers_of(port: int, path: str) -> Message:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    return connection.getresponse().headers


async def test_a_loop_that_is_stuck_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose event loop does not turn answers 503 and says so, rather than not at all."""
    monkeypatch.setattr(health, "_LOOP_PATIENCE", 0.05)
    async with HealthServer(("127.0.0.1", 0), {"/livez": lambda: Page(b"fine")}, RecordingLog()) as server:
        assert await asyncio.to_thread(ask, server.port, "/livez") == (200, "fine")
        asking = asyncio.get_running_loop().run_in_executor(None, ask, server.port, "/livez")
        while not asking.done():
            # Blocks the loop on purpose, longer than the server has patience.
            time.sleep(0.2)  # noqa: ASYNC251
            await asyncio.sleep(0)
        status, body = await asking
        assert status == 503
        assert "has not turned" in body


async def test_every_answer_forbids_a_browser_what_it_does_not_need() -> None:
    """No script, nothing from elsewhere, no frame, and no style but that of the page; also where there is no page."""
    pages = {"/": lambda: Page(b"fine", style="'sha256-1'")}
    async with HealthServer(("127.0.0.1", 0), pages, RecordingLog()) as server:
        for path, style in (("/", "'sha256-1'"), ("/gone", "'none'")):
            headers = await asyncio.to_thread(headers_of, server.port, path)
            policy = dict(part.split(maxsplit=1) for part in headers["Content-Security-Policy"].split("; "))
            assert policy.pop("style-src") == style
            assert policy == dict.fromkeys(
                ("default-src", "base-uri", "form-action", "frame-ancestors"), "'none'"
            )
            assert headers["X-Content-Type-Options"] == "nosniff"


async def test_a_page_that_breaks_is_an_answer_and_a_log_line() -> None:
    """A defect in making a page is answered by 500 and logged with its traceback."""
    log = RecordingLog()
    async with HealthServer(("127.0.0.1", 0), {"/livez": lambda: Page(1 / 0)}, log) as server:  # type: ignore[arg-type] # it never gets that far
        assert (await asyncio.to_thread(ask, server.port, "/livez"))[0] == 500
    assert log.events == ["health.broke"]


async def test_the_address_is_free_again_after_the_end() -> None:
    """What served is gone with its context, and the port can be had again."""
    pages = {"/livez": lambda: Page(b"fine")}
    async with HealthServer(("127.0.0.1", 0), pages, RecordingLog()) as first:
        port = first.port
    async with HealthServer(("127.0.0.1", port), pages, RecordingLog()) as second:
        assert await asyncio.to_thread(ask, second.port, "/livez") == (200, "fine")


def silent(port: int) -> socket.socket:
    """Open a connection that begins a request and never ends it."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(b"GET /livez HTTP/1.1\r\n")
    return connection


async def test_slow_clients_keep_nobody_from_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """With many connections that never end their request, few are kept open, and a good one is answered."""
    monkeypatch.setattr(health, "_REQUEST_TIMEOUT", 600.0)  # none of them gives way by its age
    pages = {"/livez": lambda: Page(b"fine")}
    before = threading.active_count()
    async with HealthServer(("127.0.0.1", 0), pages, RecordingLog()) as server:
        with ExitStack() as stack:
            for _ in range(4 * health.MOST_CONNECTIONS):
                stack.enter_context(await asyncio.to_thread(silent, server.port))
            assert await asyncio.to_thread(ask, server.port, "/livez") == (200, "fine")
            await until(lambda: threading.active_count() <= before + 2 * health.MOST_CONNECTIONS)


async def test_a_request_that_drips_in_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a request is that of the whole, however regularly a byte of it comes."""
    monkeypatch.setattr(health, "_REQUEST_TIMEOUT", 0.3)
    async with HealthServer(("127.0.0.1", 0), {}, RecordingLog()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\n")

        async def drip() -> None:
            with suppress(ConnectionError):
                while True:
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.01)

        async with running(drip()):
            with suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()


async def answer_to(port: int, *pieces: bytes) -> bytes:
    """Send a request in pieces, and return the first line of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
    line = await reader.readline()
    writer.close()
    return line


@pytest.mark.parametrize(("more", "status"), [(-1, 200), (0, 200), (1, 431)], ids=["under", "at", "over"])
async def test_a_request_has_so_many_bytes(more: int, status: int) -> None:
    """A request of the largest size is answered, one that has a byte more is refused."""
    start, end = b"GET /livez HTTP/1.1\r\nA: ", b"\r\n\r\n"
    filler = b"x" * (health.LARGEST_REQUEST + more - len(start) - len(end))
    async with HealthServer(("127.0.0.1", 0), {"/livez": lambda: Page(b"fine")}, RecordingLog()) as server:
        line = await answer_to(server.port, start, filler, end)
        assert line.split()[1] == str(status).encode()


async def test_headers_without_end_cost_bounded_memory() -> None:
    """Of six megabytes of headers next to nothing is kept: each connection could fill the memory otherwise."""
    line = b"A: " + b"x" * 60_000 + b"\r\n"
    async with HealthServer(("127.0.0.1", 0), {}, RecordingLog()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        tracemalloc.start()
        try:
            writer.write(b"GET / HTTP/1.1\r\n")
            with suppress(ConnectionError):
                for _ in range(110):
                    writer.write(line)
                    await writer.drain()
                await reader.read()
            assert tracemalloc.get_traced_memory()[1] < 40 * health.LARGEST_REQUEST
        finally:
            tracemalloc.stop()
            writer.close()
