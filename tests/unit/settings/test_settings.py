"""The settings: read, checked, reported, shown and documented."""

from __future__ import annotations

import json
import os
import socket
import tomllib
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from worker.cli.config.rendering import describe, template
from worker.common.text import printable, quote, shortened
from worker.contract.errors import SettingsError
from worker.settings import (
    BrokerSettings,
    LcmSettings,
    RetrySettings,
    Scrubber,
    Settings,
    load,
    secrets_of,
)
from worker.settings.masking import MASK

CONFIG = Path(__file__).parents[3] / "config" / "worker.toml"
SECTIONS = ("broker", "lcm", "retry", "outage", "guard", "log", "health", "worker")


def from_env(**variables: str) -> Settings:
    """Load from variables given as `lcm__url`, without a file."""
    return load(None, {f"LCM_WORKER_{name.upper()}": value for name, value in variables.items()})


def mistakes_of(config: Path | None = None, /, **variables: str) -> list[str]:
    """Load in vain, and return the lines of the error."""
    with pytest.raises(SettingsError) as caught:
        load(config, {f"LCM_WORKER_{name.upper()}": value for name, value in variables.items()})
    return str(caught.value).splitlines()


def write(folder: Path, text: str) -> Path:
    file = folder / "worker.toml"
    file.write_text(text, encoding="utf-8")
    return file


# The contract


def test_the_defaults_are_the_contract() -> None:
    """Every setting has the name and the default that the contract gives it."""
    settings = load(None, {})
    shown = {name: value for name, value, _ in describe(settings)}
    assert shown == {
        "broker.url": '"amqp://guest:**********@127.0.0.1:5672/"',
        "broker.password_file": '""',
        "broker.ca_file": '""',
        "broker.cert_file": '""',
        "broker.key_file": '""',
        "broker.key_password_file": '""',
        "broker.prefix": '"lcm.outcome"',
        "broker.results_queue": "true",
        "broker.delivery_limit": "20",
        "broker.retry_delays": '["5s", "30s", "2m", "10m"]',
        "broker.prefetch": "64",
        "broker.declare": '"active"',
        "broker.publish_timeout": '"30s"',
        "broker.undelivered_limit": "100000",
        "broker.reply_to_prefixes": "[]",
        "lcm.url": '"ws://127.0.0.1:8765/"',
        "lcm.sessions": "32",
        "lcm.connect_timeout": '"10s"',
        "lcm.reply_timeout": '"10s"',
        "lcm.ping_interval": '"20s"',
        "lcm.ping_timeout": '"20s"',
        "lcm.max_exchanges": "0",
        "lcm.max_reply": '"1MiB"',
        "lcm.max_rate": "0",
        "lcm.fleet_sessions": "0",
        "lcm.fleet_rate": "0",
        "lcm.share": "true",
        "lcm.username": '""',
        "lcm.password": '""',
        "lcm.password_file": '""',
        "lcm.subprotocols": "[]",
        "lcm.headers": "{}",
        "lcm.session_name": '""',
        "lcm.greeting": "[]",
        "lcm.session_errors": '["NOT_LOGGED_IN", "WEBSOCKET_ERROR"]',
        "lcm.full_errors": '["TOO_MANY_SESSIONS"]',
        "lcm.ca_file": '""',
        "lcm.cert_file": '""',
        "lcm.key_file": '""',
        "lcm.key_password_file": '""',
        "lcm.proxy": '""',
        "retry.attempts": "3",
        "retry.first_delay": '"200ms"',
        "retry.max_delay": '"5s"',
        "retry.budget": '"1m"',
        "outage.failures": "5",
        "outage.probe_delay": '"1s"',
        "outage.probe_max_delay": '"30s"',
        "outage.hold": '"10m"',
        "guard.window": "200",
        "guard.ratio": "0.9",
        "log.level": '"info"',
        "log.format": '"auto"',
        "log.accounts": '"plain"',
        "log.stats_interval": '"30s"',
        "health.listen": '""',
        "worker.name": json.dumps(f"{socket.gethostname()}-{os.getpid()}"),
        "worker.shutdown_grace": '"25s"',
    }
    assert settings.broker.urls == ("amqp://guest:guest@127.0.0.1:5672/",)
    assert settings.lcm.max_reply == 1024 * 1024


def test_the_config_file_is_the_template() -> None:
    """`config/worker.toml` is exactly what `template` gives; if not, write it anew from there."""
    assert CONFIG.read_text(encoding="utf-8") == template()


def test_the_config_file_holds_the_defaults() -> None:
    """Loading `config/worker.toml` as it is changes nothing."""
    loaded, defaults = load(CONFIG, {}), load(None, {})
    for section in SECTIONS:
        assert getattr(loaded, section) == getattr(defaults, section)


def test_the_template_names_every_setting() -> None:
    """No setting is missing from the template, not even one that is commented out."""
    text = template().replace("\n# ", "\n")
    for name, _, _ in describe(load(None, {})):
        assert f"\n{name.partition('.')[2]} = " in text


def test_the_examples_of_the_template_load(tmp_path: Path) -> None:
    """What stands commented out as an example is valid once its comment sign is removed."""
    lines = template().splitlines()
    shown = ("prefetch", "headers", "greeting", "listen", "name")
    examples = {line: line[2:] for line in lines if line.startswith(tuple(f"# {name} = " for name in shown))}
    assert len(examples) == len(shown)
    text = "\n".join(examples.get(line, line) for line in lines if line != 'listen = ""')
    settings = load(write(tmp_path, text), {})
    assert settings.lcm.greeting[0].await_subtopic == "LoginResponse"
    assert settings.health.address == ("127.0.0.1", 8080)
    assert settings.worker.name == "host-1-4711"


