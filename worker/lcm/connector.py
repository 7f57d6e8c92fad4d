"""How a websocket to LCM is asked for: URL, credentials, TLS. Pure but for reading the certificates.

Published for the vendor's metrics socket, and so configurable here: a `name` query parameter, unique among
connections, and HTTP Basic credentials of that name and a token.
"""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from worker.settings import LcmSettings


def session_name(pattern: str, *, worker: str, slot: int, unixtime: int) -> str:
    """Fill the placeholders of `lcm.session_name`."""
    return pattern.replace("{worker}", worker).replace("{n}", str(slot)).replace("{unixtime}", str(unixtime))


def connect_url(url: str, name: str) -> str:
    """Return the URL with `name` as its query parameter of that name, where there is one."""
    if not name:
        return url
    parts = urlsplit(url)
    query = [(key, value) for key, value in parse_qsl(parts.query, keep_blank_values=True) if key != "name"]
    return urlunsplit(parts._replace(query=urlencode([*query, ("name", name)], quote_via=quote)))


def connect_headers(settings: LcmSettings, name: str) -> dict[str, str]:
    """Return the extra headers: those of the settings, and Basic credentials where there are any."""
    headers = {key: value.get_secret_value() for key, value in settings.headers.items()}
    user = settings.username or name
    password = settings.password.get_secret_value()
    if user or password:
        token = b64encode(f"{user}:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {token}"
    return headers
