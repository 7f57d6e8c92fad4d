"""`lcm-worker lookup`: asks LCM directly, without a broker."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.common import ConfigOption, note, on_terminal, print_line, run_async, settings_of
from worker.contract.errors import Deferred, SessionNotOpened

if TYPE_CHECKING:
    from worker.cli.lookup.reading import Asked
    from worker.cli.lookup.run import AccountResult


def lookup(
    context: typer.Context,
    accounts: Annotated[
        list[str],
        typer.Argument(
            metavar="ACCOUNT",
            help="Account numbers; - reads them from standard input, one per line, without comments (#).",
            show_default=False,
        ),
    ],
    config: ConfigOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One result per line, as in a pipe, also on a terminal.")
    ] = False,
    summary: Annotated[
        bool, typer.Option("--summary", help="One line for each account: how many outcomes, or the error.")
    ] = False,
) -> None:
    """Ask LCM for the outcomes of accounts.

    A table on a terminal, a JSON result per line in a pipe. A session that can't be opened is tried again once LCM has
    answered. Exit status 1 where an account failed or LCM can't be reached; how many were looked up is told then.

    Example: lcm-worker lookup '18|1|2|0|0|44|274'
    """
    from worker.cli.lookup.run import look_up_all

    settings = settings_of(context, config)
    if as_json and summary:
        raise typer.BadParameter("--json and --summary exclude each other")
    show = _print_summary if summary else _print_json if as_json or not on_terminal() else _print_table
    ends: Counter[bool] = Counter()

    def take(result: AccountResult) -> None:
        ends[result.error is None] += 1
        show(result)

    try:
        run_async(look_up_all(settings, _expand(accounts), take))
    except (SessionNotOpened, Deferred) as error:
        has_remedy = isinstance(error, SessionNotOpened) and error.remedy
        note(error.message if has_remedy else f"{error.message}; see [lcm] in the settings")
        if done := ends.total():
            were = "1 account was" if done == 1 else f"{done} accounts were"
            note(f"{were} looked up, {ends[False]} failed; the others have no result")
        raise typer.Exit(1) from error
    if ends[False]:
        raise typer.Exit(1)


def _expand(accounts: Iterable[str]) -> Iterator[Asked]:
    """Yield account numbers, with the lines of standard input in place of `-`."""
    from worker.cli.lookup.reading import Asked, asked_in

    for account in accounts:
        if account == "-":
            # Not sys.stdin: the interpreter closes it at exit and would wait for the thread that reads it.
            with open(sys.stdin.fileno(), "rb", closefd=False) as file:
                yield from asked_in(file, note)
        else:
            yield Asked(account)


def _print_json(result: AccountResult) -> None:
    print_line(result.body)
    if result.error is not None:
        note(f"{result.account!r}: {result.error.code}: {result.error.message!r}")


def _print_summary(result: AccountResult) -> None:
    from worker.cli.terminal import Terminal, one_line

    came_to, style = f"{len(result.outcomes)} outcomes", ""
    if result.error is not None:
        came_to, style = f"{result.error.code}: {result.error.message}", "bold red"
    Terminal().print(one_line(f"{result.account}: {came_to}", style), soft_wrap=True)


def _print_table(result: AccountResult) -> None:
    from worker.cli.tables import outcome_table
    from worker.cli.terminal import Terminal, one_line

    console = Terminal()
    if result.error is not None:
        console.print(one_line(f"{result.account}: {result.error.code}", "bold red"), soft_wrap=True)
        console.print(one_line(result.error.message), soft_wrap=True)
        return
    console.print(one_line(f"{result.account}: {len(result.outcomes)} outcomes", "bold"), soft_wrap=True)
    if result.outcomes:
        rows = [(outcome.id, outcome.code, outcome.description) for outcome in result.outcomes]
        console.print(outcome_table(rows))