# Sources


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """A variable overrides one name of the file and leaves the others of its section."""
    file = write(tmp_path, '[lcm]\nurl = "ws://file/"\nsessions = 3\n')
    settings = load(file, {"LCM_WORKER_LCM__URL": "ws://variable/"})
    assert settings.lcm.url == "ws://variable/"
    assert settings.lcm.sessions == 3
    sources = {name: source for name, _, source in describe(settings)}
    assert sources["lcm.url"] == "LCM_WORKER_LCM__URL"
    assert sources["lcm.sessions"] == str(file)
    assert sources["lcm.share"] == "default"


def test_the_config_variable_names_the_file_unless_the_argument_does(tmp_path: Path) -> None:
    """`LCM_WORKER_CONFIG` is the file where no other is given; empty, it is none."""
    file = write(tmp_path, "[lcm]\nsessions = 3\n")
    assert load(None, {"LCM_WORKER_CONFIG": str(file)}).lcm.sessions == 3
    assert load(CONFIG, {"LCM_WORKER_CONFIG": str(file)}).lcm.sessions == 32
    assert load(None, {"LCM_WORKER_CONFIG": ""}).lcm.sessions == 32


def test_only_the_given_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process's own environment is not looked at, by `load` or by a section built by hand."""
    monkeypatch.setenv("LCM_WORKER_LCM__SESSIONS", "7")
    monkeypatch.setenv("LCM", '{"sessions": 7}')
    assert load(None, {}).lcm.sessions == 32
    assert Settings().lcm.sessions == 32


def test_variables_hold_lists_and_tables() -> None:
    """Plain lists are JSON or separated by commas; tables are JSON."""
    settings = from_env(
        broker__retry_delays="1s, 120s",
        broker__reply_to_prefixes='["a,b", "c"]',
        lcm__session_errors="",
        lcm__headers='{"X-Key": "abc"}',
        lcm__greeting='[{"send": "hi", "await": "Welcome"}, {"send": "there"}]',
    )
    assert settings.broker.retry_delays == (1.0, 120.0)
    assert settings.broker.reply_to_prefixes == ("a,b", "c")
    assert settings.lcm.session_errors == ()
    assert settings.lcm.headers == {"X-Key": SecretStr("abc")}
    assert [each.send.get_secret_value() for each in settings.lcm.greeting] == ["hi", "there"]
    assert [each.await_subtopic for each in settings.lcm.greeting] == ["Welcome", ""]


@pytest.mark.parametrize(
    ("written", "size"), [("1MiB", 2**20), ("512KiB", 2**19), ("512 kib", 2**19), ("4096", 4096)]
)
def test_sizes_are_bytes(written: str, size: int) -> None:
    """A size is a number of bytes, whichever way it is written."""
    assert from_env(lcm__max_reply=written).lcm.max_reply == size


def test_prefetch_follows_sessions_unless_given() -> None:
    """The prefetch is twice the number of sessions where it isn't set."""
    assert from_env(lcm__sessions="5").broker.prefetch == 10
    assert from_env(lcm__sessions="5", broker__prefix="x").broker.prefetch == 10
    assert from_env(lcm__sessions="5", broker__prefetch="3").broker.prefetch == 3
    assert Settings(lcm=LcmSettings(sessions=1)).broker.prefetch == 2


def test_settings_are_frozen() -> None:
    """No setting changes once it is loaded."""
    settings = load(None, {})
    with pytest.raises(ValidationError, match="frozen"):
        settings.lcm.sessions = 5
    with pytest.raises(ValidationError, match="frozen"):
        settings.lcm = LcmSettings()


# Mistakes


def test_all_mistakes_are_reported_together(tmp_path: Path) -> None:
    """File, environment, unknown names, ranges and contradictions all have a line in the one error."""
    file = write(
        tmp_path,
        '[lcm]\nurl = "http://h/"\nsesions = 3\n[lmc]\nx = 1\n[retry]\nfirst_delay = "10s"\n[guard]\nratio = 2\n',
    )
    assert mistakes_of(
        file, broker__prefetch="0", retry__max_delay="5s", broker__urls="x", log__level="loud"
    ) == [
        f"lcm.sesions: unknown name; did you mean lcm.sessions? ({file}: lcm.sesions)",
        f"lmc: unknown section; did you mean lcm? ({file}: lmc)",
        (
            "broker.urls: unknown name; did you mean LCM_WORKER_BROKER__URL? "
            "(environment variable LCM_WORKER_BROKER__URLS)"
        ),
        f'lcm.url: must start with ws:// or wss://; found "http://h/" ({file}: lcm.url)',
        'broker.prefetch: must be at least 1; found "0" (environment variable LCM_WORKER_BROKER__PREFETCH)',
        f"guard.ratio: must be at most 1; found 2 ({file}: guard.ratio)",
        (
            "log.level: must be one of 'debug', 'info', 'warning' or 'error'; found \"loud\" "
            "(environment variable LCM_WORKER_LOG__LEVEL)"
        ),
        (
            "retry.first_delay: must not be longer than max_delay; found 10s and 5s "
            f"({file}: retry.first_delay, environment variable LCM_WORKER_RETRY__MAX_DELAY)"
        ),
    ]


