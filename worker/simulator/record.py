"""The record of the simulated LCM: handshakes and exchanges, in memory and as JSON lines."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Opener = Callable[[str, int], int]

_Entry = TypeVar("_Entry")


@dataclass(slots=True)
class Exchange:
    """One valid request: on which connection, the fault it got (None: the good reply), and the times.

    `at` and `replied` are unix times. `replied` is None until a whole reply to this request, right or wrong,
    is out: for good after silence, a reply to something else, or a connection that ended before.
    """

    connection: int
    account: str
    fault: str | None
    at: float
    replied: float | None = None


@dataclass(slots=True, frozen=True)
class Attempt:
    """One handshake: `number` is what `Exchange.connection` refers to, `name` the query parameter."""

    number: int
    at: float
    name: str | None
    status: int

    @property
    def accepted(self) -> bool:
        """Tell whether it became a connection."""
        return self.status == HTTPStatus.SWITCHING_PROTOCOLS


def note(entries: list[_Entry], entry: _Entry, keep: int | None) -> None:
    """Append an entry; let the list hold at least the newest `keep`, and at most twice as many."""
    entries.append(entry)
    # In large steps, since removing the first entry of a list copies all others.
    if keep is not None and len(entries) > 2 * keep:
        del entries[: len(entries) - keep]


@contextmanager
def json_lines(path: Path | None, opener: Opener | None = None) -> Iterator[Callable[[Exchange], object]]:
    """Open a file to append exchanges to, a line each; without a path they go nowhere. Raises OSError."""
    if path is None:
        yield lambda _: None
        return
    # Unbuffered, so that a reader that follows the file sees each line at once.
    with open(path, "ab", buffering=0, opener=opener) as lines:

        def write(exchange: Exchange) -> None:
            lines.write(msgspec.json.encode(asdict(exchange)) + b"\n")

        yield write
