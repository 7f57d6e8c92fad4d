"""`lcm-worker submit`: publishes jobs from files, and collects their results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from worker.cli.common import ConfigOption, duration, on_terminal, settings_of

_COLLECTING = ("--output", "--output-format", "--csv-safe", "--append", "--timeout")


def submit(
    context: typer.Context,
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE",
            help="Where jobs stand; - is standard input, which is the default in a pipe.",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = None,
    kind: Annotated[
        Literal["auto", "jsonl", "csv", "plain"],
        typer.Option("--format", help="How jobs are written; auto looks at the first line."),
    ] = "auto",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Publish the others where lines are bad.")
    ] = False,
    from_line: Annotated[
        int, typer.Option(min=1, metavar="LINE", help="Leave out the lines of the first FILE before this.")
    ] = 1,
    route: Annotated[
        str | None, typer.Option(metavar="NAME", help="The route of jobs that name none. Default: none.")
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(
            metavar="DURATION",
            parser=duration,
            help="From now, such as 10m, for jobs that have none. Default: none.",
        ),
    ] = None,
    rate: Annotated[
        float, typer.Option(min=0, metavar="N", help="Publish at most so many jobs per second; 0 = no limit.")
    ] = 0,
    max_outage: Annotated[
        float,
        typer.Option(
            "--patience",
            metavar="DURATION",
            parser=duration,
            show_default=False,
            help="Give up where the broker, once reached, is away for longer: 30s, 5m. Default: 2m.",
        ),
    ] = 120.0,
    wait: Annotated[bool, typer.Option("--wait", help="Collect the results of these jobs.")] = False,
    collect: Annotated[
        str | None,
        typer.Option(
            metavar="QUEUE",
            help="Publish nothing: collect for the same FILEs what has come since an earlier --wait ended, which told"
            " the QUEUE. Results that --output holds already are not waited for. Default: none.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --wait: write results to FILE, .csv or .jsonl. Default: standard output.",
            show_default=False,
        ),
    ] = None,
    output_format: Annotated[
        Literal["jsonl", "csv"] | None,
        typer.Option(
            help="With --wait: write results so. Default: as FILE's suffix says, else jsonl.",
            show_default=False,
        ),
    ] = None,
    csv_safe: Annotated[
        bool,
        typer.Option(
            "--csv-safe",
            help="With CSV, for spreadsheets: put ' before a cell that one would carry out as a formula. It changes"
            " data, so +49… becomes '+49….",
        ),
    ] = False,
    append: Annotated[
        bool, typer.Option("--append", help="With --output: add to a FILE that holds something.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="DURATION",
            parser=duration,
            help="With --wait: end once none has come for so long, such as 5m. Default: never.",
        ),
    ] = None,
) -> None:
    """Publish jobs, and collect their results.

    From JSON lines, CSV with a header (its column account_number; job_id, route and deadline where there are
    any; all others become metadata), or plain account numbers. Everything is checked before anything is published.

    With --wait the results go to a queue of this run's own, and from there to --output: JSON lines or CSV, one row
    for each outcome. The common results queue gets them as well, where there is one. In a pipe they go to standard
    output. A run that ends before all have come tells how to go on with --collect.

    Exit status 0 when all went well, 1 when a job failed, was skipped or has no result, 2 when a line is bad,
    130 when interrupted: it then says with what --from-line to go on.

    Example: lcm-worker submit accounts.csv --wait --output results.csv

    Example: grep '^18|' accounts.txt | lcm-worker submit --wait > results.jsonl
    """
    from worker.cli.submit.output import output_as_parameter
    from worker.cli.submit.reading import Format
    from worker.cli.submit.request import Request
    from worker.cli.submit.results import OutputFormat
    from worker.cli.submit.resume import new_run_id, run_id_of
    from worker.cli.submit.run import run_submit

    if (
        not wait
        and collect is None
        and (output or output_format or csv_safe or append or timeout is not None)
    ):
        raise typer.BadParameter(f"{', '.join(_COLLECTING)} go with --wait")
    if not files and sys.stdin.isatty():
        raise typer.BadParameter("name a FILE; standard input, which is read without one, is this terminal")
    if append and output is None:
        raise typer.BadParameter("--append goes with --output")
    settings = settings_of(context, config)
    try:
        run_id = new_run_id() if collect is None else run_id_of(collect, settings.broker.prefix)
    except ValueError as error:
        raise typer.BadParameter(f"--collect: {error}") from error
    request = Request(
        files=files or ["-"],
        config=config or context.obj,
        format=Format(kind),
        skip_bad=skip_bad,
        from_line=from_line,
        route=route,
        deadline=deadline,
        rate=rate,
        max_outage=max_outage,
        wait=wait,
        collect=collect,
        output=output,
        output_format=OutputFormat(output_format) if output_format else None,
        csv_safe=csv_safe,
        append=append,
        timeout=timeout,
        run_id=run_id,
        on_terminal=on_terminal(),
    )
    with output_as_parameter():
        safe = request.result_format is OutputFormat.CSV_SAFE
    if csv_safe and not safe:
        raise typer.BadParameter("--csv-safe goes with CSV; spreadsheets do not read JSON lines")
    raise typer.Exit(run_submit(request, settings))
