"""`lcm-worker dead replay` as a process, on a real broker, and a replayed job's way through a real worker."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from aiormq import spec
from aiormq.abc import AbstractChannel

from tests.support.broker import add_user
from tests.support.channel import depth, open_channel, take
from tests.support.commands import COMMAND, command, environment, on_terminal, worker
from tests.support.dead_letters import DEAD, JOBS, OURS, Dead, consume, job_ids, lines, publish_dead_letters
from tests.support.log import RecordingLog
from tests.support.settings import broker_settings
from tests.support.waiting import running, until
from worker.broker.admin.dead_letter import read_dead_letter
from worker.broker.admin.dead_letters import Browser, browse
from worker.broker.admin.replayer import Replayer
from worker.sandbox.node import Node
from worker.simulator.behaviour import Rule
from worker.simulator.server import Behaviour, Simulator

RESULTS = "lcm.outcome.results"


async def test_a_replayed_job_begins_anew(vhost: str) -> None:
    """A copy has the body byte for byte, the same job and message id, no counters, and one replay more."""
    body = b'{"account_number" : "18|1", "job_id":"j", "job_id":"j"}'
    extra = {
        "outcome-retries": 4,
        "outcome-returns": 2,
        "outcome-replays": 2,
        "x-death": [],
        "tenant": 7,
        "CC": ["a"],
    }
    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, [Dead("j", headers=extra, body=body, user_id="guest")])
        ended = await command("dead", "replay", "j", broker__url=vhost)
        assert (ended.status, lines(ended.out)[0]["job_id"]) == (0, "j")
        assert "replayed 1 letter;" in ended.err
        (copy,) = await consume(channel, JOBS, 1)
        assert await depth(channel, DEAD) == 0
    assert copy.body == body
    assert (copy.header.properties.message_id, copy.header.properties.delivery_mode) == ("m-j", 2)
    death = {
        "code": "timeout", "reason": "LCM did not reply in 10 s", "failed-at": "2026-01-31T12:00:00.000Z",
        "worker": "w-0", "attempts": 15,
    }  # fmt: skip
    assert copy.header.properties.headers == {
        "outcome-job-id": "j", "outcome-replays": 3, "tenant": 7, "outcome-history": [death],
    }  # fmt: skip


@pytest.mark.timeout_s(180)
async def test_what_is_not_selected_keeps_its_place(vhost: str) -> None:
    """Of 3,000 letters every third is replayed, each once; the others stay in their order."""
    async with open_channel(vhost) as channel:
        await publish_dead_letters(
            channel, vhost, [Dead(f"{n}", "internal" if n % 3 else "timeout") for n in range(3000)]
        )
        ended = await command("dead", "replay", "--code", "timeout", broker__url=vhost)
        assert ended.status == 0
        assert "replayed 1000 letters;" in ended.err
        assert len(lines(ended.out)) == 1000
        assert sorted(map(int, job_ids(await consume(channel, JOBS, 1000)))) == list(range(0, 3000, 3))
        await until(lambda: _is(channel, 2000))
        assert job_ids(await consume(channel, DEAD, 2000)) == [f"{n}" for n in range(3000) if n % 3]


async def _is(channel: AbstractChannel, wanted: int) -> bool:
    return await depth(channel, DEAD) == wanted


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--code", "internal"], ["c"]),
        (["--code", "internal", "--code", "timeout", "--limit", "2"], ["a", "b"]),
        (["--job-id", "b", "c"], ["b", "c"]),
        (["--newer-than", "60m"], ["b"]),
        (["--older-than", "60m"], ["a", "c"]),
        (["--all"], ["a", "b", "c", "odd"]),
    ],
)
async def test_the_selection_is_kept_to(vhost: str, options: list[str], wanted: list[str]) -> None:
    """`--dry-run` names exactly the letters that are then replayed, and changes nothing itself."""
    letters = [
        Dead("a"),
        Dead("b", failed_at="2999-01-01T00:00:00Z"),
        Dead("c", "internal"),
        Dead("odd", failed_at="never"),
    ]
    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, letters)
        rehearsed = await command("dead", "replay", *options, "--dry-run", broker__url=vhost)
        assert [line["job_id"] for line in lines(rehearsed.out)] == wanted
        await until(lambda: _is(channel, 4))
        assert await depth(channel, JOBS) == 0
        assert (await command("dead", "replay", *options, broker__url=vhost)).status == 0
        assert sorted(job_ids(await consume(channel, JOBS, len(wanted)))) == wanted


@pytest.mark.parametrize(
    "options",
    [[], ["--limit", "3"], ["--all", "--code", "x"], ["--older-than", "soon"], ["--all", "--limit", "0"]],
)
async def test_a_selection_is_needed(vhost: str, options: list[str]) -> None:
    """Without a selection, with one that contradicts itself, or with one that can't be read, the status is 2."""
    for what in (["replay"], ["drop", "--yes"]):
        ended = await command("dead", *what, *options, broker__url=vhost)
        assert (ended.status, ended.out) == (2, "")
        assert "Error" in ended.err


