"""The other commands as processes: `simulate`, `demo`, `sandbox`, and how any of them ends."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from tests.support.commands import COMMAND, command, ending, environment, program
from tests.support.waiting import until
from worker import __version__
from worker.sandbox.folder import free_port
from worker.sandbox.node import Node


async def entities(broker: Node, vhost: str) -> list[str]:
    """Return the names of all queues and of all exchanges that were declared in a vhost."""
    name = f'<<"{vhost.rpartition("/")[2]}">>'
    exchanges = f"[element(2, Exchange) || Exchange <- rabbit_exchange:list({name})]"
    listed = await broker.eval(f"rabbit_amqqueue:list_names({name}) ++ {exchanges}")
    return [
        found for found in re.findall(r'<<"([^"]*)">>\}', listed) if found and not found.startswith("amq.")
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_simulate_serves_until_it_is_told_to_stop(number: signal.Signals, tmp_path: Path) -> None:
    """`simulate` says where it listens, answers, records each exchange, and ends with status 0 when told to."""
    record = tmp_path / "exchanges.jsonl"
    simulating = await asyncio.create_subprocess_exec(
        COMMAND, "simulate", "--port", "0", "--scenario", "empty", "--record", record,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment({}),
    )  # fmt: skip
    assert simulating.stderr is not None
    said = (await simulating.stderr.readline()).decode()
    found = re.fullmatch(r"LCM simulator on (ws://127\.0\.0\.1:\d+/)\n", said)
    assert found, said
    asked = await command("lookup", "18|1", lcm__url=found[1])
    assert msgspec.json.decode(asked.out)["outcomes"] == []
    await until(record.exists)
    exchange = msgspec.json.decode(record.read_bytes())
    assert (exchange["account"], exchange["fault"]) == ("18|1", "empty")
    simulating.send_signal(number)
    assert await simulating.communicate() == (b"", b"")
    assert simulating.returncode == 0


async def test_simulate_says_where_it_cannot_listen(broker: Node) -> None:
    """A port that is taken is one line on standard error and status 1."""
    ended = await command("simulate", "--port", str(broker.port))
    assert ended.status == 1
    assert ended.err.startswith(f"lcm-worker: can't simulate on 127.0.0.1:{broker.port}: ")
    assert ended.err.count("\n") == 1


async def test_simulate_ends_where_its_record_takes_no_more(tmp_path: Path) -> None:
    """A record that can grow no more ends it after the exchange, with one line that names the file, and status 1."""
    # Whoever measures coverage could write nothing either.
    variables = {name: value for name, value in environment({}).items() if not name.startswith("COV")}
    simulating = await asyncio.create_subprocess_exec(
        "sh", "-c", f"ulimit -f 0; exec {COMMAND} simulate --port 0 --record {tmp_path / 'record'}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=variables,
    )  # fmt: skip
    assert simulating.stderr is not None
    url = (await simulating.stderr.readline()).decode().split()[-1]
    await command("lookup", "18|1", lcm__url=url)
    _, told = await simulating.communicate()
    assert simulating.returncode == 1
    assert told.endswith(b"/record: File too large\n")
    assert told.count(b"\n") == 1


async def test_run_tells_every_mistake_at_once(tmp_path: Path) -> None:
    """Wrong settings, in the file and in the environment, are all told, each with its source; the status is 2."""
    config = tmp_path / "worker.toml"
    config.write_text('[lcm]\nsession = 3\nurl = "http://lcm/"\n')
    ended = await command("run", "--config", config, retry__attempts="many", log__levle="info")
    assert (ended.status, ended.out) == (2, "")
    lines = ended.err.splitlines()
    assert all(line.startswith("lcm-worker: ") for line in lines)
    told = {line.split(":")[1].strip(): line for line in lines}
    assert told.keys() == {"lcm.session", "lcm.url", "retry.attempts", "log.levle"}
    assert f"({config}: lcm.session)" in told["lcm.session"]
    assert "(environment variable LCM_WORKER_RETRY__ATTEMPTS)" in told["retry.attempts"]


async def test_the_package_runs_as_a_module() -> None:
    """`python -m worker` is the same command, under the same name."""
    ended = await program(sys.executable, "-m", "worker", "--version")
    assert (ended.status, ended.out) == (0, f"lcm-worker {__version__}\n")
    usage = await program(sys.executable, "-m", "worker", "run", "--nothing")
    assert usage.status == 2
    assert usage.err.startswith("Usage: lcm-worker run ")


async def test_run_imports_nothing_that_it_does_not_need() -> None:
    """Starting a worker loads neither the sandbox nor tables; asking for help not even the broker's library."""
    script = "import sys, worker.cli; {}; print(*(name for name in {} if name in sys.modules))"
    heavy = ["worker.sandbox", "worker.simulator", "worker.cli.tables", "websockets.asyncio.server"]
    started = await program(sys.executable, "-c", script.format("import worker.app", heavy))
    assert (started.status, started.out.split()) == (0, [])
    asked = await program(sys.executable, "-c", script.format("pass", [*heavy, "aio_pika", "websockets"]))
    assert (asked.status, asked.out.split()) == (0, [])


