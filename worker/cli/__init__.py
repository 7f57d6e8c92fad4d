"""The command line: all commands in one Typer app, and `main`, which runs it.

A command is a module, or a folder where it is a program of its own. There, `options.py` holds the command as users
type it, its options and their validation; what it does is in `run.py` (`actions.py` for the four of `dead` and of
`undelivered`, `live.py` for `top`) and in helpers named after what they know.

Commands import what they need only when they are called, since `--help`, or a health check every few seconds, would
otherwise load the dependencies of all commands.
"""

from __future__ import annotations

import logging
import sys

import typer

from worker.cli import topology
from worker.cli.asyncapi import asyncapi
from worker.cli.check import check
from worker.cli.common import note, root, status_of
from worker.cli.config import options as config
from worker.cli.dead import options as dead
from worker.cli.demo.options import demo
from worker.cli.health import health
from worker.cli.lookup.options import lookup
from worker.cli.run import run
from worker.cli.sandbox import sandbox
from worker.cli.simulate import simulate
from worker.cli.status.options import status
from worker.cli.streams import OutputLost, standard_streams
from worker.cli.submit.options import submit
from worker.cli.top.options import top
from worker.cli.undelivered import options as undelivered
from worker.contract.errors import WorkerError
from worker.settings import log_no_keys

app = typer.Typer(
    name="lcm-worker",
    help="Turns outcome-lookup jobs from RabbitMQ into normalized outcome lists, asked of LCM over a websocket.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.callback()(root)
for command in (run, check, status, lookup, submit, top, health, asyncapi, simulate, demo, sandbox):
    app.command()(command)
groups = {"dead": dead.app, "undelivered": undelivered.app, "topology": topology.app, "config": config.app}
for name, group in groups.items():
    app.add_typer(group, name=name)


def main() -> None:
    """Run the command line. Exit status 2 where the user has to correct something first, 130 when interrupted."""
    log_no_keys()
    for library in ("aio_pika", "aiormq", "websockets"):
        # Without a handler, Python prints their warnings to standard error, beside the command's own notes.
        logging.getLogger(library).addHandler(logging.NullHandler())
    with standard_streams():
        try:
            app(prog_name="lcm-worker")
        except OutputLost:
            pass  # told where the streams are left
        except WorkerError as error:
            for line in error.lines:
                note(line)
            sys.exit(status_of(error))
        except KeyboardInterrupt:
            sys.exit(130)
