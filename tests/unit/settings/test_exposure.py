"""What is told of settings by which others can read a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.settings import exposures_of, load


def exposed(**variables: str) -> list[str]:
    """Return the settings that are told, with these variables of the environment."""
    settings = load(None, {f"LCM_WORKER_{name.upper()}": value for name, value in variables.items()})
    return [exposure.setting for exposure in exposures_of(settings)]


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, []),
        ({"broker__url": "amqp://u:p@localhost/,amqp://u:p@127.9.9.9/,amqp://u:p@[::1]/"}, []),
        ({"broker__url": "amqps://u:p@mq.example/"}, []),
        ({"broker__url": "amqp://u:p@mq.example/"}, ["broker.url"]),
        ({"broker__url": "AMQP://u:p@10.0.0.1/"}, ["broker.url"]),
        ({"broker__url": "amqps://u:p@a.example/,amqp://u:p@b.example/"}, ["broker.url"]),
        ({"lcm__url": "ws://lcm.example/"}, []),
        ({"lcm__url": "ws://lcm.example/?name=worker-1"}, []),
        ({"lcm__url": "ws://lcm.example/?token=t0ken"}, ["lcm.url"]),
        ({"lcm__url": "ws://lcm.example/?t0ken"}, ["lcm.url"]),
        ({"lcm__url": "wss://lcm.example/?token=t0ken"}, []),
        ({"lcm__url": "ws://lcm.localhost/?token=t0ken"}, []),
        ({"lcm__url": "ws://lcm.example/", "lcm__username": "u", "lcm__password": "secret"}, ["lcm.url"]),
        ({"lcm__url": "ws://lcm.example/", "lcm__headers": '{"X-Token": "t0ken"}'}, ["lcm.url"]),
        ({"lcm__url": "ws://lcm.example/", "lcm__greeting": '[{"send": "login"}]'}, ["lcm.url"]),
        ({"lcm__proxy": "http://u:p@proxy.example:3128"}, ["lcm.proxy"]),
        ({"lcm__proxy": "http://proxy.example:3128"}, []),
        ({"lcm__proxy": "http://u:p@127.0.0.1:3128"}, []),
    ],
)
def test_what_travels_in_clear_is_told(variables: dict[str, str], told: list[str]) -> None:
    """Credentials to another host without TLS are told; on this host, or without credentials, nothing is."""
    assert exposed(**variables) == told


def test_an_encrypted_list_that_falls_back_says_so() -> None:
    """Beside encrypted URLs one without is used only when they fail, which nobody would notice."""
    settings = load(None, {"LCM_WORKER_BROKER__URL": "amqps://u:p@a.example/,amqp://u:p@b.example/"})
    (exposure,) = exposures_of(settings)
    assert "b.example, where the encrypted URLs beside it don't answer" in exposure.reason
    assert "a.example" not in exposure.reason


@pytest.mark.parametrize(("mode", "told"), [(0o600, []), (0o640, []), (0o644, ["lcm.password_file"])])
def test_a_secret_file_that_everybody_can_read_is_told(tmp_path: Path, mode: int, told: list[str]) -> None:
    """A group may be the worker's own; all users are too many."""
    file = tmp_path / "token"
    file.write_text("t0ken")
    file.chmod(mode)
    assert exposed(lcm__username="u", lcm__password_file=str(file)) == told
