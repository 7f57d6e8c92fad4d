"""What single settings of the `lcm` section must be. Each check returns its value, or raises ValueError."""

import re
from string import Formatter
from urllib.parse import urlsplit

from pydantic import SecretStr

from worker.settings.masking import clear_url

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HANDSHAKE = re.compile(
    r"host|connection|upgrade|content-length|transfer-encoding|sec-websocket-.*", re.IGNORECASE
)


def _url(url: str, schemes: tuple[str, ...]) -> str:
    allowed = " or ".join(f"{scheme}://" for scheme in schemes)
    if not url.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        raise ValueError(f"must start with {allowed}")
    if (parts := clear_url(url)) is None:
        raise ValueError(
            f"must be {schemes[0]}://HOST:PORT/ with a host, a port from 1 to 65535 if any, no # and no blank"
        )
    if parts.username is not None and parts.password is None:
        raise ValueError("names a user without a password; write USER:PASSWORD@HOST")
    return url


def check_lcm_url(url: str) -> str:
    """Check `lcm.url`."""
    return _url(url, ("ws", "wss"))


def check_proxy(url: str) -> str:
    """Check `lcm.proxy`, where there is one."""
    if url:
        _url(url, ("http", "https"))
        if urlsplit(url).path not in ("", "/") or urlsplit(url).query:
            raise ValueError("must end with the port: a proxy has no path and no query")
    return url


def check_subprotocols(names: tuple[str, ...]) -> tuple[str, ...]:
    """Check `lcm.subprotocols`."""
    if wrong := [name for name in names if not _TOKEN.fullmatch(name)]:
        raise ValueError(f"must be names without blanks and commas; {wrong[0]!r} is none")
    if len(set(names)) < len(names):
        raise ValueError("must differ from each other")
    return names


def check_user(name: str) -> str:
    """Check a user name of Basic credentials."""
    if ":" in name:
        raise ValueError("must not hold a colon, which ends the user name in Basic credentials")
    return name


def check_session_name(pattern: str) -> str:
    """Check that the placeholders of `lcm.session_name` are known ones."""
    try:
        fields = [
            (name, spec, conversion)
            for _, name, spec, conversion in Formatter().parse(pattern)
            if name is not None
        ]
    except ValueError:
        fields = [("", "", "")]
    if (
        "{{" in pattern
        or "}}" in pattern
        or any(
            name not in ("worker", "n", "unixtime") or spec or conversion for name, spec, conversion in fields
        )
    ):
        raise ValueError("may hold {worker}, {n} and {unixtime}, and no other braces")
    return pattern


def check_headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    """Check names and values of `lcm.headers`."""
    for number, (name, value) in enumerate(headers.items(), 1):
        if not _TOKEN.fullmatch(name):
            # Not which: a whole header, with its value, is easily taken for its name.
            raise ValueError(f"number {number} of them has no name that HTTP allows; write NAME = VALUE")
        if _HANDSHAKE.fullmatch(name):
            raise ValueError(f"{name} is set by the websocket handshake itself")
        text = value.get_secret_value()
        if not text.isprintable() or text != text.strip():
            raise ValueError(f"the value of {name} must be one line without blanks around it")
    if len({name.lower() for name in headers}) < len(headers):
        raise ValueError("the same header is there twice, in other letter case")
    return headers
