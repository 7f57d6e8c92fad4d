"""A file with a secret: what of it is the secret, and what is remembered."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.settings.secret_file import SecretFile, read_secret


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let no time pass where a file is read again; give the waits."""
    found: list[float] = []
    monkeypatch.setattr("worker.settings.secret_file.time.sleep", found.append)
    return found


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"s3cret", "s3cret"),
        (b"s3cret\n", "s3cret"),
        (b"s3cret \t\r\n\r\n", "s3cret"),
        (b"\xef\xbb\xbfs3cret\r\n", "s3cret"),
        (b" two words", " two words"),
    ],
)
def test_what_editors_leave_is_no_part_of_a_secret(tmp_path: Path, content: bytes, secret: str) -> None:
    """Neither a byte order mark nor blanks and line breaks at the end belong to it."""
    file = tmp_path / "password"
    file.write_bytes(content)
    assert read_secret(str(file)) == secret


@pytest.mark.parametrize("content", [b"", b"\n", b"\xef\xbb\xbf \r\n"])
def test_an_empty_file_is_read_again(tmp_path: Path, waits: list[float], content: bytes) -> None:
    """Somebody may be about to write it; it counts as empty after a second."""
    file = tmp_path / "password"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="holds no secret"):
        read_secret(str(file))
    assert waits == [1]


def test_the_second_look_may_find_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written meanwhile is the secret."""
    file = tmp_path / "password"
    file.touch()
    monkeypatch.setattr("worker.settings.secret_file.time.sleep", lambda _: file.write_text("s3cret"))
    assert read_secret(str(file)) == "s3cret"


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    """It would be empty at the next opening, or keep the worker from starting."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match="no regular file"):
        SecretFile.read(str(pipe))


def test_a_device_is_refused_at_once() -> None:
    """It has no end, or another content each time."""
    with pytest.raises(ValueError, match="no regular file"):
        SecretFile.read("/dev/zero")


def test_it_knows_what_it_held() -> None:
    """The newest comes first, the same one counts once in a row, eight are remembered, none is shown."""
    file = SecretFile("/run/secrets/token", "one")
    for secret in ("two", "two", *map(str, range(10))):
        file.hold(secret)
    assert [secret.get_secret_value() for secret in file.held] == list("98765432")
    assert file.secret.get_secret_value() == "9"
    assert "9" not in repr(file.held)
    assert SecretFile().secret.get_secret_value() == ""
