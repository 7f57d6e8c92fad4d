"""The tools of the fault rig see what happens, do what they are told, and notice what is wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiormq.exceptions import DeliveryError, PublishError
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.faults.rig.amqp_frames import (
    AmqpConversation,
    AmqpFrame,
    Content,
    is_client_ack,
    is_confirm,
    is_delivery,
    is_method,
    is_publish,
    is_refusal,
    is_return,
)
from tests.faults.rig.cluster import Cluster
from tests.faults.rig.ledger import Ledger, NotSettled
from tests.faults.rig.report import NothingInjected, Report
from tests.faults.rig.totals import as_table, totals
from tests.faults.rig.wire import wire_violations
from tests.faults.rig.workers import WorkerEnded, WorkerProcess
from tests.faults.rig.ws_frames import WsConversation, is_kind, is_reply, is_request
from tests.support.channel import open_channel
from tests.support.settings import broker_settings
from tests.support.waiting import until
from tests.support.wire.proxy import Proxy
from tests.support.wire.raw_frames import RawConversation
from tests.support.wire.record import FROM_WORKER, TO_WORKER, Direction, Recorder
from worker.sandbox.node import Node
from worker.simulator.server import Behaviour, Simulator

ACCOUNT = "18|1|2|0|0|44|274"
REQUEST = json.dumps(
    {
        "channel": "LCM",
        "topic": "WebService",
        "subtopic": "SetCallOutComeOffline",
        "data": {"AccountNumber": ACCOUNT},
    }
)


@dataclass
class Rig:
    """A worker between two proxies, and the books."""

    broker: Proxy
    lcm: Proxy
    simulator: Simulator
    ledger: Ledger
    settings: dict[str, object]

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[WorkerProcess]:
        async with WorkerProcess(self.settings) as worker:
            await worker.started()
            yield worker


@asynccontextmanager
async def rig(node: Node, vhost: str) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(Behaviour()))
        broker = await stack.enter_async_context(Proxy(AmqpConversation, vhost))
        lcm = await stack.enter_async_context(Proxy(WsConversation, simulator.url))
        ledger = await stack.enter_async_context(Ledger(broker_settings(vhost), node))
        settings: dict[str, object] = {"broker.url": broker.url, "lcm.url": lcm.url, "lcm.sessions": 4}
        yield Rig(broker, lcm, simulator, ledger, settings)


async def test_a_confirm_is_held_and_let_go(broker: Node, vhost: str) -> None:
    """No ack of a job passes while the confirm of its result is held, other jobs go on, and then it is acked."""
    async with rig(broker, vhost) as parts, parts.worker():
        hold = parts.broker.hold_at(is_confirm(exchange_suffix=".results"), TO_WORKER)
        [held] = await parts.ledger.submit([ACCOUNT])
        await hold
        [content] = hold.frame.settles
        assert (content.job_id, content.routing_key) == (held, "result.succeeded")
        [other] = await parts.ledger.submit(["596|485|587|0|0|44|59"])
        await parts.broker.passed(is_publish(exchange_suffix=".results", job_id=other))
        assert not parts.broker.recorder.of(is_client_ack())
        hold.release()
        ack = await parts.broker.passed(is_client_ack(job_id=held))
        [confirm] = parts.broker.recorder.of(is_confirm(job_id=held))
        assert confirm.seq < ack.seq
        await parts.ledger.settled()
        parts.ledger.assert_invariants()
        assert parts.ledger.counts() == {
            "jobs": 2,
            "results": 2,
            "repeats": 0,
            "dead": 0,
            "lost": 0,
            "wrong": 0,
        }
        assert wire_violations(parts.broker.recorder) == []
        assert parts.broker.injected == {"hold": 1}


async def test_a_worker_is_killed_at_a_held_frame(broker: Node, vhost: str) -> None:
    """A worker killed before it hears of a confirm leaves its job to the next one, whose result is a repeat."""
    async with rig(broker, vhost) as parts:
        async with parts.worker() as first:
            hold = parts.broker.hold_at(is_confirm(exchange_suffix=".results"), TO_WORKER)
            [job] = await parts.ledger.submit([ACCOUNT])
            await hold
            first.kill()
            assert await first.wait() == -9
        hold.release()
        async with parts.worker() as second:
            again = await parts.broker.passed(is_delivery(job_id=job, redelivered=True))
            assert again.connection != hold.connection
            await parts.ledger.settled()
            second.terminate()
            assert await second.wait() == 0
        parts.ledger.assert_invariants()
        assert parts.ledger.counts()["repeats"] == 1
        assert wire_violations(parts.broker.recorder) == []


async def test_a_connection_is_reset_at_the_nth_publish(broker: Node, vhost: str) -> None:
    """What is held when the connection is reset never arrives; the worker connects anew and no job suffers."""
    async with rig(broker, vhost) as parts, parts.worker():
        hold = parts.broker.hold_at(is_publish(exchange_suffix=".results"), FROM_WORKER, nth=5)
        await parts.ledger.submit(f"{number}|1" for number in range(20))
        await hold
        hold.reset()
        await parts.ledger.settled()
        parts.ledger.assert_invariants()
        assert parts.ledger.counts()["repeats"] < 20
        assert wire_violations(parts.broker.recorder) == []
        assert parts.broker.injected == {"hold": 1, "reset": 1}
        assert parts.broker.accepted >= 3


async def test_everything_still_works_in_single_bytes(broker: Node, vhost: str) -> None:
    """With every byte sent by itself both ways, on both protocols, jobs come to their results."""
    async with rig(broker, vhost) as parts:
        parts.broker.slice()
        parts.lcm.slice()
        async with parts.worker():
            await parts.ledger.submit([ACCOUNT, "5|3|1|0|0|44|1"])
            await parts.ledger.settled()
        parts.ledger.assert_invariants()
        assert {seen.frame.account for seen in parts.lcm.recorder.of(is_request())} == {
            ACCOUNT,
            "5|3|1|0|0|44|1",
        }


async def test_lcm_is_held_frozen_and_cut() -> None:
    """A reply can be held by what it says; a proxy that is frozen reads nothing; a cut one closes both sides."""
    async with Simulator(Behaviour()) as simulator, Proxy(WsConversation, simulator.url) as proxy:
        hold = proxy.hold_at(is_reply(containing=ACCOUNT.encode()), TO_WORKER)
        async with connect(proxy.url, proxy=None, compression=None) as client:
            await client.send(REQUEST)
            await hold
            pong = asyncio.ensure_future(await client.ping())
            await proxy.passed(is_kind("ping", FROM_WORKER))
            assert not pong.done()
            hold.release()
            assert ACCOUNT in str(await client.recv())
            await pong
            proxy.freeze(FROM_WORKER)
            await client.send(REQUEST)
            async with connect(simulator.url, proxy=None) as other:
                await other.send(REQUEST)
                await other.recv()
            assert len(simulator.record) == 2
            proxy.thaw()
            await client.recv()
            proxy.delay(0.01, TO_WORKER)
            await client.send(REQUEST)
            await client.recv()
            proxy.cut()
            with pytest.raises(ConnectionClosed):
                await client.recv()
            await until(lambda: not simulator.live and not proxy.connections)
        assert [seen.frame.status for seen in proxy.recorder.of(is_kind("handshake"))] == [0, 101]
        assert all(not seen.frame.payload for seen in proxy.record)
        await proxy.refuse()
        with pytest.raises(OSError, match="Connect call failed"):
            await connect(proxy.url, proxy=None)
        assert proxy.injected == {"hold": 1, "freeze": 1, "delay": 1, "cut": 1, "refuse": 1}


async def test_a_connection_is_hung_up() -> None:
    """What was held arrives, with the end of the connection right behind it."""
    async with Simulator(Behaviour()) as simulator, Proxy(WsConversation, simulator.url) as proxy:
        hold = proxy.hold_at(is_reply(), TO_WORKER)
        async with connect(proxy.url, proxy=None, compression=None) as client:
            await client.send(REQUEST)
            (await hold).hang_up()
            assert ACCOUNT in str(await client.recv())
            with pytest.raises(ConnectionClosed):
                await client.recv()
        await until(lambda: not simulator.live and not proxy.connections)
        assert proxy.injected == {"hold": 1, "hang_up": 1}


async def test_bytes_pass_that_nobody_understands(vhost: str) -> None:
    """A proxy without a protocol of its own passes everything, both ways."""
    async with Proxy(RawConversation, vhost) as proxy, open_channel(proxy.url) as channel:
        assert (await channel.queue_declare("q", durable=True)).queue == "q"
        assert {seen.direction for seen in proxy.record} == set(Direction)


async def test_a_closed_channel_is_seen(vhost: str) -> None:
    """The broker's own words for closing a channel are in the record, and a hold that is let go never acts."""
    async with Proxy(AmqpConversation, vhost) as proxy, open_channel(proxy.url) as channel:
        proxy.hold_at(is_method("channel.close"), TO_WORKER).release()
        with pytest.raises(Exception, match="no queue 'none'"):
            await channel.queue_declare("none", passive=True)
        seen = await proxy.passed(is_method("channel.close"))
        assert "no queue 'none'" in seen.frame.text
        assert not proxy.injected


