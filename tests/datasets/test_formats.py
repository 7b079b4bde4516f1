"""The raw formats: two sources of MovieLens 100K, one table; a clear word on any other file."""

import random
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from raw_data import (
    silent,
    small_config,
    table_of_rows,
    write_movielens_parquet,
    write_movielens_zip,
)

from tune_srs.datasets.formats import COLUMNS, read_movielens_parquet, read_movielens_zip
from tune_srs.datasets.prepare import split
from tune_srs.errors import DataError

ROWS = [
    (196, 242, 3, 881250949),
    (186, 302, 3, 891717742),
    (196, 377, 1, 878887116),
    (196, 51, 2, 880606923),
    (186, 346, 1, 886397596),
    (186, 474, 4, 884182806),
    (186, 265, 2, 884182806),
]


def refusal_of_zip(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_movielens_zip(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: no readable ml-100k/u.data in it (")
    assert message.endswith("); delete the file and run again")
    assert message.splitlines() == [message]
    return message


def zip_with(path: Path, content: str | bytes, member: str = "ml-100k/u.data") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
    return path


def test_the_archive_is_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = zip_with(tmp_path / "ml-100k.zip", "196\t242\t3\t881250949\n186\t302\t3\t891717742\n")
    table = read_movielens_zip(path)
    assert tuple(table.columns) == COLUMNS
    assert table.to_numpy().tolist() == [list(row) for row in ROWS[:2]]


def test_both_sources_give_the_same_table_and_fingerprint(tmp_path: Path) -> None:
    table = table_of_rows(ROWS)
    write_movielens_zip(table, tmp_path / "ml-100k.zip")
    write_movielens_parquet(table, tmp_path / "ml-100k.parquet")
    from_zip = read_movielens_zip(tmp_path / "ml-100k.zip")
    from_parquet = read_movielens_parquet(tmp_path / "ml-100k.parquet")
    pd.testing.assert_frame_equal(from_zip, table)
    pd.testing.assert_frame_equal(from_parquet, table)

    config = small_config(num_futures=1)
    one, other = split(from_zip, config, silent), split(from_parquet, config, silent)
    assert one.manifest == other.manifest
    assert one.item_ids.equals(other.item_ids)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "1\t2\t3\n",
        "1\t2\t3\t4\t5\n",
        "1\t2\t3\t4\n1\t2\t3\n",
        "1\t2\t3\t4\n1\t2\t3\t4\t5\n",
        "1,2,3,4\n",
        "1::2::3::4\n",
        "user\titem\trating\ttimestamp\n1\t2\t3\t4\n",
        "1\t2\tgood\t4\n",
        "1\t2\t3.5\t4\n",
        '1\t2\t"3\t4\n',
        b"\xff\xfe\x00\x01",
    ],
)
def test_an_archive_with_other_content_is_refused(tmp_path: Path, content: str | bytes) -> None:
    refusal_of_zip(zip_with(tmp_path / "ml-100k.zip", content))


def test_an_archive_of_another_data_set_is_refused(tmp_path: Path) -> None:
    path = zip_with(tmp_path / "ml-100k.zip", "1::2::3::4\n", member="ml-1m/ratings.dat")
    assert "There is no item named" in refusal_of_zip(path)


@pytest.mark.parametrize("content", [b"", b"<html>Not found</html>"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ml-100k.zip"
    path.write_bytes(content)
    refusal_of_zip(path)


def test_a_missing_archive_is_refused(tmp_path: Path) -> None:
    refusal_of_zip(tmp_path / "ml-100k.zip")


def test_a_damaged_archive_is_refused_or_read_as_it_was(tmp_path: Path) -> None:
    """The checksums inside a zip find a changed byte, if zipfile gets as far as to look."""
    path = tmp_path / "ml-100k.zip"
    table = table_of_rows(ROWS * 20)
    write_movielens_zip(table, path)
    good = path.read_bytes()
    dice = random.Random(0)
    refused = 0
    for _ in range(300):
        content = bytearray(good)
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        path.write_bytes(content)
        try:
            pd.testing.assert_frame_equal(read_movielens_zip(path), table)
        except DataError:
            refused += 1
    assert refused > 100


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ml-100k.zip"
    write_movielens_zip(table_of_rows(ROWS), path)
    path.write_bytes(path.read_bytes()[:-30])
    refusal_of_zip(path)


@pytest.mark.parametrize("missing", ["user_id", "movie_id", "rating", "timestamp"])
def test_a_parquet_without_a_column_is_refused(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "ml-100k.parquet"
    write_movielens_parquet(table_of_rows(ROWS), path)
    pd.read_parquet(path).drop(columns=missing).to_parquet(path)
    assert missing in refusal_of_parquet(path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"user_id,movie_id\n1,2\n"])
def test_what_is_no_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ml-100k.parquet"
    path.write_bytes(content)
    refusal_of_parquet(path)


def test_a_missing_parquet_is_refused(tmp_path: Path) -> None:
    refusal_of_parquet(tmp_path / "ml-100k.parquet")


def refusal_of_parquet(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_movielens_parquet(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: not the expected parquet (")
    assert message.endswith("); delete the file and run again")
    assert message.splitlines() == [message]
    return message
