"""`lcm-worker check`: checks what `run` needs: settings, broker, topology, alarms and LCM."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from worker.cli.common import ConfigOption, run_async, settings_of, topology_in_force
from worker.cli.levels import STYLES, exit_status
from worker.cli.management import ManagementOption, ManagementPasswordOption, management_url
from worker.common.callbacks import ignore
from worker.contract.errors import BrokerAway, SessionNotOpened
from worker.settings import Scrubber, Settings, exposures_of, unfenced_of

if TYPE_CHECKING:
    from worker.broker.admin.inspect import Finding
    from worker.lcm.session import Session

_OLDEST = "RabbitMQ does not tell the age of a quorum queue's messages; see `queue_ms` in the log"
_UNTOLD = {
    "policies": "AMQP does not tell them, and they can change what queues keep; give --management URL",
    "unacknowledged jobs": "AMQP does not tell how many workers hold; give --management URL",
}


def check(
    context: typer.Context,
    config: ConfigOption = None,
    management: ManagementOption = None,
    management_password_file: ManagementPasswordOption = None,
) -> None:
    """Check settings, broker, topology, alarms and LCM.

    One line for each, with the remedy; no job is consumed and nothing is changed.
    Whether the broker's user may consume and publish is not tried, since that would take or leave a message.
    Whether the broker has an alarm is, by a message to a queue that can't exist. What AMQP does not tell is unknown.

    Exit status 0 when all is as `run` needs it, 1 when broker or LCM is away or the broker has an alarm, 2 when
    settings or topology are wrong.

    Example: lcm-worker check --config config/worker.toml --management http://127.0.0.1:15672
    """
    from rich.text import Text

    from worker.broker.admin.inspect import Finding
    from worker.cli.terminal import Terminal, one_line

    settings = settings_of(context, config)
    url = management_url(settings, management, management_password_file)
    findings = [Finding("ok", "settings", f"{len(settings.sources)} set, the others at their defaults")]
    risks = [*exposures_of(settings), *unfenced_of(settings)]
    findings += [Finding("warn", each.setting, f"{each.reason}; {each.remedy}") for each in risks]
    findings += _limits(settings)
    findings += run_async(_check(settings, url))
    console = Terminal(soft_wrap=True)
    hide = Scrubber(settings, url)
    for finding in findings:
        line = Text(f"{finding.level:<8}", style=STYLES[finding.level])
        console.print(line.append_text(one_line(hide(f"{finding.what}: {finding.detail}"), "default")))
    if status := exit_status(findings):
        raise typer.Exit(status)


def _limits(settings: Settings) -> list[Finding]:
    from worker.broker.admin.inspect import Finding
    from worker.cli.status.workers import limit_in_words

    limit = limit_in_words(settings.lcm.fleet_sessions, settings.lcm.fleet_rate)
    beside = "`check` and `lookup` open sessions beside them"
    return [Finding("ok", "fleet", f"{limit} for all workers of this prefix; {beside}")] if limit else []


async def _check(settings: Settings, management: str) -> list[Finding]:
    from worker.broker.admin.alarms import check_alarms
    from worker.broker.admin.inspect import Finding, inspect

    try:
        topology = topology_in_force(settings)
        findings = await inspect(settings.broker, topology, worker=settings.worker.name)
        findings.append(await check_alarms(settings.broker, worker=settings.worker.name))
    except BrokerAway as error:
        findings = [
            Finding("away", "broker", str(error)),
            Finding("away", "topology", "not checked, since the broker is away"),
        ]
    return [*findings, *await _check_untold(settings, management), await _check_lcm(settings)]


async def _check_untold(settings: Settings, management: str) -> list[Finding]:
    from worker.broker.admin.inspect import Finding
    from worker.broker.admin.management import check_policies

    if not management:
        told = [Finding("unknown", what, why) for what, why in _UNTOLD.items()]
    else:
        told = await check_policies(settings.broker, management)
    return [*told, Finding("unknown", "oldest job", _OLDEST)]


async def _check_lcm(settings: Settings) -> Finding:
    from worker.broker.admin.inspect import Finding
    from worker.lcm.handshake import SessionOpener

    try:
        session = await SessionOpener(settings.lcm, settings.worker.name, Scrubber(settings))(1, ignore)
        error = await _fault_of(session)
    except SessionNotOpened as not_opened:
        error = not_opened
    if error is not None:
        level, usual = "away", "see lcm.url"
        if error.refused:
            level, usual = "refused", "see the credentials and certificates in [lcm]"
        return Finding(level, "lcm", error.message if error.remedy else f"{error.message}; {usual}")
    return Finding("ok", "lcm", f"{repr(settings.lcm.url).strip(chr(39))} opens a session")


async def _fault_of(session: Session) -> SessionNotOpened | None:
    """Return why a session that was opened is none, if so."""
    lasted = await session.lasts()
    await session.close()
    if lasted or session.not_opened is not None:
        return session.not_opened
    return SessionNotOpened(f"LCM ended the session as soon as it was open: {session.ended}")
