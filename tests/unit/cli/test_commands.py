"""What the command line says without doing anything yet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from worker import __version__
from worker.__main__ import main
from worker.cli import app
from worker.contract.errors import SettingsError
from worker.simulator.behaviour import CONNECTION_FAULTS, FAULTS, WHEN_FULL
from worker.simulator.documents import UNASKED, VARIANTS
from worker.simulator.scenarios import SCENARIOS

COMMANDS = [
    "run", "check", "status", "lookup", "submit", "top", "health", "asyncapi", "simulate", "demo", "sandbox",
    "dead", "undelivered", "topology", "config"
]  # fmt: skip
CONFIG = Path(__file__).parents[3] / "config" / "worker.toml"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LCM_WORKER_CONFIG", raising=False)
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    monkeypatch.setenv("COLUMNS", "80")


def said(*arguments: str, status: int = 0, environment: dict[str, str] | None = None) -> str:
    """Return what a command prints on both streams, once it ended with this status."""
    result = CliRunner().invoke(app, arguments, env=environment, prog_name="lcm-worker")
    assert result.exit_code == status, result.output
    return result.output


def test_help_lists_the_commands_in_full() -> None:
    """`--help` lists each command in the order of use, and cuts none of their descriptions at 80 columns."""
    listed = said("--help").partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == COMMANDS
    assert not any("..." in line for line in listed)


def leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, by its full name: `dead list`."""
    for word, sub in getattr(command, "commands", {}).items():
        yield from leaves(sub, f"{name} {word}".strip())
    if not hasattr(command, "commands"):
        yield name, command


LEAVES = dict(leaves(get_command(app)))


@pytest.mark.parametrize("command", LEAVES)
def test_every_command_shows_an_example(command: str) -> None:
    """The help of a command has an example that starts a line of its own, and fits 80 columns."""
    lines = said(*command.split(), "--help").splitlines()
    # An example may begin with what is piped into the command.
    assert any(line.startswith("  Example: ") and f"lcm-worker {command}" in line for line in lines)
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("command", LEAVES)
def test_every_option_says_its_default(command: str) -> None:
    """Whatever takes a value says in its help what is in force without it; a switch is off then."""
    silent = [
        option.opts[0]
        for option in LEAVES[command].params
        if option.param_type_name == "option" and not option.is_flag
        if "efault" not in (option.help or "") and not (option.show_default and option.default is not None)
    ]
    assert silent == []


def test_shells_complete_commands() -> None:
    """A shell that asks for the commands that begin with "de" is told of them."""
    asked = {"_LCM_WORKER_COMPLETE": "complete_bash", "COMP_WORDS": "lcm-worker de", "COMP_CWORD": "1"}
    assert said(environment=asked).split() == ["demo", "dead"]


def test_no_command_is_wrong_usage() -> None:
    """Without a command the help is shown, and the status is that of wrong usage."""
    assert "Commands:" in said(status=2)


def test_the_version_is_the_distributions() -> None:
    """`--version` prints name and version, without asking for a command."""
    assert said("--version") == f"lcm-worker {__version__}\n"


def test_an_unknown_option_is_wrong_usage() -> None:
    """An option that there is none of ends with status 2 and is named."""
    assert "--jsn" in said("lookup", "--jsn", "1", status=2)


def test_the_template_is_the_documented_file() -> None:
    """`config template` prints exactly config/worker.toml, which so documents every setting."""
    assert said("config", "template") == CONFIG.read_text()


