"""The options that name RabbitMQ's management API and who asks it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from worker.cli.common import note
from worker.cli.streams import hide_in_notes
from worker.settings import Scrubber, Settings, exposures_of_management
from worker.settings.masking import with_password
from worker.settings.secret_file import SecretFile

_FILE_OPTION = "--management-password-file"


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        right = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        right = False
    if not right:
        raise typer.BadParameter("must be http://HOST:15672 or https://HOST:15671, with USER@ if need be")
    return url


ManagementOption = Annotated[
    str | None,
    typer.Option(
        "--management",
        metavar="URL",
        parser=_checked,
        help="RabbitMQ's management API, such as http://HOST:15672, which tells what AMQP does not; with the user"
        " of broker.url unless it names one. Default: it is not asked.",
        show_default=False,
    ),
]
ManagementPasswordOption = Annotated[
    Path | None,
    typer.Option(
        _FILE_OPTION,
        metavar="FILE",
        help="A file that holds the password of the user of --management, who is USER in http://USER@HOST:15672 or"
        " that of broker.url. Default: the password of broker.url.",
        show_default=False,
    ),
]


def management_url(settings: Settings, url: str | None, password_file: Path | None) -> str:
    """Return the URL of the management API with the password of the file in it; "" where it is not to be asked.

    From then on, standard error does not show that password. What lets others read it is told there.

    Raises:
        typer.BadParameter: the options don't go together, or the file holds no password.
    """
    parts = urlsplit(url or "")
    if password_file is not None:
        if not url or parts.password is not None:
            raise typer.BadParameter("goes with --management and no password in it", param_hint=_FILE_OPTION)
        try:
            password = SecretFile.read(str(password_file)).secret.get_secret_value()
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=_FILE_OPTION) from error
        user = parts.username or urlsplit(settings.broker.urls[0]).username or "guest"
        host = parts.netloc.rpartition("@")[2]
        url = with_password(parts._replace(netloc=f"{user}@{host}").geturl(), password)
    elif parts.password:
        note(
            "every user of this host can see the password in --management in the list of processes; write"
            f" http://USER@HOST and give the password by {_FILE_OPTION}"
        )
    hide_in_notes(Scrubber(settings, url or ""))
    for risk in exposures_of_management(url or "", str(password_file or "")):
        note(f"{risk.setting}: {risk.reason}; {risk.remedy}")
    return url or ""