def test_a_contradiction_with_a_broken_setting_is_not_reported() -> None:
    """Where one of two settings is wrong in itself, nothing is said about how they go together."""
    (mistake,) = mistakes_of(retry__first_delay="1m", retry__max_delay="soon")
    assert mistake.startswith("retry.max_delay: must be a duration")


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("LCM_WORKER_LCM_URL", "did you mean LCM_WORKER_LCM__URL?"),
        ("LCM_WORKER_LMC__URL", "did you mean LCM_WORKER_LCM__URL?"),
        ("lcm_worker_lcm__url", "did you mean LCM_WORKER_LCM__URL?"),
        ("LCM_WORKER_CONFG", "did you mean LCM_WORKER_CONFIG?"),
        ("LCM_WORKER_LCM", "names a section alone"),
        ("LCM_WORKER_LCM__HEADERS__X", "did you mean LCM_WORKER_LCM__HEADERS?"),
        ("LCM_WORKER_SOURCES__X", "unknown section"),
    ],
)
def test_unknown_variables_are_mistakes(variable: str, hint: str) -> None:
    """A variable that looks like a setting and is none is told, with the likely name, never with its value."""
    with pytest.raises(SettingsError) as caught:
        load(None, {variable: "t0psecret"})
    assert hint in str(caught.value)
    assert f"(environment variable {variable})" in str(caught.value)
    assert "t0psecret" not in str(caught.value)


@pytest.mark.parametrize(
    "variable", ["LCM_WORKER_t0psecret", "LCM_WORKER_LCM__t0p-secret!", "LCM_WORKER_T0PSECRET__X"]
)
def test_a_variable_whose_name_may_be_a_secret_is_not_named(variable: str) -> None:
    """As in a file: somebody put the value in place of the name."""
    with pytest.raises(SettingsError) as caught:
        load(None, {variable: "x"})
    assert f"(environment variable LCM_WORKER_{MASK})" in str(caught.value)
    assert "t0p" not in str(caught.value).lower()


def test_variables_of_kubernetes_services_are_no_settings() -> None:
    """A Service named lcm-worker puts variables into every container; they don't stop the worker."""
    load(
        None,
        {
            "LCM_WORKER_SERVICE_HOST": "10.0.0.1",
            "LCM_WORKER_SERVICE_PORT_HTTP": "80",
            "LCM_WORKER_PORT": "tcp://10.0.0.1:80",
            "LCM_WORKER_PORT_80_TCP_ADDR": "10.0.0.1",
            "LCM_WORKER_METRICS_SERVICE_PORT": "80",
            "PATH": "/bin",
        },
    )


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"[lcm]\nurl = \n", "line 2, column 7"),
        (b"[lcm]\nurl = [", "line 2, column 8"),
        (b'[lcm]\n\nurl = "\xff"\n', "not UTF-8 text (byte 0xff in line 3)"),
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b"lcm = 5", "lcm: must be a table: [lcm]"),
        (b"[broker]\nsessions = 5", "did you mean lcm.sessions?"),
        (b'"a\\nb" = 1', f"{MASK}: unknown section"),
    ],
)
def test_a_broken_file_is_one_line_that_says_where(tmp_path: Path, content: bytes, wrong: str) -> None:
    """Whatever a file holds, the error names the file, and the place within."""
    file = tmp_path / "worker.toml"
    file.write_bytes(content)
    (mistake,) = mistakes_of(file)
    assert wrong in mistake
    assert str(file) in mistake


