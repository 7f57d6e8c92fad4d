"""Jobs as other people's producers send them: odd headers, odd properties, and what becomes of them in copies."""

from __future__ import annotations

import json
import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from aiormq import spec
from aiormq.abc import AbstractChannel

from tests.support.amqp import RawProperties, ReservedFlags, field, longstr, shortstr, table
from tests.support.channel import open_channel, take, take_all
from tests.support.log import RecordingLog
from tests.support.settings import broker_settings
from tests.support.waiting import running, until
from worker.app import App
from worker.broker.declare import declare
from worker.broker.topology import topology_of
from worker.settings import Settings
from worker.simulator.behaviour import Rule
from worker.simulator.server import Behaviour, Simulator

JOBS, RESULTS, DEAD = "lcm.outcome.jobs", "lcm.outcome.results", "lcm.outcome.dead"
MOMENT = datetime(2026, 1, 31, 12, tzinfo=UTC)
BODY = b'{"account_number": "bad", "job_id": "job-1"}'


async def both_copies(
    url: str, *messages: spec.Basic.Properties, declared: str = "active"
) -> list[spec.Basic.Properties]:
    """Let jobs with these properties be retried once and then fail; return those of the dead-letter copies.

    In between, a good job of each tells that the worker goes on; its connection is never lost.
    """
    rules = (Rule("bad", "error", 1), Rule("bad", "refuse"))
    async with Simulator(Behaviour(rules=rules)) as lcm:
        settings = Settings.model_validate(
            {
                "broker": {"url": url, "retry_delays": ["20ms"], "prefetch": 4, "declare": declared},
                "lcm": {"url": lcm.url, "sessions": 1},
                "retry": {"attempts": 1},
            }
        )
        log = RecordingLog()
        app = App(settings, log)
        async with running(app.run()), open_channel(url) as channel:
            await until(lambda: "worker.ready" in log.events)
            copies = []
            for properties in messages:
                lcm.behaviour = Behaviour(rules=rules)
                await submit(channel, BODY, properties)
                copies.append((await take(channel, DEAD)).header.properties)
                assert json.loads((await take(channel, RESULTS)).body)["error"]["code"] == "lcm_rejected"
                await submit(channel, b'{"account_number": "good"}', properties)
                assert json.loads((await take(channel, RESULTS)).body)["status"] == "succeeded"
            await until(lambda: app.consumer.in_flight == 0)
            assert "broker.lost" not in log.events
            assert "job.crashed" not in log.events
            assert await take_all(channel, DEAD) == []
    return copies


async def submit(channel: AbstractChannel, body: bytes, properties: spec.Basic.Properties) -> None:
    await channel.basic_publish(body, exchange=JOBS, routing_key="job", properties=properties, mandatory=True)


async def test_copies_keep_what_they_should_and_nothing_else(vhost: str) -> None:
    """Pitfall: properties kept on a republish. All stay but for `x-` headers, CC, BCC, expiration and user_id.

    The broker verifies the user_id of what was sent; the copy has the worker's own, and tells the sender's in a header.
    """
    sent = spec.Basic.Properties(
        content_type="application/json",
        content_encoding="utf-8",
        headers={
            "traceparent": "00-1",
            "campaign": "spring",
            "x-death": [{"queue": JOBS, "reason": "expired", "count": 7}],
            "X-Custom": "1",
            "x-first-death-reason": "rejected",
            "CC": ["somewhere.else"],
            "BCC": ["nowhere"],
            "cc": "kept: the broker knows capitals only",
            "outcome-worker": "an earlier one",
        },
        delivery_mode=1,
        priority=5,
        correlation_id="c-1",
        reply_to="my.replies",
        expiration="600000",
        message_id="m-1",
        timestamp=MOMENT,
        message_type="my.job",
        user_id="guest",
        app_id="my-dialer",
    )
    [got] = await both_copies(vhost, sent)
    assert got.expiration is None
    assert got.user_id == "guest", "the user that the worker logs in as"
    assert got.delivery_mode == 2
    for name in (
        "content_type", "content_encoding", "priority", "correlation_id", "reply_to", "message_id", "timestamp",
        "message_type", "app_id",
    ):  # fmt: skip
        assert getattr(got, name) == getattr(sent, name), name
    headers = dict(got.headers or {})
    assert headers.pop("outcome-failed-at")
    assert headers.pop("outcome-error-reason")
    assert headers.pop("outcome-worker") != "an earlier one"
    headers.pop("x-delivery-count", None)  # the broker's own, made while this copy was fetched
    assert headers == {
        "traceparent": "00-1",
        "campaign": "spring",
        "cc": "kept: the broker knows capitals only",
        "outcome-job-id": "job-1",
        "outcome-error-code": "lcm_rejected",
        "outcome-attempts": 2,
        "outcome-user-id": "guest",
        "outcome-app-id": "my-dialer",
    }


