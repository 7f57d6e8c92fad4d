"""The commands, one module each; every one is thin and hands over to the part that does the work.

A command imports that part only when it is called: `--help`, or a health check every few seconds, would else pay
for all the others.
"""

from __future__ import annotations

import logging
import sys

import typer

from worker.cli import config, dead, topology
from worker.cli.asyncapi import asyncapi
from worker.cli.check import check
from worker.cli.common import root, status_of
from worker.cli.demo import demo
from worker.cli.health import health
from worker.cli.lookup import lookup
from worker.cli.run import run
from worker.cli.simulate import simulate
from worker.cli.submit import submit
from worker.cli.top import top
from worker.errors import WorkerError

app = typer.Typer(
    name="lcm-worker",
    help="Turns outcome-lookup jobs from RabbitMQ into normalized outcome lists, asked of LCM over a websocket.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.callback()(root)
for command in (run, check, lookup, submit, top, health, asyncapi, simulate, demo):
    app.command()(command)
for name, group in {"dead": dead.app, "topology": topology.app, "config": config.app}.items():
    app.add_typer(group, name=name)


def main() -> None:
    """Run the command line; exit status 2 for what the user has to put right first."""
    for library in ("aio_pika", "aiormq", "websockets"):
        # A command says by itself what went wrong. The worker's log has what they say, too.
        logging.getLogger(library).addHandler(logging.NullHandler())
    try:
        app(prog_name="lcm-worker")
    except WorkerError as error:
        for line in str(error).splitlines():
            print(f"lcm-worker: {line}", file=sys.stderr)
        sys.exit(status_of(error))
    except KeyboardInterrupt:
        sys.exit(130)
