"""Asking over HTTP ends in time and within a size, whatever answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from http.client import HTTPConnection, HTTPException, IncompleteRead
from itertools import chain, repeat

import pytest

from tests.support.commands import command
from worker.common.asking import ask

HEAD = b"HTTP/1.1 200 OK\r\n"
OK = HEAD + b"Content-Length: 100000\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS = HEAD + b"\r\n"


@asynccontextmanager
async def answering(words: Iterable[bytes], *, drip: float = 0) -> AsyncIterator[str]:
    """Give the address of a server that says this, with a pause after each, for as long as anybody is there."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # What is left unread has the answer's end come as a reset.
            await reader.readuntil(b"\r\n\r\n")
            for each in words:
                writer.write(each)
                await writer.drain()
                await asyncio.sleep(drip)
            writer.close()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def asked(address: str, *, most: int = 1024, within: float = 30.0) -> tuple[int, bytes]:
    """Return the status and the body of an answer."""

    def get() -> tuple[int, bytes]:
        with closing(HTTPConnection(address, timeout=within)) as connection:
            answer, body = ask(connection, "/", most=most)
            return answer.status, body

    return await asyncio.to_thread(get)


@pytest.mark.parametrize("fits", [True, False], ids=["at-the-bound", "over-it"])
@pytest.mark.parametrize("length", [True, False], ids=["of-a-length", "to-the-end"])
async def test_an_answer_has_so_many_bytes(length: bool, fits: bool) -> None:
    """Head and body count together, whether the length is announced or the answer ends with the connection."""
    body = bytes(1500 if fits else 1501)
    head = HEAD + (b"Content-Length: %d\r\n" % len(body) if length else b"")
    head += b"X: ".ljust(2048 - 1500 - len(head) - 4, b"x") + b"\r\n\r\n"
    async with answering([head + body]) as address:
        if fits:
            assert await asked(address, most=2048) == (200, body)
            return
        with pytest.raises(OSError, match="the answer is longer than 2 KiB"):
            await asked(address, most=2048)


@pytest.mark.parametrize(
    "body", [b"Content-Length: 1%s\r\n\r\n", CHUNKED + b"f%s\r\n"], ids=["length", "chunk"]
)
async def test_what_is_announced_takes_no_room(body: bytes) -> None:
    """Room is made for as many bytes as may come, and not for as many as the answer is said to have."""
    async with answering(chain([HEAD + body % (b"0" * 20)], repeat(b"x"))) as address:
        with pytest.raises(OSError, match="the answer is longer than 1 KiB"):
            await asked(address)


@pytest.mark.parametrize(
    "body", [b"Content-Length: 9\r\n\r\nbody", CHUNKED + b"9\r\nbody"], ids=["length", "chunk"]
)
async def test_half_an_answer_is_none(body: bytes) -> None:
    """What ends before it is whole is an error, and not a shorter answer; a whole one in chunks is taken."""
    async with answering([HEAD + body]) as address:
        with pytest.raises(IncompleteRead):
            await asked(address)
    async with answering([HEAD + CHUNKED + b"4\r\nbody\r\n", b"0\r\n\r\n"]) as address:
        assert await asked(address) == (200, b"body")


@pytest.mark.parametrize(
    "first", [HEAD, HEAD + b"X: ", OK, ENDLESS], ids=["head", "header", "body-of-a-length", "body"]
)
async def test_an_answer_that_drips_in_is_given_up(first: bytes) -> None:
    """The time is for the whole answer, and not for each of its bytes."""
    async with answering(chain([first], repeat(b"x")), drip=0.01) as address:
        with pytest.raises(TimeoutError, match=r"no whole answer within 0\.2 s"):
            await asked(address, within=0.2, most=2**20)


async def test_an_answer_that_does_not_come_is_given_up() -> None:
    """Silence is told in the same words."""
    async with answering(repeat(b""), drip=0.01) as address:
        with pytest.raises(TimeoutError, match=r"no whole answer within 0\.2 s"):
            await asked(address, within=0.2)


@pytest.mark.parametrize(
    ("words", "drip", "patience", "said"),
    [
        (chain([ENDLESS], repeat(bytes(2**16))), 0, "50", "the answer is longer than 64 KiB"),
        (chain([OK], repeat(b"x")), 0.01, "1", "no whole answer within 1 s"),
    ],
    ids=["endless", "dripping"],
)
async def test_health_ends_whatever_answers(
    words: Iterable[bytes], drip: float, patience: str, said: str
) -> None:
    """`health` says what is wrong with the answer, and the worker counts as not live."""
    async with answering(words, drip=drip) as address:
        ended = await command("health", "--timeout", patience, health__listen=address)
    assert ended.status == 1
    assert f"no answer from {address}/livez: {said}" in ended.err


async def test_parts_of_a_length_that_is_none_are_no_http() -> None:
    """A chunk of less than nothing is told as any other answer that is no HTTP."""
    words = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n"]
    async with answering(words) as address:
        with pytest.raises(HTTPException, match="no length"):
            await asked(address)


@pytest.mark.parametrize("body", ["", "[" * 100, "<html>", "{}", '{"ok":"yes"}'])
async def test_health_takes_nothing_but_a_worker_for_one(body: str) -> None:
    """Another service may have the address: that it answers says nothing about a worker."""
    async with answering([HEAD + b"Content-Length: %d\r\n\r\n" % len(body), body.encode()]) as address:
        ended = await command("health", health__listen=address)
    assert (ended.status, ended.out) == (1, f"{body}\n")
    assert "no worker answers at" in ended.err
