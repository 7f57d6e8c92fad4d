"""`lcm-worker status`: how the work stands, by what the broker tells."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.common import (
    ConfigOption,
    duration,
    on_terminal,
    run_async,
    run_until_signalled,
    settings_of,
)
from worker.cli.management import ManagementOption, ManagementPasswordOption, management_url
from worker.settings import Scrubber

_EVERY = 2.0
_SHORTEST = 0.1


def status(
    context: typer.Context,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again and again, until q or Ctrl-C; in a pipe a line each.")
    ] = False,
    every: Annotated[
        float | None,
        typer.Option(
            metavar="DURATION",
            parser=duration,
            help="With --watch, the time between two looks: 500ms, 10s, 1m. Default: 2s.",
            show_default=False,
        ),
    ] = None,
    reasons: Annotated[
        bool,
        typer.Option(
            "--reasons",
            help="Count the dead letters by error code. It reads them, as `dead list` does: each look counts as one"
            " of the 1,000,000 deliveries that each letter may have.",
        ),
    ] = False,
    management: ManagementOption = None,
    management_password_file: ManagementPasswordOption = None,
    config: ConfigOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document, as in a pipe, also on a terminal.")
    ] = False,
) -> None:
    """Tell how the work stands, and why nothing happens.

    How many jobs, results, retries, undelivered results and dead letters wait, who consumes them, and what is in the
    way, the most urgent first. It asks the broker alone, takes no message and changes nothing. What it can't know is
    `unknown`, in JSON null.

    Exit status 0 when the work can go on, 1 when the broker is away or has an alarm, or jobs wait that no worker
    takes, or no queue gets results, 2 when settings are wrong or a passive worker misses a queue. --watch ends with 0.

    Example: lcm-worker status --watch --every 5s
    """
    if every is not None and not watch:
        raise typer.BadParameter("--every is for --watch: give both, or neither")
    if every is not None and every < _SHORTEST:
        raise typer.BadParameter("--every must be at least 100ms")
    if watch and reasons:
        raise typer.BadParameter(
            "--reasons counts a delivery of each dead letter: it looks once, without --watch"
        )

    from worker.cli.status.gathering import Gatherer
    from worker.cli.status.run import Output, Watch, look_once, print_each
    from worker.cli.terminal import Terminal

    settings = settings_of(context, config)
    url = management_url(settings, management, management_password_file)
    gatherer = Gatherer(settings, url)
    terminal = Terminal() if on_terminal() and not as_json else None
    output = Output(gatherer, Scrubber(settings, url), terminal)
    if not watch:
        raise typer.Exit(output.tell(run_async(look_once(gatherer, reasons=reasons))))
    if terminal is None:
        run_until_signalled(print_each(output, every or _EVERY))
        return
    live = Watch(output, terminal)
    run_until_signalled(live.run(every or _EVERY))
    if live.last is not None:
        output.tell(live.last)