async def test_a_letter_of_the_brokers_own_is_replayed(vhost: str) -> None:
    """What the broker moved by itself goes back without its x- headers, under the id that it would be decoded with."""
    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, [])
        properties = spec.Basic.Properties(message_id="m-1", expiration="1", delivery_mode=2)
        await channel.basic_publish(b"no json", routing_key=JOBS, properties=properties)
        await until(lambda: _is(channel, 1))
        assert (await command("dead", "replay", "--code", "expired", broker__url=vhost)).status == 0
        (copy,) = await consume(channel, JOBS, 1)
    headers = copy.header.properties.headers or {}
    assert copy.body == b"no json"
    assert headers.keys() == {"outcome-job-id", "outcome-replays", "outcome-history"}
    assert headers["outcome-job-id"] == "m-1"
    assert copy.header.properties.expiration is None


async def test_a_producer_can_not_forge_a_letter(broker: Node, vhost: str) -> None:
    """What its headers say of error, job, producer and replays counts neither in a list nor for the replayed job."""
    name = vhost.rpartition("/")[2]
    forged: dict[str, Any] = {
        "outcome-job-id": "order-77", "outcome-error-code": "timeout", "outcome-error-reason": "no reply",
        "outcome-failed-at": "2026-01-31T12:00:00Z", "outcome-worker": "w-0", "outcome-user-id": "good",
        "outcome-app-id": "crm", "outcome-replays": 9,
    }  # fmt: skip
    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, [])
        await add_user(broker, name, configure="^$", write=JOBS, read="^$")
        async with open_channel(vhost.replace("guest:guest", f"{name}:secret")) as producing:
            await producing.basic_publish(
                b'{"job_id":"j","account_number":"18|1"}', exchange=JOBS, routing_key="job", mandatory=True,
                properties=spec.Basic.Properties(expiration="1", user_id=name, headers=forged, delivery_mode=2),
            )  # fmt: skip
        await until(lambda: _is(channel, 1))
        (group,) = lines((await command("dead", "list", broker__url=vhost)).out)
        assert (group["code"], group["user_id"], group["app_id"]) == ("expired", name, None)
        assert "nothing matches" in (await command("dead", "replay", "order-77", broker__url=vhost)).err
        replayed = await command("dead", "replay", "j", broker__url=vhost)
        (copy,) = await consume(channel, JOBS, 1)
    assert lines(replayed.out)[0]["user_id"] == name
    assert "replayed as user" not in replayed.err
    headers: dict[str, Any] = dict(copy.header.properties.headers or {})
    assert copy.header.properties.user_id == "guest"
    (death,) = headers.pop("outcome-history")
    assert death["code"] == "expired"
    assert headers == {"outcome-job-id": "j", "outcome-replays": 1, "outcome-user-id": name}


