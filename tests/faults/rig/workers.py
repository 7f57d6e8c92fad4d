"""A worker as it runs in production: a process of its own, with settings from the environment."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import msgspec

from tests.support.patience import PATIENCE

_LONG_LINE = 4 * 1024 * 1024
_CHECKOUT = Path(__file__).parents[3]


class WorkerEnded(Exception):
    """The worker ended while something was still expected of it; the text holds its last words."""


class WorkerProcess:
    """`lcm-worker run` with these settings, such as `{"broker.url": url, "lcm.sessions": 4}`.

    An asynchronous context manager that starts it, and kills what is left of it at the end. `log` holds the lines
    that it has logged; what is no JSON object stands there as `{"event": "not-json", "text": …}`.
    """

    def __init__(self, settings: Mapping[str, object]) -> None:
        self.log: list[dict[str, Any]] = []
        self._env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
        # Whoever reads the log must not have it in colours because somebody watches the tests.
        for name, value in {"log.format": "json", **settings}.items():
            self._env[f"LCM_WORKER_{name.replace('.', '__').upper()}"] = _text(value)
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._log_pipe: asyncio.ReadTransport | None = None
        self._ready = asyncio.Event()

    def __repr__(self) -> str:
        state = "not started" if self._process is None else f"pid {self.pid}, status {self.returncode}"
        return f"<WorkerProcess {state}, {len(self.log)} lines>"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            if self._process.returncode is None:
                self.kill()
            await self.wait()

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._running.returncode

    async def start(self) -> None:
        """Start the process, without waiting until it is ready; once only."""
        if self._process is not None:
            raise RuntimeError(f"{self!r} was started before: make a new one")
        loop = asyncio.get_running_loop()
        ours, theirs = os.pipe()
        stream = asyncio.StreamReader(_LONG_LINE)
        # A pipe of our own, since the library's can't be left unread.
        self._log_pipe, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(ours, "rb")
        )
        self._process = await asyncio.create_subprocess_exec(
            *_dying_with_us(),
            sys.executable,
            "-m",
            "worker",
            "run",
            cwd=_CHECKOUT,
            env=self._env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._reading = loop.create_task(self._read(stream))

    async def started(self, deadline: float = 60.0) -> None:
        """Wait until it says that it is ready.

        Raises:
            WorkerEnded: it ended before that, or the deadline passed.
        """
        assert self._reading is not None
        ready = asyncio.get_running_loop().create_task(self._ready.wait())
        try:
            await asyncio.wait(
                {ready, self._reading}, timeout=PATIENCE * deadline, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            ready.cancel()
        if not self._ready.is_set():
            raise WorkerEnded(f"{self!r} did not become ready within {deadline:g} s:\n{self.last_words}")

    def kill(self) -> None:
        """Send SIGKILL, which ends even a paused process."""
        self._send(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM: the first asks for an orderly end, the second for one at once."""
        self._send(signal.SIGTERM)

    def pause(self) -> None:
        """Freeze the process."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process go on."""
        self._send(signal.SIGCONT)

    def stall_log(self) -> None:
        """Read no more of the log until `read_log`: the pipe fills."""
        assert self._log_pipe is not None
        self._log_pipe.pause_reading()

    def read_log(self) -> None:
        """Read on where `stall_log` stopped."""
        assert self._log_pipe is not None
        self._log_pipe.resume_reading()

    @property
    def peak_memory(self) -> int:
        """The most memory that it has had so far, in bytes."""
        found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found
        return int(found[1]) * 1024

    async def wait(self) -> int:
        """Wait for the end of the process and of its log, and return the exit status."""
        status = await self._running.wait()
        if self._reading is not None:
            await self._reading
        return status

    def of(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of one event."""
        return [line for line in self.log if line["event"] == event]

    @property
    def last_words(self) -> str:
        """The end of the log, for an error message."""
        return (
            "\n".join(msgspec.json.encode(line).decode() for line in self.log[-30:]) or "(it logged nothing)"
        )

    @property
    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the worker was not started")
        return self._process

    def _send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self._running.send_signal(number)

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            entry = _entry(line)
            self.log.append(entry)
            if entry["event"] == "worker.ready":
                self._ready.set()


def _entry(line: bytes) -> dict[str, Any]:
    try:
        entry = msgspec.json.decode(line)
    except msgspec.DecodeError:
        entry = None
    if isinstance(entry, dict) and "event" in entry:
        return entry
    return {"event": "not-json", "text": line.decode(errors="replace").rstrip("\n")}


def _text(value: object) -> str:
    if isinstance(value, bool | list | tuple | dict):
        return msgspec.json.encode(value).decode()
    return str(value)


def _dying_with_us() -> list[str]:
    """Return the prefix of a command that ends, where the system allows for that, even if this process is killed."""
    setpriv = shutil.which("setpriv")
    # BusyBox has a setpriv too, without this option.
    if setpriv is None or Path(setpriv).resolve().name != "setpriv":
        return []
    return [setpriv, "--pdeathsig", "KILL", "--"]
