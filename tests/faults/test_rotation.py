"""Fault row 21: passwords of the broker and of LCM change again and again while jobs come, files first or last."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.faults.rig.amqp_frames import AmqpConversation
from tests.faults.rig.ledger import Ledger
from tests.faults.rig.report import Report
from tests.faults.rig.wire import wire_violations
from tests.faults.rig.workers import WorkerProcess
from tests.support.broker import add_user, change_password, close_connections
from tests.support.files import replace
from tests.support.settings import broker_settings
from tests.support.waiting import running, until
from tests.support.wire.proxy import Proxy
from worker.sandbox.node import Node
from worker.simulator.server import Behaviour, Simulator

DELAYS = ["300ms", "600ms"]
SETTINGS: dict[str, object] = {
    "lcm.sessions": 8,
    "lcm.username": "me",
    "outage.probe_delay": "100ms",
    "outage.probe_max_delay": "300ms",
    "broker.retry_delays": DELAYS,
    "broker.delivery_limit": 1000,  # a cut connection returns what is in hand
}


def said(worker: WorkerProcess, event: str, times: int) -> bool:
    return len(worker.of(event)) >= times


@pytest.mark.timeout_s(600)
async def test_passwords_change_while_jobs_come(
    full: bool, broker: Node, vhost: str, faults: Report, tmp_path: Path
) -> None:
    """Nothing is lost, no job fails, the worker never ends, and no secret that it ever had stands in its log."""
    user = urlsplit(vhost).path.removeprefix("/")
    await add_user(broker, user, configure=".*", write=".*", read=".*")
    password, token = tmp_path / "password", tmp_path / "token"
    replace(password, "secret")
    replace(token, "token-0")
    turns = 12 if full else 3
    with faults.row("21", "passwords") as row:
        async with (
            Simulator(Behaviour(delay=0.02, credentials="me:token-0")) as simulator,
            Proxy(AmqpConversation, vhost.replace("guest:guest@", f"{user}@")) as amqp,
            Ledger(broker_settings(vhost, retry_delays=DELAYS, delivery_limit=1000), broker) as ledger,
            WorkerProcess(
                {
                    "broker.url": amqp.url,
                    "broker.password_file": password,
                    "lcm.url": simulator.url,
                    "lcm.password_file": token,
                    **SETTINGS,
                }
            ) as worker,
        ):
            await worker.started()
            accounts = [f"{n}|1|2|0|0|44|{n}" for n in range(400 * turns)]
            async with running(ledger.submit(accounts)) as submitting:
                for turn in range(1, turns + 1):
                    refused, lost = len(worker.of("lcm.session_failed")), len(worker.of("broker.lost"))
                    simulator.behaviour = Behaviour(
                        delay=0.02, credentials=f"me:token-{turn}", close_code=4401
                    )
                    await simulator.close_sessions()
                    row.inject("token expired")
                    await until(partial(said, worker, "lcm.session_failed", refused + 1))
                    replace(token, f"token-{turn}\n")
                    await until(
                        partial(said, worker, "lcm.outage_ended", len(worker.of("lcm.outage_started")))
                    )
                    unreachable = len(worker.of("broker.unreachable"))
                    await change_password(broker, user, f"secret-{turn}")
                    await close_connections(broker, vhost)
                    row.inject("password changed")
                    await until(partial(said, worker, "broker.lost", lost + 1))
                    await until(partial(said, worker, "broker.unreachable", unreachable + 1))
                    password.unlink()
                    replace(password, f"secret-{turn}\r\n")
                    await until(partial(connected, worker))
                await submitting
            await ledger.settled(180)
            row.count(ledger.counts())
            ledger.assert_invariants()
            assert wire_violations(amqp.recorder) == []
            assert worker.returncode is None
            log = str(worker.log)
            assert not [n for n in range(turns + 1) if f"token-{n}" in log or f"secret-{n}" in log]


def connected(worker: WorkerProcess) -> bool:
    """Tell whether both connections are up again, as far as the log says."""
    ups = {line["role"]: n for n, line in enumerate(worker.log) if line["event"] == "broker.connected"}
    downs = {line["role"]: n for n, line in enumerate(worker.log) if line["event"] == "broker.lost"}
    return all(ups.get(role, -1) > downs.get(role, -1) for role in ("consume", "publish"))
