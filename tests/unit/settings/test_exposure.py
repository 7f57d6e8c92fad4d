"""What is told of settings by which others can read a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.certificates import Authority
from worker.settings import exposures_of, load, unfenced_of
from worker.settings.exposure import Risk


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
        ({"lcm__proxy": "HTTP://u:p@proxy.example:3128"}, ["lcm.proxy"]),
        ({"lcm__proxy": "https://u:p@proxy.example:3128"}, []),
        ({"lcm__proxy": "http://proxy.example:3128"}, []),
        ({"lcm__proxy": "http://u:p@127.0.0.1:3128"}, []),
    ],
)
def test_what_travels_in_clear_is_told(variables: dict[str, str], told: list[str]) -> None:
    """Credentials to another host without TLS are told; on this host, or without credentials, nothing is."""
    assert exposed(**variables) == told


ENDPOINT, HEADERS = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS"
FOR_TRACES = {name: name.replace("OTLP", "OTLP_TRACES") for name in (ENDPOINT, HEADERS)}


@pytest.mark.parametrize(
    ("environment", "told", "remedy"),
    [
        ({ENDPOINT: "http://otel.example:4318", HEADERS: "x-token=t0ken"}, HEADERS, ENDPOINT),
        (
            {ENDPOINT: "HTTP://otel.example", FOR_TRACES[HEADERS]: "x-token=t0ken"},
            FOR_TRACES[HEADERS],
            ENDPOINT,
        ),
        ({ENDPOINT: "http://u:t0ken@otel.example"}, ENDPOINT, ENDPOINT),
        (
            {
                ENDPOINT: "https://otel.example",
                FOR_TRACES[ENDPOINT]: "http://otel.example",
                HEADERS: "x-token=t0ken",
            },
            HEADERS,
            FOR_TRACES[ENDPOINT],
        ),
        (
            {ENDPOINT: "http://a.example", FOR_TRACES[ENDPOINT]: "https://a.example", HEADERS: "x=t0ken"},
            "",
            "",
        ),
        ({ENDPOINT: "https://otel.example", HEADERS: "x-token=t0ken"}, "", ""),
        ({ENDPOINT: "http://127.0.0.1:4318", HEADERS: "x-token=t0ken"}, "", ""),
        ({ENDPOINT: "http://otel.example"}, "", ""),
        ({ENDPOINT: "http://[otel", HEADERS: "x-token=t0ken"}, "", ""),
        ({ENDPOINT: "http://otel.example", HEADERS: "x=t0ken", "OTEL_TRACES_EXPORTER": "none"}, "", ""),
        ({"OTEL_TRACES_EXPORTER": "otlp", HEADERS: "x-token=t0ken"}, "", ""),
    ],
)
def test_credentials_for_a_collector_in_clear_are_told(
    environment: dict[str, str], told: str, remedy: str
) -> None:
    """The variable that holds them is told, and the one to change; nothing where no traces are sent so."""
    risks = exposures_of(load(None, {}), environment)
    assert [(risk.setting, risk.remedy) for risk in risks] == (
        [(told, f"use https:// in {remedy}")] if told else []
    )
    assert "t0ken" not in str(risks)


@pytest.mark.parametrize(
    ("ping_interval", "max_exchanges", "told"),
    [("0", "0", True), ("0", "2", True), ("0s", "1000", True), ("0", "1", False), ("20s", "0", False)],
)
def test_sessions_without_a_fence_are_told(ping_interval: str, max_exchanges: str, told: bool) -> None:
    """Without pings, a session that is used again can take a late reply for the next account's."""
    variables = {"PING_INTERVAL": ping_interval, "MAX_EXCHANGES": max_exchanges}
    settings = load(None, {f"LCM_WORKER_LCM__{name}": value for name, value in variables.items()})
    assert [risk.setting for risk in unfenced_of(settings)] == ["lcm.ping_interval"] * told
    assert exposures_of(settings) == []


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


def of_config(path: Path, text: str, mode: int, **variables: str) -> list[Risk]:
    """Return what is told with this configuration file, of this mode."""
    path.write_text(text)
    path.chmod(mode)
    return exposures_of(
        load(path, {f"LCM_WORKER_{name.upper()}": value for name, value in variables.items()})
    )


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ('[lcm]\nusername = "u"\npassword = "s3cret"', "lcm.password"),
        ('[lcm]\nurl = "wss://lcm.example/?token=s3cret"', "lcm.url"),
        ('[lcm]\nheaders = { X-Token = "s3cret" }', "lcm.headers"),
        ("[lcm]\ngreeting = [{ send = 's3cret' }]", "lcm.greeting"),
        ('[lcm]\nproxy = "http://u:s3cret@127.0.0.1:3128"', "lcm.proxy"),
        ('[broker]\nurl = "amqp://u:u@localhost/,amqps://u:s3cret@mq.example/"', "broker.url"),
        (
            '[broker]\nurl = "amqps://u:s3cret@mq.example/"\n[lcm]\nusername = "u"\npassword = "s3cret"',
            "broker.url, lcm.password",
        ),
    ],
)
def test_a_configuration_file_with_a_secret_that_everybody_can_read_is_told(
    tmp_path: Path, text: str, held: str
) -> None:
    """What it holds is told by name alone; a group may be the worker's own."""
    file = tmp_path / "worker.toml"
    assert of_config(file, text, 0o640) == []
    (told,) = of_config(file, text, 0o644)
    assert (told.setting, told.remedy) == ("configuration file", f"chmod o= {file}")
    assert told.reason == f"every user of this host can read {file} (mode 644), which holds {held}"


