"""The programs that are compared, each as a process to start."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.benchmarks.processes import Process
from tests.benchmarks.reference.command import READY

WORKER, BARE, FLOOR, FASTSTREAM = "worker", "bare", "floor", "faststream"
TITLES = {
    WORKER: "the worker",
    BARE: "bare aio-pika loop",
    FLOOR: "floor: aiormq's channel, sans-I/O websocket",
    FASTSTREAM: "FastStream",
}
LCM_WORKER = Path(sys.executable).with_name("lcm-worker")


def program(name: str, broker: str, lcm: str, *, sessions: int = 32, keep: bool = False) -> Process:
    """Return one of the programs, not started. All have a prefetch of twice the sessions, the worker's default.

    Args:
        name: one of `TITLES`.
        broker: the broker's URL.
        lcm: LCM's URL.
        sessions: how many sessions it has.
        keep: whether to keep all that it writes to standard error, such as the worker's log.
    """
    if name == WORKER:
        settings = worker_settings(broker, lcm, sessions)
        return Process([LCM_WORKER, "run"], ready=b'"worker.ready"', settings=settings, keep=keep)
    module = f"tests.benchmarks.reference.{name}"
    arguments = [broker, lcm, str(sessions), str(2 * sessions)]
    return Process([sys.executable, "-m", module, *arguments], ready=READY.encode(), keep=keep)


def worker_settings(broker: str, lcm: str = "", sessions: int = 32) -> dict[str, str]:
    """Return the settings of a worker, as environment variables; all others are its defaults."""
    return {
        "LCM_WORKER_BROKER__URL": broker,
        **({"LCM_WORKER_LCM__URL": lcm, "LCM_WORKER_LCM__SESSIONS": str(sessions)} if lcm else {}),
    }