async def test_the_demo_shows_it_all_and_cleans_up(vhost: str, broker: Node) -> None:
    """`demo` ends with 0, shows the sample's 50 outcomes by id and why jobs failed, and leaves nothing behind."""
    ended = await command("demo", broker__url=vhost)
    assert "lcm-worker check --config worker.toml" in ended.out
    assert (ended.status, ended.err) == (0, "")
    assert "RabbitMQ   the one of the settings, which answers" in ended.out
    assert "{" not in ended.out  # lines of the worker's log are shown in a short form
    outcomes = ended.out.partition("Outcomes of 18|1|2|0|0|44|274")[2].partition("In the dead-letter queue")[
        0
    ]
    ids = [int(found) for found in re.findall(r"^ {0,4}(\d+) ", outcomes, re.MULTILINE)]
    assert len(ids) == 50
    assert ids == sorted(ids)
    dead = {
        line.split()[0]: line
        for line in ended.out.rpartition("In the dead-letter queue")[2].splitlines()
        if line.strip()
    }
    for job, code, reason in (
        ("refused", "lcm_rejected", "LCM rejected the account"),
        ("malformed", "invalid_job", "account_number must be a string"),
        ("no-json", "invalid_job", "the body must be a JSON object"),
        ("cut-off", "malformed_reply", "LCM's reply can't be read"),
        ("slow", "timeout", "LCM did not reply in 0.5 s"),
    ):
        assert code in dead[job]
        assert reason in dead[job]
    assert await entities(broker, vhost) == []


async def test_a_demo_that_nobody_watches_cleans_up(vhost: str, broker: Node) -> None:
    """In a pipe whose reader leaves, as `head` does, a demo goes on in silence and leaves nothing behind."""
    shell = f"{COMMAND} demo | head -n 3"
    ended = await program("sh", "-c", shell, broker__url=vhost)
    assert (ended.err, ended.out.count("\n")) == ("", 3)
    assert await entities(broker, vhost) == []


async def test_a_demo_that_is_interrupted_cleans_up(vhost: str, broker: Node) -> None:
    """A demo that is told to end in its midst deletes what it made on a broker that isn't its own."""
    showing = await asyncio.create_subprocess_exec(
        COMMAND, "demo",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment({"broker.url": vhost}),
    )  # fmt: skip
    assert showing.stdout is not None
    while b"job.succeeded" not in (line := await showing.stdout.readline()):
        assert line
    showing.terminate()
    await showing.communicate()
    assert showing.returncode == 130
    assert await entities(broker, vhost) == []


def run_in(folder: Path, name: str) -> list[str]:
    """A command as a process in a folder, by a shell."""
    return ["sh", "-c", f'cd "$1" && exec "{COMMAND}" {name}', "sh", str(folder)]


def demo_in(folder: Path) -> list[str]:
    """The demo as a process in a folder, with no broker but a private node."""
    return run_in(folder, "demo")


