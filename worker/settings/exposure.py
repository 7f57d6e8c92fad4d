"""What a worker runs with all the same, and tells at each start.

Settings that let others read what is secret, on the network or in a file, or change what is trusted; and those that let
a reply be taken for another account's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from worker.settings.masking import clear_url
from worker.settings.secrets import secrets_in_url
from worker.settings.sections import Settings
from worker.settings.tracing import collector_of


@dataclass(frozen=True)
class Risk:
    """A setting by which something can go wrong: its name, what and how, and what to do about it."""

    setting: str
    reason: str
    remedy: str


def exposures_of(settings: Settings, environment: Mapping[str, str] = os.environ) -> list[Risk]:
    """Return the settings, OpenTelemetry's variables among them, by which others can read a secret, or come by one."""
    return [*_of_broker(settings), *_of_lcm(settings), *_of_traces(environment), *_of_files(settings)]


def exposures_of_management(url: str, password_file: str) -> Iterator[Risk]:
    """Yield what lets others read the password that the management API is given."""
    parts = urlsplit(url)
    if parts.scheme == "http" and not _is_here(parts):
        yield Risk("--management", f"the password travels in clear to {parts.hostname}", "use https://")
    yield from _of_file("--management-password-file", password_file, secret=True)


def unfenced_of(settings: Settings) -> list[Risk]:
    """Return the setting, if any, that has requests go out without a ping ahead on sessions that were used before."""
    if settings.lcm.ping_interval or settings.lcm.max_exchanges == 1:
        return []
    return [
        Risk(
            "lcm.ping_interval",
            "no ping goes ahead of a request, so that a reply that LCM sends late or twice can be taken for the next"
            " account's",
            "set lcm.max_exchanges = 1 with it, or lcm.ping_interval above 0",
        )
    ]


def _of_broker(settings: Settings) -> Iterator[Risk]:
    urls = [urlsplit(url) for url in settings.broker.urls]
    clear = [url for url in urls if url.scheme == "amqp" and not _is_here(url)]
    if not clear:
        return
    hosts = ", ".join(dict.fromkeys(str(url.hostname) for url in clear))
    falls_back = len(clear) < len(urls)
    yield Risk(
        "broker.url",
        f"the password, jobs and results travel in clear to {hosts}"
        + (", where the encrypted URLs beside it don't answer" if falls_back else ""),
        "use amqps:// and broker.ca_file" + (" in all of them" if falls_back else ""),
    )


def _of_lcm(settings: Settings) -> Iterator[Risk]:
    lcm = settings.lcm
    url, proxy = urlsplit(lcm.url), urlsplit(lcm.proxy)
    has_credentials = (
        any(secret.get_secret_value() for secret in (*lcm.passwords, *lcm.headers.values()))
        or bool(lcm.greeting)
        or any(secrets_in_url(lcm.url))
    )
    if url.scheme == "ws" and has_credentials and not _is_here(url):
        yield Risk(
            "lcm.url",
            f"credentials, account numbers and outcomes travel in clear to {url.hostname}",
            "use wss:// and lcm.ca_file",
        )
    if proxy.scheme == "http" and proxy.password and not _is_here(proxy):
        yield Risk(
            "lcm.proxy",
            f"the proxy's password travels in clear to {proxy.hostname}",
            "use https:// to it, a proxy that needs none, or one on this host",
        )


def _of_traces(environment: Mapping[str, str]) -> Iterator[Risk]:
    collector = collector_of(environment)
    url = clear_url(collector.url) if collector else None
    if collector is None or url is None or url.scheme != "http" or _is_here(url):
        return
    if collector.headers or any(secrets_in_url(collector.url)):
        yield Risk(
            collector.headers or collector.endpoint,
            f"the credentials in it travel in clear to {url.hostname}",
            f"use https:// in {collector.endpoint}",
        )


def _of_files(settings: Settings) -> Iterator[Risk]:
    for section in ("broker", "lcm"):
        files = getattr(settings, section)
        for name in ("password_file", "key_file", "key_password_file"):
            yield from _of_file(f"{section}.{name}", getattr(files, name), secret=True)
        # Certificates are no secret, but who writes them says who is trusted.
        for name in ("ca_file", "cert_file"):
            yield from _of_file(f"{section}.{name}", getattr(files, name), secret=False)
    held = ", ".join(_secrets_in_configuration(settings))
    which = f", which holds {held}" if held else ", which says where credentials go"
    # Who writes the URLs receives the credentials, so nobody may change it, whatever it holds.
    yield from _of_file("configuration file", settings.file, secret=bool(held), which=which)


def _of_file(setting: str, path: str, *, secret: bool, which: str = "") -> Iterator[Risk]:
    try:
        mode = Path(path).stat().st_mode if path else 0
        folder = _open_folder(Path(path)) if path else None
    except OSError:
        return  # whoever reads it says what is wrong
    can = ["read"] if secret and mode & stat.S_IROTH else []
    if mode & stat.S_IWOTH:
        can.append("change")
    if can:
        yield Risk(
            setting,
            f"every user of this host can {' and '.join(can)} {path} (mode {stat.S_IMODE(mode):o}){which}",
            f"chmod {'o=' if secret else 'o-w'} {path}",
        )
    elif folder is not None:
        yield Risk(
            setting,
            f"every user of this host can put another file in place of {path}: {folder} is open to all{which}",
            f"chmod o-w {folder}",
        )


def _open_folder(file: Path) -> Path | None:
    """Return a folder on the way to a file, or to what it is a link to, in which all users may replace what is there.

    Where the sticky bit is set, they may replace only what is theirs; on a read-only file system, as what Kubernetes
    mounts is, nobody replaces anything.
    """
    for folder in (*file.absolute().parents, *file.resolve().parents):
        mode = folder.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX and os.access(folder, os.W_OK):
            return folder
    return None


def _secrets_in_configuration(settings: Settings) -> Iterator[str]:
    """Yield the names of the settings in force that hold a secret and come from the configuration file."""
    broker, lcm = settings.broker, settings.lcm
    broker_passwords = {urlsplit(url).password for url in broker.urls} if not broker.password_file else set()
    holds = {
        # RabbitMQ gives "guest" to everybody.
        "broker.url": bool(broker_passwords - {None, "", "guest"}),
        "lcm.url": any(secrets_in_url(lcm.url)),
        "lcm.proxy": bool(urlsplit(lcm.proxy).password),
        "lcm.password": bool(lcm.password.get_secret_value()) and not lcm.password_file,
        "lcm.headers": any(value.get_secret_value() for value in lcm.headers.values()),
        "lcm.greeting": bool(lcm.greeting),
    }
    for name, is_secret in holds.items():
        if is_secret and settings.file and settings.sources.get(name) == str(Path(settings.file)):
            yield name


def _is_here(url: SplitResult) -> bool:
    """Whether a URL leads to this very host."""
    host = url.hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
