"""The notes of a submission about bad lines, and at its end: what was done, and how to go on with the rest."""

from __future__ import annotations

from worker.broker.admin.subscription import KEPT_HOURS
from worker.cli.submit.jobs import Survey
from worker.cli.submit.resume import collect_command
from worker.cli.submit.screen import Screen
from worker.cli.submit.submitter import Plan, Submitter
from worker.cli.submit.tally import Collected


def note_mistakes(survey: Survey, screen: Screen) -> None:
    """Note the first bad lines, and how many others there are; likewise of comments."""
    if survey.comments:
        others = f", and {survey.comments - 1:,} more" if survey.comments > 1 else ""
        screen.note(f"{survey.first_comment} is taken for a comment{others}")
    for mistake in survey.mistakes:
        screen.note(mistake)
    if more := survey.bad - len(survey.mistakes):
        screen.note(f"and {more:,} more bad lines")


def note_summary(plan: Plan, submitter: Submitter, screen: Screen, seconds: float, failure: str) -> None:
    """Note the counts of a submission; where it ended early by a `failure`, also why, and how to go on."""
    request, published = plan.request, submitter.published
    took = f" in {seconds:,.1f} s"
    collected_in = f"{took}{_per_second(submitter.collected.count, seconds)}"
    if not request.publishes:
        if failure:
            screen.note(failure)
        if not failure or submitter.queue_left:
            _note_collected(plan, submitter, screen, collected_in)
        return
    if failure and not published.confirmed and not published.in_doubt:
        screen.note(f"{failure}: nothing was published")
        return
    if failure:
        _note_published_part(plan, submitter, screen, failure)
    else:
        skipped = f", skipped {_count(plan.survey.bad, 'bad line')}" if plan.survey.bad else ""
        rate = "" if request.collects else f"{took}{_per_second(published.confirmed, seconds)}"
        screen.note(f"published {_count(published.confirmed, 'job')}{skipped}{rate}")
    if request.collects:
        _note_collected(plan, submitter, screen, collected_in)


def _note_published_part(plan: Plan, submitter: Submitter, screen: Screen, failure: str) -> None:
    published = submitter.published
    in_doubt = f", {published.in_doubt:,} more may be (not confirmed)" if published.in_doubt else ""
    screen.note(f"{failure}: {published.confirmed:,} of {plan.survey.jobs:,} jobs are published{in_doubt}")
    if published.confirmed < plan.survey.jobs:
        append = " --append" if plan.request.output is not None else ""
        screen.note(published.continuation(plan.sources) + append)


def _note_collected(plan: Plan, submitter: Submitter, screen: Screen, collected_in: str) -> None:
    collected = submitter.collected
    screen.note(
        f"collected {_count(collected.count, 'result')}{collected_in}: {_kinds(collected)}{_slowest(collected)}"
    )
    if collected.misnamed:
        screen.note(
            f"left out {_count(collected.misnamed, 'result')} with the id of one of these jobs but not its account:"
            " other jobs have the same ids; the worker's log tells whose they are, and jobs without job_id get new ids"
        )
    if queue := submitter.queue_left:
        missing = f"{_count(collected.missing, 'result')} missing" if collected.missing else "broken off"
        screen.note(f"{missing}: what comes later stays in the queue {queue} for {KEPT_HOURS} h after this")
        if plan.request.publishes:
            # Results of jobs that were not published never come, and those that were written to standard output do not
            # come again: then only a timeout ends the waiting.
            all_published = submitter.published.confirmed == plan.survey.jobs
            timeout = "" if all_published and plan.request.output is not None else " --timeout 10s"
            screen.note(f"collect it with: {collect_command(plan.request, queue)}{timeout}")


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _per_second(count: int, seconds: float) -> str:
    return f" ({count / seconds:,.0f}/s)" if count and seconds else ""


def _kinds(collected: Collected) -> str:
    kinds = [f"{collected.succeeded:,} succeeded"]
    if collected.failed:
        codes = ", ".join(f"{code} {count:,}" for code, count in collected.failed.most_common())
        kinds.append(f"{collected.failed.total():,} failed ({codes})")
    return ", ".join(kinds)


def _slowest(collected: Collected) -> str:
    milliseconds, job_id = collected.slowest
    return f"; slowest {milliseconds:,.1f} ms, job {job_id}" if job_id else ""