def test_a_missing_file_is_a_mistake_beside_the_others(tmp_path: Path) -> None:
    """A file that isn't there is reported with who named it, and doesn't hide what else is wrong."""
    missing, wrong = mistakes_of(lcm__sessions="many", config=str(tmp_path / "no.toml"))
    assert "No such file" in missing
    assert "named by environment variable LCM_WORKER_CONFIG" in missing
    assert wrong.startswith("lcm.sessions: must be a whole number")
    assert "directory" in mistakes_of(tmp_path)[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("broker.url", ""),
        ("broker.url", "amqp:///"),
        ("broker.url", "http://host/"),
        ("broker.url", "amqp://host:99999/"),
        ("broker.url", "amqp://host/,redis://host/"),
        ("broker.prefix", ""),
        ("broker.prefix", "amq.mine"),
        ("broker.prefix", "a b"),
        ("broker.prefix", "ä"),
        ("broker.prefix", "x." * 120 + "x" * 10),
        ("broker.delivery_limit", 1),
        ("broker.retry_delays", []),
        ("broker.retry_delays", ["0s"]),
        ("broker.retry_delays", ["2m", "120s"]),
        ("broker.retry_delays", [4294967.296]),
        ("broker.retry_delays", ["0.5ms"]),
        ("broker.prefetch", 0),
        ("broker.prefetch", 65536),
        ("broker.declare", "lazy"),
        ("broker.publish_timeout", 0),
        ("broker.undelivered_limit", 0),
        ("broker.reply_to_prefixes", [""]),
        ("broker.key_file", __file__),
        ("broker.ca_file", "/no/such/file"),
        ("broker.password_file", "/no/such/file"),
        ("lcm.url", "http://host/"),
        ("lcm.url", "ws://"),
        ("lcm.url", "ws://host/#part"),
        ("lcm.url", "ws://user@host/"),
        ("lcm.sessions", 0),
        ("lcm.sessions", True),
        ("lcm.sessions", 1.5),
        ("lcm.connect_timeout", "10h"),
        ("lcm.reply_timeout", -1),
        ("lcm.max_exchanges", -1),
        ("lcm.max_reply", "1GB"),
        ("lcm.max_reply", "512,5KiB"),
        ("lcm.max_reply", 0),
        ("lcm.max_rate", float("inf")),
        ("lcm.username", "a:b"),
        ("lcm.password", "nobody's"),
        ("lcm.headers", {"Host": "x"}),
        ("lcm.headers", {"bad name": "x"}),
        ("lcm.headers", {"X-A": "two\nlines"}),
        ("lcm.headers", {"X-A": "1", "x-a": "2"}),
        ("lcm.headers", "X-A: 1"),
        ("lcm.session_name", "w-{n}-{host}"),
        ("lcm.session_name", "w-{n"),
        ("lcm.session_name", "w-{n:03}"),
        ("lcm.session_name", "{worker}"),
        ("lcm.session_name", "w:{n}"),
        ("lcm.greeting", [{"send": ""}]),
        ("lcm.greeting", [{"send": "x", "wait": "y"}]),
        ("lcm.greeting", ["x"]),
        ("lcm.cert_file", "/"),
        ("lcm.proxy", "socks5://host:1080"),
        ("lcm.proxy", "http://host:3128/path"),
        ("retry.attempts", 0),
        ("retry.budget", 0),
        ("retry.first_delay", "6s"),
        ("outage.failures", 0),
        ("outage.probe_delay", "31s"),
        ("outage.hold", "30m"),
        ("guard.ratio", 1.1),
        ("guard.ratio", float("nan")),
        ("guard.window", 0),
        ("log.level", "loud"),
        ("log.format", "xml"),
        ("log.accounts", "none"),
        ("health.listen", "8080"),
        ("health.listen", ":8080"),
        ("health.listen", "host:99999"),
        ("worker.name", "a b"),
        ("worker.name", ""),
    ],
)
def test_each_setting_has_its_range(tmp_path: Path, name: str, value: Any) -> None:
    """A value that can't work is refused at the start, in one line under the setting's name."""
    section, _, key = name.partition(".")
    text = json.dumps(value) if not isinstance(value, dict | float) else str(value)
    if isinstance(value, dict):
        text = "{" + ", ".join(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in value.items()) + "}"
    if key == "greeting":
        text = text.replace('":', '" =')
    (mistake,) = mistakes_of(write(tmp_path, f"[{section}]\n{key} = {text}\n"))
    assert mistake.startswith(name)
    assert mistake.endswith(f": {name})")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("broker__url", "amqps://rabbit-1,amqp://user:a%2Cb@[::1]:5672/vhost"),
        ("broker__retry_delays", "4294967.295"),
        ("broker__declare", "Passive"),
        ("broker__prefix", "team-a_1.Outcome"),
        ("lcm__url", "WSS://user:pass@host:4747/path?a=b@c"),
        ("lcm__session_name", "w-{worker}-{n}-{unixtime}"),
        ("lcm__ping_interval", "0"),
        ("lcm__proxy", "http://user:pass@proxy:3128"),
        ("lcm__subprotocols", "v1.lcm, v2.lcm"),
        ("retry__first_delay", "0"),
        ("health__listen", "[::1]:8080"),
        ("log__level", "WARNING"),
    ],
)
def test_what_is_unusual_but_right_is_accepted(name: str, value: str) -> None:
    """The checks don't refuse what works."""
    from_env(**{name: value})


def test_the_case_of_a_scheme_does_not_count() -> None:
    """A scheme in capital letters is taken as the same in small ones; what follows it stays as it is."""
    settings = from_env(
        broker__url="AMQPS://Me:T0p@Rabbit-1/Vhost, Amqp://Me:T0p@Rabbit-2/Vhost",
        lcm__url="WSS://Lcm:4747/Path?next=WS://Lcm",
        lcm__proxy="HTTP://Me:T0p@Proxy:3128",
    )
    assert settings.broker.urls == ("amqps://Me:T0p@Rabbit-1/Vhost", "amqp://Me:T0p@Rabbit-2/Vhost")
    assert settings.lcm.url == "wss://Lcm:4747/Path?next=WS://Lcm"
    assert settings.lcm.proxy == "http://Me:T0p@Proxy:3128"
    assert "T0p" not in repr(settings)


def test_a_session_name_without_number_is_for_one_session() -> None:
    """Without `{n}` all sessions would have the same name."""
    assert from_env(lcm__session_name="me", lcm__sessions="1").lcm.session_name == "me"
    (mistake,) = mistakes_of(lcm__session_name="me", lcm__sessions="2")
    assert "needs {n}" in mistake
    assert "LCM_WORKER_LCM__SESSIONS" in mistake


@pytest.mark.parametrize(
    "variables",
    [
        {"lcm__url": "ws://u:pppp@h/", "lcm__username": "me"},
        {"lcm__headers": '{"authorization": "Bearer x"}', "lcm__username": "me"},
        {"lcm__headers": '{"Authorization": "Bearer x"}', "lcm__session_name": "{n}"},
    ],
)
def test_credentials_are_given_in_one_way(variables: dict[str, str]) -> None:
    """Two settings that both become the Authorization header contradict each other."""
    (mistake,) = mistakes_of(**variables)
    assert "only one can be sent as Authorization" in mistake
    assert "pppp" not in mistake


