"""Processes that are measured: started, their output drained, their CPU time and memory read, ended."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

CHECKOUT = Path(__file__).parents[2]
_READY_WITHIN = 120.0
_END_WITHIN = 60.0
_LONGEST = 3600.0
_LOOK = 0.02  # seconds between two looks at the memory of a process
_PEAK = re.compile(r"VmHWM:\s*(\d+) kB")
_T = TypeVar("_T")


class ProcessFailed(Exception):
    """A process that is measured ended, or did not become ready; the text holds its last words."""


class Process:
    """A process whose standard error is read as it comes: `async with` starts it and ends it by SIGTERM.

    Args:
        command: the program and its arguments.
        ready: what it writes once it is ready.
        settings: environment variables; it gets no other but PATH and the locale.
        keep: whether to keep all lines, rather than the last ones alone.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        ready: bytes,
        settings: Mapping[str, str] | None = None,
        keep: bool = False,
    ) -> None:
        self.lines: list[bytes] = []
        self.began = 0.0
        self._command = command
        self._env = environment(settings or {})
        self._keep = keep
        self._awaited: list[tuple[bytes, asyncio.Future[float]]] = []
        self._ready = self.says(ready)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start it, without waiting until it is ready."""
        self.began = time.monotonic()
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=CHECKOUT,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert self._process.stderr is not None
        self._draining = asyncio.create_task(self._drain(self._process.stderr))

    @property
    def pid(self) -> int:
        return self._process.pid

    def says(self, words: bytes) -> asyncio.Future[float]:
        """Await the next line with these words; the result is when it was read, by the system's monotonic clock."""
        heard: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._awaited.append((words, heard))
        return heard

    async def ready(self) -> float:
        """Wait until it has said that it is ready, and return when it did. Raises ProcessFailed."""
        return await self.alive_until(asyncio.wait_for(asyncio.shield(self._ready), _READY_WITHIN))

    async def alive_until(self, work: Awaitable[_T]) -> _T:
        """Wait for something that needs this process. Raises ProcessFailed where it ends before that, or it hangs."""
        working = asyncio.ensure_future(work)
        await asyncio.wait({working, self._draining}, timeout=_LONGEST, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            working.cancel()
            raise ProcessFailed(f"{self._command} has ended, or hangs:\n{self.last_words}")
        return await working

    async def stop(self) -> int:
        """End it by SIGTERM, by SIGKILL where that takes too long, and return its exit status."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), _END_WITHIN)
        except TimeoutError:
            self._process.kill()
        await self._draining
        return await self._process.wait()

    @property
    def last_words(self) -> str:
        return b"\n".join(self.lines[-20:]).decode(errors="replace") or "(it said nothing)"

    async def _drain(self, stream: asyncio.StreamReader) -> None:
        rest = b""
        while read := await stream.read(1 << 16):
            *lines, rest = (rest + read).split(b"\n")
            self.lines += lines
            self._hear(lines)
            if not self._keep:
                del self.lines[:-20]
        self.lines += [rest] if rest else []

    def _hear(self, lines: Sequence[bytes]) -> None:
        for awaited in self._awaited.copy():
            words, heard = awaited
            if any(words in line for line in lines):
                self._awaited.remove(awaited)
                if not heard.done():
                    heard.set_result(time.monotonic())


@dataclass(frozen=True)
class Ended:
    """What a command took: seconds on the clock and of CPU, and its largest resident set in bytes."""

    seconds: float
    cpu: float
    peak: int


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"} | dict(settings)


def run(command: Sequence[str | Path], settings: Mapping[str, str] | None = None) -> Ended:
    """Run a command to its end. Raises ProcessFailed where it ends with an error."""
    began = time.monotonic()
    process = subprocess.Popen(  # noqa: S603 - the benchmark's own commands
        command,
        cwd=CHECKOUT,
        env=environment(settings or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    peak = 0
    while not select.select([process.stderr], [], [], _LOOK)[0]:
        peak = max(peak, _peak(process.pid))
    said = process.stderr.read()
    # Not by the library, which does not tell what the process has used.
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        raise ProcessFailed(f"{command} ended with status {process.returncode}: {said.decode()[-1000:]}")
    return Ended(seconds, used.ru_utime + used.ru_stime, peak)


def _peak(pid: int) -> int:
    """Return the largest resident set of a process in bytes, 0 where it has ended.

    Not by `wait4`, whose figure is at least the size that this process had when it made that one.
    """
    try:
        found = _PEAK.search(Path(f"/proc/{pid}/status").read_text())
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else 0


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used in all its threads, to the nanosecond.

    Linux has a clock for each process; its number is made of the id as by `clock_getcpuclockid`, which Python lacks.
    """
    return time.clock_gettime((~pid << 3) | 2)


def resident(pid: int) -> int:
    """Return how many bytes of memory a process has at this moment."""
    found = re.search(r"VmRSS:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024
