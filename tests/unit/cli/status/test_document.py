"""A status as a JSON document and on a screen: nothing that others said shows a secret."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import msgspec

from tests.support.canaries import masking
from tests.support.settings import broker_settings
from worker.broker.admin.observer import Counted, Look
from worker.broker.topology import topology_of
from worker.cli.status.document import document_of
from worker.cli.status.findings import findings_of
from worker.cli.status.gathering import Status
from worker.cli.status.view import View
from worker.cli.status.workers import FleetState, WorkerState
from worker.cli.terminal import Terminal

SECRET = "S3cr3tK3y99x"


def test_what_workers_say_of_themselves_is_masked() -> None:
    """A worker's name and its reasons are its own words: a secret in them is masked in both forms."""
    topology = topology_of(broker_settings("amqp://127.0.0.1/"))
    status = Status(
        at=datetime(2026, 1, 31, tzinfo=UTC),
        topology=topology,
        look=Look("amqp://h/", True, {queue.name: Counted("ok", 0, 0) for queue in topology.queues}, ()),
        fleet=FleetState([WorkerState(f"w {SECRET}", 1.0, (f"because {SECRET}",), 1, 2)], 4),
    )
    hide = masking(SECRET)
    document = msgspec.json.encode(document_of(status, findings_of(status, declares=True), hide)).decode()
    shown = io.StringIO()
    Terminal(file=shown, width=120).print(View(status, [], hide))
    for text in (document, shown.getvalue()):
        assert SECRET not in text
        assert "w **********" in text
        assert "because **********" in text
