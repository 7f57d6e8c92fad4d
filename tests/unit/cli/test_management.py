"""Who asks the management API, by what the options say."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from worker.cli.management import management_url
from worker.settings import Settings, load

HOST = "http://mq.example:15672"


def settings(url: str = "amqp://worker:w@mq.example/") -> Settings:
    return load(None, {"LCM_WORKER_BROKER__URL": url})


@pytest.mark.parametrize(
    ("url", "user"),
    [
        (f"{HOST}/base", "worker"),
        ("http://me@mq.example:15672/base", "me"),
        ("http://m%40e@mq.example:15672/base", "m%40e"),
    ],
)
def test_a_password_from_a_file_is_that_of_the_user_named(tmp_path: Path, url: str, user: str) -> None:
    """Without a name it is that of broker.url; the password may hold anything."""
    file = tmp_path / "password"
    file.write_text("p@:/ss\n")
    wanted = f"http://{user}:p%40%3A%2Fss@mq.example:15672/base"
    assert management_url(settings(), url, file) == wanted


def test_without_any_name_it_is_rabbitmqs_own_default(tmp_path: Path) -> None:
    """As everywhere: guest."""
    file = tmp_path / "password"
    file.write_text("p")
    assert management_url(settings("amqp://mq.example/"), HOST, file) == "http://guest:p@mq.example:15672"


def test_without_a_file_the_url_counts_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """A password in it is told of, without being shown; one that is not there is not."""
    assert management_url(settings(), None, None) == ""
    encrypted = "https://mq.example:15671"
    assert management_url(settings(), encrypted, None) == encrypted
    assert capsys.readouterr().err == ""
    whole = "http://me:s3cret@mq.example:15672"
    assert management_url(settings(), whole, None) == whole
    told = capsys.readouterr().err
    assert "--management-password-file" in told
    assert "s3cret" not in told


def test_a_password_that_others_can_read_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the way to another host without TLS, and in a file; on this host nobody else hears it."""
    file = tmp_path / "password"
    file.write_text("s3cret")
    file.chmod(0o644)
    management_url(settings(), HOST, file)
    in_clear, readable = capsys.readouterr().err.splitlines()
    assert "--management: the password travels in clear to mq.example; use https://" in in_clear
    assert f"--management-password-file: every user of this host can read {file}" in readable
    file.chmod(0o600)
    management_url(settings(), "http://127.0.0.1:15672", file)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("url", "content", "told"),
    [
        (None, "secret", "goes with --management"),
        ("http://me:s3cret@mq.example", "secret", "no password in it"),
        (HOST, None, "no such file"),
        (HOST, "", "the file is empty"),
    ],
)
def test_options_that_do_not_go_together(
    tmp_path: Path, url: str | None, content: str | None, told: str
) -> None:
    """A file without a URL, beside a password, or without one is wrong usage."""
    file = tmp_path / "password"
    if content is not None:
        file.write_text(content)
    with pytest.raises(typer.BadParameter, match=told):
        management_url(settings(), url, file)