def test_a_configuration_file_without_a_secret_may_be_read(tmp_path: Path) -> None:
    """Names of files, the password that RabbitMQ gives to everybody, and what the environment sets: none is one."""
    (tmp_path / "token").write_text("t0ken")
    (tmp_path / "token").chmod(0o600)
    text = f"""
[broker]
url = "amqp://guest:guest@localhost/"
[lcm]
url = "wss://lcm.example/?name=worker-1"
username = "u"
password = ""
password_file = "{tmp_path / "token"}"
"""
    assert of_config(tmp_path / "worker.toml", text, 0o644) == []
    overridden = '[lcm]\nurl = "wss://lcm.example/"'
    token = "wss://lcm.example/?token=t0ken"
    assert of_config(tmp_path / "worker.toml", overridden, 0o644, lcm__url=token) == []


@pytest.mark.parametrize(
    ("text", "mode", "told", "remedy"),
    [
        ("", 0o646, "can change", "o-w"),
        ("[lcm]\nusername = 'u'\npassword = 's3cret'", 0o642, "can change", "o="),
        ("[lcm]\nusername = 'u'\npassword = 's3cret'", 0o666, "can read and change", "o="),
    ],
)
def test_a_configuration_file_that_everybody_can_change_is_told(
    tmp_path: Path, text: str, mode: int, told: str, remedy: str
) -> None:
    """Whoever writes the URLs receives the credentials, whatever else is in the file; a link is followed."""
    file = tmp_path / "worker.toml"
    (exposure,) = of_config(file, text, mode)
    assert f"every user of this host {told} {file} (mode {mode:o})" in exposure.reason
    assert exposure.remedy == f"chmod {remedy} {file}"
    assert "s3cret" not in exposure.reason
    link = tmp_path / "link"
    link.symlink_to(file)
    (through,) = exposures_of(load(None, {"LCM_WORKER_CONFIG": str(link)}))
    assert through.remedy == f"chmod {remedy} {link}"


@pytest.mark.parametrize(("mode", "told"), [(0o602, "can change"), (0o606, "can read and change")])
def test_a_secret_file_that_everybody_can_change_is_told(tmp_path: Path, mode: int, told: str) -> None:
    """Whoever writes it can keep the worker out, or have it log in as another."""
    file = tmp_path / "token"
    file.write_text("t0ken")
    file.chmod(mode)
    (exposure,) = exposures_of(
        load(None, {"LCM_WORKER_LCM__USERNAME": "u", "LCM_WORKER_LCM__PASSWORD_FILE": str(file)})
    )
    assert exposure.setting == "lcm.password_file"
    assert f"every user of this host {told} {file}" in exposure.reason
    assert exposure.remedy == f"chmod o= {file}"


def test_certificates_may_be_read_but_not_changed(tmp_path: Path) -> None:
    """Whoever writes lcm.ca_file says who is LCM."""
    file = Path(Authority(tmp_path).file)
    variables = {"LCM_WORKER_LCM__URL": "wss://lcm.example/", "LCM_WORKER_LCM__CA_FILE": str(file)}
    file.chmod(0o644)
    assert exposures_of(load(None, variables)) == []
    file.chmod(0o646)
    (exposure,) = exposures_of(load(None, variables))
    assert (exposure.setting, exposure.remedy) == ("lcm.ca_file", f"chmod o-w {file}")


@pytest.mark.parametrize(("mode", "told"), [(0o755, False), (0o775, False), (0o1777, False), (0o777, True)])
def test_a_folder_in_which_everybody_can_replace_a_secret_file_is_told(
    tmp_path: Path, mode: int, told: bool
) -> None:
    """The mode of the file protects no more than that of its folders; with the sticky bit, each keeps their own."""
    folder = tmp_path / "secrets"
    file, link = folder / "now" / "token", tmp_path / "token"
    file.parent.mkdir(parents=True)
    file.write_text("t0ken")
    file.chmod(0o600)
    link.symlink_to(file)
    folder.chmod(mode)
    for path in (file, link):
        risks = exposures_of(
            load(None, {"LCM_WORKER_LCM__USERNAME": "u", "LCM_WORKER_LCM__PASSWORD_FILE": str(path)})
        )
        assert [(risk.setting, risk.remedy) for risk in risks] == [
            ("lcm.password_file", f"chmod o-w {folder}")
        ] * told
