"""A log that keeps its lines for the test to read."""

from __future__ import annotations

from typing import Any

import msgspec

from worker.contract.errors import WorkerError


class RecordingLog:
    """A log that keeps its lines, each as level, event and fields."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def debug(self, event: str, **fields: Any) -> None:
        self.lines.append(("debug", event, _told(fields)))

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(("info", event, _told(fields)))

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append(("warning", event, _told(fields)))

    def error(self, event: str, **fields: Any) -> None:
        self.lines.append(("error", event, _told(fields)))

    def exception(self, event: str, **fields: Any) -> None:
        self.lines.append(("exception", event, _told(fields)))

    def record(self, event: str, fields: msgspec.Struct) -> None:
        self.info(event, **msgspec.structs.asdict(fields))

    def dropped(self) -> int:
        return 0

    @property
    def events(self) -> list[str]:
        """The names of the lines, in their order."""
        return [event for _, event, _ in self.lines]

    def of(self, event: str) -> list[dict[str, Any]]:
        """The fields of each line of this name."""
        return [fields for _, name, fields in self.lines if name == event]


def _told(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with the text of an error in its place, as a log with plain accounts writes it."""
    return {
        name: value.message if isinstance(value, WorkerError) else value for name, value in fields.items()
    }
