"""What `submit` does: checks every line, publishes the jobs, collects their results, and tells how it ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from worker.cli.common import run_async
from worker.cli.submit.jobs import BadLine, Defaults, InputJob, survey
from worker.cli.submit.output import held_by, open_writer
from worker.cli.submit.reading import BadInput
from worker.cli.submit.request import Request
from worker.cli.submit.resume import queue_of
from worker.cli.submit.screen import Screen, show_results
from worker.cli.submit.sources import Source, open_sources
from worker.cli.submit.submitter import Plan, Submitter
from worker.cli.submit.summary import note_mistakes, note_summary
from worker.common.signals import on_stop_signal
from worker.common.text import quote, rfc3339
from worker.contract.errors import BrokerAway, WorkerError
from worker.settings import Settings

_ROUTE_LENGTH = 12


def run_submit(request: Request, settings: Settings) -> int:
    """Carry out a request, and return the exit status.

    Raises:
        typer.BadParameter: the file of `--output` can't be used.
    """
    screen = Screen()
    try:
        with open_sources(request.files, request.format, screen.note) as sources:
            plan = _plan(request, sources, settings.broker.prefix, screen)
            with open_writer(request, plan.held) as writer:
                return _carry_out(plan, Submitter(plan, writer, settings, screen), screen)
    except BadInput as error:
        screen.note(str(error))
        return 2


def _plan(request: Request, sources: Sequence[Source], prefix: str, screen: Screen) -> Plan:
    """Read all lines once, without keeping them. Raises BadInput where they can't be published or collected."""
    own_route = f"submit-{request.run_id[:_ROUTE_LENGTH]}" if request.collects else None
    deadline = (
        datetime.now(UTC) + timedelta(seconds=request.deadline) if request.deadline is not None else None
    )
    defaults = Defaults(
        run=f"submit-{request.run_id}",
        route=request.route or own_route,
        deadline=rfc3339(deadline) if deadline is not None else None,
    )
    found = survey(sources, defaults, request.from_line)
    note_mistakes(found, screen)
    if found.bad and not request.skip_bad:
        raise BadInput("nothing was published; mend these lines, or leave them out with --skip-bad")
    queue = queue_of(prefix, request.run_id, found.fingerprint)
    if request.collect not in {None, queue}:
        raise BadInput(f"these are not the lines whose results {request.collect} is for: name the same files")
    held = held_by(request)
    plan = Plan(request=request, sources=sources, defaults=defaults, survey=found, queue=queue, held=held)
    if held.torn is not None and not any(_is_of(job, held.torn) for job in plan.jobs()):
        raise BadInput(
            f"{request.output} ends with a part of the result of job {quote(held.torn)}, which is none of these: mend"
            " the file, or name another one"
        )
    return plan


def _is_of(job: InputJob | BadLine, beginning: str) -> bool:
    return isinstance(job, InputJob) and job.job_id.startswith(beginning)


def _carry_out(plan: Plan, submitter: Submitter, screen: Screen) -> int:
    """Submit, tell how it ended, and return the exit status."""
    started = time.monotonic()
    status, failure = 0, ""
    try:
        if not run_async(_run_until_stopped(submitter)):
            status, failure = 130, "interrupted"
    except WorkerError as error:
        status, failure = 1 if isinstance(error, BrokerAway) else 2, str(error)
    except BrokenPipeError:
        status, failure = 1, "nobody reads the results any more"
    except OSError as error:
        status, failure = 1, f"the results can't be written: {error.strerror or error}"
    note_summary(plan, submitter, screen, time.monotonic() - started, failure)
    if plan.request.shows_tables:
        show_results(submitter.collected)
    return status or int(bool(plan.survey.bad or submitter.collected.failed or submitter.collected.missing))


async def _run_until_stopped(submitter: Submitter) -> bool:
    """Submit; the first signal stops it in good order, a second one at once. Return whether it came to its end."""
    running = asyncio.ensure_future(submitter.run())

    def stop() -> None:
        if submitter.stop.is_set():
            running.cancel()
        submitter.stop.set()

    with on_stop_signal(stop):
        await asyncio.wait({running})
    if not running.cancelled():
        running.result()
    return not submitter.stop.is_set()
