"""`lcm-worker undelivered list`, `show`, `send` and `drop`: results that no queue took, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.common import ConfigOption, JsonOption, YesOption, on_terminal, run_to_the_end, settings_of

if TYPE_CHECKING:
    from worker.cli.undelivered.actions import Undelivered

app = typer.Typer(
    no_args_is_help=True,
    help="Look at results that no queue took, send or drop them.",
)

JobIds = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[JOB_ID]...", help="Only the results of these jobs. Default: any.", show_default=False
    ),
]
RoutingKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--routing-key",
        metavar="KEY",
        help="Only results of this routing key, as `undelivered list` shows it; repeatable. Default: any.",
        show_default=False,
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit",
        metavar="NUMBER",
        min=1,
        help="At most so many, those at the queue's head first. Default: no limit.",
        show_default=False,
    ),
]
AllOption = Annotated[bool, typer.Option("--all", help="Every result; needed where nothing else selects.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only show which results that would be.")]


@app.command("list")
def list_(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the parked results, grouped by routing key.

    Example: lcm-worker undelivered list
    """
    from worker.cli.undelivered.actions import list_groups

    run_to_the_end(list_groups(_undelivered(context, config, as_json=as_json)))


@app.command()
def show(
    context: typer.Context,
    job_ids: JobIds = None,
    routing_keys: RoutingKeys = None,
    limit: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="At most so many results.")] = 1,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show parked results in full: properties, headers, body.

    Example: lcm-worker undelivered show --routing-key result.succeeded.emea --limit 3
    """
    from worker.cli.undelivered.actions import show_results

    chosen = _undelivered(context, config, job_ids, routing_keys, limit, as_json=as_json)
    run_to_the_end(show_results(chosen))


@app.command()
def send(
    context: typer.Context,
    job_ids: JobIds = None,
    routing_keys: RoutingKeys = None,
    limit: LimitOption = None,
    everything: AllOption = False,
    dry_run: DryRunOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish parked results again, now.

    Each is taken off the queue once the broker has confirmed it. Of a routing key whose first result is not taken, no
    other is tried. The exit status is 1 where a result was not taken.

    Example: lcm-worker undelivered send --routing-key result.succeeded.emea
    """
    from worker.cli.undelivered.actions import send_results

    chosen = _undelivered(context, config, job_ids, routing_keys, limit, as_json=as_json)
    chosen.require_conditions(everything=everything)
    run_to_the_end(send_results(chosen, dry_run=dry_run))


@app.command()
def drop(
    context: typer.Context,
    job_ids: JobIds = None,
    routing_keys: RoutingKeys = None,
    limit: LimitOption = None,
    everything: AllOption = False,
    dry_run: DryRunOption = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Save them to this new file first, as `undelivered show` prints them in a pipe. Default: not saved.",
            show_default=False,
        ),
    ] = None,
    yes: YesOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Drop parked results for good.

    On a terminal it first asks for their number to be typed.

    Example: lcm-worker undelivered drop --routing-key result.succeeded.old --output dropped.jsonl
    """
    from worker.cli.dropping import dropping
    from worker.cli.undelivered.actions import drop_results

    chosen = _undelivered(context, config, job_ids, routing_keys, limit, as_json=as_json)
    chosen.require_conditions(everything=everything)
    with dropping(output, asks=not (yes or dry_run)) as ask:
        run_to_the_end(drop_results(chosen, output=output, ask=ask, dry_run=dry_run))


def _undelivered(
    context: typer.Context,
    config: Path | None,
    job_ids: list[str] | None = None,
    routing_keys: list[str] | None = None,
    limit: int | None = None,
    *,
    as_json: bool,
) -> Undelivered:
    from worker.cli.undelivered.actions import Undelivered

    return Undelivered(
        settings_of(context, config),
        frozenset(job_ids or ()),
        frozenset(routing_keys or ()),
        limit,
        for_people=on_terminal() and not as_json,
    )