@pytest.mark.timeout_s(180)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
async def test_a_replay_that_is_ended_in_its_midst_loses_nothing(vhost: str, number: signal.Signals) -> None:
    """Ended between confirm and ack, a job is there twice at most, as the same job, and none is lost."""
    everything = {f"{n}" for n in range(2000)}
    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, [Dead(name) for name in sorted(everything, key=int)])
        replaying = await asyncio.create_subprocess_exec(
            COMMAND, "dead", "replay", "--all",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment({"broker.url": vhost}),
        )  # fmt: skip
        assert replaying.stdout is not None
        for _ in range(50):
            assert await replaying.stdout.readline()
        replaying.send_signal(number)
        _, err = await replaying.communicate()
        await until(lambda: _whole(channel, 2000))
        back, left = await depth(channel, JOBS), await depth(channel, DEAD)
        copies, letters = await consume(channel, JOBS, back), await consume(channel, DEAD, left)
    assert {*job_ids(copies), *job_ids(letters)} == everything
    assert back < 2000
    twice = {*job_ids(copies)} & {*job_ids(letters)}
    if number == signal.SIGINT:
        assert replaying.returncode == 130
        assert f"replayed {back} letters;" in err.decode()
        assert not twice
    assert all(
        copy.header.properties.message_id == f"m-{name}"
        for copy, name in zip(copies, job_ids(copies), strict=True)
    )
    assert job_ids(letters) == sorted(job_ids(letters), key=int)


async def test_a_letter_is_repaired(vhost: str, tmp_path: Path) -> None:
    """As the runbook has it: its body is taken out, put right and submitted, and the letter is dropped."""
    wrong = Dead("j-1", body=b'{\n "job_id": "j-1",\n "account_number": 5\n}')
    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, [wrong])
        (shown,) = lines((await command("dead", "show", "j-1", broker__url=vhost)).out)
        job = json.loads(shown["body"]) | {"account_number": "5"}
        file = tmp_path / "job.jsonl"
        file.write_text(json.dumps(job))
        submitted = await command("submit", str(file), broker__url=vhost)
        dropped = await command("dead", "drop", "j-1", "--yes", broker__url=vhost)
        (copy,) = await consume(channel, JOBS, 1)
        left = await depth(channel, DEAD)
    assert (submitted.status, dropped.status, left) == (0, 0, 0)
    assert json.loads(copy.body) == {"job_id": "j-1", "account_number": "5"}


async def test_a_rate_holds_letters_back(vhost: str) -> None:
    """With one letter in 1,000 s the second is still there when the first is done."""
    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, [Dead("first"), Dead("second")])
        replaying = await asyncio.create_subprocess_exec(
            COMMAND, "dead", "replay", "--all", "--rate", "0.001",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment({"broker.url": vhost}),
        )  # fmt: skip
        assert replaying.stdout is not None
        assert b'"first"' in await replaying.stdout.readline()
        replaying.send_signal(signal.SIGINT)
        _, err = await replaying.communicate()
        assert "replayed 1 letter;" in err.decode()
        await until(lambda: _whole(channel, 2))
        assert (await depth(channel, JOBS), await depth(channel, DEAD)) == (1, 1)


async def _whole(channel: AbstractChannel, count: int) -> bool:
    found = await depth(channel, JOBS) + await depth(channel, DEAD)
    return found >= count


