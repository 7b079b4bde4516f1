"""Whole files in a folder or in an object store."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.s3_server import S3, s3_server

from tune_srs.errors import ConfigError
from tune_srs.storage import Storage


@pytest.fixture
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return Storage(str(tmp_path / "place"))
    server: S3 = request.getfixturevalue("s3")
    return Storage(server.uri)


def test_what_is_written_is_read_until_it_is_deleted(storage: Storage) -> None:
    name, content = "trial_00001/last.safetensors", b"x" * 100_000
    assert storage.names() == []
    assert storage.read(name) is None
    storage.write(name, content)
    storage.write(name, content + b"y")  # in place of the one before
    assert storage.names() == [name]
    assert storage.read(name) == content + b"y"
    storage.delete(name)
    storage.delete(name)
    assert storage.read(name) is None


def test_places_within_a_place_are_apart(storage: Storage) -> None:
    one, other = storage.within("one"), storage.within("other")
    one.write("file", b"1")
    assert other.read("file") is None
    assert other.names() == []
    assert storage.read("one/file") == b"1"
    sent = pickle.loads(pickle.dumps(one))  # as Ray does, to a worker
    assert sent.read("file") == b"1"


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write("trial_00001/file", b"1")
    (tmp_path / "trial_00001" / ".aside-x").mkdir()
    (tmp_path / "trial_00001" / ".aside-x" / "file").write_bytes(b"2")
    storage.sweep()
    assert storage.names() == ["trial_00001/file"]


def test_a_relative_folder_is_the_same_for_every_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Storage("place").within("run").place == str(tmp_path / "place" / "run")


def test_a_store_that_refuses_is_an_error_of_the_system(s3: S3) -> None:
    s3.refuses = True
    with pytest.raises(OSError, match=r"QuotaExceeded|ACCESS_DENIED|403"):
        Storage(s3.uri).write("file", b"x")


@pytest.mark.parametrize("place", ["what://bucket/path", "s3://?region=here"])
def test_a_place_that_is_none_is_refused(place: str) -> None:
    with pytest.raises(ConfigError, match=r"--storage: .* (cannot be used|names no bucket)"):
        Storage(place).read("file")
