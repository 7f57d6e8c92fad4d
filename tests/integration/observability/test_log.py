"""The log of a real worker on real exchanges: what must never stand in it."""

from __future__ import annotations

import sys
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import aiormq
import msgspec
import pytest

from tests.support.channel import open_channel
from tests.support.commands import Worker, program, worker
from worker.simulator.behaviour import Rule
from worker.simulator.server import Behaviour, Simulator

# Each quotes the account number or is told apart from the others by it.
FAULTS = ("refuse", "refuse-plain", "error", "strings", "cut-off", "not-json", "no-id", "close", "silence")

LOGIN = {
    "channel": "LCM",
    "topic": "WebService",
    "subtopic": "Login",
    "message": {"token": "s3cret-greeting"},
}


async def done(started: Worker, url: str, jobs: list[dict[str, Any]]) -> None:
    """Publish jobs, and wait until each has a last line."""
    async with open_channel(url) as channel:
        for job in jobs:
            await channel.basic_publish(
                msgspec.json.encode(job), routing_key="lcm.outcome.jobs",
                properties=aiormq.spec.Basic.Properties(delivery_mode=2),
            )  # fmt: skip
        await started.logged("job.", len(jobs))
    started.signal()
    assert await started.ended() == 0


async def test_nothing_secret_and_no_payload_is_logged_at_debug(vhost: str) -> None:
    """The pitfall of logs: with log.level debug no credential, header, payload or frame is in any line."""
    settings = {
        "log__level": "debug",
        "lcm__username": "me",
        "lcm__password": "s3cret-password",
        "lcm__headers": '{"X-Api-Key": "s3cret-key"}',
        "lcm__greeting": msgspec.json.encode([{"send": msgspec.json.encode(LOGIN).decode()}]).decode(),
    }
    async with Simulator(Behaviour(credentials="me:s3cret-password", login="Login")) as lcm:
        broker_urls = f"amqp://me:s3cret-broker@127.0.0.1:1/,{vhost}"
        async with worker(broker_urls, f"{lcm.url}?token=s3cret-token", **settings) as started:
            await done(
                started, vhost, [{"job_id": "1", "account_number": "18|1", "metadata": {"a": "payload-1"}}]
            )
        assert lcm.connections[0].accepted
    basic = b64encode(b"me:s3cret-password")
    for never in (b"s3cret", basic, b"Authorization", b"AccountNumber", b"OutComeID", b"payload-1"):
        assert never not in started.err
    assert started.of("job.")[0]["event"] == "job.succeeded"
    assert started.others == []
    assert all(line["level"] != "debug" for line in started.of("library.log"))


@pytest.mark.parametrize("accounts", ["plain", "hashed"])
async def test_hashed_accounts_stand_nowhere(vhost: str, accounts: str) -> None:
    """With hashed accounts no line of any kind of job names the account, in LCM's words neither; else they do."""
    rules = tuple(Rule(f"{fault}|*", fault) for fault in FAULTS)
    soon = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    jobs: list[dict[str, Any]] = [
        {"job_id": fault, "account_number": f"{fault}|77001|1"} for fault in ("good", *FAULTS)
    ]
    # Ends as expired, since the retry delay would pass its deadline, with LCM's words as its last error.
    jobs.append({"job_id": "expired", "account_number": "error|77001|2", "deadline": soon})
    settings = {
        "log__accounts": accounts,
        "lcm__reply_timeout": "500ms",
        "retry__attempts": 1,
        "outage__probe_delay": "10ms",
        "outage__probe_max_delay": "100ms",
        "broker__retry_delays": "10m",
    }
    async with Simulator(Behaviour(rules=rules)) as lcm, worker(vhost, lcm.url, **settings) as started:
        await done(started, vhost, jobs)
    lines = {line["job_id"]: line for line in started.of("job.")}
    assert lines.keys() == {job["job_id"] for job in jobs}
    assert lines["expired"]["error"] == "expired"
    if accounts == "plain":
        assert lines["refuse"]["account"] == "refuse|77001|1"
        assert "77001" in lines["refuse"]["said"]
        assert "77001" in lines["refuse"]["account"]
    else:
        assert b"77001" not in started.err
        assert lines["good"]["account"].startswith("sha256:")
        assert len({line["account"] for line in lines.values()}) == len(lines)


async def test_a_crash_is_a_line_of_the_log() -> None:
    """A defect that ends the worker is told as one line, without secrets in its traceback, and the status is 1."""
    script = """
import sys, worker.app
from worker.cli import main

async def serve(*_):
    raise RuntimeError("connecting with s3cret-password failed")

worker.app.serve = serve
sys.argv = ["lcm-worker", "run"]
main()
"""
    ended = await program(sys.executable, "-c", script, lcm__username="me", lcm__password="s3cret-password")
    assert ended.status == 1
    line = msgspec.json.decode(ended.err)
    assert (line["level"], line["event"]) == ("error", "worker.crashed")
    assert line["exception"].endswith("RuntimeError: connecting with ********** failed")