async def test_a_confirm_without_an_ack_leaves_the_job_twice(
    vhost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended after the confirm and before the ack, letter and copy have the same job and message id."""
    settings = broker_settings(vhost)
    acknowledging = asyncio.Event()

    async def never(_browser: Browser, _tag: int) -> None:
        acknowledging.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Browser, "acknowledge", never)
    monkeypatch.setattr("worker.broker.admin.replayer._LAST_CONFIRMS_TIMEOUT", 0.0)

    async def replay() -> None:
        async with browse(settings, DEAD, name="t") as browser:
            replayer = Replayer(browser, settings, RecordingLog(), name="t")
            async with replayer.running():
                async for delivery in browser.deliveries():
                    await replayer.replay(delivery, read_dead_letter(delivery, OURS), lambda: None)

    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, [Dead("j")])
        async with running(replay()):
            await acknowledging.wait()
        await until(lambda: _is(channel, 1))
        (copy,), (letter,) = await consume(channel, JOBS, 1), await consume(channel, DEAD, 1)
    assert job_ids([copy]) == job_ids([letter]) == ["j"]
    assert copy.header.properties.message_id == letter.header.properties.message_id == "m-j"


@pytest.mark.timeout_s(180)
async def test_a_replayed_job_gets_a_result_of_its_own(vhost: str) -> None:
    """Replayed once LCM knows the account, a job succeeds; dying again, its history goes on; result ids differ."""
    refusing = Behaviour(rules=(Rule("9|*", "refuse"),))
    async with Simulator(refusing) as lcm, open_channel(vhost) as channel, worker(vhost, lcm.url) as process:
        body = b'{"account_number":"9|1","job_id":"j"}'
        await channel.basic_publish(body, exchange=JOBS, routing_key="job", mandatory=True)
        await process.logged("job.failed")
        results = [await take(channel, RESULTS)]
        assert (await command("dead", "replay", "j", broker__url=vhost)).status == 0
        await process.logged("job.failed", 2)
        results.append(await take(channel, RESULTS))
        (again,) = lines((await command("dead", "show", "j", broker__url=vhost)).out)
        assert again["headers"]["outcome-replays"] == 1
        assert [death["code"] for death in again["headers"]["outcome-history"]] == ["lcm_rejected"]
        lcm.behaviour = Behaviour()
        assert (await command("dead", "replay", "--code", "lcm_rejected", broker__url=vhost)).status == 0
        await process.logged("job.succeeded")
        results.append(await take(channel, RESULTS))
    bodies = [json.loads(result.body) for result in results]
    assert [body.get("replays") for body in bodies] == [None, 1, 2]
    assert bodies[-1]["attempts"] == 1
    assert len({result.header.properties.message_id for result in results}) == 3


async def test_drop_saves_before_it_drops(vhost: str, tmp_path: Path) -> None:
    """With `--output` each dropped letter is a line of a new file for the owner alone; the others stay in order."""
    path = tmp_path / "dropped.jsonl"
    async with open_channel(vhost) as channel:
        await publish_dead_letters(
            channel, vhost, [Dead(f"{n}", "internal" if n % 2 else "timeout") for n in range(10)]
        )
        options = ["dead", "drop", "--code", "internal", "--yes", "--output", str(path)]
        ended = await command(*options, broker__url=vhost)
        assert (ended.status, ended.out) == (0, "")
        assert "dropped 5 letters;" in ended.err
        saved = lines(await asyncio.to_thread(path.read_text))
        assert [record["job_id"] for record in saved] == ["1", "3", "5", "7", "9"]
        assert saved[0]["body"] == '{"account_number":"18|1","job_id":"1"}'
        again = await command("dead", "drop", "--all", "--yes", "--output", str(path), broker__url=vhost)
        assert again.status == 2
        assert "exists already" in again.err
        await until(lambda: _is(channel, 5))
        assert job_ids(await consume(channel, DEAD, 5)) == ["0", "2", "4", "6", "8"]


async def test_drop_asks_only_on_a_terminal(vhost: str) -> None:
    """Without a terminal and without `--yes` nothing is dropped, and the status is 2."""
    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, [Dead("1")])
        ended = await command("dead", "drop", "--all", broker__url=vhost)
        assert ended.status == 2
        assert "--yes" in ended.err
        assert await depth(channel, DEAD) == 1


async def test_on_a_terminal_a_rehearsal_is_a_table(vhost: str) -> None:
    """On a terminal `--dry-run` shows the groups that would be replayed."""
    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, [Dead("1"), Dead("2")])
    shown = await on_terminal("dead", "replay", "--all", "--dry-run", columns=80, broker__url=vhost)
    assert "what would be replayed" in shown.out
    assert "2 letters would be replayed; nothing was changed" in shown.out
