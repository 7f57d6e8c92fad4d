"""From file and environment to checked settings, or to one error that lists every mistake."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from worker.contract.errors import SettingsError
from worker.settings.section import CONFLICT, Conflict
from worker.settings.sections import SECTIONS, Settings
from worker.settings.sources import (
    CONFIG_VARIABLE,
    Given,
    Value,
    from_environment,
    from_file,
    mistake,
    shown_name,
)
from worker.settings.types import Sensitive, Written

_LONGEST_FOUND = 80
_DEPTH = 2  # section and name; what is deeper is inside a value
# Of texts, these alone are shown where a setting does not say better: what else was found may be a secret that was put
# there by mistake. A word, or a number with or without a unit.
_PLAIN = re.compile(r"[A-Za-z]{0,16}|[-+]?[0-9][0-9.,_]{0,11} ?[A-Za-z]{0,5}")
_TABLE, _LIST, _WHOLE, _NUMBER = (
    "must be a table",
    "must be a list",
    "must be a whole number",
    "must be a number",
)
_WORDS = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": _TABLE,
    "extra_forbidden": "is unknown here",
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "int_from_float": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_type": _WHOLE,
    "list_type": _LIST,
    "literal_error": "must be one of {expected}",
    "mapping_type": _TABLE,
    "missing": "is missing",
    "model_type": _TABLE,
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_type": "must be a text in quotes",
    "string_unicode": "must be text that UTF-8 can hold",
    "tuple_type": _LIST,
}


def load(config: Path | None, environ: Mapping[str, str]) -> Settings:
    """Return the settings of a TOML file under those of environment variables.

    The file is `config`, else the one that `LCM_WORKER_CONFIG` names in `environ`, else none.

    Raises:
        SettingsError: something is wrong; the text has a line for every mistake, with the setting's name,
            what is wrong, what was found (never a secret), and where.
    """
    file, path = Given({}, []), ""
    if config is not None:
        file, path = from_file(config), str(config)
    elif path := environ.get(CONFIG_VARIABLE, ""):
        file = from_file(Path(path), f"environment variable {CONFIG_VARIABLE}")
    variables = from_environment(environ)
    values = file.values | variables.values
    mistakes = file.mistakes + variables.mistakes
    try:
        settings = _settings(values, path)
    except ValidationError as error:
        wrong = [details for details in error.errors() if details["type"] != CONFLICT]
        mistakes += [_told(details, values) for details in wrong]
        if file.complete:
            mistakes += _conflicts(values, {_dotted(details) for details in wrong})
        raise SettingsError(*mistakes) from None  # the original holds what was found, secrets too
    if mistakes:
        raise SettingsError(*mistakes)
    return settings


def _settings(values: Mapping[str, Value], file: str = "") -> Settings:
    tables: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for dotted, value in values.items():
        section, _, name = dotted.partition(".")
        tables[section][name] = value.raw
    return Settings.model_validate(
        tables | {"sources": {dotted: value.source for dotted, value in values.items()}, "file": file}
    )


def _conflicts(values: Mapping[str, Value], broken: set[str]) -> list[str]:
    """Return what is wrong between settings, as far as the settings concerned are right by themselves."""
    try:
        _settings({dotted: value for dotted, value in values.items() if dotted not in broken})
    except ValidationError as error:
        return [
            line
            for details in error.errors()
            if details["type"] == CONFLICT
            for conflict in details["ctx"]["conflicts"]
            for line in _conflict_told(str(details["loc"][0]), conflict, values, broken)
        ]
    return []


def _conflict_told(
    section: str, conflict: Conflict, values: Mapping[str, Value], broken: set[str]
) -> Iterator[str]:
    involved = [f"{section}.{name}" for name in (conflict.name, *conflict.others)]
    if broken.isdisjoint(involved):
        places = [values[dotted].place for dotted in involved if dotted in values]
        yield mistake(involved[0], conflict.wrong, ", ".join(places) or "default")


def _told(details: ErrorDetails, values: Mapping[str, Value]) -> str:
    dotted = _dotted(details)
    section, _, name = dotted.partition(".")
    field = SECTIONS[section].model_fields[name]
    wrong = details["msg"]
    if details["type"] == "value_error":
        wrong = str(details["ctx"]["error"])
    elif words := _WORDS.get(details["type"]):
        wrong = words.format(**{name: _limit(field, value) for name, value in details.get("ctx", {}).items()})
    # What was given, not what became of it; of one item of a table or list, that item.
    raw = details["input"] if len(details["loc"]) > _DEPTH or dotted not in values else values[dotted].raw
    try:
        found = _found(raw, [kind for kind in field.metadata if isinstance(kind, Sensitive)])
    except (ValueError, RecursionError):
        found = ""  # too long a number, or nested too deeply, to be written
    within = "".join(map(_within, details["loc"][_DEPTH:]))
    place = values[dotted].place if dotted in values else "default"
    return mistake(dotted + within, f"{wrong}{found}", place)


def _limit(field: FieldInfo, value: Any) -> Any:
    if not isinstance(value, int | float):
        return value
    for kind in field.metadata:
        if isinstance(kind, Written):
            return kind.as_toml(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _within(part: int | str) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{shown_name(part)}"


def _found(value: object, kinds: list[Sensitive]) -> str:
    if not (isinstance(value, str) and kinds[0].mask if kinds else _is_plain(value)):
        return ""
    for kind in kinds:
        value = kind.mask(str(value)) if kind.mask else ""
    text = json.dumps(value, default=str, ensure_ascii=False) if not isinstance(value, float) else str(value)
    return f"; found {text if len(text) <= _LONGEST_FOUND else text[:_LONGEST_FOUND] + '…'}"


def _is_plain(value: object) -> bool:
    """Tell whether no text in a value can be a secret."""
    match value:
        case str():
            return _PLAIN.fullmatch(value) is not None
        case list():
            return all(map(_is_plain, value))
        case dict():
            return all(map(_is_plain, (*value, *value.values())))
    return True


def _dotted(details: ErrorDetails) -> str:
    return ".".join(str(part) for part in details["loc"][:_DEPTH])