def test_a_section_built_by_hand_is_checked_too() -> None:
    """Contradictions are found without `load`, and the error has no value in it."""
    with pytest.raises(ValidationError, match="first_delay must not be longer than max_delay"):
        RetrySettings(first_delay=5, max_delay=1)
    with pytest.raises(ValidationError) as caught:
        LcmSettings(url="http://u:t0psecret@h/")
    assert "t0psecret" not in str(caught.value)


# Secrets


def test_secrets_come_from_files(tmp_path: Path) -> None:
    """A secret file is read at load, without what editors leave at its ends, and the URL has it quoted."""
    file = tmp_path / "password"
    file.write_text("\ufeff p@ss/w,rd:é \t\r\n\n", encoding="utf-8")
    settings = from_env(
        broker__url="amqp://me@one/,amqps://me%40home@[::1]:5671/vhost",
        broker__password_file=str(file),
        lcm__username="me",
        lcm__password_file=str(file),
    )
    file.unlink()
    quoted = "%20p%40ss%2Fw%2Crd%3A%C3%A9"
    assert settings.broker.urls == (
        f"amqp://me:{quoted}@one/",
        f"amqps://me%40home:{quoted}@[::1]:5671/vhost",
    )
    assert settings.lcm.password.get_secret_value() == " p@ss/w,rd:é"
    assert ("lcm.password", '"**********"', str(file)) in describe(settings)


def test_a_secret_file_suits_the_default_url(tmp_path: Path) -> None:
    """Only the password has to be given for the default user: the default URL's own gives way."""
    file = tmp_path / "password"
    file.write_text("better\r\n", encoding="utf-8")
    assert from_env(broker__password_file=str(file)).broker.urls == ("amqp://guest:better@127.0.0.1:5672/",)


def test_a_secret_is_given_once(tmp_path: Path) -> None:
    """A password and a password file contradict each other, wherever each comes from."""
    file = tmp_path / "password"
    file.write_text("one", encoding="utf-8")
    config = write(tmp_path, f'[lcm]\nusername = "me"\npassword_file = "{file}"\n')
    (mistake,) = mistakes_of(config, lcm__password="t0psecret")
    assert mistake.startswith("lcm.password: is given beside lcm.password_file")
    assert "t0psecret" not in mistake
    (mistake,) = mistakes_of(broker__url="amqp://me:t0psecret@h/", broker__password_file=str(file))
    assert mistake.startswith("broker.password_file: can't be given beside a password in broker.url")
    (mistake,) = mistakes_of(broker__url="amqp://h/", broker__password_file=str(file))
    assert "amqp://USER@HOST:5672/" in mistake


@pytest.mark.parametrize(("content", "wrong"), [(b"", "empty"), (b"\n", "empty"), (b"\xff", "not UTF-8")])
def test_a_secret_file_holds_a_secret(tmp_path: Path, content: bytes, wrong: str) -> None:
    """An empty or unreadable secret is a mistake, not an empty password."""
    file = tmp_path / "password"
    file.write_bytes(content)
    (mistake,) = mistakes_of(broker__password_file=str(file))
    assert wrong in mistake


SECRETS = {
    "broker__url": "amqp://me:br0ker-pw@h/,amqp://me:br0ker%2Fpw2@h/",
    "lcm__url": "wss://host/path?name=worker&token=t0ken-q%20x",
    "lcm__username": "agent",
    "lcm__password": 'lcm-"pw"',
    "lcm__headers": '{"X-Key": "header-v4lue"}',
    "lcm__greeting": '[{"send": "greeting-t3xt"}]',
    "lcm__proxy": "http://pu:pr0xy-pw@proxy:3128/",
}
HIDDEN = ("br0ker", "t0ken", "lcm-", "v4lue", "t3xt", "pr0xy-pw")


def test_no_secret_is_shown() -> None:
    """Neither `repr` nor `str` of any model, nor `describe`, holds a secret."""
    settings = from_env(**SECRETS)
    models = [settings, *(getattr(settings, section) for section in SECTIONS), *settings.lcm.greeting]
    texts = [form(model) for model in models for form in (repr, str)]
    texts += [repr(settings.broker.urls), repr(describe(settings))]
    for text in texts:
        assert not [secret for secret in HIDDEN if secret in text]
    shown = {name: value for name, value, _ in describe(settings)}
    assert shown["lcm.url"] == '"wss://host/path?name=**********&token=**********"'
    assert shown["lcm.proxy"] == '"http://pu:**********@proxy:3128/"'
    assert shown["broker.url"] == '"amqp://me:**********@h/,amqp://me:**********@h/"'


