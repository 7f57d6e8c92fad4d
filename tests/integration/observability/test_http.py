"""What a worker tells over HTTP of itself, asked as an orchestrator and Prometheus would."""

from __future__ import annotations

import asyncio
import socket
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.test_worker_processes import numbered, publish
from tests.support.broker import close_connections
from tests.support.certificates import Authority
from tests.support.channel import open_channel
from tests.support.commands import Worker, command, worker
from tests.support.monitoring import promtool
from tests.support.settings import broker_settings
from tests.support.waiting import until
from worker.broker.declare import declare
from worker.broker.topology import topology_of
from worker.sandbox.node import Node
from worker.settings import expiries_of, load
from worker.simulator.behaviour import Rule
from worker.simulator.server import Behaviour, Simulator

JOBS = "lcm.outcome.jobs"
QUICK_PROBES = {
    "outage__probe_delay": "100ms",
    "outage__probe_max_delay": "500ms",
    "broker__retry_delays": '["500ms"]',
}


def free_address() -> str:
    """Return an address of this host on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


async def get(listen: str, path: str, method: str = "GET") -> tuple[int, bytes]:
    """Ask for a page, and return its status and body."""

    def ask() -> tuple[int, bytes]:
        connection = HTTPConnection(listen, timeout=30)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


async def reasons(listen: str) -> list[str]:
    """Return the codes of the reasons for not being ready."""
    _, body = await get(listen, "/readyz")
    return [reason["code"] for reason in msgspec.json.decode(body)["reasons"]]


async def sample(listen: str, name: str, **labels: str) -> float | None:
    """Return the value of one series of `/metrics`, None where there is none."""
    _, body = await get(listen, "/metrics")
    return series(body.decode()).get((name, frozenset(labels.items())))


def series(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return every sample by its name and labels."""
    return {
        (found.name, frozenset(found.labels.items())): found.value
        for family in text_string_to_metric_families(text)
        for found in family.samples
    }


async def test_a_worker_in_its_normal_state(vhost: str) -> None:
    """A ready worker is live and ready, has a page for people and no other, and answers HEAD without a body."""
    listen = free_address()
    async with Simulator() as lcm, worker(vhost, lcm.url, health__listen=listen):
        assert await get(listen, "/livez") == (200, b'{"ok":true,"reasons":[]}\n')
        assert await get(listen, "/readyz?verbose=1") == (200, b'{"ok":true,"reasons":[]}\n')
        status, body = await get(listen, "/")
        assert status == 200
        assert b'<b class="good">ready</b>' in body
        status, body = await get(listen, "/accounts")
        assert status == 404
        assert b"/readyz" in body
        assert await get(listen, "/livez", "HEAD") == (200, b"")


async def test_whoever_reaches_it_learns_no_account(vhost: str) -> None:
    """LCM's words about an account, an account in a job's id and one in a bad job's field are on no page."""
    listen = free_address()
    rules = (Rule("secret|*", "refuse"),)
    bodies = (
        b'{"account_number": "secret|4711", "job_id": "of secret|4711"}',
        b'{"account_number": 1, "job_id": 4711}',
        b'{"account_number": "secret|4711", "deadline": "secret|4711"}',
    )
    async with (
        Simulator(Behaviour(rules=rules)) as lcm,
        worker(vhost, lcm.url, health__listen=listen) as started,
    ):
        async with open_channel(vhost) as channel:
            for body in bodies:
                await channel.basic_publish(body, routing_key=JOBS)
        await started.logged("job.failed", 3)
        assert "secret|4711" in started.err.decode()
        _, page = await get(listen, "/")
        assert b"lcm_rejected" in page
        assert b"invalid_job" in page
        for path in ("/", "/livez", "/readyz", "/metrics"):
            assert b"4711" not in (await get(listen, path))[1]


async def test_a_worker_without_lcm_is_live_and_not_ready(vhost: str) -> None:
    """While LCM is away from the start, the worker is live, not ready for that reason, and counts as in an outage."""
    listen = free_address()
    async with Simulator() as lcm:
        await lcm.stop()
        async with Worker(
            broker__url=vhost, lcm__url=lcm.url, health__listen=listen, **QUICK_PROBES
        ) as running:
            await running.logged("lcm.outage_started")
            await until(lambda: _says(listen, ["lcm_outage"]), deadline=60)
            assert (await get(listen, "/livez"))[0] == 200
            assert (await get(listen, "/readyz"))[0] == 503
            assert await sample(listen, "lcm_worker_lcm_outage") == 1
            assert await sample(listen, "lcm_worker_ready") == 0
            await lcm.start()
            await running.logged("worker.ready")
            await until(lambda: _is_ready(listen), deadline=60)
            assert await sample(listen, "lcm_worker_lcm_outage") == 0