def test_the_settings_are_shown_with_their_sources_and_without_secrets(tmp_path: Path) -> None:
    """`config show` has one line per setting in a pipe: name, value, source; secrets are masked."""
    config = tmp_path / "worker.toml"
    config.write_text('[lcm]\nusername = "u"\nurl = "wss://lcm.example/?token=s3cret-token"\nsessions = 7\n')
    shown = said(
        "config", "show", "--config", str(config),
        environment={
            "LCM_WORKER_LCM__PASSWORD": "s3cret-password", "LCM_WORKER_BROKER__URL": "amqp://me:s3cret-broker@mq/",
        },
    )  # fmt: skip
    assert "s3cret" not in shown
    rows = {
        name: (value, source) for name, value, source in (line.split("\t") for line in shown.splitlines())
    }
    assert rows["lcm.sessions"] == ("7", str(config))
    assert rows["lcm.password"] == ('"**********"', "LCM_WORKER_LCM__PASSWORD")
    assert rows["broker.url"] == ('"amqp://me:**********@mq/"', "LCM_WORKER_BROKER__URL")
    assert rows["retry.attempts"] == ("3", "default")


@pytest.mark.parametrize(
    "arguments",
    [["--config", "FILE", "config", "show"], ["config", "show", "--config", "FILE"], ["config", "show"]],
)
def test_the_file_may_be_named_before_or_after_the_command(tmp_path: Path, arguments: list[str]) -> None:
    """`--config` is understood on either side of the command, and LCM_WORKER_CONFIG where it isn't given."""
    config = tmp_path / "worker.toml"
    config.write_text("[lcm]\nsessions = 7\n")
    given = [str(config) if argument == "FILE" else argument for argument in arguments]
    environment = {} if "FILE" in arguments else {"LCM_WORKER_CONFIG": str(config)}
    assert f"lcm.sessions\t7\t{config}\n" in said(*given, environment=environment)


@pytest.mark.parametrize("command", ["run", "check", "lookup 18", "demo", "config show"])
def test_wrong_settings_stop_every_command_that_uses_them(command: str) -> None:
    """All mistakes come together as one SettingsError, before anything is done."""
    result = CliRunner().invoke(
        app, command.split(), env={"LCM_WORKER_LCM__SESSIONS": "none", "LCM_WORKER_LOG__LEVEL": "loud"}
    )
    assert isinstance(result.exception, SettingsError)
    assert {line.partition(":")[0] for line in str(result.exception).splitlines()} == {
        "lcm.sessions", "log.level",
    }  # fmt: skip


def test_simulate_lists_every_name_that_it_takes() -> None:
    """`simulate --list` names all that the other switches take, each on a line of its own."""
    listed = {line.split()[0] for line in said("simulate", "--list").splitlines() if line.startswith("  ")}
    assert listed == {*SCENARIOS, *FAULTS, *CONNECTION_FAULTS, *WHEN_FULL, *VARIANTS, *UNASKED}


@pytest.mark.parametrize(
    ("switch", "value", "names"),
    [
        ("--scenario", "nightmare", SCENARIOS),
        ("--fault", "nightmare", FAULTS),
        ("--variant", "nightmare", VARIANTS),
        ("--when-full", "nightmare", WHEN_FULL),
    ],
)
def test_simulate_refuses_an_unknown_name_with_those_it_knows(
    switch: str, value: str, names: dict[str, object]
) -> None:
    """A name that there is none of ends with status 2, and the message lists the names that would do."""
    message = " ".join(said("simulate", switch, value, status=2).split())
    assert "nightmare" in message
    assert all(name in message for name in names)


@pytest.mark.parametrize(
    "line",
    [
        "health --timeout nan", "health --timeout 1e400", "simulate --port 65536", "simulate --host a..b",
        "simulate --delay inf", "submit jobs.csv --deadline 9999999999d", "submit jobs.csv --rate nan",
        "dead list --newer-than 9999999999d", "dead list --older-than 1e400",
    ],
)  # fmt: skip
def test_absurd_numbers_are_wrong_usage(line: str) -> None:
    """A number that is none, endless or out of every range ends with status 2, and names the option."""
    option = next(word for word in line.split() if word.startswith("--"))
    assert option.lstrip("-") in said(
        *line.split(), status=2, environment={"LCM_WORKER_HEALTH__LISTEN": "h:1"}
    )


def test_an_interrupt_while_the_commands_are_imported_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C right after the start ends the program as later on, with 130, and without a traceback."""

    class Interrupts:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "worker.cli":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "worker.cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupts()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
