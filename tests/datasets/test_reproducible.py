"""The same input and settings, the same bytes; another input or format, never an old cache."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.raw_data import silent

from tune_srs import __version__
from tune_srs.config.settings import DataConfig
from tune_srs.datasets import prepare as prepare_module
from tune_srs.datasets.prepare import prepare, prepared_folder

LOG = "user,item,rating,timestamp\n" + "".join(
    f"u{user},i{(user * step) % 11},{1 + step % 5},{1_400_000_000 + step // 2}\n"
    for user in range(30)
    for step in range(12)
)
PREPARE = """
import sys
from pathlib import Path
from tune_srs.config.settings import DataConfig
from tune_srs.datasets.prepare import prepare
noise = {"accidental": 0.2, "shared": 0.5}
for kind in ("last", "users", "time"):
    split = {"kind": kind, "share": None if kind == "last" else 0.2}
    config = {"name": "log.csv", "num_futures": 2, "k_core": 2, "noise": noise, "split": split}
    prepare(DataConfig.model_validate(config), Path(sys.argv[1]))
"""


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "prepared").rglob("*"))
        if path.is_file()
    }


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    for seed in ("1", "2"):  # of Python's hashes, which order sets
        environment = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", PREPARE, f"data{seed}"]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    first, second = bytes_in(tmp_path / "data1"), bytes_in(tmp_path / "data2")
    assert len(first) >= 3 * 7
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
