"""`lcm-worker health`: asks the worker that runs on this host or in this container for its health."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from worker.cli.common import ConfigOption, note, print_line, settings_of
from worker.contract.errors import SettingsError
from worker.observability.readiness import Verdict

_LOOPBACK_OF = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here
_OK = 200  # HTTP's own number; http is imported late
_MOST_BYTES = 64 * 1024


def health(
    context: typer.Context,
    config: ConfigOption = None,
    ready: Annotated[
        bool, typer.Option("--ready", help="Ask whether it is ready, too: consuming, with LCM in reach.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0.1, max=3600, help="How long to wait for its answer, in seconds."
        ),
    ] = 5.0,
) -> None:
    """Ask the worker that runs here how it is.

    Exit status 0 when it is live, or with --ready also ready; 1 when it isn't. It asks the address of
    health.listen in the same settings as the worker's, and prints the answer.

    Example: lcm-worker health --ready
    """
    settings = settings_of(context, config).health
    if settings.address is None:
        raise SettingsError('health.listen is empty: set it, for the worker too, such as to "127.0.0.1:8080"')
    host, port = settings.address
    path = "/readyz" if ready else "/livez"
    status, body = _ask(_LOOPBACK_OF.get(host, host), port, path, timeout)
    print_line(body.rstrip("\n").encode())
    if not _is_good(status, body):
        if status == _OK:
            note(f"no worker answers at {host}:{port}{path}: see health.listen, and what else listens there")
        raise typer.Exit(1)


def _is_good(status: int, body: str) -> bool:
    try:
        return status == _OK and msgspec.json.decode(body, type=Verdict).ok
    except msgspec.MsgspecError:
        return False


def _ask(host: str, port: int, path: str, timeout: float) -> tuple[int, str]:
    from http.client import HTTPConnection, HTTPException

    from worker.common.asking import ask

    connection = HTTPConnection(host, port, timeout=timeout)
    try:
        answer, body = ask(connection, path, most=_MOST_BYTES)
        return answer.status, body.decode(errors="replace")
    except (OSError, UnicodeError, HTTPException) as error:
        note(f"no answer from {host}:{port}{path}: {error}; does the worker run, with this health.listen?")
        raise typer.Exit(1) from error
    finally:
        connection.close()
