"""What several commands need: the settings, and an event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import uvloop

from worker import __version__
from worker.durations import parse_duration
from worker.errors import SettingsError, TopologyError, WorkerError
from worker.settings import Settings, load

Result = TypeVar("Result")

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="TOML file of settings. Default: the file named by LCM_WORKER_CONFIG, else none.",
        show_default=False,
    ),
]


def duration(text: str) -> float:
    """Read the value of an option that is a duration, as its `parser`."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


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
    """Take the options that stand before the command."""
    context.obj = config


def settings_of(context: typer.Context, config: Path | None) -> Settings:
    """Load the settings from `--config`, given before or after the command, and the environment.

    Raises:
        SettingsError: with all mistakes.
    """
    return load(config or context.obj, os.environ)


def run_async(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine on a loop of its own."""
    return uvloop.run(coroutine)


def run_until_signalled(coroutine: Coroutine[Any, Any, Result]) -> Result | None:
    """Run a coroutine on a loop of its own; SIGINT and SIGTERM cancel it, and then the result is None."""

    async def cancelled_by_signals() -> Result | None:
        running = asyncio.ensure_future(coroutine)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, running.cancel)
        await asyncio.wait({running})
        return None if running.cancelled() else running.result()

    return run_async(cancelled_by_signals())


def status_of(error: WorkerError) -> int:
    """Return the exit status of a command that ended by this error: 2 for what the user has to put right first."""
    return 2 if isinstance(error, SettingsError | TopologyError) else 1


def on_terminal() -> bool:
    """Whether standard output is looked at by a person."""
    return sys.stdout.isatty()