async def _is_ready(listen: str) -> bool:
    return (await get(listen, "/readyz"))[0] == 200


async def test_a_worker_without_its_broker_says_so() -> None:
    """A worker whose broker is away is live, and not ready since it neither consumes nor publishes."""
    listen = free_address()
    away = "amqp://guest:guest@127.0.0.1:1/"
    async with (
        Simulator() as lcm,
        Worker(broker__url=away, lcm__url=lcm.url, health__listen=listen) as running,
    ):
        await running.logged("broker.unreachable", 2)
        await running.logged("lcm.session_opened")
        await until(lambda: _says(listen, ["not_consuming", "not_publishing"]), deadline=60)
        assert (await get(listen, "/livez"))[0] == 200


async def _says(listen: str, codes: list[str]) -> bool:
    return await reasons(listen) == codes


async def test_a_blocked_broker_is_a_reason(broker: Node, vhost: str) -> None:
    """A worker whose results the broker does not take, because of an alarm, is not ready for as long as that lasts."""
    listen = free_address()
    async with (
        Simulator() as lcm,
        worker(vhost, lcm.url, health__listen=listen, **QUICK_PROBES) as running,
        open_channel(vhost) as channel,
    ):
        await lcm.stop()
        await publish(channel, *numbered(1))
        await running.logged("job.deferred")
        # Only who publishes in an alarm is told of it, so the job must get its answer after the alarm began.
        await broker.alarm(on=True)
        try:
            await lcm.start()
            await until(lambda: _says(listen, ["broker_blocked"]), deadline=60)
        finally:
            await broker.alarm(on=False)
        await until(lambda: _says(listen, []), deadline=60)
        await running.logged("job.succeeded")


async def test_a_drain_is_a_reason(vhost: str) -> None:
    """A worker that was asked to stop is not ready, but live, until what it has in hand is done."""
    listen = free_address()
    async with (
        Simulator(Behaviour(rules=(Rule("*", "silence"),))) as lcm,
        worker(vhost, lcm.url, health__listen=listen, lcm__reply_timeout="50s") as running,
        open_channel(vhost) as channel,
    ):
        await publish(channel, *numbered(1))
        await until(lambda: lcm.record)
        running.signal()
        await running.logged("worker.draining")
        assert await reasons(listen) == ["draining"]
        assert (await get(listen, "/livez"))[0] == 200
        running.signal()
        assert await running.ended() == 0


async def test_a_guard_that_tripped_is_a_reason(vhost: str) -> None:
    """A worker of which nearly all jobs fail alike is not ready, by the guard."""
    listen = free_address()
    async with (
        Simulator(Behaviour(rules=(Rule("*", "refuse"),))) as lcm,
        worker(vhost, lcm.url, health__listen=listen, guard__window=10) as running,
        open_channel(vhost) as channel,
    ):
        await publish(channel, *numbered(12))
        await running.logged("guard.tripped")

        async def is_told() -> bool:
            return await reasons(listen) == ["guard"]

        # The intake pauses only after it has seen what else is in the queue.
        await until(is_told)


