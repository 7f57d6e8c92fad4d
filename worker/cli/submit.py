"""`lcm-worker submit`: publishes jobs from files, and collects their results."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import uuid4

import typer

from worker.cli.common import ConfigOption, duration, on_terminal, run_async, settings_of
from worker.errors import BrokerAway, WorkerError
from worker.text import rfc3339

if TYPE_CHECKING:
    from worker.settings import Settings
    from worker.submitting.jobs import Survey
    from worker.submitting.results import ResultWriter
    from worker.submitting.screen import Screen
    from worker.submitting.submit import Plan, Submitter

_COLLECTING = ("--output", "--output-format", "--append", "--timeout")
_TAG_SIZE = 20
_QUEUE = re.compile(f"([0-9a-f]{{{_TAG_SIZE}}})-[0-9a-f]+")


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
    patience: Annotated[
        float,
        typer.Option(
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
    from worker.submitting.ending import tell_mistakes
    from worker.submitting.jobs import Defaults, survey
    from worker.submitting.reading import BadInput, Format
    from worker.submitting.screen import Screen
    from worker.submitting.sources import opened
    from worker.submitting.submit import Plan

    collects = wait or collect is not None
    if not collects and (output or output_format or append or timeout is not None):
        raise typer.BadParameter(f"{', '.join(_COLLECTING)} go with --wait")
    if not files and sys.stdin.isatty():
        raise typer.BadParameter("name a FILE; standard input, which is read without one, is this terminal")
    if append and output is None:
        raise typer.BadParameter("--append goes with --output")
    settings = settings_of(context, config)
    screen = Screen()
    queues = f"{settings.broker.prefix}.submit."
    tag = uuid4().hex[:_TAG_SIZE] if collect is None else _tag_of(collect, queues)
    defaults = Defaults(
        run=f"submit-{tag}",
        route=route or (f"submit-{tag[:12]}" if collects else None),
        deadline=rfc3339(datetime.now(UTC) + timedelta(seconds=deadline)) if deadline is not None else None,
    )
    try:
        with opened(files or ["-"], Format(kind), screen.say) as sources:
            found = survey(sources, defaults, from_line)
            tell_mistakes(found, screen)
            queue = f"{queues}{tag}-{found.fingerprint}"
            _insist(found, queue, skip_bad=skip_bad, collect=collect)
            again: dict[str, object] = {
                "--config": config or context.obj,
                "--format": kind if kind != "auto" else None,
                "--skip-bad": skip_bad,
                "--from-line": from_line if from_line > 1 else None,
                "--collect": queue,
                "--output": output,
                "--output-format": output_format,
            }
            had = _collected_in(output, output_format) if collect is not None else frozenset[bytes]()
            adds = append or collect is not None
            with _writer(output, output_format, append=adds, collects=collects) as writer:
                plan = Plan(
                    queue=queue,
                    again=_command(files or ["-"], again),
                    keeps=output is not None,
                    collect_only=collect is not None,
                    had=had,
                    sources=sources,
                    defaults=defaults,
                    survey=found,
                    from_line=from_line,
                    patience=patience,
                    rate=rate,
                    timeout=timeout,
                    writer=writer,
                )
                tables = collects and output is None and on_terminal()
                status = _carry_out(plan, settings, screen, tables=tables)
    except BadInput as error:
        screen.say(str(error))
        raise typer.Exit(2) from error
    raise typer.Exit(status)


def _insist(found: Survey, queue: str, *, skip_bad: bool, collect: str | None) -> None:
    """Raise BadInput where lines are bad and not to be skipped, or others than those of the earlier run."""
    from worker.submitting.reading import BadInput

    if found.bad and not skip_bad:
        raise BadInput("nothing was published; mend these lines, or leave them out with --skip-bad")
    if collect not in {None, queue}:
        raise BadInput(f"these are not the lines whose results {collect} is for: name the same files")


def _tag_of(queue: str, queues: str) -> str:
    """Return what tells an earlier run from all others, from the name of its queue."""
    match = _QUEUE.fullmatch(queue.removeprefix(queues))
    if match is None:
        raise typer.BadParameter(
            f"--collect: {queue} is no queue of an earlier run: those are named {queues}<id>"
        )
    return match[1]


def _command(files: list[str], options: dict[str, object]) -> str:
    """Return a command to type, with those options that have a value."""
    words = ["lcm-worker", "submit", *files]
    for name, value in options.items():
        if value:
            words += [name] if value is True else [name, str(value)]
    return shlex.join(words)


def _collected_in(output: Path | None, output_format: str | None) -> frozenset[bytes]:
    """Return the digests of the jobs whose results a file holds."""
    from worker.submitting.jobs import digest
    from worker.submitting.results import OutputFormat, format_of, job_ids_in

    if output is None or not output.is_file():
        return frozenset()
    try:
        kind = format_of(output.name, OutputFormat(output_format) if output_format else None)
        return frozenset(map(digest, job_ids_in(output, kind)))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"--output: {error}") from error


@contextmanager
def _writer(
    output: Path | None, output_format: str | None, *, append: bool, collects: bool
) -> Iterator[ResultWriter | None]:
    """Give what results are written to, None where none are collected."""
    from worker.submitting.results import OutputFormat, ResultWriter, format_of, open_output

    if not collects:
        yield None
        return
    chosen = OutputFormat(output_format) if output_format else None
    if output is None:
        shown = on_terminal() and chosen is None
        with open(os.devnull if shown else sys.stdout.fileno(), "wb", closefd=shown) as file:
            yield ResultWriter(file, chosen or OutputFormat.JSONL, header=True)
        return
    try:
        kind = format_of(output.name, chosen)
        opened = open_output(output, append=append)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"--output: {error}") from error
    with opened:
        yield ResultWriter(opened, kind, header=not opened.tell())


def _carry_out(plan: Plan, settings: Settings, screen: Screen, *, tables: bool) -> int:
    """Submit, tell how it ended, and return the exit status."""
    from worker.submitting.ending import tell_end
    from worker.submitting.screen import show_results
    from worker.submitting.submit import Submitter

    submitter = Submitter(plan, settings, screen)
    started = time.monotonic()
    status, why = 0, ""
    try:
        if not run_async(_until_stopped(submitter)):
            status, why = 130, "interrupted"
    except WorkerError as error:
        status, why = 1 if isinstance(error, BrokerAway) else 2, str(error)
    except BrokenPipeError:
        status, why = 1, "nobody reads the results any more"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        status, why = 1, f"the results can't be written: {error.strerror or error}"
    tell_end(plan, submitter, screen, time.monotonic() - started, why)
    if tables:
        show_results(submitter.collected)
    return status or int(bool(plan.survey.bad or submitter.collected.failed or submitter.collected.missing))


async def _until_stopped(submitter: Submitter) -> bool:
    """Submit; the first signal ends it in good order, a second one at once. Returns whether it came to its end."""
    loop = asyncio.get_running_loop()
    working = asyncio.ensure_future(submitter.run())

    def stop() -> None:
        if submitter.stop.is_set():
            working.cancel()
        submitter.stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    await asyncio.wait({working})
    if not working.cancelled():
        working.result()
    return not submitter.stop.is_set()
