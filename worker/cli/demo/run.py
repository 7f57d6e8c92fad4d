"""What `demo` does: starts a broker, a simulated LCM and a worker, publishes sample jobs, and shows their results."""

from __future__ import annotations

import asyncio
import io
import math
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec
from rich.table import Table
from rich.text import Text

from worker.app import App
from worker.broker.admin.calls import connected
from worker.broker.admin.collector import collect
from worker.broker.declare import delete
from worker.broker.publisher import Publisher
from worker.broker.topology import JOB_KEY, Topology, topology_of
from worker.cli.streams import OutputLost
from worker.cli.tables import add_row, outcome_table, table
from worker.cli.terminal import Terminal
from worker.common.callbacks import always
from worker.common.tasks import cancel, start
from worker.contract.message import Delivery, Message, Properties
from worker.observability.log import Log, build_log
from worker.sandbox.node import Node, answers, ensure_server
from worker.settings import BrokerSettings, Settings, load
from worker.simulator.scenarios import SCENARIOS
from worker.simulator.server import Simulator

SAMPLE_ACCOUNT = "18|1|2|0|0|44|274"
_TIMEOUT = 120.0
_SHOWN = 8  # outcomes on a terminal
_NEXT = """\
What comes next, with a broker and an LCM of your own:
  lcm-worker config template > worker.toml    # every setting, with what it does; put the URLs in
  lcm-worker check --config worker.toml       # whether broker and LCM are as they should be
  lcm-worker run --config worker.toml         # work
Without an LCM, `lcm-worker simulate` takes its place."""


@dataclass(frozen=True, slots=True)
class _Sample:
    job_id: str
    shows: str
    body: bytes


def _sample(job_id: str, account: str, shows: str) -> _Sample:
    return _Sample(job_id, shows, msgspec.json.encode({"job_id": job_id, "account_number": account}))


SAMPLES = (
    _sample("good-1", SAMPLE_ACCOUNT, "LCM is silent at first; the second exchange answers"),
    _sample("good-2", "596|485|587|0|0|44|59", "answered at once"),
    _sample("good-3", "137|1|3|0|0|84|", "answered at once"),
    _sample("same-account", "596|485|587|0|0|44|59", "shares the exchange of good-2 while that is in flight"),
    _sample("good-2", "596|485|587|0|0|44|59", "the same job again: its result has the same message id"),
    _sample("dropped", "5|3|1|0|0|44|1", "LCM drops the connection once"),
    _sample("slow", "4|1|1|0|0|44|7", "LCM takes longer than the reply timeout, every time"),
    _sample("refused", "9|9|9|0|0|44|9", "LCM rejects the account"),
    _sample("cut-off", "7|1|1|0|0|44|5", "LCM's replies are cut off, every time"),
    _Sample("malformed", "no account number", b'{"job_id": "malformed", "account": "18|1"}'),
    _Sample("no-json", "not even JSON", b"account 18|1"),
)


class Stage(Terminal):
    """A console that goes silent when its output is closed, so that the demo still stops what it started."""

    def on_broken_pipe(self) -> None:
        with suppress(SystemExit):
            super().on_broken_pipe()


async def demonstrate(broker: BrokerSettings, console: Terminal) -> bool:
    """Run the demo against the broker of the settings where it answers, else against a private node.

    All exchanges and queues have a prefix of their own, and are deleted at the end.

    Returns:
        Whether every sample job got its result in time.

    Raises:
        ServerMissing: there is no broker, and none can be installed.
        FolderUnfit: a private node would have to be in a folder that others can change, or that can't be written.
    """
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(_broker(broker, console))
        simulator = await stack.enter_async_context(Simulator(SCENARIOS["sample"].behaviour))
        console.print(f"LCM        a simulator on {simulator.url}")
        settings = _settings(url, simulator.url)
        topology = topology_of(settings.broker)
        stack.push_async_callback(_clean_up, settings, topology)
        await stack.enter_async_context(_worker(settings, console))
        results = await _publish_and_collect(settings, topology, console)
        dead = await _dead(settings, topology, sum(_failed(result) for result in results))
    _show(console, results, dead)
    return len(results) == len(SAMPLES)


def _settings(broker_url: str, lcm_url: str) -> Settings:
    return load(
        None,
        {
            "LCM_WORKER_BROKER__URL": broker_url,
            "LCM_WORKER_BROKER__PREFIX": f"lcm.demo-{secrets.token_hex(3)}",
            "LCM_WORKER_BROKER__RETRY_DELAYS": "500ms,1s",
            "LCM_WORKER_LCM__URL": lcm_url,
            "LCM_WORKER_LCM__SESSIONS": "8",
            "LCM_WORKER_LCM__REPLY_TIMEOUT": "500ms",
            "LCM_WORKER_RETRY__ATTEMPTS": "2",
            # The samples fail on purpose: no need to spare this LCM.
            "LCM_WORKER_OUTAGE__PROBE_DELAY": "100ms",
            "LCM_WORKER_OUTAGE__PROBE_MAX_DELAY": "500ms",
            "LCM_WORKER_WORKER__NAME": "demo-worker",
        },
    )


@asynccontextmanager
async def _broker(settings: BrokerSettings, console: Terminal) -> AsyncIterator[str]:
    for url in settings.urls:
        if await answers(url):
            console.print("RabbitMQ   the one of the settings, which answers")
            yield url
            return
    ensure_server(install=True, say=console.print)
    node = Node()
    async with AsyncExitStack() as last:
        last.push_async_callback(node.stop)  # also where nothing can be shown any more
        try:
            with console.status("RabbitMQ   starting a private node …"):
                await node.start()
            console.print(f"RabbitMQ   a private node on port {node.port}")
            yield node.url
        finally:
            with console.status("stopping the private node …"):
                await node.stop()