@pytest.mark.parametrize(
    "variables",
    [
        {"broker__url": "http://me:t0psecret@h/"},
        {"broker__url": "amqp://me:t0pse,cret@h/"},
        {"broker__url": "amqp://me:12,t0psecret@h/"},
        {"broker__url": "amqp://me:t0p/secret@h/"},
        {"broker__url": "amqp://me:12/t0psecret@h/"},
        {"broker__url": "amqp://me:12?t0psecret@h/"},
        {"broker__url": "amqp://me:t0p#secret@h/"},
        {"broker__url": "me:t0psecret@h"},
        {"lcm__url": "http://h/?token=t0psecret"},
        {"lcm__url": "ws://t0psecret@h/"},
        {"lcm__proxy": "socks5://u:t0psecret@h/"},
        {"lcm__password": "t0psecret"},
        {"lcm__password_file": "t0psecret"},
        {"lcm__headers": '{"X": "t0psecret'},
        {"lcm__headers": '["t0psecret"]'},
        {"lcm__headers": '{"X": ["t0psecret"]}'},
        {"lcm__greeting": '["t0psecret"]'},
        {"lcm__key_file": "-----BEGIN PRIVATE KEY-----t0psecret"},
        {"broker__key_file": "t0psecret"},
        {"lcm__greeting": '[{"send": "x", "other": "t0psecret"}]'},
        {"lcm__greeting": '[{"{\\"key\\": \\"t0psecret\\"}": "LoginResponse"}]'},
        {"lcm__headers": '{"Authorization: Bearer t0psecret": "x"}'},
        {"lcm__headers": '{"Authorization: Bearer t0psecret": 1}'},
        {"lcm__username": "user:t0psecret"},
        {"lcm__username": "user\nt0psecret"},
        {"lcm__session_name": "user:t0psecret{"},
        {"broker__prefix": "t0psecret/"},
        {"worker__name": "t0psecret\n"},
        {"lcm__fleet_sessions": "t0psecret"},
        {"lcm__fleet_rate": "t0psecret"},
        {"lcm__reply_timeout": "t0psecret"},
        {"lcm__headers": '{"t0psecret": 1}'},
        {"log__level": "t0psecret"},
        {"health__listen": "t0psecret"},
        *(
            {f"{section}__{name}": f"-----BEGIN PRIVATE KEY-----\n{filling}\n"}
            for section in ("lcm", "broker")
            for name in ("ca_file", "cert_file", "key_file")
            for filling in ("t0psecret", "t0psecret" * 1000)
        ),
    ],
)
def test_no_mistake_shows_a_secret(variables: dict[str, str]) -> None:
    """However wrong a secret setting is, the error doesn't hold it, nor does the traceback's chain."""
    with pytest.raises(SettingsError) as caught:
        from_env(**variables)
    assert not [part for part in ("t0p", "secret", "cret@") if part in str(caught.value)]
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "text",
    [
        't0psecret = "x"',
        "[lcm]\nt0psecret = 1",
        "[t0psecret]\nx = 1",
        "[lcm]\nheaders.t0psecret = 1",
        '[worker]\nname = {t0psecret = "x"}',
        '[worker]\nname = ["x", "t0psecret"]',
        '[lcm]\nfleet_sessions = "t0psecret"',
    ],
)
def test_no_mistake_in_a_file_shows_a_secret(tmp_path: Path, text: str) -> None:
    """Nor where the secret stands in place of a name, or within a list or table."""
    (mistake,) = mistakes_of(write(tmp_path, text))
    assert "t0psecret" not in mistake


def test_a_mistake_shows_words_and_numbers() -> None:
    """What was written in place of a number, a duration or one of several words is told."""
    for setting, found in {
        "lcm__reply_timeout": "10 secs",
        "log__level": "loud",
        "lcm__fleet_sessions": "-1",
    }.items():
        (mistake,) = mistakes_of(**{setting: found})
        assert f'found "{found}"' in mistake


def test_a_mistake_shows_what_is_no_secret() -> None:
    """What stands beside a secret tells which one it is: the path, the user's name, the place of the header."""
    (path,) = mistakes_of(lcm__ca_file="/nowhere/ca.pem")
    assert 'found "/nowhere/ca.pem"' in path
    (user,) = mistakes_of(lcm__username="user:t0psecret")
    assert f'found "user{MASK}"' in user
    (header,) = mistakes_of(lcm__headers='{"X-Key": "v", "X-Other: v": "v"}')
    assert header.startswith("lcm.headers: number 2 of them has no name that HTTP allows")
    (value,) = mistakes_of(lcm__headers='{"X-Key": 1}')
    assert value.startswith("lcm.headers.X-Key: must be a text")


def test_secrets_of_lists_what_to_scrub() -> None:
    """Every secret is listed in each form it may take, the longest first, and no common word is."""
    found = secrets_of(from_env(**SECRETS))
    for secret in (
        "br0ker-pw",
        "br0ker%2Fpw2",
        "br0ker/pw2",
        "t0ken-q%20x",
        "t0ken-q x",
        'lcm-"pw"',
        r"lcm-\"pw\"",
        "header-v4lue",
        "greeting-t3xt",
        "pr0xy-pw",
        b64encode(b'agent:lcm-"pw"').decode(),
        b64encode(b"pu:pr0xy-pw").decode(),
    ):
        assert secret in found
    assert "worker" not in found
    assert list(found) == sorted(found, key=len, reverse=True)


def test_what_is_secret_within_a_greeting_is_masked_by_itself() -> None:
    """An LCM that tells a token back is not to put it into the log; a topic and the like are words as any other."""
    greeting = {
        "channel": "Agent",
        "topic": "Login",
        "message": {"AuthToken": "t0ken", "user": "agent-7", "list": ["a" * 24], "said": "words " * 10},
    }
    hide = Scrubber(
        from_env(lcm__greeting=json.dumps([{"send": json.dumps(greeting)}, {"send": "no JSON {"}]))
    )
    assert hide("Login of agent-7 by t0ken failed") == "Login of agent-7 by ********** failed"
    assert hide(f"{'a' * 24}, {'words ' * 10}") == f"**********, {'words ' * 10}"
    assert hide("Agent: no JSON {") == "Agent: **********"


