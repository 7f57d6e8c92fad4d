"""The last words of a submission: what was done, and what is left to do."""

from __future__ import annotations

from worker.broker.subscription import KEPT_HOURS
from worker.submitting.jobs import Survey
from worker.submitting.screen import Screen
from worker.submitting.submit import Plan, Submitter
from worker.submitting.tally import Collected


def tell_mistakes(survey: Survey, screen: Screen) -> None:
    """Tell the first lines that are no jobs, and how many others there are."""
    for mistake in survey.mistakes:
        screen.say(mistake)
    if more := survey.bad - len(survey.mistakes):
        screen.say(f"and {more:,} more bad lines")


def tell_end(plan: Plan, submitter: Submitter, screen: Screen, seconds: float, why: str) -> None:
    """Tell the numbers of a submission; where it was broken off, why, and how to go on."""
    published = submitter.published
    if plan.collect_only:
        if why:
            screen.say(why)
        if not why or submitter.queue_left:
            rate = f" in {seconds:,.1f} s{_rate(submitter.collected.count, seconds)}"
            _tell_collected(plan, submitter, screen, rate)
        return
    if why and not published.confirmed and not published.in_doubt:
        screen.say(f"{why}: nothing was published")
        return
    took = f" in {seconds:,.1f} s"
    if why:
        _tell_broken_off(plan, submitter, screen, why)
    else:
        skipped = f", skipped {_many(plan.survey.bad, 'bad line')}" if plan.survey.bad else ""
        rate = "" if plan.writer is not None else f"{took}{_rate(published.confirmed, seconds)}"
        screen.say(f"published {_many(published.confirmed, 'job')}{skipped}{rate}")
    if plan.writer is not None:
        rate = f"{took}{_rate(submitter.collected.count, seconds)}"
        _tell_collected(plan, submitter, screen, rate)


def _tell_broken_off(plan: Plan, submitter: Submitter, screen: Screen, why: str) -> None:
    published = submitter.published
    screen.say(
        f"{why}: {published.confirmed:,} of {plan.survey.jobs:,} jobs are published{_doubt(submitter)}"
    )
    if published.confirmed < plan.survey.jobs:
        screen.say(published.where(plan.sources) + (" --append" if plan.keeps else ""))


def _tell_collected(plan: Plan, submitter: Submitter, screen: Screen, rate: str) -> None:
    collected = submitter.collected
    told = f"{_many(collected.count, 'result')}{rate}: {_kinds(collected)}{_slowest(collected)}"
    screen.say(f"collected {told}")
    if queue := submitter.queue_left:
        missing = f"{_many(collected.missing, 'result')} missing" if collected.missing else "broken off"
        screen.say(f"{missing}: what comes later stays in the queue {queue} for {KEPT_HOURS} h after this")
        if not plan.collect_only:
            # Of what was not published, or has come to where nobody can look it up, no result will come.
            all_to_come = plan.keeps and submitter.published.confirmed == plan.survey.jobs
            screen.say(f"collect it with: {plan.again}{'' if all_to_come else ' --timeout 10s'}")


def _doubt(submitter: Submitter) -> str:
    count = submitter.published.in_doubt
    return f", {count:,} more may be (not confirmed)" if count else ""


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _rate(count: int, seconds: float) -> str:
    return f" ({count / seconds:,.0f}/s)" if count and seconds else ""


def _kinds(collected: Collected) -> str:
    told = [f"{collected.succeeded:,} succeeded"]
    if collected.failed:
        codes = ", ".join(f"{code} {count:,}" for code, count in collected.failed.most_common())
        told.append(f"{collected.failed.total():,} failed ({codes})")
    return ", ".join(told)


def _slowest(collected: Collected) -> str:
    milliseconds, job_id = collected.slowest
    return f"; slowest {milliseconds:,.1f} ms, job {job_id}" if job_id else ""
