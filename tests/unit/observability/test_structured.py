"""What a worker does not use is not loaded."""

from __future__ import annotations

import subprocess
import sys

_LOOK = """
import sys
import worker.app, worker.cli.run
print("rich" in sys.modules, "structlog" in sys.modules)
import rich.table
print(rich.table.Table.__name__)
"""


def test_a_worker_does_not_load_rich_and_whoever_needs_it_can() -> None:
    """The log library is there without rich, which can be imported afterwards as ever."""
    done = subprocess.run(  # noqa: S603 - its own interpreter
        [sys.executable, "-c", _LOOK], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True", "Table"]
