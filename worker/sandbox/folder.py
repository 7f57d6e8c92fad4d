"""The folder of a private RabbitMQ node: what a server keeps under /etc and /var, its configuration, data and log."""

import errno
import secrets
import shutil
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from worker.common.private_file import private, private_folder
from worker.contract.errors import FolderUnfit
from worker.sandbox.server import search_path

# Below the ports that Linux hands to outgoing connections: the node binds its own seconds after they were chosen.
_PORTS = range(20_000, 32_000)
_ROOM = 1_000_000  # bytes
_DEFAULTS: Mapping[str, int | bool | str] = {
    "disk_free_limit": _ROOM,
    # What a queue reports of its length is otherwise up to 5 s old.
    "quorum_tick_interval": 200,
}


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def write_folder(
    folder: Path, *, cookie: str, config: Mapping[str, int | bool | str], management_port: int | None = None
) -> None:
    """Make the folder with a cookie and a configuration in it. `config` holds settings of the `rabbit` application.

    With `management_port` the management plugin is enabled, and serves its API there. The folder above is made where it
    is missing. RabbitMQ's scripts run what they find in the folder, so both have to be nobody else's.

    Raises FolderUnfit, in one line that says what to do.
    """
    try:
        private_folder(folder.parent)
        folder.mkdir(0o700)
        try:
            _fill(folder, cookie, config, management_port)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    except OSError as error:
        raise unfit(folder, error) from error


def unfit(folder: Path | str, error: OSError) -> FolderUnfit:
    """Return the line that tells why nothing can be written in a folder, and what to do."""
    remedy = "run this in a folder of your own"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        remedy = "make room there, or run this in a folder on another disk"
    return FolderUnfit(f"{error.filename or folder}: {error.strerror}; {remedy}")


def absolute(path: Path | str) -> Path:
    """Return a path that does not depend on the present folder. Raises FolderUnfit where that one is gone."""
    try:
        return Path(path).absolute()
    except OSError as error:
        raise unfit("the present folder", error) from error


def is_full(folder: Path) -> bool:
    """Tell whether the disk of a folder has less room than a node wants."""
    try:
        return shutil.disk_usage(folder).free < _ROOM
    except OSError:
        return False


def _fill(
    folder: Path, cookie: str, config: Mapping[str, int | bool | str], management_port: int | None
) -> None:
    cookie_file = folder / ".erlang.cookie"
    # Whoever can read it may do anything on the node.
    with open(cookie_file, "x", encoding="ascii", opener=private) as file:
        file.write(cookie)
    cookie_file.chmod(0o400)
    plugins = "" if management_port is None else "rabbitmq_management"
    (folder / "enabled_plugins").write_text(f"[{plugins}].\n")
    settings = ", ".join(
        f"{{{key}, {_erlang_term(value)}}}" for key, value in {**_DEFAULTS, **config}.items()
    )
    listener = f'{{listener, [{{ip, "127.0.0.1"}}, {{port, {management_port}}}]}}'
    management = "" if management_port is None else f", {{rabbitmq_management, [{listener}]}}"
    (folder / "advanced.config").write_text(f"[{{rabbit, [{settings}]}}{management}].\n")
    for empty in ("rabbitmq.conf", "rabbitmq-env.conf"):
        (folder / empty).touch()


def environment(folder: Path, *, name: str, port: int, epmd_port: int) -> dict[str, str]:
    """Return the environment of the server and its tools: nothing of the caller's own but PATH."""
    return {
        "PATH": search_path(),
        "LC_ALL": "C.UTF-8",
        "HOME": str(folder),
        "ERL_CRASH_DUMP": str(folder / "erl_crash.dump"),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_FLAGS": "+fnu -kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONFIG_FILES": str(folder / "conf.d"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_LOGS": str(folder / "node.log"),
        "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_MOTD_FILE": str(folder / "motd"),
        "RABBITMQ_NODENAME": name,
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        # Makes the script replace itself by the server, so that our child is the server and not a shell.
        "RUNNING_UNDER_SYSTEMD": "true",
    }


def last_words(folder: Path) -> str:
    """Return the end of what the node printed and logged."""
    lines: list[str] = []
    for file in (folder / "startup.log", folder / "node.log"):
        with suppress(OSError):
            lines += file.read_text(errors="replace").splitlines()[-20:]
    return "\n".join(lines) or "(it logged nothing)"


def _erlang_term(value: int | bool | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
