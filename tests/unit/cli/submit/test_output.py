"""The file of `--output`: never overwritten, and written on after whatever it ended with."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.cli.submit.held import Held
from worker.cli.submit.output import ResultWriter, open_output
from worker.cli.submit.results import HEADER, OutputFormat


def test_a_file_with_results_is_not_overwritten(tmp_path: Path) -> None:
    """A file that holds something is refused, unless it is to be added to; then nothing of it is lost."""
    file = tmp_path / "r.csv"
    file.write_text("kept\n")
    with pytest.raises(FileExistsError, match="--append"):
        open_output(file, append=False)
    with open_output(file, append=True) as output:
        ResultWriter(output, OutputFormat.CSV, Held(size=5)).begin()
    assert file.read_text() == "kept\n"


@pytest.mark.parametrize(
    ("held", "left"),
    [
        (Held(), b"abcdef" + HEADER),
        (Held(size=6, lacks=b"\n"), b"abcdef\n"),
        (Held(size=3, torn="j"), b"abc"),
        (Held(torn="j"), HEADER),
    ],
)
def test_the_end_is_mended_first(tmp_path: Path, held: Held, left: bytes) -> None:
    """A part of a result is cut off, a last line is ended, and a file without anything gets its header."""
    file = tmp_path / "r.csv"
    file.write_bytes(b"abcdef")
    with open_output(file, append=True) as output:
        ResultWriter(output, OutputFormat.CSV, held).begin()
    assert file.read_bytes() == left


def test_a_new_file_is_its_owners(tmp_path: Path) -> None:
    """Results hold account numbers: the file is made for its owner alone."""
    file = tmp_path / "r.csv"
    open_output(file, append=False).close()
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("append", [False, True])
def test_no_link_is_followed(tmp_path: Path, append: bool) -> None:
    """A link where the file should be is refused, and nothing is made or changed where it leads."""
    link, target = tmp_path / "r.csv", tmp_path / "other"
    link.symlink_to(target)
    with pytest.raises(OSError, match=r"r\.csv: is a symbolic link; name the file itself"):
        open_output(link, append=append)
    assert not target.exists()
