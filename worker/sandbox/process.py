"""The processes of a private RabbitMQ node: started, ended and asked without a trace of them left behind."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from worker.sandbox.server import search_path

_HEADER = b"AMQP\x00\x00\x09\x01"
_STOP_DEADLINE = 20.0
_COMMAND_DEADLINE = 90.0
_POLL = 0.05


class CommandFailed(Exception):
    """A command ended with an error or not in time; the text has the command and what it printed."""


def spawn(
    command: Sequence[Path | str], *, folder: Path, env: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    """Start a process that dies, where the system allows for that, with the thread that called this."""
    setpriv = shutil.which("setpriv", path=search_path())
    # BusyBox has a setpriv too, without this option.
    knows_how = setpriv and Path(setpriv).resolve().name == "setpriv"
    prefix = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv and knows_how else []
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - the commands are the sandbox's own
            [*prefix, *command],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C in the terminal is for the caller to handle
        )


async def end(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM) -> None:
    """End a process of `spawn`, even a frozen one, and wait for it.

    It is killed with all that it has started by SIGKILL, where it does not end in time, and where this is cancelled.
    """
    if how == signal.SIGKILL:
        _kill(process)
    process.send_signal(how)
    process.send_signal(signal.SIGCONT)
    try:
        async with asyncio.timeout(_STOP_DEADLINE):
            # Polled, since the process belongs to no event loop: another one may have started it.
            while process.poll() is None:  # noqa: ASYNC110
                await asyncio.sleep(_POLL)
    except TimeoutError:
        pass  # the last resort follows
    finally:
        if process.poll() is None:
            _kill(process)
            process.wait()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with its session: a script that is killed alone leaves the programs that it runs."""
    if process.poll() is None:  # else its number may be another's by now
        os.killpg(process.pid, signal.SIGKILL)


async def ask(command: Sequence[Path | str], *, folder: Path, env: Mapping[str, str], told: str = "") -> str:
    """Run a command to its end, with `told` as its standard input, and return what it prints. Raises CommandFailed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=env,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    shown = " ".join(map(str, command))
    try:
        async with asyncio.timeout(_COMMAND_DEADLINE):
            output = (await process.communicate(told.encode()))[0].decode(errors="replace")
    except TimeoutError:
        raise CommandFailed(f"`{shown}` did not end within {_COMMAND_DEADLINE:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise CommandFailed(f"`{shown}` ended with status {process.returncode}:\n{output.strip()}")
    return output


async def answers(url: str) -> bool:
    """Tell whether a broker answers at this AMQP URL: accepts a connection and replies to AMQP's header in 2 s."""
    parts = urlsplit(url)
    secure = parts.scheme == "amqps"
    with suppress(OSError, EOFError, TimeoutError):
        async with asyncio.timeout(2):
            port = parts.port or (5671 if secure else 5672)
            reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure or None)
            try:
                writer.write(_HEADER)
                # A method frame (connection.start), or the header of the version the broker would rather speak.
                return await reader.readexactly(1) in {b"\x01", b"A"}
            finally:
                writer.transport.abort()
    return False