async def test_a_demo_in_a_folder_that_others_can_change_is_refused(tmp_path: Path) -> None:
    """One line says what is wrong and what to do; the status is 2, and nothing is made at a link's target."""
    (tmp_path / "target").mkdir()
    (tmp_path / ".sandbox").symlink_to("target")
    ended = await program(*demo_in(tmp_path), broker__url=f"amqp://127.0.0.1:{free_port()}/")
    assert ended.status == 2
    assert re.fullmatch(
        r"lcm-worker: .*\.sandbox: is a symbolic link; run this in a folder of your own\n", ended.err
    )
    assert not list((tmp_path / "target").iterdir())


def processes_that_know(folder: Path) -> list[Path]:
    """Find the processes with this folder in their environment, as /proc has them."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it ended meanwhile, or is another user's
            if bytes(folder) in file.read_bytes():
                found.append(file)
    return found


@pytest.mark.parametrize(
    ("number", "again"), [(signal.SIGINT, False), (signal.SIGINT, True), (signal.SIGTERM, True)]
)
async def test_a_demo_that_is_interrupted_while_its_node_starts_cleans_up(
    tmp_path: Path, number: signal.Signals, again: bool
) -> None:
    """Neither the Erlang cookie nor the node's data stay, nor a process; not even where a second signal follows."""
    closed = f"amqp://127.0.0.1:{free_port()}/"
    demo = await asyncio.create_subprocess_exec(
        *demo_in(tmp_path),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment({"broker.url": closed}),
    )  # fmt: skip
    async with ending(demo):
        await until(lambda: bool(list(tmp_path.glob(".sandbox/sandbox-*/pid"))))
        demo.send_signal(number)
        while again and demo.returncode is None:
            await asyncio.sleep(0.002)
            with suppress(ProcessLookupError):
                demo.send_signal(number)
        _, err = await demo.communicate()
    # One that comes when all is done, as the process exits, ends that in its own way.
    assert again or (demo.returncode, err) == (130, b"")
    assert not list((tmp_path / ".sandbox").iterdir())
    assert not processes_that_know(tmp_path)


async def test_a_demo_whose_node_fails_to_start_cleans_up(tmp_path: Path) -> None:
    """The end of the node's log is told, and nothing stays."""
    (tmp_path / "rabbitmq-server").write_text("#!/bin/sh\necho no room for a node\necho here >&2\nexit 7\n")
    (tmp_path / "rabbitmq-server").chmod(0o755)
    script = (
        "import sys, pathlib; from worker.sandbox import server; from worker.cli import main; "
        f"server._DIRECT = ({str(tmp_path)!r},); sys.argv = ['lcm-worker', 'demo']; main()"
    )
    ended = await program(
        "sh", "-c", 'cd "$1" && exec "$2" -c "$3"', "sh", tmp_path, sys.executable, script,
        broker__url=f"amqp://127.0.0.1:{free_port()}/",
    )  # fmt: skip
    assert ended.status == 1
    assert "ended with status 7 while it started" in ended.err
    assert not list((tmp_path / ".sandbox").iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_sandbox_serves_commands_until_it_is_told_to_stop(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Its two lines are what a shell needs for a worker's checks to pass; it ends with status 0 and leaves nothing."""
    sandbox = await asyncio.create_subprocess_exec(
        *run_in(tmp_path, "sandbox"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment({}),
    )  # fmt: skip
    async with ending(sandbox):
        assert sandbox.stdout is not None
        lines = [(await sandbox.stdout.readline()).decode() for _ in range(2)]
        script = f'{"".join(lines)}"{COMMAND}" topology apply && "{COMMAND}" check'
        checked = await program("sh", "-c", script)
        assert checked.status == 0, checked.out + checked.err
        sandbox.send_signal(number)
        out, _ = await sandbox.communicate()
    assert (sandbox.returncode, out) == (0, b"")
    assert not list((tmp_path / ".sandbox").iterdir())
    assert not processes_that_know(tmp_path)


async def test_a_sandbox_whose_lines_nobody_gets_ends(tmp_path: Path) -> None:
    """Where standard output takes nothing, no node is left running without anybody who knows its port."""
    ended = await program(*run_in(tmp_path, "sandbox > /dev/full"))
    assert ended.status == 1
    assert ended.err.endswith("lcm-worker: standard output can't be written: No space left on device\n")
    assert not list((tmp_path / ".sandbox").iterdir())
    assert not processes_that_know(tmp_path)