async def test_headers_of_every_type_survive_two_copies(vhost: str) -> None:
    """Whatever AMQP 0-9-1 can hold in a header is the same after a retry and a failure."""
    headers: dict[str, Any] = {
        "nested": {"table": {"deeper": [1, "two", {"three": 3.0}]}, "empty": {}},
        "list": [None, True, [], -1],
        "bytes": bytearray(b"\x00\xff"),
        "time": MOMENT,
        "decimal": Decimal("12.34"),
        "nothing": None,
        "yes": True,
        "big": 2**62,
        "negative": -(2**40),
        "float": 0.5,
        "empty": "",
        "text": "Grüße 📞",
        "line\nbreak": "a\r\nb",
    }
    [got] = await both_copies(vhost, spec.Basic.Properties(headers=headers))
    assert {name: (got.headers or {}).get(name) for name in headers} == headers


# Each as its letter and bytes, and what is found in the copies.
UNWRITABLE: dict[str, tuple[bytes, bytes, object]] = {
    "negative decimal": (b"D", struct.pack(">Bi", 2, -150), Decimal("-1.50")),
    "large decimal": (b"D", struct.pack(">BI", 0, 2**31), Decimal(-(2**31))),
    "text that is no UTF-8": (b"S", longstr(b"caf\xe9"), b"caf\xe9"),
    "double": (b"d", struct.pack(">d", 1e300), 1e300),
    "time in milliseconds": (b"T", struct.pack(">Q", 1_769_860_800_000), MOMENT),
    "time beyond all years": (b"T", struct.pack(">Q", 2**64 - 1), str(2**64 - 1)),
}


async def test_headers_that_the_library_reads_but_cannot_write(vhost: str) -> None:
    """Copies are made of such jobs as of any other, with the header in its place and all others beside it."""
    messages = [
        RawProperties(
            {
                "headers": table(
                    field(b"odd", kind, value),
                    field(b"plain", b"S", longstr(b"x")),
                    field(b"within", b"F", table(field(b"odd", kind, value))),
                )
            }
        )
        for kind, value, _ in UNWRITABLE.values()
    ]
    copies = await both_copies(vhost, *messages)
    for (name, (_, _, expected)), got in zip(UNWRITABLE.items(), copies, strict=True):
        found = got.headers or {}
        wanted = {"odd": expected, "plain": "x", "within": {"odd": expected}, "outcome-job-id": "job-1"}
        assert {key: found[key] for key in wanted} == wanted, name


def nested(depth: int) -> bytes:
    """Return a table in a table in a table."""
    innermost = table()
    for _ in range(depth):
        innermost = table(field(b"t", b"F", innermost))
    return innermost


UNREADABLE = {
    "time beyond all years": {"timestamp": struct.pack(">Q", 2**63)},
    "time in nanoseconds": {"timestamp": struct.pack(">Q", 1_769_860_800_000_000_000)},
    "header with such a time": {"headers": table(field(b"t", b"T", struct.pack(">Q", 2**64 - 1)))},
    "message id that is no UTF-8": {"message_id": shortstr(b"caf\xe9")},
    "header name that is no UTF-8": {"headers": table(field(b"caf\xe9", b"S", longstr(b"x")))},
    "tables nested deeply": {"headers": nested(5000)},
}


async def test_properties_that_the_library_cannot_read(vhost: str) -> None:
    """One producer's odd properties must not close the connection, and send back all that others have in hand."""
    copies = await both_copies(vhost, *(RawProperties(raw) for raw in UNREADABLE.values()))
    for name, got in zip(UNREADABLE, copies, strict=True):
        assert (got.headers or {})["outcome-job-id"] == "job-1", name


async def test_flags_that_stand_for_nothing_are_ignored(vhost: str) -> None:
    """To the library the last one announces more flags. A classic queue passes them on, a quorum queue clears them."""
    section = broker_settings(vhost, retry_delays=["20ms"])
    async with open_channel(vhost) as channel:
        await declare(channel, topology_of(section))
        await channel.queue_delete(JOBS)
        await channel.queue_declare(JOBS, durable=True)
        await channel.queue_bind(JOBS, JOBS, "job")
    [got] = await both_copies(vhost, ReservedFlags(message_id="m-1"), declared="passive")
    assert got.message_id == "m-1"
