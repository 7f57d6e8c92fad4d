"""Whatever the environment or a file holds, loading gives settings or one error of the settings."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.contract.errors import SettingsError
from worker.settings import load
from worker.settings.sections import SECTIONS
from worker.settings.tls import client_context

NAMES = [f"{section}.{name}" for section, model in SECTIONS.items() for name in model.model_fields]
PIECES = [
    *(
        "amqp://",
        "amqps://",
        "ws://",
        "wss://",
        "http://",
        "guest:guest@",
        "host",
        "..example.com",
        "[::1",
        "]",
    ),
    *(
        "/",
        "%",
        "%zz",
        "@",
        ":",
        ",",
        ",,",
        "\x00",
        "\n",
        "é",
        "😀",
        "\ud800",
        "x" * 300,
        "a" * 70 + ".",
        "65536",
    ),
    *("-", "NaN", "1e999", "10s", "0x10", "{", "}", "[", '"', "null", "true", "{worker}", "{n}", "512KiB"),
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=8).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


def loaded(environ: dict[str, str]) -> None:
    """Load settings, and make of them what needs files; SettingsError is fine."""
    with suppress(SettingsError):
        settings = load(None, environ)
        client_context(settings.lcm)
        client_context(settings.broker)


@given(st.sampled_from(NAMES), TEXTS | VALUES.map(json.dumps))
@example("lcm.ca_file", "/" + "x" * 300)
@example("lcm.password_file", "/" + "x" * 300)
@example("broker.url", "amqp://guest:guest@rabbit..example.com/")
@example("lcm.ca_file", "a\x00b")
def test_no_text_of_a_variable_ends_in_another_error(name: str, text: str) -> None:
    """Each setting, given any text by its environment variable, is taken or refused with a message."""
    loaded({f"LCM_WORKER_{name.upper().replace('.', '__')}": text})


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[broker]\nurl = 1979-05-27", b"a = " + b"[" * 5000, b"\x00"]
)
def test_no_file_ends_in_another_error(tmp_path: Path, content: bytes) -> None:
    """A file that is none of TOML, or holds odd types, is refused with a message."""
    file = tmp_path / "worker.toml"
    file.write_bytes(content)
    with suppress(SettingsError):
        load(file, {})


@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join))
def test_no_name_of_a_variable_ends_in_another_error(name: str) -> None:
    """A variable that begins as ours do, however it goes on, is known or refused with a message."""
    loaded({f"LCM_WORKER_{name}": "1"})
