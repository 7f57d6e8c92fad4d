"""Canaries: texts that nobody else would write, planted where secrets and accounts are, and looked for elsewhere."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

from websockets.http11 import Request

# What URLs quote, and what JSON and Python escape; what a canary is found by has none of it.
_AWKWARD = '/"+\\ %'


@dataclass(frozen=True)
class Canary:
    """One secret: `value` as it is set, of which `core` stays the same in each text form."""

    core: str
    value: str

    @property
    def quoted(self) -> str:
        """As it stands in a URL."""
        return quote(self.value, safe="")

    @property
    def traces(self) -> Iterator[bytes]:
        """What betrays it: as text, and the middle of what base64 makes of it, whatever stands before."""
        yield self.core.encode()
        for before in range(3):
            encoded = b64encode(bytes(before) + self.core.encode())
            yield encoded[4:-4]


def canary(place: str, *, plain: bool = False) -> Canary:
    """Return the canary for a place; `plain` where no awkward characters may stand."""
    core = f"Cnry0{place}0x7Q"
    return Canary(core, core if plain else f"{core}{_AWKWARD}{place}")


def found(text: bytes, canaries: Iterable[Canary]) -> list[str]:
    """Return the canaries of which a trace is in a text, each with what stands around it."""
    told = []
    for each in canaries:
        for trace in each.traces:
            if (at := text.find(trace)) >= 0:
                told.append(f"{each.core}: {text[max(0, at - 100) : at + 100]!r}")
                break
    return told


def echo(request: Request, *more: str) -> str:
    """Return what an LCM knows of a client by its handshake, as an unwise one would tell it."""
    headers = " ".join(f"{name}: {value}" for name, value in request.headers.raw_items())
    return re.sub(r"\s+", " ", f"{request.path} {headers} {' '.join(more)}")


class Masking:
    """Masks a secret wherever it stands."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def __call__(self, text: str) -> str:
        return text.replace(self._secret, "**********")

    in_data = __call__


masking = Masking
