"""The kinds of values that settings have: how each is read, written back, and shown."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainValidator, SecretStr

from worker.common.durations import format_duration, parse_duration
from worker.settings.files import check_file
from worker.settings.masking import MASK, MaskedUrl, lower_scheme, mask_urls
from worker.settings.secret_file import SecretFile

_UNITS = {"": 1, "kib": 2**10, "mib": 2**20}
# Not pydantic's ByteSize: it reads as much as it understands and ignores the rest, so that "512,5KiB" is 512 bytes.
_SIZE = re.compile(r"([0-9]{1,12}) *([a-z]*)")


@dataclass(frozen=True)
class Written:
    """How a value of this kind is written in TOML, so that it is read back as the same."""

    as_toml: Callable[[Any], Any]


@dataclass(frozen=True)
class Sensitive:
    """What an error may show of a text found for a setting of this kind; of anything else, nothing."""

    mask: Callable[[str], str] | None = None


def parse_size(value: object) -> int:
    """Return a number of bytes, from a number or a text such as `512KiB` or `1MiB`.

    Raises:
        ValueError: it is neither; the text says how to write one.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _SIZE.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    if found is None or found[2] not in _UNITS:
        raise ValueError('must be a size such as "512KiB" or "1MiB", or a whole number of bytes')
    return int(found[1]) * _UNITS[found[2]]


def format_size(size: int) -> str | int:
    """Write a number of bytes in the largest unit that divides it evenly."""
    for unit, factor in (("MiB", 2**20), ("KiB", 2**10)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return size


def _number(value: object) -> object:
    if isinstance(value, bool):
        # Python takes true for 1.
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic collects ValueErrors only
    if isinstance(value, str) and value.strip().lower().lstrip("+-") in ("nan", "inf", "infinity"):
        value = math.nan
    if isinstance(value, float) and not math.isfinite(value):
        # Before any limit is looked at: NaN is neither above nor below one.
        raise ValueError("must be a finite number")
    return value


def _list(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return _json(value)
    return [item.strip() for item in value.split(",") if item.strip()]


def _json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError as error:
        place = f" (at character {error.pos + 1})" if isinstance(error, json.JSONDecodeError) else ""
        raise ValueError(f"must be JSON in an environment variable, and is not{place}") from None


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must not hold line breaks or other control characters")
    return value


def _not_empty(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


def _writable(secret: SecretStr) -> SecretStr:
    try:
        secret.get_secret_value().encode()
    except UnicodeEncodeError:
        raise ValueError("must be text that UTF-8 can hold") from None
    return secret


def _readable(path: str) -> str:
    if path:
        check_file(path)
    return path


def _mask_path(path: str) -> str:
    # A user who mistakes the setting puts the secret itself here.
    return path if path.startswith(("/", "./", "../")) else MASK


def _mask_beyond_name(text: str) -> str:
    # A user who has a password beside the name puts both here.
    name = re.split(r"[:\s]", text, maxsplit=1)[0]
    return text if name == text else name + MASK


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _url(value: object) -> object:
    return lower_scheme(value.strip()) if isinstance(value, str) else value


Whole = Annotated[int, BeforeValidator(_number)]
Number = Annotated[float, BeforeValidator(_number)]
Duration = Annotated[float, BeforeValidator(parse_duration), Written(format_duration)]
Durations = Annotated[
    tuple[Duration, ...],
    BeforeValidator(_list),
    Written(lambda durations: [format_duration(each) for each in durations]),
]
Size = Annotated[int, BeforeValidator(parse_size), Written(format_size)]

Text = Annotated[str, AfterValidator(_printable)]
Texts = Annotated[tuple[Annotated[Text, AfterValidator(_not_empty)], ...], BeforeValidator(_list)]
UserName = Annotated[Text, Sensitive(_mask_beyond_name)]
# Each: a private key is pasted into the setting of the certificate as easily.
Readable = Annotated[str, AfterValidator(_readable), Sensitive(_mask_path)]
Lowered = BeforeValidator(_lower)
FromJson = BeforeValidator(_json)

Url = Annotated[str, BeforeValidator(_url), AfterValidator(MaskedUrl), Sensitive(mask_urls)]
Secret = Annotated[SecretStr, AfterValidator(_writable), Sensitive()]
SecretPath = Annotated[SecretFile, PlainValidator(SecretFile.read), Sensitive(_mask_path)]
