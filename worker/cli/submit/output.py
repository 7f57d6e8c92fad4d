"""Where results are written: to a file, to standard output, or nowhere where tables are shown in their place."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from worker.cli.streams import PatientFile, TerminalFile
from worker.cli.submit.held import Held, held_in
from worker.cli.submit.request import Request
from worker.cli.submit.results import HEADER, OutputFormat, Result, encoded
from worker.common.private_file import private
from worker.common.text import quote


class ResultWriter:
    """Writes results to a file without a buffer: each call writes a whole batch, at once where the file takes it so.

    `held` is what the file holds already.
    """

    def __init__(self, file: io.FileIO, kind: OutputFormat, held: Held) -> None:
        self._file = file
        self._kind = kind
        self._held = held

    def begin(self) -> None:
        """Make the file ready: cut off a result that is there in part, and end the last line. Raises OSError."""
        if self._held.torn is not None:
            self._file.truncate(self._held.size)
        self._send(self._held.lacks)
        if self._kind.is_csv and not self._held.size:
            self._send(HEADER)

    def write(self, results: Sequence[Result]) -> None:
        """Write results, and return once the operating system has them. Raises OSError."""
        self._send(encoded(results, self._kind))

    def _send(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]


def held_by(request: Request) -> Held:
    """Return what the file of `--output` holds, where results are to be added to it.

    Raises:
        typer.BadParameter: it can't be read, is no file of results, or ends with a part of a result that this run does
            not collect.
    """
    path = request.output
    if path is None or not (request.append or request.collect):
        return Held()
    with output_as_parameter(), _naming(path):
        try:
            with open(path, "rb", opener=private) as file:
                held = held_in(file, request.result_format)
        except FileNotFoundError:
            return Held()
        if request.publishes and held.torn is not None:
            raise ValueError(
                f"it ends with a part of the result of job {quote(held.torn)}: complete it first, by the --collect that"
                " its run told, or name another file"
            )
        if held.gap and not request.publishes:
            raise ValueError(f"it holds {held.gap}: take them out, or name another file")
    return held


@contextmanager
def open_writer(request: Request, held: Held) -> Iterator[ResultWriter | None]:
    """Give what results are written with; None where none are collected.

    `held` is what the file of `--output` holds already.

    Raises:
        typer.BadParameter: the file of `--output` can't be used.
    """
    if not request.collects:
        yield None
        return
    if request.output is None:
        hidden = request.shows_tables and request.output_format is None
        kind_of_file = TerminalFile if sys.stdout.isatty() else PatientFile
        # Not sys.stdout: its buffer would be written once more after a failure.
        with kind_of_file(os.devnull if hidden else sys.stdout.fileno(), "w", closefd=hidden) as file:
            yield ResultWriter(file, request.result_format, held)
        return
    with output_as_parameter():
        kind = request.result_format
        opened = open_output(request.output, append=request.append or not request.publishes)
    with opened:
        yield ResultWriter(opened, kind, held)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except OSError as error:
        raise OSError(f"{path}: {error.strerror or error}") from error


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
        OSError: the file can't be opened, or is none that results may go to.
    """
    with _naming(path):
        file = open(path, "ab", buffering=0, opener=private)  # noqa: SIM115 - whoever asks for it closes it
    if os.fstat(file.fileno()).st_size and not append:
        file.close()
        raise FileExistsError(
            f"{path} holds something already: name another file, or add to it with --append"
        )
    return file
