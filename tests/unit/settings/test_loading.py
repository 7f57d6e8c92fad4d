"""Whatever the environment or a file holds, loading gives settings or one error of the settings."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.cli.config.rendering import describe
from worker.contract.errors import SettingsError
from worker.settings import load, secrets_of
from worker.settings.sections import SECTIONS
from worker.settings.tls import client_context

FILES = [
    f"{section}__{kind}_FILE" for section in ("BROKER", "LCM") for kind in ("PASSWORD", "CA", "CERT", "KEY")
]
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
        secrets_of(settings)
        describe(settings)
        client_context("lcm", settings.lcm)
        client_context("broker", settings.broker)


@given(st.sampled_from(NAMES), TEXTS | VALUES.map(json.dumps))
@example("lcm.ca_file", "/" + "x" * 300)
@example("lcm.password_file", "/" + "x" * 300)
@example("broker.url", "amqp://guest:guest@rabbit..example.com/")
@example("lcm.ca_file", "a\x00b")
def test_no_text_of_a_variable_ends_in_another_error(name: str, text: str) -> None:
    """Each setting, given any text by its environment variable, is taken or refused with a message."""
    loaded({f"LCM_WORKER_{name.upper().replace('.', '__')}": text})


NUMBERS = st.sampled_from(
    [
        "inf",
        "-inf",
        "nan",
        "1e400",
        "-1e400",
        "9" * 400,
        "9" * 5000,
        "-0",
        "-0.0",
        "0xffffffffffffffff",
        "1_0",
        "5e-324",
    ]
)
TIMES = st.sampled_from(["1979-05-27", "07:32:00", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59"])


def as_toml(value: object) -> str:
    """Write a value in TOML, where it knows the type; texts of digits as they are."""
    match value:
        case dict():
            return "{" + ", ".join(f"{quoted(name)} = {as_toml(each)}" for name, each in value.items()) + "}"
        case list():
            return f"[{', '.join(map(as_toml, value))}]"
        case bool():
            return str(value).lower()
        case str():
            return quoted(value)
        case None:
            return '""'
    return str(value)


def quoted(text: str) -> str:
    """Write a text in TOML, which knows neither lone surrogates nor the raw control character 127."""
    text = text.encode(errors="replace").decode()
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


@given(st.sampled_from(NAMES), VALUES.map(as_toml) | NUMBERS | TIMES)
def test_no_value_of_a_file_ends_in_another_error(name: str, text: str) -> None:
    """Each setting, given a value of any type in a file, is taken or refused with a message."""
    section, _, key = name.partition(".")
    with NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(f"[{section}]\n{key} = {text}\n")
        file.flush()
        loaded({"LCM_WORKER_CONFIG": file.name})


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[broker]\nurl = 1979-05-27", b"a = " + b"[" * 5000, b"\x00", b"a = " + b"9" * 5000],
)
def test_no_file_ends_in_another_error(tmp_path: Path, content: bytes) -> None:
    """A file that is none of TOML, or holds odd types, is refused with a message."""
    file = tmp_path / "worker.toml"
    file.write_bytes(content)
    with suppress(SettingsError):
        load(file, {})


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("directory", "is no regular file|Is a directory"),
        ("pipe", "is no regular file"),
        ("missing", "there is no such file|No such file"),
        ("long", "File name too long"),
        ("huge", "more than 1 MiB"),
    ],
)
@pytest.mark.parametrize("variable", [*(f"LCM_WORKER_{name}" for name in FILES), "LCM_WORKER_CONFIG"])
def test_what_is_no_file_is_told(tmp_path: Path, variable: str, kind: str, told: str) -> None:
    """A path of something else than a readable file is refused, and never waited for."""
    path = tmp_path / kind
    match kind:
        case "directory":
            path.mkdir()
        case "pipe" if variable != "LCM_WORKER_CONFIG":  # a pipe gives a configuration: --config <(…)
            os.mkfifo(path)
        case "huge" if variable.endswith(("PASSWORD_FILE", "CONFIG")):  # others are not read here
            path.write_bytes(b"#" * (2**20 + 1))
        case "long":
            path = Path("/" + "x" * 300)
        case _:
            told = "there is no such file|No such file"
    with pytest.raises(SettingsError, match=told):
        load(None, {variable: str(path)})


@pytest.mark.parametrize("text", ['[{"send":"\udcff"}]', '[{"send":"\\ud800"}]'], ids=["byte", "escape"])
def test_a_secret_that_utf8_cannot_hold_is_told(text: str) -> None:
    """What could never be sent is refused at the start, not by a traceback, and not shown."""
    with pytest.raises(SettingsError) as raised:
        load(None, {"LCM_WORKER_LCM__GREETING": text})
    assert str(raised.value) == (
        "lcm.greeting[0].send: must be text that UTF-8 can hold (environment variable LCM_WORKER_LCM__GREETING)"
    )


def test_a_parameter_that_the_event_loop_refuses_is_told() -> None:
    """What would end in an error of the library at each connecting is said at the start."""
    with pytest.raises(SettingsError, match="happy_eyeballs_delay and interleave"):
        load(None, {"LCM_WORKER_BROKER__URL": "amqp://host/?interleave=1"})


@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join))
def test_no_name_of_a_variable_ends_in_another_error(name: str) -> None:
    """A variable that begins as ours do, however it goes on, is known or refused with a message."""
    loaded({f"LCM_WORKER_{name}": "1"})


SHOWN_SETTINGS = [
    ("retry", "attempts"),
    ("broker", "prefetch"),
    ("lcm", "reply_timeout"),
    ("lcm", "max_reply"),
    ("log", "level"),
]


@pytest.mark.parametrize(("section", "name"), SHOWN_SETTINGS)
@pytest.mark.parametrize("value", ["= 0x" + "f" * 5000, ".a" * 900 + " = 1"], ids=["a long number", "nested"])
def test_what_is_too_large_to_be_shown_is_told_without_it(
    tmp_path: Path, section: str, name: str, value: str
) -> None:
    """A number that Python does not write, or what is nested too deeply, is a wrong setting as any other."""
    file = tmp_path / "worker.toml"
    file.write_text(f"[{section}]\n{name}{value}\n")
    with pytest.raises(
        SettingsError, match=rf"^{section}\.{name}: [^;]+ \(.*worker\.toml: {section}\.{name}\)$"
    ):
        load(file, {})
