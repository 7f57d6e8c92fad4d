"""The commands of the README do what it says, run as they stand there."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from typer.main import get_command

from tests.integration.observability.test_http import free_address
from tests.support.commands import environment
from tests.support.patience import PATIENCE
from tests.support.waiting import until
from worker.cli import app

TOP = Path(__file__).parents[2]
README = (TOP / "README.md").read_text()
_DEADLINE = 60.0 * PATIENCE


def examples(heading: str) -> list[str]:
    """Return the shell lines under a heading, without their comments."""
    text = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line.partition("  #")[0].rstrip() for block in blocks for line in block.splitlines()]


class Shell:
    """Runs lines as typed in the checkout, on an LCM and a broker of the test's own."""

    def __init__(self, folder: Path, broker_url: str) -> None:
        # What a fresh checkout has, without writing into this one.
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "config").symlink_to(TOP / "config")
        self._folder = folder
        self._broker = broker_url.removesuffix("/")
        self._lcm = free_address()

    async def start(self, line: str) -> asyncio.subprocess.Process:
        """Start a line, with the broker and LCM of its defaults replaced."""
        line = line.replace(
            "lcm-worker simulate", f"lcm-worker simulate --port {self._lcm.partition(':')[2]}"
        )
        line = line.replace("amqp://guest:guest@127.0.0.1:5672", self._broker)
        return await asyncio.create_subprocess_shell(
            line,
            cwd=self._folder,
            env=environment({"broker.url": self._broker, "lcm.url": f"ws://{self._lcm}/"}),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )

    async def run(self, line: str) -> tuple[int | None, str]:
        """Run a line to its end; return its status and all that it printed."""
        process = await self.start(line)
        async with asyncio.timeout(_DEADLINE):
            said, _ = await process.communicate()
        return process.returncode, said.decode()

    @asynccontextmanager
    async def meanwhile(self, line: str) -> AsyncIterator[None]:
        """Have a line run in a terminal of its own, so to speak, until the end."""
        process = await self.start(line)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            async with asyncio.timeout(_DEADLINE):
                await process.communicate()


@pytest.mark.timeout_s(180)
async def test_the_examples_work_in_their_order(vhost: str, tmp_path: Path) -> None:
    """Each line under `Use it` and `Messages` succeeds, and shows what it is there to show."""
    simulate, check, run, lookup, submit, dead = examples("Use it")
    publish, get = examples("Messages")
    shell = Shell(tmp_path, vhost)
    async with shell.meanwhile(simulate):
        await until(lambda: _succeeds(shell, lookup), deadline=_DEADLINE)
        assert "18|1|2|0|0|44|274" in (await shell.run(lookup))[1]
        assert (await shell.run(check))[0] == 0
        async with shell.meanwhile(run):
            await until(lambda: _succeeds(shell, submit), deadline=_DEADLINE)
            rows = (tmp_path / "results.csv").read_text().splitlines()
            assert len(rows) > 3
            assert rows[0].startswith("job_id,account_number,status")
            assert (await shell.run(dead))[0] == 0
            for _ in range(3):  # the results of what was submitted
                assert '"status":"succeeded"' in (await shell.run(get))[1]
            assert (await shell.run(publish))[0] == 0
            await until(lambda: _succeeds(shell, get), deadline=_DEADLINE)


async def _succeeds(shell: Shell, line: str) -> bool:
    return (await shell.run(line))[0] == 0


def test_the_commands_of_the_table_exist() -> None:
    """The table under `Use it` lists every command there is, and no other."""
    table = README.split("\n## Use it\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {word.split()[0] for row in rows for word in re.findall(r"`([^`]+)`", row)}
    commands = get_command(app).commands  # type: ignore[attr-defined] # a group has them
    inner = {name for command in commands.values() for name in getattr(command, "commands", {})}
    assert named - inner == set(commands)