def planted(*steps: tuple[str, Direction, int, Content]) -> Recorder:
    """A record in which these things happen; an ack settles what is given."""
    recorder = Recorder()
    for kind, direction, connection, content in steps:
        settles = (content,) if kind == "basic.ack" else ()
        about = None if kind == "basic.ack" else content
        recorder.note(connection, direction, AmqpFrame(kind, direction, 1, content=about, settles=settles))
    return recorder


def test_an_early_ack_is_found() -> None:
    """An ack before the confirm is a violation, after it none; a returned copy or another job's is no excuse."""
    job, result = Content("jobs", "job", job_id="1"), Content("x.results", "result.succeeded", job_id="1")
    delivered, published = ("basic.deliver", TO_WORKER, 1, job), ("basic.publish", FROM_WORKER, 2, result)
    confirmed, acked = ("basic.ack", TO_WORKER, 2, result), ("basic.ack", FROM_WORKER, 1, job)
    assert wire_violations(planted(delivered, published, confirmed, acked)) == []
    [early] = wire_violations(planted(delivered, published, acked, confirmed))
    assert "frame 2, connection 1, channel 1: ack of job '1'" in early
    assert wire_violations(planted(published, confirmed, delivered, acked))
    result.returned = True
    assert wire_violations(planted(delivered, published, confirmed, acked))
    result.returned, result.job_id = False, "2"
    assert wire_violations(planted(delivered, published, confirmed, acked))