@asynccontextmanager
async def _worker(settings: Settings, console: Terminal) -> AsyncIterator[None]:
    app = App(settings, build_log(settings.log, worker=settings.worker.name, stream=_LogStream(console)))
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(app.run())
            try:
                yield
            finally:
                app.stop()
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed  # its type decides about the exit status


async def _publish_and_collect(
    settings: Settings, topology: Topology, console: Terminal
) -> list[dict[str, Any]]:
    publisher = Publisher(settings.broker, topology, _silent_log(settings), worker="demo")
    link = start(publisher.link.run())
    try:
        await publisher.link.channel()
        async with collect(settings.broker, topology.results, name="demo results") as collected:
            for sample in SAMPLES:
                # A job that can't be read gets its id from the message.
                properties = Properties(content_type="application/json", message_id=sample.job_id)
                await publisher.publish(
                    Message(topology.jobs, JOB_KEY, sample.body, properties), always, patience=math.inf
                )
                console.print(Text(f"  job      {sample.job_id:<13} {sample.shows}", style="cyan"))
            return [
                msgspec.json.decode(delivery.body) for delivery in await _receive(collected, len(SAMPLES))
            ]
    finally:
        await cancel(link)


async def _dead(settings: Settings, topology: Topology, expected: int) -> list[Delivery]:
    async with collect(settings.broker, topology.dead, name="demo dead letters") as collected:
        return await _receive(collected, expected)


async def _receive(collected: asyncio.Queue[Delivery], count: int) -> list[Delivery]:
    """Wait for so many messages; return fewer where they don't come in time."""
    received: list[Delivery] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(_TIMEOUT):
            while len(received) < count:
                received.append(await collected.get())
    return received


async def _clean_up(settings: Settings, topology: Topology) -> None:
    async with connected(settings.broker, name="demo clean-up") as connection:
        await delete(await (await connection.channel()).get_underlay_channel(), topology)


class _LogStream:
    """Prints the lines of the worker's log in a short form."""

    def __init__(self, console: Terminal) -> None:
        self._console = console

    def write(self, lines: bytes) -> None:
        with suppress(OutputLost):  # told when the demo has ended; the worker works on until then
            for line in lines.splitlines():
                self._console.print(_shortened(msgspec.json.decode(line)))

    def flush(self) -> None:
        """Do nothing: every line is printed at once."""

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        """There is none: lines are to come here, not to the descriptor of the console."""
        raise io.UnsupportedOperation


_COLOURS = {"job.succeeded": "green", "job.retry_later": "yellow", "job.failed": "red"}


def _shortened(line: dict[str, Any]) -> Text:
    event = line["event"]
    details: Callable[[dict[str, Any]], str] = _DETAILS.get(event, _fields)
    return Text(f"  {'worker':<8} {event:<18} {details(line)}".rstrip(), style=_COLOURS.get(event, "dim"))


def _fields(line: dict[str, Any]) -> str:
    shown = ("role", "session", "reason", "error", "in_flight")
    return " ".join(f"{key}={line[key]}" for key in shown if line.get(key) is not None)


_DETAILS: dict[str, Callable[[dict[str, Any]], str]] = {
    "job.succeeded": lambda line: (
        f"{line['job_id']}: {line['outcomes']} outcomes in {line['duration_ms']:.0f} ms, "
        + ("shared" if line["source"] == "shared" else f"exchanges: {line['attempts']}")
    ),
    "job.retry_later": lambda line: f"{line['job_id']}: {line['error']}, again in {line['delay']:g} s",
    "job.failed": lambda line: f"{line['job_id']}: {line['error']}",
}


def _silent_log(settings: Settings) -> Log:
    return build_log(settings.log, worker="demo", stream=io.BytesIO())


def _failed(result: dict[str, Any]) -> bool:
    return bool(result["status"] == "failed")


def _show(console: Terminal, results: list[dict[str, Any]], dead: list[Delivery]) -> None:
    console.print()
    console.print(_summary(results))
    sample = next((result for result in results if result["account_number"] == SAMPLE_ACCOUNT), None)
    if sample is not None and not _failed(sample):
        # On a terminal all of them would push everything else off the screen.
        console.print(_outcomes(sample, most=_SHOWN if console.is_terminal else None))
    console.print(_dead_letters(dead))
    console.print(_NEXT, soft_wrap=True)


def _summary(results: list[dict[str, Any]]) -> Table:
    made = table("job", "account", "came to", "source", "exchanges", title="Results")
    for result in sorted(results, key=lambda result: str(result["job_id"])):
        add_row(
            made,
            result["job_id"],
            result["account_number"] or "(unreadable)",
            _came_to(result),
            result.get("source", ""),
            str(result["attempts"]),
        )
    return made


def _came_to(result: dict[str, Any]) -> Text:
    if _failed(result):
        return Text(f"failed: {result['error']['code']}", style="red")
    return Text(f"{len(result['outcomes'])} outcomes", style="green")


def _outcomes(result: dict[str, Any], most: int | None) -> Table:
    rows = [(outcome["id"], outcome["code"], outcome["description"]) for outcome in result["outcomes"]]
    of_all = f", {most} of {len(rows)}" if most is not None and most < len(rows) else ""
    return outcome_table(rows[:most], title=f"Outcomes of {result['account_number']}{of_all}")


def _dead_letters(dead: list[Delivery]) -> Table:
    made = table("job", "error", "reason", title="In the dead-letter queue")
    for delivery in dead:
        headers = delivery.properties.headers
        cells = (headers["outcome-job-id"], headers["outcome-error-code"], headers["outcome-error-reason"])
        add_row(made, *map(str, cells))
    return made
