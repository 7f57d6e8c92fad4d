"""`lcm-worker dead list`, `show`, `replay` and `drop`: the dead-letter queue by hand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.common import (
    ConfigOption,
    JsonOption,
    YesOption,
    duration,
    on_terminal,
    run_to_the_end,
    settings_of,
)

if TYPE_CHECKING:
    from worker.cli.dead.output import DeadLetterConsole
    from worker.cli.dead.selection import Selection

app = typer.Typer(no_args_is_help=True, help="Look at failed jobs, send them back to work, or drop them.")


CodeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--code",
        metavar="CODE",
        help="Only letters of this error code, as `dead list` shows it; repeatable. Default: any.",
        show_default=False,
    ),
]
JobIdOption = Annotated[
    list[str] | None,
    typer.Option(
        "--job-id",
        metavar="JOB_ID",
        help="Only the letter of this job; repeatable. Default: any.",
        show_default=False,
    ),
]
JobIdArguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="[JOB_ID]...", help="The same as --job-id.", show_default=False),
]
OlderOption = Annotated[
    float | None,
    typer.Option(
        "--older-than",
        metavar="DURATION",
        parser=duration,
        help="Only what failed longer ago: 90s, 30m, 2h, 1d. Default: any age.",
        show_default=False,
    ),
]
NewerOption = Annotated[
    float | None,
    typer.Option(
        "--newer-than",
        metavar="DURATION",
        parser=duration,
        help="Only what failed since then; units as above. Default: any age.",
        show_default=False,
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit",
        metavar="NUMBER",
        min=1,
        help="At most so many letters, those at the queue's head first. Default: no limit.",
        show_default=False,
    ),
]
AllOption = Annotated[
    bool, typer.Option("--all", help="Every letter of the queue; needed where nothing else selects.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only show which letters that would be.")]


@app.command("list")
def list_(
    context: typer.Context,
    codes: CodeOption = None,
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the letters, grouped by error code and reason.

    Numbers, quoted texts, account numbers and job ids are blanked, so that like reasons fall together. Letters that
    the broker moved by itself have its own word as their code: `delivery_limit`, `expired`, `rejected`.

    Example: lcm-worker dead list --newer-than 60m
    """
    from worker.cli.dead.actions import list_groups

    selection = _selection(codes, older_than=older_than, newer_than=newer_than)
    run_to_the_end(list_groups(_console(context, config, selection, as_json=as_json)))


@app.command()
def show(
    context: typer.Context,
    job_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[JOB_ID]", help="Only letters of this job. Default: any.", show_default=False
        ),
    ] = None,
    codes: CodeOption = None,
    index: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            min=1,
            help="Of those that match, the one with this place in the queue, from 1. Default: from the first on.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="At most so many letters.")] = 1,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show letters in full: properties, headers, body.

    In a pipe each is one JSON object, whose `body` is the text as it was received, or `body_base64` where it is none.

    Example: lcm-worker dead show --code invalid_job --limit 3
    """
    from worker.cli.dead.actions import show_letters

    up_to = limit if index is None else index + limit - 1
    selection = _selection(codes, [job_id] if job_id is not None else [], limit=up_to)
    run_to_the_end(show_letters(_console(context, config, selection, as_json=as_json), index))


@app.command()
def replay(
    context: typer.Context,
    arguments: JobIdArguments = None,
    codes: CodeOption = None,
    job_ids: JobIdOption = None,
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    limit: LimitOption = None,
    rate: Annotated[
        float,
        typer.Option(min=0, metavar="N", help="Send at most so many letters per second; 0 = no limit."),
    ] = 0,
    everything: AllOption = False,
    dry_run: DryRunOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send letters back to the jobs queue.

    The copy is confirmed before the letter is taken off: interrupted at any moment, a job may be there twice, but is
    never lost. It begins anew, with its replay count raised and its past in the header outcome-history. In a pipe
    each is told as a line of JSON once it is done.

    Example: lcm-worker dead replay --code timeout --newer-than 120m
    """
    from worker.cli.dead.actions import replay_letters
    from worker.common.rate import Rate

    selection = _selection(codes, [*(arguments or ()), *(job_ids or ())], older_than, newer_than, limit)
    _require_conditions(selection, everything=everything)
    console = _console(context, config, selection, as_json=as_json)
    run_to_the_end(replay_letters(console, rate=Rate(rate), dry_run=dry_run))


@app.command()
def drop(
    context: typer.Context,
    arguments: JobIdArguments = None,
    codes: CodeOption = None,
    job_ids: JobIdOption = None,
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    limit: LimitOption = None,
    everything: AllOption = False,
    dry_run: DryRunOption = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Save them to this new file first, as `dead show` prints them in a pipe. Default: not saved.",
            show_default=False,
        ),
    ] = None,
    yes: YesOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Drop letters for good.

    On a terminal it first asks for their number to be typed.

    Example: lcm-worker dead drop --code invalid_job --output dropped.jsonl
    """
    from worker.cli.dead.actions import drop_letters
    from worker.cli.dropping import dropping

    selection = _selection(codes, [*(arguments or ()), *(job_ids or ())], older_than, newer_than, limit)
    _require_conditions(selection, everything=everything)
    console = _console(context, config, selection, as_json=as_json)
    with dropping(output, asks=not (yes or dry_run)) as ask:
        run_to_the_end(drop_letters(console, output=output, ask=ask, dry_run=dry_run))


def _selection(
    codes: Iterable[str] | None,
    job_ids: Iterable[str] = (),
    older_than: float | None = None,
    newer_than: float | None = None,
    limit: int | None = None,
) -> Selection:
    from datetime import UTC, datetime

    from worker.cli.dead.selection import Selection

    return Selection(
        datetime.now(UTC), frozenset(codes or ()), frozenset(job_ids), older_than, newer_than, limit
    )


def _require_conditions(selection: Selection, *, everything: bool) -> None:
    """Require either conditions or `--all`, so that nobody replays or drops the whole queue by mistake."""
    if everything and selection.has_conditions:
        raise typer.BadParameter("--all stands alone: leave it away, or the options that select")
    if not everything and not selection.has_conditions:
        raise typer.BadParameter("say which letters: job ids, --code, --older-than, --newer-than, or --all")


def _console(
    context: typer.Context, config: Path | None, selection: Selection, *, as_json: bool
) -> DeadLetterConsole:
    from worker.cli.dead.output import DeadLetterConsole

    return DeadLetterConsole(settings_of(context, config), selection, on_terminal() and not as_json)