def test_one_result_stands_in_for_one_delivery() -> None:
    """Of two deliveries of a job, each needs a confirm of its own; a record that is full proves nothing."""
    one, two = Content("jobs", "job", job_id="1"), Content("jobs", "job", job_id="1")
    result = Content("x.results", "result.succeeded", job_id="1")
    steps = (
        ("basic.deliver", TO_WORKER, 1, one),
        ("basic.deliver", TO_WORKER, 1, two),
        ("basic.publish", FROM_WORKER, 2, result),
        ("basic.ack", TO_WORKER, 2, result),
        ("basic.ack", FROM_WORKER, 1, one),
        ("basic.ack", FROM_WORKER, 1, two),
    )
    assert len(wire_violations(planted(*steps))) == 1
    full = Recorder(limit=1)
    for _ in range(2):
        full.note(1, TO_WORKER, AmqpFrame("heartbeat", TO_WORKER))
    assert "full" in wire_violations(full)[0]


async def test_returns_and_refusals_are_told_from_confirms(vhost: str) -> None:
    """A publish that came back stands as returned in its confirm, and one that a full queue refused is no confirm."""
    async with Proxy(AmqpConversation, vhost) as proxy, open_channel(proxy.url) as channel:
        await channel.queue_declare("full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
        await channel.basic_publish(b"{}", routing_key="full")
        with pytest.raises(DeliveryError):
            await channel.basic_publish(b"{}", routing_key="full")
        with pytest.raises(PublishError):
            await channel.basic_publish(b"{}", routing_key="nowhere", mandatory=True)
        [refusal] = proxy.recorder.of(is_refusal())
        [returned] = proxy.recorder.of(is_return())
        good, lost = proxy.recorder.of(is_confirm())
        assert good.seq < refusal.seq < returned.seq < lost.seq
        assert [content.returned for content in good.frame.settles + lost.frame.settles] == [False, True]
        assert not refusal.frame.settles[0].returned


async def test_multiple_settles_all_before(vhost: str) -> None:
    """One ack with `multiple` settles every delivery up to its tag, and the record names their jobs."""
    async with Proxy(AmqpConversation, vhost) as proxy, open_channel(proxy.url) as channel:
        await channel.queue_declare("q", durable=True)
        bodies = [json.dumps({"job_id": f"job-{n}", "account_number": "1"}).encode() for n in range(3)]
        for body in bodies:
            await channel.basic_publish(body, routing_key="q")
        tags: asyncio.Queue[int] = asyncio.Queue()

        async def take(message: object) -> None:
            await tags.put(getattr(message, "delivery_tag", 0))

        await channel.basic_consume("q", take)
        last = [await tags.get() for _ in bodies][-1]
        await channel.basic_ack(last, multiple=True)
        ack = (await proxy.passed(is_client_ack())).frame
        assert [content.job_id for content in ack.settles] == ["job-0", "job-1", "job-2"]


async def test_the_ledger_finds_what_is_wrong(broker: Node, vhost: str) -> None:
    """A job without an end, another account's list, two ids for one result and strangers are all told."""
    async with Ledger(broker_settings(vhost), broker) as ledger:
        await ledger.submit(["1 |  a", "2", "3"])
        with pytest.raises(NotSettled, match=r"without an end: 3 \(job-1, .*lcm.outcome.jobs': 3"):
            await ledger.settled(deadline=2)

        def give(job: str, account: str, message_id: str, *, named: str = "", again: bool = False) -> None:
            body = {
                "job_id": job,
                "account_number": account,
                "status": "succeeded",
                "outcomes": [{"id": "1000", "code": "", "description": f"Account {named or account}"}],
            }
            ledger.take_result(json.dumps(body).encode(), message_id=message_id, redelivered=again)

        give("job-1", "1 |  a", "m1", named="1 | a")
        give("job-1", "1 |  a", "m1", named="1 | a")
        give("job-1", "1 |  a", "m1", named="1 | a", again=True)
        assert ledger.repeats == 1
        assert not ledger.wrong
        give("job-2", "2", "m2", named="3")
        give("job-2", "2", "m3")
        give("job-9", "9", "m9")
        assert ledger.wrong == ["job-2", "job-9"]
        assert ledger.lost == ["job-3"]
        with pytest.raises(AssertionError) as told:
            ledger.assert_invariants()
        for mistake in ("lost: 1 (job-3)", "account: 2", "for one result: 1 (job-2)", "submitted: 1 (job-9)"):
            assert mistake in str(told.value)


async def test_dead_letters_are_counted_and_left(broker: Node, vhost: str) -> None:
    """A job that LCM refuses stands in the books as failed and dead, and in its queue however often it is read."""
    async with rig(broker, vhost) as parts, parts.worker():
        parts.simulator.behaviour = Behaviour(known="1*")
        [_, bad] = await parts.ledger.submit(["1|1", "2|1"])
        await parts.ledger.settled()
        await parts.ledger.look_at_dead()
        assert parts.ledger.counts()["dead"] == 1
        assert parts.ledger.failed == {bad: "lcm_rejected"}
        parts.ledger.assert_invariants(mendable=False)
        with pytest.raises(AssertionError, match="dead: 1"):
            parts.ledger.assert_invariants()
        assert wire_violations(parts.broker.recorder) == []


async def test_the_ledger_outlives_its_broker(vhost: str, broker: Node) -> None:
    """The ledger makes connections that it loses anew, and publishes what was not confirmed again."""
    async with (
        Proxy(AmqpConversation, vhost) as proxy,
        Ledger(broker_settings(proxy.url), broker) as ledger,
    ):
        hold = proxy.hold_at(is_publish(), FROM_WORKER)
        submitting = asyncio.ensure_future(ledger.submit(["1", "2"]))
        await hold
        proxy.reset()
        assert await submitting == ["job-1", "job-2"]
        await until(lambda: has(ledger, "lcm.outcome.jobs", 2))


async def test_a_worker_that_ends_too_early_says_why() -> None:
    """Waiting for a worker whose settings are wrong fails with its own words."""
    async with WorkerProcess({"broker.url": "http://nowhere"}) as worker:
        with pytest.raises(WorkerEnded, match="amqp://"):
            await worker.started()
        assert await worker.wait() == 2


def test_a_row_without_faults_fails(tmp_path: Path) -> None:
    """Every row is written down with its counts; one without a fault fails; the seed decides what is drawn."""
    path = tmp_path / "faults.json"
    report = Report(path, seed=7)
    with report.row("1", "kill") as row:
        row.inject("kill")
        row.count_faults({"reset": 2, "cut": 0})
        row.count({"jobs": 3, "results": 3, "other": 1})
        drawn = row.random.random()
    with pytest.raises(NothingInjected, match="row 2 : no fault was injected"), report.row("2"):
        pass
    first, second = json.loads(path.read_bytes())
    assert (first["row"], first["seed"], first["faults_injected"], first["jobs"]) == ("1", 7, 3, 3)
    assert (first["passed"], second["passed"], first["faults"]) == (True, False, {"kill": 1, "reset": 2})
    with Report(None, seed=7).row("1", "kill") as row:
        row.inject("kill")
        assert row.random.random() == drawn


def test_the_figures_of_many_runs_are_added_up() -> None:
    """Rows come in the order of their numbers, and then all of them; a test that failed is not added in silence."""
    report = Report(None, seed=7)
    for name in ("10", "9", "10"):
        with report.row(name) as row:
            row.inject("kill")
            row.count({"jobs": 1000})
    with pytest.raises(NothingInjected), report.row("9"):
        pass
    table = as_table(totals([report.records, report.records])).splitlines()
    assert table[0].startswith("| row | tests | failed | faults injected | jobs |")
    assert [line.split(" | ")[:5] for line in table[2:]] == [
        ["| 9", "4", "2", "2", "2,000"],
        ["| 10", "4", "0", "4", "4,000"],
        ["| all", "8", "2", "6", "6,000"],
    ]


@pytest.mark.timeout_s(240)
async def test_a_cluster_elects_leaders(cluster: Cluster) -> None:
    """A queue has replicas on all nodes; with its leader killed another takes over, and the node comes back."""
    urls = await cluster.add_vhost("rig")
    async with Ledger(broker_settings(*urls), cluster) as ledger:
        jobs = "lcm.outcome.jobs"
        assert len(await cluster.replicas_of(jobs, "rig")) == 3
        await ledger.submit(["1"])
        old = await cluster.leader_of(jobs, urls[1])
        await old.kill()
        new = await cluster.leader_of(jobs, "rig")
        assert new is not old
        await ledger.submit(["2"])
        await old.start()
        await cluster.whole()
        await until(lambda: has(ledger, jobs, 2))


async def has(ledger: Ledger, queue: str, length: int) -> bool:
    return ((await ledger.lengths()) or {}).get(queue) == length
