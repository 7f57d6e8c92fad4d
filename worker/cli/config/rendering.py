"""Settings as text: the commented TOML file, and the list of settings in force with their sources."""

import json
import re
import textwrap
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from worker.settings.masking import MaskedUrl, mask_urls
from worker.settings.section import Section
from worker.settings.sections import SECTIONS, Settings
from worker.settings.types import Written

_WIDTH = 100
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_HEAD = """\
# The settings of lcm-worker, each with its default: what is not set here, or is set as it stands here, is
# the default. Name this file by --config FILE or by the environment variable LCM_WORKER_CONFIG.
#
# The environment variable LCM_WORKER_<SECTION>__<NAME> wins over this file: LCM_WORKER_LCM__URL over url in
# [lcm]. There, lists are JSON or separated by commas, tables are JSON.
#
# Durations are texts such as "250ms", "10s" and "2m", or numbers of seconds. Passwords are better kept in
# files of their own, named by the settings that end in _file. `lcm-worker config show` tells what is in
# force, and where it came from.
"""


def template() -> str:
    """Return a TOML file that documents every setting and, loaded, gives the defaults."""
    return _HEAD + "".join(f"\n[{name}]\n{_section(model)}" for name, model in SECTIONS.items())


def describe(settings: Settings) -> list[tuple[str, str, str]]:
    """Return the dotted name, the value as TOML with secrets masked, and the source, of every setting.

    The source is `default`, the path of a file, or the name of an environment variable.
    """
    return [
        (
            f"{section}.{name}",
            _toml(_plain(_as_toml(field, getattr(getattr(settings, section), name)), masked=True)),
            _source(settings, section, name),
        )
        for section, model in SECTIONS.items()
        for name, field in model.model_fields.items()
    ]


def _source(settings: Settings, section: str, name: str) -> str:
    file = getattr(getattr(settings, section), f"{name}_file", "")
    return str(file) or settings.sources.get(f"{section}.{name}", "default")


def _section(model: type[Section]) -> str:
    return "\n".join(
        f"{_comment(field)}{_assignment(name, field)}\n" for name, field in model.model_fields.items()
    )


def _comment(field: FieldInfo) -> str:
    text = f"{field.description}{_range(field)}"
    return (
        textwrap.fill(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
        + "\n"
    )


def _assignment(name: str, field: FieldInfo) -> str:
    example = f"# {name} = {field.examples[0]}" if field.examples else ""
    if field.default_factory is not None:
        return example  # computed, or empty
    value = _toml(_plain(_as_toml(field, field.default), masked=False))
    return "\n".join(part for part in (example, f"{name} = {value}") if part)


def _range(field: FieldInfo) -> str:
    # Each limit is an object of its own, with an attribute of its kind's name.
    limits = {
        kind: getattr(item, kind)
        for item in field.metadata
        for kind in ("ge", "gt", "le")
        if hasattr(item, kind)
    }
    words = []
    if limits.get("ge"):
        words.append(f"at least {_as_toml(field, limits['ge'])}")
    if "gt" in limits:
        words.append(f"more than {limits['gt']}")
    if "le" in limits:
        words.append(f"at most {_as_toml(field, limits['le'])}")
    text = ", ".join(words)
    return f" {text[0].upper()}{text[1:]}." if text else ""


def _as_toml(field: FieldInfo, value: Any) -> Any:
    for kind in field.metadata:
        if isinstance(kind, Written):
            return kind.as_toml(value)
    return value


def _plain(value: Any, *, masked: bool) -> Any:
    """Reduce a setting to texts, numbers, lists and tables."""
    match value:
        case SecretStr():
            return str(value) if masked else value.get_secret_value()
        case MaskedUrl() if masked:
            return mask_urls(value)
        case BaseModel():
            named = {
                field.alias or name: getattr(value, name) for name, field in type(value).model_fields.items()
            }
            return {name: _plain(item, masked=masked) for name, item in named.items() if item}
        case Mapping():
            return {name: _plain(item, masked=masked) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item, masked=masked) for item in value]
    return value


def _toml(value: Any) -> str:
    match value:
        case dict():
            pairs = [f"{_key(name)} = {_toml(item)}" for name, item in value.items()]
            return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
        case list():
            return f"[{', '.join(_toml(item) for item in value)}]"
        case float() if value.is_integer():
            return str(int(value))
    # For texts, numbers and booleans TOML is JSON, but for one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else json.dumps(name, ensure_ascii=False)
