"""`lcm-worker lookup`: straight to LCM, without a broker."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.common import ConfigOption, on_terminal, run_async, settings_of
from worker.errors import SessionNotOpened

if TYPE_CHECKING:
    from worker.cli.asking import Found


def lookup(
    context: typer.Context,
    accounts: Annotated[
        list[str],
        typer.Argument(
            metavar="ACCOUNT",
            help="Account numbers; - reads them from standard input, one per line.",
            show_default=False,
        ),
    ],
    config: ConfigOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One result per line, as in a pipe, also on a terminal.")
    ] = False,
) -> None:
    """Ask LCM for the outcomes of accounts.

    A table on a terminal, a JSON result per line in a pipe. Exit status 1 where an account failed or LCM can't
    be reached.

    Example: lcm-worker lookup '18|1|2|0|0|44|274'
    """
    from worker.cli.asking import look_up_all

    settings = settings_of(context, config)
    show = _print_json if as_json or not on_terminal() else _print_table
    try:
        all_succeeded = run_async(look_up_all(settings, _each(accounts), show))
    except SessionNotOpened as error:
        typer.echo(f"lcm-worker: {error}; see [lcm] in the settings", err=True)
        raise typer.Exit(1) from error
    if not all_succeeded:
        raise typer.Exit(1)


def _each(accounts: Iterable[str]) -> Iterator[str]:
    for account in accounts:
        if account == "-":
            # Not sys.stdin, which the interpreter wants to close at its end, even while it is still being read.
            with open(sys.stdin.fileno(), errors="surrogateescape", encoding="utf-8", closefd=False) as lines:
                yield from filter(None, (line.rstrip("\r\n") for line in lines))
        else:
            yield account


def _print_json(found: Found) -> None:
    sys.stdout.buffer.write(found.body + b"\n")
    sys.stdout.buffer.flush()
    if found.error is not None:
        told = f"{found.account!r}: {found.error.code}: {found.error.message!r}"
        print(f"lcm-worker: {told}", file=sys.stderr)


def _print_table(found: Found) -> None:
    from rich.console import Console
    from rich.text import Text

    from worker.tables import outcome_table, printable

    console = Console(highlight=False)
    account = printable(found.account)
    if found.error is not None:
        console.print(Text(f"{account}: {found.error.code}", style="bold red"), soft_wrap=True)
        console.print(Text(printable(found.error.message)), soft_wrap=True)
        return
    console.print(Text(f"{account}: {len(found.outcomes)} outcomes", style="bold"), soft_wrap=True)
    if found.outcomes:
        rows = [(outcome.id, outcome.code, outcome.description) for outcome in found.outcomes]
        console.print(outcome_table(rows))
