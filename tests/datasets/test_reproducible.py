"""The same input and settings, the same bytes; another input or format, never an old cache."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.raw_data import silent

from tune_srs import __version__
from tune_srs.config.settings import DataConfig
from tune_srs.datasets import prepare as prepare_module
from tune_srs.datasets.hashes import recalled_sha256
from tune_srs.datasets.prepare import prepare, prepared_folder

LOG = "user,item,rating,timestamp\n" + "".join(
    f"u{user},i{(user * step) % 11},{1 + step % 5},{1_400_000_000 + step // 2}\n"
    for user in range(30)
    for step in range(12)
)
PREPARE = """
import sys
import time
from pathlib import Path
from tune_srs.config.settings import DataConfig
from tune_srs.datasets.prepare import prepare
noise = {"accidental": 0.2, "shared": 0.5}
split = {"kind": sys.argv[2], "share": None if sys.argv[2] == "last" else 0.2}
config = {"name": "log.csv", "num_futures": 2, "k_core": 2, "noise": noise, "split": split}
prepare(DataConfig.model_validate(config), Path(sys.argv[1]))
"""


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "prepared").rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("kind", ["last", "users", "time"])
def test_two_processes_write_the_same_bytes(tmp_path: Path, kind: str) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    for seed in ("1", "2"):  # of Python's hashes, which order sets
        environment = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", PREPARE, f"data{seed}", kind]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    first, second = bytes_in(tmp_path / "data1"), bytes_in(tmp_path / "data2")
    assert len(first) >= 7
    assert first == second


def config_of(path: Path) -> DataConfig:
    return DataConfig(name=str(path), num_futures=2)


def test_the_manifest_says_what_it_was_made_of(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(LOG)
    manifest = prepare(config_of(path), tmp_path / "data", silent).manifest
    digest = hashlib.sha256(LOG.encode()).hexdigest()
    assert manifest["inputs"] == [{"file": "log.csv", "bytes": len(LOG), "sha256": digest}]
    assert manifest["settings"] == config_of(path).model_dump(mode="json")
    assert manifest["versions"]["tune_srs"] == __version__
    assert set(manifest["versions"]) == {"tune_srs", "numpy", "pandas", "pyarrow"}
    assert str(tmp_path / "data") not in str(manifest)


def test_a_changed_log_is_read_again_and_the_old_one_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(LOG)
    first = prepare(config_of(path), tmp_path / "data", silent)
    path.write_text(LOG.replace("u7,", "u8,"))  # of the same size, perhaps at the same moment
    second = prepare(config_of(path), tmp_path / "data", silent)
    assert second.fingerprint != first.fingerprint
    assert second.manifest["users"] == first.manifest["users"] - 1
    path.write_text(LOG)
    assert prepare(config_of(path), tmp_path / "data", silent).fingerprint == first.fingerprint
    assert len(list((tmp_path / "data" / "prepared").iterdir())) == 2


def test_another_format_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.csv"
    path.write_text(LOG)
    prepare(config_of(path), tmp_path / "data", silent)
    old = prepared_folder(config_of(path), tmp_path / "data")
    monkeypatch.setattr(prepare_module, "FORMAT_VERSION", 10**6)
    data = prepare(config_of(path), tmp_path / "data", silent)
    assert data.manifest["format_version"] == 10**6
    assert prepared_folder(config_of(path), tmp_path / "data") != old


# The hash of a file


def aged(path: Path, seconds: int) -> None:
    """As if it had last been written so long ago."""
    moment = path.stat().st_mtime_ns - seconds * 10**9
    os.utime(path, ns=(moment, moment))


def test_a_hash_is_recalled_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, memory = tmp_path / "log.csv", tmp_path / "hashes"
    path.write_text(LOG)
    later = time.time_ns() + 10**11
    monkeypatch.setattr(time, "time_ns", lambda: later)
    digest = recalled_sha256(path, memory)
    assert digest == hashlib.sha256(LOG.encode()).hexdigest()
    (note,) = memory.iterdir()
    note.write_text(note.read_text().replace(digest, "recalled"))
    assert recalled_sha256(path, memory) == "recalled"
    aged(path, seconds=5)
    assert recalled_sha256(path, memory) == digest
    note.write_text("{")
    assert recalled_sha256(path, memory) == digest


def test_the_hash_of_a_file_just_written_is_not_recalled(tmp_path: Path) -> None:
    path, memory = tmp_path / "log.csv", tmp_path / "hashes"
    path.write_text(LOG)
    recalled_sha256(path, memory)
    assert not memory.exists()
