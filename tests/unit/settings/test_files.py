"""Files that settings name are read whole, up to a size."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.contract.errors import SettingsError
from worker.settings import load
from worker.settings.files import read_whole

MIB = 2**20


@pytest.mark.parametrize("size", [MIB - 1, MIB], ids=["under", "at"])
def test_a_file_of_a_mebibyte_is_read(tmp_path: Path, size: int) -> None:
    """A file of the largest size is read, as configuration and as secret."""
    file = tmp_path / "file"
    file.write_bytes(b"#" * size)
    assert len(read_whole(file)) == size
    assert load(file, {}).lcm.sessions
    secret = load(
        None, {"LCM_WORKER_LCM__USERNAME": "u", "LCM_WORKER_LCM__PASSWORD_FILE": str(file)}
    ).lcm.passwords[0]
    assert len(secret.get_secret_value()) == size


def test_a_file_without_end_is_refused() -> None:
    """Of a file that never ends no more is read than the largest one has."""
    with pytest.raises(ValueError, match="more than 1 MiB"):
        read_whole(Path("/dev/zero"))
    with pytest.raises(SettingsError, match="more than 1 MiB"):
        load(Path("/dev/zero"), {})
