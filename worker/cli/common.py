"""What several commands need: options and settings, an event loop, and where their lines go."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
import uvloop

from worker import __version__
from worker.cli.streams import hide_in_notes
from worker.common.durations import parse_duration
from worker.common.signals import on_stop_signal
from worker.common.text import printable, printable_json
from worker.contract.errors import FolderUnfit, SettingsError, TopologyError, WorkerError
from worker.settings import Scrubber, Settings, load

if TYPE_CHECKING:
    from worker.broker.topology import Topology

Result = TypeVar("Result")
# Seconds: a century. Dates that far from now can still be reckoned with.
_LONGEST = 36_500 * 86_400

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="TOML file of settings. Default: the file named by LCM_WORKER_CONFIG, else none.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON lines, as in a pipe, also on a terminal.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask; for scripts.")]


def duration(text: str) -> float:
    """Parse the value of an option that is a duration; for the option's `parser`."""
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if seconds > _LONGEST:
        raise typer.BadParameter(f"must be at most {_LONGEST // 86_400}d")
    return seconds


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lcm-worker {__version__}")
        raise typer.Exit


def root(
    context: typer.Context,
    config: ConfigOption = None,
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Keep the options that are given before the command."""
    context.obj = config


def settings_of(context: typer.Context, config: Path | None) -> Settings:
    """Load the settings from the environment and the file of `--config`, given before or after the command.

    From then on, standard error shows none of their secrets.

    Raises:
        SettingsError: a setting is wrong; the text has a line for each mistake.
    """
    settings = load(config or context.obj, os.environ)
    hide_in_notes(Scrubber(settings))
    return settings


def topology_in_force(settings: Settings) -> Topology:
    """Return the exchanges, queues and bindings that these settings ask for."""
    from worker.broker.topology import topology_of

    return topology_of(settings.broker, fleet=settings.lcm.has_fleet_limit)


def run_async(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine on a loop of its own."""
    return uvloop.run(coroutine)


def run_until_signalled(coroutine: Coroutine[Any, Any, Result]) -> Result | None:
    """Run a coroutine on a loop of its own. SIGINT, SIGTERM and SIGHUP cancel it; the result is None then."""

    async def cancelled_by_signals() -> Result | None:
        running = asyncio.ensure_future(coroutine)
        with on_stop_signal(running.cancel):
            await asyncio.wait({running})
        return None if running.cancelled() else running.result()

    return run_async(cancelled_by_signals())


def run_to_the_end(action: Coroutine[Any, Any, None]) -> None:
    """Run an action until it ends, or with exit status 130 until a signal."""

    async def completed() -> bool:
        await action
        return True

    if not run_until_signalled(completed()):
        raise typer.Exit(130)


def status_of(error: WorkerError) -> int:
    """Return the exit status for an error: 2 where the user has to correct something first, else 1."""
    return 2 if isinstance(error, SettingsError | TopologyError | FolderUnfit) else 1


def on_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()


def print_line(line: bytes) -> None:
    """Print a line of JSON to standard output at once, in the encoding that it has, whatever the locale.

    On a terminal with an escape for each character that is not printable.
    """
    sys.stdout.buffer.write((printable_json(line) if on_terminal() else line) + b"\n")
    sys.stdout.buffer.flush()


def note(text: str) -> None:
    """Print a line about the command itself to standard error."""
    print(f"lcm-worker: {printable(text)}", file=sys.stderr)
