"""Files of the settings that are replaced, missing or hang while the worker runs."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.settings import broker_settings, lcm_settings
from tests.support.waiting import until
from worker.contract.errors import SettingsError
from worker.settings import LcmSettings
from worker.settings.rereading import Rereader


def with_password(file: Path) -> LcmSettings:
    return lcm_settings("ws://lcm/", username="me", password_file=str(file))


def remove(file: str) -> None:
    Path(file).unlink()


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "read-lcm-files"]


async def test_a_secret_is_read_anew(tmp_path: Path) -> None:
    """What the file holds now is the password in force; the settings were loaded once."""
    file = tmp_path / "token"
    file.write_text("old")
    settings = with_password(file)
    reread = Rereader("lcm", settings, tls=False)
    file.write_text("new\n")
    assert await reread() is None
    assert [secret.get_secret_value() for secret in settings.passwords] == ["new", "old"]


async def test_links_are_followed_anew(tmp_path: Path) -> None:
    """Kubernetes swaps a link above the file: the path is resolved each time."""
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "password").write_text(f"p{version}")
    data = tmp_path / "..data"
    data.symlink_to("1")
    (tmp_path / "password").symlink_to("..data/password")
    settings = broker_settings("amqp://me@broker/", password_file=str(tmp_path / "password"))
    reread = Rereader("broker", settings, tls=False)
    assert settings.urls == ("amqp://me:p1@broker/",)
    swapped = tmp_path / "..new"
    swapped.symlink_to("2")
    swapped.rename(data)
    await reread()
    assert settings.urls == ("amqp://me:p2@broker/",)


async def test_those_who_wait_for_one_reading_all_get_it(tmp_path: Path) -> None:
    """Who is served first may ask again at once: the others still get what they waited for."""
    (tmp_path / "token").write_text("secret")
    reread = Rereader("lcm", with_password(tmp_path / "token"), tls=False)

    async def open_twice() -> None:
        for _ in range(2):
            await reread()

    ended = await asyncio.gather(*(open_twice() for _ in range(4)), return_exceptions=True)
    assert ended == [None] * 4


async def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    """What can't be read is an error that names the setting and the file; once it can be read, all is well."""
    file = tmp_path / "token"
    file.write_text("old")
    settings = with_password(file)
    reread = Rereader("lcm", settings, tls=False)
    file.unlink()
    with pytest.raises(SettingsError, match=r"lcm\.password_file can't be read: No such file.*token"):
        await reread()
    file.write_text("new")
    await reread()
    assert settings.passwords[0].get_secret_value() == "new"


async def test_a_file_that_hangs_holds_up_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The read is given up after a deadline, and goes on: nobody begins another one until it has ended."""
    monkeypatch.setattr("worker.settings.rereading._DEADLINE", 0.2)
    file = tmp_path / "token"
    file.write_text("old")
    settings = with_password(file)
    reread = Rereader("lcm", settings, tls=False)
    file.unlink()
    os.mkfifo(file)
    for _ in range(2):
        failed = await asyncio.gather(*(reread() for _ in range(4)), return_exceptions=True)
        assert {str(error) for error in failed} == {"the files of [lcm] can't be read within 0.2 s"}
    [hanging] = readers()
    assert hanging.daemon, "the process can end all the same"
    file.write_text("new")
    await until(lambda: not readers())
    file.unlink()
    file.write_text("newer")

    async def is_read() -> bool:
        await reread()
        return settings.passwords[0].get_secret_value() == "newer"

    await until(is_read)


async def test_certificates_are_read_anew(tmp_path: Path) -> None:
    """A context is made anew where a file has changed, and stands where none has."""
    authority = Authority(tmp_path)
    mine = authority.issue("worker-1")
    settings = lcm_settings(
        "wss://lcm/", ca_file=authority.file, cert_file=mine.certificate, key_file=mine.key
    )
    reread = Rereader("lcm", settings, tls=True)
    first = await reread()
    assert first is not None
    assert await reread() is first
    authority.issue("worker-1")
    second = await reread()
    assert second is not first
    remove(mine.key)
    with pytest.raises(
        SettingsError, match=r"lcm\.key_file can't be used: No such file or directory \(.*worker-1\.key\); "
    ):
        await reread()


async def test_certificates_that_never_fitted_are_a_wrong_setting(tmp_path: Path) -> None:
    """At the start there is nothing to go on with: the error comes at once, before any connection."""
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    with pytest.raises(SettingsError, match=r"ca\.pem"):
        Rereader("broker", broker_settings("amqps://broker/", ca_file=str(file)), tls=True)
