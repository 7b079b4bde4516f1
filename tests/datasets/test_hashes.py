"""The hash of a raw file is recalled until the file changes."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from tune_srs.datasets.hashes import recalled_sha256

CONTENT = "1,2,3\n"


def aged(path: Path, seconds: int) -> None:
    """As if it had last been written so long ago."""
    moment = path.stat().st_mtime_ns - seconds * 10**9
    os.utime(path, ns=(moment, moment))


def test_a_hash_is_recalled_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, memory = tmp_path / "log.csv", tmp_path / "hashes"
    path.write_text(CONTENT)
    later = time.time_ns() + 10**11
    monkeypatch.setattr(time, "time_ns", lambda: later)
    digest = recalled_sha256(path, memory)
    assert digest == hashlib.sha256(CONTENT.encode()).hexdigest()
    (note,) = memory.iterdir()
    note.write_text(note.read_text().replace(digest, "recalled"))
    assert recalled_sha256(path, memory) == "recalled"
    aged(path, seconds=5)
    assert recalled_sha256(path, memory) == digest
    note.write_text("{")
    assert recalled_sha256(path, memory) == digest


def test_the_hash_of_a_file_just_written_is_not_recalled(tmp_path: Path) -> None:
    path, memory = tmp_path / "log.csv", tmp_path / "hashes"
    path.write_text(CONTENT)
    recalled_sha256(path, memory)
    assert not memory.exists()
