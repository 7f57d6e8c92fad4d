"""`lcm-worker simulate`: a simulated LCM."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from worker.cli.common import note, run_until_signalled


def simulate(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65_535, help="Port to listen on; 0 takes a free one.")
    ] = 8765,
    scenario: Annotated[
        str | None, typer.Option(metavar="NAME", help="Start from this scenario; see --list. Default: none.")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=PROBABILITY]",
            help="A fault and how often it comes, 0 to 1; repeatable. Default: none.",
        ),
    ] = None,
    account: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN=FAULT[:K]",
            help="The fault of the accounts that match, K times each; repeatable, the first match counts. "
            "Default: none.",
        ),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Spell replies this way; repeatable. Default: as documented."),
    ] = None,
    unasked: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Send these messages before each reply; repeatable; `all`. Default: none."
        ),
    ] = None,
    known: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Pattern of the accounts that exist. Default: all.")
    ] = None,
    unknown: Annotated[
        str | None,
        typer.Option(metavar="FAULT", help="The fault that all other accounts get. Default: refuse."),
    ] = None,
    delay: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Seconds that every reply takes. Default: 0.")
    ] = None,
    jitter: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Seconds at most that a reply takes beyond that. Default: 0."),
    ] = None,
    late_by: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Seconds that a `late` reply takes. Default: 15.")
    ] = None,
    slow_by: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Seconds that a `slow` reply takes. Default: 2.")
    ] = None,
    heartbeat: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Seconds between heartbeats; 0 = none. Default: 0."),
    ] = None,
    open_id: Annotated[
        bool | None, typer.Option("--open-id/--no-open-id", help="Send an OpenID frame first.")
    ] = None,
    max_sessions: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER", min=0, help="Sessions at one time; one more is refused. Default: 0, any number."
        ),
    ] = None,
    when_full: Annotated[
        str | None,
        typer.Option(
            metavar="http|close|error",
            help="How one more is refused: HTTP 503, close code 4429, or an error in reply. Default: http.",
        ),
    ] = None,
    unique_names: Annotated[
        bool | None, typer.Option("--unique-names/--any-names", help="Refuse a second session of one name.")
    ] = None,
    credentials: Annotated[
        str | None,
        typer.Option(
            metavar="USER:PASSWORD", help="Basic credentials to ask for; user * is anyone. Default: none."
        ),
    ] = None,
    login: Annotated[
        str | None,
        typer.Option(
            metavar="SUBTOPIC", help="A message that each session has to send first. Default: none."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", help="Seed of all that is drawn, to have it again. Default: drawn."),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Append each exchange to FILE as a JSON line. Default: none."),
    ] = None,
    list_names: Annotated[
        bool, typer.Option("--list", help="List scenarios, faults, variants and messages, and exit.")
    ] = False,
) -> None:
    """Run a simulated LCM to try things against.

    It answers as documented, or as badly as the switches ask, until SIGTERM or SIGINT. A scenario has defaults of its
    own for what it is about.

    Example: lcm-worker simulate --scenario late-replies

    Example: lcm-worker simulate --fault reset=0.05 --account '9|*=refuse' --seed 7
    """
    from worker.common.private_file import private
    from worker.simulator.scenarios import behaviour_from
    from worker.simulator.server import serve

    if list_names:
        _list_names()
        return
    try:
        behaviour = behaviour_from(
            scenario,
            faults=fault,
            rules=account,
            variants=variant,
            unasked=unasked,
            known=known,
            unknown=unknown,
            delay=delay,
            jitter=jitter,
            late_by=late_by,
            slow_by=slow_by,
            heartbeat=heartbeat,
            open_id=open_id,
            max_sessions=max_sessions,
            when_full=when_full,
            unique_names=unique_names,
            credentials=credentials,
            login=login,
            seed=seed,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    try:
        run_until_signalled(
            serve(
                behaviour,
                host,
                port,
                record,
                lambda url: typer.echo(f"LCM simulator on {url}", err=True),
                opener=private,
            )
        )
    except OSError as error:
        record_file = f"{error.filename}: " if error.filename else ""
        note(f"can't simulate on {host}:{port}: {record_file}{error.strerror or error}")
        raise typer.Exit(1) from error
    except UnicodeError as error:
        raise typer.BadParameter(f"--host {host} is no host name: {error}") from error


def _list_names() -> None:
    from worker.simulator.behaviour import CONNECTION_FAULTS, FAULTS, WHEN_FULL
    from worker.simulator.documents import UNASKED, VARIANTS
    from worker.simulator.scenarios import SCENARIOS

    tables = {
        "scenarios": {name: scenario.description for name, scenario in SCENARIOS.items()},
        "faults of an exchange": FAULTS,
        "faults of a connection": CONNECTION_FAULTS,
        "when full": WHEN_FULL,
        "variants": VARIANTS,
        "unasked messages": UNASKED,
    }
    for title, rows in tables.items():
        typer.echo(f"{title}:")
        for name, meaning in rows.items():
            typer.echo(f"  {name:<20} {meaning if isinstance(meaning, str) else ''}".rstrip())