async def test_metrics_count_what_happened(broker: Node, vhost: str) -> None:
    """Deliveries, failures, exchanges, retries, publishes and times are those of the jobs that were done."""
    listen = free_address()
    rules = (Rule("refused|*", "refuse"), Rule("flaky|*", "not-json", limit=1))
    async with (
        Simulator(Behaviour(rules=rules)) as lcm,
        worker(vhost, lcm.url, health__listen=listen, retry__first_delay="10ms") as running,
        open_channel(vhost) as channel,
    ):
        await publish(
            channel, *numbered(3), {"account_number": "refused|1"}, {"account_number": "flaky|1"}, b"no json"
        )
        await until(lambda: len(running.of("job.succeeded")) == 4 and len(running.of("job.failed")) == 2)
        assert await sample(listen, "lcm_worker_deliveries_total", result="succeeded") == 4
        assert await sample(listen, "lcm_worker_deliveries_total", result="failed") == 2
        assert await sample(listen, "lcm_worker_deliveries_total", result="deferred") == 0
        assert await sample(listen, "lcm_worker_failed_jobs_total", error="lcm_rejected") == 1
        assert await sample(listen, "lcm_worker_failed_jobs_total", error="invalid_job") == 1
        assert await sample(listen, "lcm_worker_exchanges_total", result="answered") == 5
        assert await sample(listen, "lcm_worker_exchanges_total", result="malformed_reply") == 1
        assert len(lcm.record) == 6
        assert await sample(listen, "lcm_worker_retries_total") == 1
        # Four results, two dead letters and their two failed results.
        assert await sample(listen, "lcm_worker_publishes_total", result="confirmed") == 8
        assert await sample(listen, "lcm_worker_lcm_seconds_count") == 4
        assert await sample(listen, "lcm_worker_job_seconds_count") == 6
        assert await sample(listen, "lcm_worker_in_flight_deliveries") == 0
        assert await sample(listen, "lcm_worker_broker_link_up", role="consume") == 1
        await close_connections(broker, vhost)
        await running.logged("broker.connected", 4)


async def test_metrics_tell_when_certificates_expire(vhost: str, tmp_path: Path) -> None:
    """A worker whose settings name a file of certificates reads it after its start, be there TLS or not."""
    listen, file = free_address(), Authority(tmp_path).file
    async with (
        Simulator() as lcm,
        worker(vhost, lcm.url, health__listen=listen, lcm__ca_file=file) as running,
    ):
        await running.logged("worker.ready")
        name = "lcm_worker_certificate_expiry_timestamp_seconds"
        [expiry] = expiries_of(load(None, {"LCM_WORKER_LCM__CA_FILE": file})).values()
        assert await sample(listen, name, setting="lcm.ca_file") == expiry


async def test_metrics_keep_to_prometheus_rules(vhost: str) -> None:
    """Prometheus's own linter has nothing to say, and no account number is ever in them."""
    listen = free_address()
    async with (
        Simulator() as lcm,
        worker(vhost, lcm.url, health__listen=listen) as running,
        open_channel(vhost) as channel,
    ):
        await publish(channel, *numbered(3))
        await running.logged("job.succeeded", 3)
        _, page = await get(listen, "/metrics")
        assert b"|1|2|0" not in page
        assert "_created" not in page.decode()
        assert await asyncio.to_thread(promtool, "check", "metrics", told=page.decode()) == ""


async def test_the_health_command_asks_the_worker(vhost: str) -> None:
    """`health` succeeds for a live worker, `--ready` only for a ready one; both print the answer."""
    listen = free_address()
    asked: dict[str, Any] = {"health__listen": listen}
    async with Simulator() as lcm, worker(vhost, lcm.url, health__listen=listen) as running:
        live = await command("health", **asked)
        assert (live.status, live.out, live.err) == (0, '{"ok":true,"reasons":[]}\n', "")
        await lcm.stop()
        await running.logged("lcm.session_closed")
        async with open_channel(vhost) as channel:
            await publish(channel, *numbered(1))
            await running.logged("lcm.outage_started")
        assert (await command("health", **asked)).status == 0
        not_ready = await command("health", "--ready", **asked)
        assert not_ready.status == 1
        assert "lcm_outage" in not_ready.out
    gone = await command("health", **asked)
    assert gone.status == 1
    assert "does the worker run" in gone.err


async def test_the_health_command_needs_an_address() -> None:
    """Without health.listen there is nothing to ask: wrong settings, with the remedy."""
    ended = await command("health")
    assert ended.status == 2
    assert "health.listen is empty" in ended.err


async def test_an_address_that_is_taken_is_one_clear_error(vhost: str) -> None:
    """A second worker on the same address ends at once, with status 2 and the remedy."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = await command(
            "run", broker__url=vhost, lcm__url="ws://127.0.0.1:1/", health__listen=listen, log__format="json"
        )
    assert ended.status == 2
    assert f"health.listen: {listen}" in ended.err
    assert "address of its own" in ended.err


async def test_a_worker_listens_on_ipv6(vhost: str) -> None:
    """An IPv6 address is served as well."""
    async with open_channel(vhost) as channel:
        await declare(channel, topology_of(broker_settings(vhost)))
    port = free_address().rpartition(":")[2]
    async with Simulator() as lcm, worker(vhost, lcm.url, health__listen=f"[::1]:{port}"):
        assert (await get(f"[::1]:{port}", "/livez"))[0] == 200