@pytest.mark.parametrize(
    ("greeting", "told"),
    [
        ({"authorization": "Bearer hunter22"}, "hunter22"),
        ({"authorization": f"Basic {b64encode(b'me:hunter').decode()}"}, "hunter"),
        ({"auth": "hunter22"}, "hunter22"),
        ({"sessionkey": "hunter22"}, "hunter22"),
        ({"cookie": "lang=en; SID=hunter22"}, "hunter22"),
        ({"passphrase": "corr3ct-horse b4ttery"}, "corr3ct-horse"),
        ("LOGIN joe hunter22", "hunter22"),
        ("user=joe&password=hunt", "hunt"),
        ("user=joe&password=hunt%2F22", "hunt/22"),
        ("<login user='joe' password='hunt'/>", "hunt"),
        ('"hunter22"', "hunter22"),
        ('{"password": "hunt" + no JSON', "hunt"),
        ("PASS: hunt", "hunt"),
    ],
)
def test_what_a_greeting_logs_in_with_is_masked_by_itself(greeting: str | dict[str, str], told: str) -> None:
    """Under whatever scheme or key it stands, in JSON or not."""
    send = greeting if isinstance(greeting, str) else json.dumps({"topic": "Login"} | greeting)
    hide = Scrubber(from_env(lcm__greeting=json.dumps([{"send": send}])))
    assert hide(f"{told} is wrong") == "********** is wrong"


def test_the_words_beside_a_credential_stay() -> None:
    """A scheme, a topic and the name of a parameter are words as any other, which masks would garble."""
    greetings = [
        json.dumps({"topic": "Login", "authorization": "Bearer 0123456789abcdef", "authType": "Bearer"}),
        json.dumps({"session": "worker", "key": "Subscribe"}),
        "LOGIN joe Subscribe user=joe&password=hunter22",
    ]
    headers = {"X-Auth": "Bearer hunter22", "X-Api-Key": "key=hunter22", "X-Basic": "Basic Zm9v"}
    hide = Scrubber(
        from_env(
            lcm__greeting=json.dumps([{"send": each} for each in greetings]), lcm__headers=json.dumps(headers)
        )
    )
    words = "Login, Bearer, Basic, key, Subscribe, session of worker, LOGIN of joe, user, password, authType"
    assert hide(words) == words


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"Authorization": f"Basic {b64encode(b'me:hunter22').decode()}"}, "hunter22"),
        ({"Proxy-Authorization": "Bearer hunter22"}, "hunter22"),
        ({"Cookie": "lang=en; sid=hunter22"}, "hunter22"),
        ({"X-Auth": "Bearer hunter22"}, "hunter22"),
        ({"X-Auth": f"Basic {b64encode(b'me:hunter').decode()}"}, "hunter"),
        ({"X-Api-Key": "key=hunter22"}, "hunter22"),
        ({"X-Auth": "ApiKey joe:hunter22"}, "hunter22"),
        ({"X-Api-Key": 'client="me",secret="hunt"'}, "hunt"),
        ({"Authorization": "Token token=hunter22, realm=x"}, "hunter22"),
    ],
)
def test_what_a_header_carries_is_masked_by_itself(headers: dict[str, str], told: str) -> None:
    """An LCM may tell back the password of a Basic credential, the token alone, or a cookie's value."""
    assert Scrubber(from_env(lcm__headers=json.dumps(headers)))(f"{told} is wrong") == "********** is wrong"


TOKEN = "CANARY0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (quote(f"no such token {TOKEN}"), "'no such token **********…"),
        (quote(f"{TOKEN} and {TOKEN}"), "'********** and **********…"),
        (shortened(f"by {TOKEN}", 8) + " (see broker.url)", "by **********… (see broker.url)"),
        (
            f"{TOKEN[:4]}... and {TOKEN[:9]}.... and {TOKEN[:3]}…",
            f"{MASK}... and {MASK}.... and {TOKEN[:3]}…",
        ),
        (f"ended by {TOKEN[:12]}", "ended by **********"),
        (f"ended by {TOKEN[:11]}", f"ended by {TOKEN[:11]}"),
        (f"no beginning: {TOKEN[1:30]}", f"no beginning: {TOKEN[1:30]}"),
    ],
)
def test_what_a_cut_left_of_a_secret_is_masked(said: str, told: str) -> None:
    """Texts are cut before they are masked: a secret's beginning stands before the mark of a cut, or at the end."""
    hide = Scrubber(from_env(lcm__url=f"ws://lcm/?token={TOKEN}"))
    assert hide(said) == told


def test_data_are_not_garbled_by_the_beginning_of_a_secret() -> None:
    """Four letters of a description with an ellipsis may begin a password, twelve at its end don't by chance."""
    hide = Scrubber(from_env(lcm__url="ws://lcm/?token=Call-back-0815"))
    assert hide("Call… Call-back…") == f"{MASK}… {MASK}…"
    assert hide.in_data("Call… Call-back…") == "Call… Call-back…"
    assert hide.in_data("said Call-back-08") == f"said {MASK}"


@pytest.mark.parametrize(
    "secret", ["hunt\u00a0er22", "hunt\u00ader22", "hunt\\er22", "hunt'er22", "hunt\ner'22", 'hunt"er22']
)
@pytest.mark.parametrize("shown", [printable, quote, lambda text: quote(printable(text))])
@pytest.mark.parametrize("around", ["{}", "\"'{}'\"", '"{}"', "'{}'"])
def test_a_secret_is_recognized_with_escapes(secret: str, shown: Callable[[str], str], around: str) -> None:
    """What is not printable, quotes and backslashes are escaped before a text is masked."""
    hide = Scrubber(from_env(lcm__greeting=json.dumps([{"send": secret}])))
    said = hide(shown(around.format(secret)))
    assert said == shown(around.format(MASK)) or said.strip("\"'\\") == MASK


