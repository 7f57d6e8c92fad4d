"""The values of the configuration file and the environment, still unchecked, each with its source."""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from worker.settings.files import read_whole
from worker.settings.masking import MASK
from worker.settings.sections import SECTIONS

CONFIG_VARIABLE = "LCM_WORKER_CONFIG"
_PREFIX = "LCM_WORKER_"
_NAMES = tuple(f"{section}.{name}" for section, model in SECTIONS.items() for name in model.model_fields)
_VARIABLES = {f"{_PREFIX}{name.replace('.', '__')}".upper(): name for name in _NAMES}
# A secret can be taken for a name; one without a digit is rare.
_NAME = re.compile(r"[A-Za-z_-]{1,40}")
# Kubernetes puts these into every container beside a Service that is called lcm-worker.
_SERVICE_LINK = re.compile(
    rf"{_PREFIX}([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_\w+)?)?)"
)


@dataclass(frozen=True)
class Value:
    """A raw value, where it came from (`source`), and that in the words of an error (`place`)."""

    raw: Any
    source: str
    place: str


@dataclass
class Given:
    """Values by dotted name, and what could not be understood, one line each.

    `complete` is false where a file could not be read at all, so that settings may be missing.
    """

    values: dict[str, Value]
    mistakes: list[str]
    complete: bool = True


def mistake(name: str, wrong: str, place: str) -> str:
    """Return the one line that tells of a mistake."""
    return f"{name}: {wrong} ({place})"


def shown_name(name: str) -> str:
    """Return a name that somebody gave, or a mask in place of what may be a secret."""
    return name if _NAME.fullmatch(name) else MASK


def from_file(path: Path, named_by: str = "") -> Given:
    """Read a TOML file. `named_by` tells, for errors, who named the file."""
    given = Given({}, [])
    try:
        document = _document(path)
    except (OSError, ValueError, RecursionError) as error:
        because = error.strerror if isinstance(error, OSError) else str(error)
        if isinstance(error, RecursionError):
            because = "it is nested too deeply"
        by = f" (named by {named_by})" if named_by else ""
        return Given({}, [f"{path}: the configuration file can't be used: {because}{by}"], complete=False)
    for section, table in document.items():
        place = f"{path}: {shown_name(section)}"
        if section not in SECTIONS:
            wrong = f"unknown section{_did_you_mean(section, SECTIONS)}"
            given.mistakes.append(mistake(shown_name(section), wrong, place))
        elif not isinstance(table, dict):
            given.mistakes.append(mistake(section, f"must be a table: [{section}]", place))
        else:
            for name, raw in table.items():
                dotted, shown = f"{section}.{name}", f"{section}.{shown_name(name)}"
                if dotted in _NAMES:
                    given.values[dotted] = Value(raw, str(path), f"{path}: {dotted}")
                else:
                    wrong = f"unknown name{_suggestion(dotted)}"
                    given.mistakes.append(mistake(shown, wrong, f"{path}: {shown}"))
    return given


def from_environment(environ: Mapping[str, str]) -> Given:
    """Pick the settings out of environment variables."""
    values = {
        name: Value(environ[variable], variable, f"environment variable {variable}")
        for variable, name in _VARIABLES.items()
        if variable in environ
    }
    ours = (variable for variable in environ if variable.upper().startswith(_PREFIX))
    return Given(values, list(_unknown_variables(ours)))


def _unknown_variables(ours: Iterable[str]) -> Iterator[str]:
    for variable in ours:
        if variable in _VARIABLES or variable == CONFIG_VARIABLE or _SERVICE_LINK.fullmatch(variable):
            continue
        section, _, name = variable.upper().removeprefix(_PREFIX).lower().partition("__")
        if section not in SECTIONS:
            wrong = "unknown section"
        elif not name:
            wrong = "names a section alone"
        else:
            wrong = "unknown name"
        # Without the prefix, which would make any two variables look alike.
        known = [each.removeprefix(_PREFIX) for each in (*_VARIABLES, CONFIG_VARIABLE)]
        guess = _did_you_mean(variable.upper().removeprefix(_PREFIX), known, _PREFIX)
        shown = ".".join(shown_name(part) for part in (section, name) if part)
        place = variable if MASK not in shown else f"{_PREFIX}{MASK}"
        yield mistake(shown, f"{wrong}{guess}", f"environment variable {place}")


def _document(path: Path) -> dict[str, Any]:
    raw = read_whole(path)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(f"it is not UTF-8 text (byte 0x{raw[error.start]:02x} in line {line})") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        lines = text.split("\n")
        end = f"(at line {len(lines)}, column {len(lines[-1]) + 1})"
        raise ValueError(f"not TOML: {str(error).replace('(at end of document)', end)}") from error


def _suggestion(dotted: str) -> str:
    name = dotted.partition(".")[2]
    elsewhere = [known for known in _NAMES if known.partition(".")[2] == name]
    return _did_you_mean(dotted, elsewhere or _NAMES)


def _did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    close = get_close_matches(word, list(known), n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
