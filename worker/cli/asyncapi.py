"""`lcm-worker asyncapi`: the AsyncAPI document of the messages."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from worker.cli.common import ConfigOption, print_line, settings_of


class Format(StrEnum):
    """The format of the document."""

    yaml = "yaml"
    json = "json"


def asyncapi(
    context: typer.Context,
    config: ConfigOption = None,
    written_as: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.yaml,
) -> None:
    """Print the AsyncAPI 3 document of the messages.

    With the exchanges and queues of the settings in force, for generators of code and documentation. No broker is
    asked, and no credentials are in it.

    Example: lcm-worker asyncapi --format json > asyncapi.json
    """
    from worker.asyncapi import document_of

    document = document_of(settings_of(context, config).broker)
    if written_as is Format.json:
        text = json.dumps(document, indent=2, ensure_ascii=False)
    else:
        import yaml

        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    print_line(text.rstrip("\n").encode())
