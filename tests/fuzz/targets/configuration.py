"""Target: the settings, of a file and of variables, which hold secrets."""

from __future__ import annotations

from pathlib import Path
from tempfile import NamedTemporaryFile

from tests.fuzz.target import Target
from worker.cli.config.rendering import describe
from worker.contract.errors import SettingsError
from worker.settings import load, secrets_of

SECRET = "Xq7ZrT9vKw"  # made up; no input holds it
_PREFIX = "LCM_WORKER_"
# How each is written with the secret in it; what an input gives stands around it.
_SECRETS = {
    "LCM__PASSWORD": "{}",
    "LCM__URL": "wss://user:{}@lcm.example/ws?token={}",
    "LCM__PROXY": "http://user:{}@proxy.example",
    "LCM__HEADERS": '{{"Authorization": "{}"}}',
    "LCM__GREETING": '[{{"send": "{}"}}]',
    "BROKER__URL": "amqp://user:{}@rabbit.example/",
}
_SEPARATOR = b"\n---\n"


def check_settings(data: bytes) -> None:
    """Any file and variables are settings or one error, of printable lines; neither shows a secret."""
    file, _, lines = data.partition(_SEPARATOR)
    variables = dict(map(_variable, lines.decode("utf-8", "surrogateescape").splitlines()))
    with NamedTemporaryFile(suffix=".toml") as config:
        config.write(file)
        config.flush()
        try:
            settings = load(Path(config.name), variables)
        except SettingsError as error:
            told = str(error)
            assert told
            assert all(line.isprintable() for line in told.split("\n"))
        else:
            assert all(each for each in secrets_of(settings))
            told = repr([value for _, value, _ in describe(settings)])
    assert SECRET not in told


def _variable(line: str) -> tuple[str, str]:
    """Read NAME=text; a name that holds secrets has the secret within its text."""
    name, _, text = line.replace("\0", "").partition("=")
    if form := _SECRETS.get(name):
        # Braces of the text are its own.
        text = form.format(*[text + SECRET] * form.count("{}")) if "{}" in form else text
    return _PREFIX + name, text


TARGETS = (
    Target(
        "settings",
        check_settings,
        (
            b"[lcm]\n", b"[broker]\n", b"[retry]\n", b"[log]\n", b"[health]\n", b"url = ", b"sessions = ", _SEPARATOR,
            b"inf", b"nan", b"'10s'", b"1979-05-27", b"{a = 1}", b"[1, 2]", b"amqp://", b"wss://h/", b"=%", b"@", b"/",
            *(f"\n{name}=".encode() for name in _SECRETS),
        ),
    ),
)  # fmt: skip
