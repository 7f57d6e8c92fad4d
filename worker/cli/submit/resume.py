"""What `--collect` needs to go on with an earlier run: the name of its queue, and the command."""

from __future__ import annotations

import re
import shlex
from uuid import uuid4

from worker.cli.submit.reading import Format
from worker.cli.submit.request import Request

_ID_LENGTH = 20
_QUEUE = re.compile(f"([0-9a-f]{{{_ID_LENGTH}}})-[0-9a-f]+")


def new_run_id() -> str:
    """Draw the id of a run."""
    return uuid4().hex[:_ID_LENGTH]


def queue_of(prefix: str, run_id: str, fingerprint: str) -> str:
    """Return the name of the queue for a run's results; its end is the fingerprint of the lines that were read."""
    return f"{_queues(prefix)}{run_id}-{fingerprint}"


def run_id_of(queue: str, prefix: str) -> str:
    """Return the id of the run that a queue belongs to.

    Raises:
        ValueError: it is not named as the queue of a run.
    """
    queues = _queues(prefix)
    match = _QUEUE.fullmatch(queue.removeprefix(queues))
    if match is None:
        raise ValueError(f"{queue} is no queue of an earlier run: those are named {queues}<id>")
    return match[1]


def collect_command(request: Request, queue: str) -> str:
    """Return the command, for a shell, that collects what comes to the queue of this run later."""
    options: dict[str, object] = {
        "--config": request.config,
        "--format": request.format.value if request.format is not Format.AUTO else None,
        "--skip-bad": request.skip_bad,
        "--from-line": request.from_line if request.from_line > 1 else None,
        "--collect": queue,
        "--output": request.output,
        "--output-format": request.output_format.value if request.output_format else None,
        "--csv-safe": request.csv_safe,
    }
    words = ["lcm-worker", "submit", *request.files]
    for name, value in options.items():
        if value:
            words += [name] if value is True else [name, str(value)]
    return shlex.join(words)


def _queues(prefix: str) -> str:
    return f"{prefix}.submit."
