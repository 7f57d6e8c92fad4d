"""What a user asks `submit` for: its options, once they were found to go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.cli.submit.reading import Format
from worker.cli.submit.results import OutputFormat, format_of


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of `submit`, named after them. Durations are seconds.

    `run_id` tells this run from all others; with `collect`, the queue of an earlier run, it is the id of that run.
    """

    files: Sequence[str]
    config: Path | None
    format: Format
    skip_bad: bool
    from_line: int
    route: str | None
    deadline: float | None
    rate: float
    max_outage: float
    wait: bool
    collect: str | None
    output: Path | None
    output_format: OutputFormat | None
    csv_safe: bool
    append: bool
    timeout: float | None
    run_id: str
    on_terminal: bool

    @property
    def publishes(self) -> bool:
        """Whether jobs are published; else only results of an earlier run are collected."""
        return self.collect is None

    @property
    def collects(self) -> bool:
        """Whether results are collected."""
        return self.wait or self.collect is not None

    @property
    def shows_tables(self) -> bool:
        """Whether results are shown as tables at the end."""
        return self.collects and self.output is None and self.on_terminal

    @property
    def result_format(self) -> OutputFormat:
        """The format to write results in: the chosen one, else that of the file's suffix, else JSON lines.

        Raises:
            ValueError: none was chosen, and the suffix is none of a format.
        """
        if self.output is None:
            kind = self.output_format or OutputFormat.JSONL
        else:
            kind = format_of(self.output.name, self.output_format)
        return OutputFormat.CSV_SAFE if self.csv_safe and kind.is_csv else kind