@pytest.mark.parametrize(
    "said",
    [
        r"p&ss'w/rd+22",
        r"p&ss'w\/rd+22",
        r"p\u0026ss\u0027w/rd\u002b22",
        r"p\u0026ss\u0027w/rd\u002B22",
        "p&amp;ss&#39;w/rd+22",
        "p&amp;ss&#x27;w&#x2F;rd+22",
        b64encode(b"p&ss'w/rd+22").decode(),
    ],
)
def test_a_secret_is_recognized_as_other_libraries_write_it(said: str) -> None:
    """In JSON that may stand in HTML, in HTML itself, and in base64."""
    hide = Scrubber(from_env(lcm__username="me", lcm__password="p&ss'w/rd+22"))
    assert hide(f"<{said}>") == f"<{MASK}>"


def test_a_token_without_a_name_is_masked_as_it_was_meant() -> None:
    """A server shows it decoded, the URL has it quoted."""
    hide = Scrubber(from_env(lcm__url="ws://lcm/?hunter%2F22"))
    assert hide("hunter/22 hunter%2F22") == "********** **********"


def test_data_are_not_garbled_by_a_password_that_is_a_word() -> None:
    """An outcome list is masked where a secret can't be mistaken for a word of it; a log and an error, always."""
    hide = Scrubber(from_env(lcm__url="ws://lcm/?mode=Answering&pin=4711&token=hunter22"))
    assert hide("Answering Machine 4711 hunter22") == "********** Machine ********** **********"
    assert hide.in_data("Answering Machine 4711 hunter22") == "Answering Machine 4711 **********"


def test_a_url_of_a_command_line_holds_secrets_as_well() -> None:
    """Those of `check --management` are masked in what it prints."""
    hide = Scrubber(load(None, {}), "http://me:hunter22@broker:15672")
    assert hide(f"hunter22 {b64encode(b'me:hunter22').decode()}") == "********** **********"


def test_what_a_file_held_stays_masked(tmp_path: Path) -> None:
    """The last 8 values of a secret file are masked, quoted and as credentials too, and each new one at once."""
    file = tmp_path / "password"
    file.write_text("first/value")
    settings = from_env(lcm__username="me", lcm__password_file=str(file), broker__password_file=str(file))
    hide = Scrubber(settings)
    assert hide("first/value first%2Fvalue") == "********** **********"
    credential = b64encode(b"me:next/8").decode()
    for password_file in (settings.lcm.password_file, settings.broker.password_file):
        for number in range(9):
            password_file.hold(f"next/{number}")
            password_file.hold(f"next/{number}")
            assert hide(f"next/{number} next%2F{number}") == "********** **********"
        assert len(password_file.held) == 8
    assert hide(credential) == "**********"
    assert hide("next/1 next/8 next/0 first/value") == "********** ********** next/0 first/value"
    assert "next" not in repr(settings)


@pytest.mark.parametrize("blank", [" ", "  ", "\t", "\u00a0", "\r\n", " \u2003 "])
def test_a_secret_is_recognized_with_other_blanks(blank: str) -> None:
    """Results make one blank of several, and would make the secret again of what was none when it was looked for."""
    hide = Scrubber(from_env(lcm__username="me", lcm__password="corr3ct horse b4ttery"))
    said = blank.join(["no corr3ct", "horse", "b4ttery is known"])
    assert hide(said) == f"no {MASK} is known"
    assert hide.in_data(said) == f"no {MASK} is known"


@pytest.mark.parametrize("user", ["", "a", "ab", "abc", "worker-1-1767225600", "ü"])
def test_a_basic_credential_is_recognized_under_any_user(user: str) -> None:
    """Session names vary by connection, and the password in base64 is scrubbed under each of them."""
    found = secrets_of(from_env(lcm__session_name="{worker}-{n}", lcm__password="s3cret"))
    credential = b64encode(f"{user}:s3cret".encode()).decode()
    left = credential
    for form in found:
        left = left.replace(form, "")
    # What is left can hold no more than the user's name and its colon.
    assert len(left.rstrip("=")) <= (8 * len(f"{user}:".encode()) + 5) // 6


def test_short_and_default_secrets_are_not_scrubbed() -> None:
    """Scrubbing "guest" or two letters everywhere would garble the log."""
    assert secrets_of(load(None, {})) == ()
    assert "abc" not in secrets_of(from_env(lcm__headers='{"X-A": "abc"}'))
    assert "the-token" in secrets_of(from_env(lcm__headers='{"Authorization": "Bearer the-token"}'))


def test_described_values_are_toml() -> None:
    """What `describe` shows can be read as TOML, whatever characters it holds."""
    settings = from_env(
        lcm__headers='{"X.Y": "abc"}',
        lcm__session_errors='["a \\"b\\" \\\\ c", "é"]',
        lcm__greeting='[{"send": "x"}]',
    )
    values = {name: tomllib.loads(f"value = {value}")["value"] for name, value, _ in describe(settings)}
    assert values["lcm.session_errors"] == ['a "b" \\ c', "é"]
    assert values["lcm.headers"] == {"X.Y": "**********"}
    assert values["lcm.greeting"] == [{"send": "**********"}]


def test_broker_settings_stand_alone() -> None:
    """A section is usable without the others, with the contract's prefetch."""
    assert BrokerSettings().prefetch == 64
