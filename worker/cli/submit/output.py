"""Where results are written: to a file, to standard output, or nowhere where tables are shown in their place."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from worker.cli.streams import PatientFile
from worker.cli.submit.request import Request
from worker.cli.submit.results import ResultWriter


@contextmanager
def open_writer(request: Request) -> Iterator[ResultWriter | None]:
    """Give what results are written with; None where none are collected.

    Raises:
        typer.BadParameter: the file of `--output` can't be used.
    """
    if not request.collects:
        yield None
        return
    if request.output is None:
        hidden = request.shows_tables and request.output_format is None
        # Not sys.stdout: its buffer would be written once more after a failure.
        with PatientFile(os.devnull if hidden else sys.stdout.fileno(), "w", closefd=hidden) as file:
            yield ResultWriter(file, request.result_format, header=True)
        return
    with output_as_parameter():
        kind = request.result_format
        opened = open_output(request.output, append=request.append or not request.publishes)
    with opened:
        yield ResultWriter(opened, kind, header=not opened.tell())


@contextmanager
def output_as_parameter() -> Iterator[None]:
    """Report what is wrong with the file of `--output` as wrong usage of that option."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"--output: {error}") from error


def open_output(path: Path, *, append: bool) -> io.FileIO:
    """Open a file for results, at its end.

    Raises:
        FileExistsError: without `append`, where the file holds something.
        OSError: the file can't be opened.
    """
    if path.is_file() and path.stat().st_size and not append:
        raise FileExistsError(
            f"{path} holds something already: name another file, or add to it with --append"
        )
    try:
        return path.open("ab", buffering=0)
    except OSError as error:
        raise OSError(f"{path}: {error.strerror or error}") from error
