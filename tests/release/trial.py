"""Runs an installed `lcm-worker`: an account is looked up at its own simulated LCM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from tests.support.commands import ending, environment, program

_ACCOUNT = "18|1|2|0|0|44|274"


class TrialFailed(Exception):
    """The command did something else than it should; the text says what."""


async def attempt(command: Path, version: str) -> str:
    """Return one line that says what worked; TrialFailed where something did not."""
    told = await _output(command, "--version")
    if told != f"lcm-worker {version}\n":
        raise TrialFailed(f"{command} --version says {told!r}, not {version}")
    async with _simulator(command) as url:
        result = msgspec.json.decode(await _output(command, "lookup", _ACCOUNT, lcm__url=url))
    if result["status"] != "succeeded" or not result["outcomes"]:
        raise TrialFailed(f"{command} lookup gives {result}")
    return f"{command} {version} looked up {len(result['outcomes'])} outcomes"


async def _output(command: Path, *arguments: str, **settings: str) -> str:
    ended = await program(command, *arguments, **settings)
    if ended.status:
        raise TrialFailed(f"{command} {' '.join(arguments)} ends with status {ended.status}: {ended.err}")
    return ended.out


@asynccontextmanager
async def _simulator(command: Path) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        command,
        "simulate",
        "--port",
        "0",
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment({}),
    )
    async with ending(process):
        assert process.stderr is not None
        line = (await process.stderr.readline()).decode().rstrip()
        what, _, url = line.rpartition(" on ")
        if what != "LCM simulator":
            raise TrialFailed(f"{command} simulate says {line!r}")
        yield url
