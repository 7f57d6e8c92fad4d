"""Real processes of the command, for the tests that look at one from outside."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgspec

from tests.support.patience import PATIENCE
from tests.support.waiting import until

COMMAND = Path(sys.executable).with_name("lcm-worker")
_DEADLINE = 60.0 * PATIENCE


def environment(settings: Mapping[str, object]) -> dict[str, str]:
    """Return an environment without any settings but these: `{"lcm.url": …}`."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("LCM_WORKER_", "COLUMNS"))
    }
    ours = {f"LCM_WORKER_{name.upper().replace('.', '__')}": str(value) for name, value in settings.items()}
    return kept | {"LC_ALL": "C.UTF-8", "TERM": "xterm"} | ours


@dataclass(frozen=True)
class Ended:
    """What a command that ran to its end left behind."""

    status: int
    out: str
    err: str


@asynccontextmanager
async def ending(process: asyncio.subprocess.Process) -> AsyncIterator[asyncio.subprocess.Process]:
    """Give a process, and kill it at the end where it has not ended by itself."""
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def command(*arguments: str | Path, told: str | bytes = b"", **settings: object) -> Ended:
    """Run `lcm-worker` to its end, with `told` as its input; settings as `lcm__url=…`."""
    return await program(COMMAND, *arguments, told=told, **settings)


async def program(
    path: str | Path, *arguments: str | Path, told: str | bytes = b"", **settings: object
) -> Ended:
    """Run any program to its end, likewise."""
    process = await asyncio.create_subprocess_exec(
        path,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(_dotted(settings)),
    )
    async with ending(process), asyncio.timeout(_DEADLINE):
        out, err = await process.communicate(told.encode() if isinstance(told, str) else told)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def on_terminal(
    *arguments: str,
    columns: int = 80,
    program: str | Path = COMMAND,
    told: bytes = b"",
    meanwhile: Coroutine[Any, Any, object] | None = None,
    **settings: object,
) -> Ended:
    """Run `lcm-worker`, or any program, to its end on a terminal, of which `out` holds everything.

    Standard input is the terminal as well, or a pipe that holds `told`. With `meanwhile` it ends by SIGTERM after that.
    """
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 200, columns, 0, 0))
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        stdin=asyncio.subprocess.PIPE if told else follower,
        stdout=follower,
        stderr=follower,
        env=environment(_dotted(settings)),
    )
    os.close(follower)
    try:
        async with asyncio.timeout(_DEADLINE):
            if process.stdin is not None:
                process.stdin.write(told)
                process.stdin.close()
            reading = asyncio.ensure_future(asyncio.to_thread(_read_terminal, leader))
            if meanwhile is not None:
                await meanwhile
                process.terminate()
            shown = await reading
            status = await process.wait()
    finally:
        os.close(leader)
    return Ended(status, shown.decode().replace("\r\n", "\n"), "")


def _read_terminal(leader: int) -> bytes:
    shown = b""
    while True:
        try:
            more = os.read(leader, 65536)
        except OSError:  # the last process that had it open is gone
            return shown
        if not more:
            return shown
        shown += more


class Worker:
    """A process of `lcm-worker run`, whose log is read as it comes; used as `async with`."""

    def __init__(self, **settings: object) -> None:
        self.log: list[dict[str, Any]] = []
        self.others: list[str] = []
        self.out = b""
        self.err = b""
        self._settings = {"worker__name": "w-1"} | settings
        self._process: asyncio.subprocess.Process | None = None
        self._reading: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        process = self._process = await asyncio.create_subprocess_exec(
            COMMAND,
            "run",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(_dotted(self._settings)),
        )
        assert process.stderr is not None
        assert process.stdout is not None
        self._reading = [
            asyncio.ensure_future(self._read_log(process.stderr)),
            asyncio.ensure_future(self._read_out(process.stdout)),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.ended()

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The process, once started."""
        assert self._process is not None
        return self._process

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for the end, and for all that it wrote; return the exit status."""
        async with asyncio.timeout(_DEADLINE):
            status = await self.process.wait()
            await asyncio.gather(*self._reading, return_exceptions=True)
        return status

    def of(self, event: str) -> list[dict[str, Any]]:
        """The lines of this event, or of those that begin with `job.`, for example."""
        return [
            line
            for line in self.log
            if line["event"] == event or (event[-1] == "." and line["event"].startswith(event))
        ]

    async def logged(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait for so many lines of an event, and return them; fail where the process ends before."""

        def told() -> bool:
            return len(self.of(event)) >= count

        await until(lambda: told() or self.process.returncode is not None, deadline=_DEADLINE)
        if not told():
            await self.ended()
            assert told(), f"it ended without {event}: {self.err.decode()}"
        return self.of(event)

    async def close_log(self) -> None:
        """Go away, as a log reader that crashed: the worker writes into a closed pipe from now on."""
        self._reading[0].cancel()
        transport = self.process._transport  # type: ignore[attr-defined] # asyncio has no other way to it
        transport.get_pipe_transport(2).close()

    async def _read_log(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            self.err += line
            if line.startswith(b"{"):
                self.log.append(msgspec.json.decode(line))
            else:
                self.others.append(line.decode().rstrip("\n"))

    async def _read_out(self, stream: asyncio.StreamReader) -> None:
        self.out = await stream.read()


@asynccontextmanager
async def worker(broker_url: str, lcm_url: str, **settings: object) -> AsyncIterator[Worker]:
    """Give a worker that has said that it is ready."""
    async with Worker(broker__url=broker_url, lcm__url=lcm_url, **settings) as started:
        await started.logged("worker.ready")
        yield started


def _dotted(settings: Mapping[str, object]) -> dict[str, object]:
    return {name.replace("__", "."): value for name, value in settings.items()}
