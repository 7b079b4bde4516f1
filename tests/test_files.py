"""Files and folders are whole or not there."""

import hashlib
from pathlib import Path

import pytest

from tune_srs.errors import ConfigError
from tune_srs.files import check_file, described, folder_aside, sweep_aside, write_aside


def interrupted(aside: Path) -> None:
    aside.write_text("half")
    raise KeyboardInterrupt


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_aside(path, lambda aside: aside.write_text("first"))
    with pytest.raises(KeyboardInterrupt):
        write_aside(path, interrupted)
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    with pytest.raises(KeyboardInterrupt), folder_aside(folder) as aside:
        interrupted(aside / "file.txt")
    assert list(folder.parent.iterdir()) == []
    with folder_aside(folder) as aside:
        (aside / "file.txt").write_text("whole")
        assert not folder.exists()
    assert (folder / "file.txt").read_text() == "whole"
    assert list(folder.parent.iterdir()) == [folder]


def test_a_folder_that_is_there_stays(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file.txt").write_text("mine")
    with pytest.raises(OSError, match="not empty"), folder_aside(folder) as aside:
        (aside / "file.txt").write_text("other")
    assert (folder / "file.txt").read_text() == "mine"


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    left = tmp_path / "deep" / ".aside-1"
    left.mkdir(parents=True)
    (left / "file.txt").write_text("half")
    (left.parent / "file.txt").write_text("whole")
    sweep_aside(tmp_path)
    assert [path.name for path in left.parent.iterdir()] == ["file.txt"]


def test_a_file_is_described_by_its_size_and_hash(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    sha256 = hashlib.sha256(b"abc").hexdigest()
    assert described(tmp_path / "file") == {"bytes": 3, "sha256": sha256}


def test_an_impossible_file_is_refused_before_the_work(tmp_path: Path) -> None:
    check_file("--to", None)
    check_file("--to", tmp_path / "file")
    with pytest.raises(ConfigError, match="--to: there is no folder"):
        check_file("--to", tmp_path / "none" / "file")
    with pytest.raises(ConfigError, match="is a folder"):
        check_file("--to", tmp_path)
