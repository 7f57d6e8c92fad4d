"""Every command that reaches a broker, at one that offers less than the worker needs, or says back what it was told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.canaries import canary, found
from tests.support.commands import Ended, Worker, command
from tests.support.hostile_broker import hostile_broker

PASSWORD = canary("broker")
COMMANDS = [
    ("check",),
    ("status",),
    ("submit", "FILE"),
    ("submit", "FILE", "--wait"),
    ("dead", "list"),
    ("dead", "show"),
    ("dead", "replay", "--all"),
    ("dead", "drop", "--all", "--yes"),
    ("undelivered", "list"),
    ("undelivered", "show"),
    ("undelivered", "send", "--all"),
    ("undelivered", "drop", "--all", "--yes"),
    ("topology", "apply"),
]
NOWHERE = {"lcm__url": "ws://127.0.0.1:1/"}


@pytest.fixture(params=COMMANDS, ids=" ".join)
def words(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """One command, with a file of accounts where it takes one."""
    file = tmp_path / "accounts.txt"
    file.write_text("1|1\n")
    return [str(file) if word == "FILE" else word for word in request.param]


def url_of(broker: str) -> str:
    return f"amqp://user:{PASSWORD.quoted}@{broker}/"


def told(ended: Ended) -> list[str]:
    return (ended.out + ended.err).splitlines()


async def test_words_that_hold_the_password(words: list[str]) -> None:
    """What a broker says back is masked, and stays in the line that it is told in."""
    async with hostile_broker(f"{PASSWORD.value}\nlcm-worker: forged") as broker:
        ended = await command(*words, broker__url=url_of(broker), **NOWHERE)
    assert found((ended.out + ended.err).encode(), [PASSWORD]) == []
    assert "541" in ended.out + ended.err
    assert all("541" in line for line in told(ended) if "forged" in line)
    assert "Traceback" not in ended.err
    assert ended.status in {1, 2}


async def test_a_broker_that_confirms_nothing(words: list[str]) -> None:
    """A broker that does not offer to confirm messages is told as that, and nothing is published to it."""
    async with hostile_broker(properties={"capabilities": {}}) as broker:
        ended = await command(*words, broker__url=url_of(broker), **NOWHERE)
    assert "does not offer to confirm messages" in ended.out + ended.err
    assert "Traceback" not in ended.err
    assert ended.status in {1, 2}


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"capabilities": {}},
        {"capabilities": "all"},
        {"capabilities": {"publisher_confirms": False}},
        {"capabilities": {"publisher_confirms": "no"}},
    ],
    ids=["no-properties", "none", "text", "false", "false-as-text"],
)
async def test_a_worker_waits_for_a_broker_that_confirms(properties: dict[str, Any]) -> None:
    """A worker tells that it can't use such a broker, and goes on trying: another may come to stand there."""
    async with (
        hostile_broker(properties=properties) as broker,
        Worker(broker__url=url_of(broker), **NOWHERE) as worker,
    ):
        [line, *_] = await worker.logged("broker.unreachable")
        assert "does not offer to confirm messages" in line["error"]
        assert "RabbitMQ 3.10" in line["error"]
        worker.signal()
        assert await worker.ended() == 0


async def test_the_name_of_a_file_of_settings() -> None:
    """A line break in the path of `--config` forges no line either."""
    ended = await command("check", "--config", "/nowhere/x\nlcm-worker: forged")
    assert "/nowhere/x\\nlcm-worker: forged" in ended.err
