"""How a websocket is asked for: names, query parameters and credentials."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.settings import lcm_settings
from worker.lcm.handshake import connect_headers, connect_url, session_name
from worker.simulator.requests import name_in

URL = "ws://lcm.example:4747/AEDataTransmitter"


def test_placeholders_are_filled_in() -> None:
    """A session's name may hold the worker's name, the session's number and the time, each any number of times."""
    name = session_name("{worker}-{n}-{unixtime}-{n}", worker="host-1", slot=7, unixtime=1769860800)
    assert name == "host-1-7-1769860800-7"
    assert session_name("plain", worker="host-1", slot=7, unixtime=1) == "plain"


def test_what_is_filled_in_is_not_filled_in_again() -> None:
    """A worker that is called like a placeholder, which its name forbids in no way, is only a worker's name."""
    assert session_name("{n}", worker="{n}", slot=7, unixtime=1) == "7"


def test_without_a_name_the_url_stays() -> None:
    """An empty name is not sent, and the URL is not touched."""
    url = f"{URL}?b=%20x&a="
    assert connect_url(url, "") == url


def test_a_name_replaces_the_one_in_the_url() -> None:
    """The query keeps its other parameters, in their order; there is one `name`."""
    assert connect_url(f"{URL}?b=1&name=old&a=", "new") == f"{URL}?b=1&a=&name=new"
    assert connect_url(URL, "a b&c=d") == f"{URL}?name=a%20b%26c%3Dd"


@given(st.text(min_size=1).filter(str.isprintable))
def test_every_name_arrives(name: str) -> None:
    """Whatever printable text is the name, the peer reads that very text."""
    assert name_in(connect_url(URL, name).removeprefix("ws://lcm.example:4747")) == name


def credentials(name: str, **settings: Any) -> str | None:
    """Return what is sent as Basic credentials, decoded."""
    header = connect_headers(lcm_settings(URL, **settings), name).get("Authorization")
    return None if header is None else b64decode(header.removeprefix("Basic ")).decode()


@pytest.mark.parametrize(
    ("name", "settings", "sent"),
    [
        ("", {}, None),
        ("worker-7", {}, "worker-7:"),
        ("worker-7", {"session_name": "w", "sessions": 1, "password": "tok:en"}, "worker-7:tok:en"),
        ("worker-7", {"username": "agent", "password": "ü"}, "agent:ü"),
        ("", {"username": "agent"}, "agent:"),
    ],
)
def test_basic_credentials(name: str, settings: dict[str, Any], sent: str | None) -> None:
    """The user is `username`, else the session's name; without either nothing is sent."""
    assert credentials(name, **settings) == sent


def test_headers_of_the_settings_are_sent() -> None:
    """Further headers go along as they are."""
    headers = connect_headers(lcm_settings(URL, headers={"X-Api-Key": "secret"}), "")
    assert headers == {"X-Api-Key": "secret"}
