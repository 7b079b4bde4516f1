"""The raw formats: each read from a small file as its publisher writes it, or refused clearly."""

import contextlib
import gzip
import io
import json
import random
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.raw_data import (
    silent,
    small_config,
    table_from,
    table_of_rows,
    write_movielens_parquet,
    write_movielens_zip,
    zip_with,
)

from tune_srs.datasets import published, publishers
from tune_srs.datasets.columns import COLUMNS, ITEM, TIMESTAMP, USER
from tune_srs.datasets.prepare import split
from tune_srs.datasets.published import DATASETS, RawFile, Reader
from tune_srs.datasets.publishers import Foursquare, Movielens, amazon_csv, amazon_json, steam
from tune_srs.errors import DataError, TuneSRSError

ROWS = [
    (196, 242, 3, 881250949),
    (186, 302, 3, 891717742),
    (196, 377, 1, 878887116),
    (196, 51, 2, 880606923),
    (186, 346, 1, 886397596),
    (186, 474, 4, 884182806),
    (186, 265, 2, 884182806),
]
U_DATA = Movielens("ml-100k/u.data", "\t")


def seconds(year: int, month: int, day: int, hour: int = 0) -> int:
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp())


def refusal(reader: Reader, path: Path) -> str:
    with pytest.raises(DataError) as caught:
        table_from(reader, path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.splitlines() == [message]
    return message


# MovieLens


@pytest.mark.parametrize(
    ("member", "separator", "header"),
    [
        ("ml-100k/u.data", "\t", ""),
        ("ml-1m/ratings.dat", "::", ""),
        ("ml-25m/ratings.csv", ",", "userId,movieId,rating,timestamp\n"),
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_movielens_is_read_in_the_order_of_the_file(
    tmp_path: Path, member: str, separator: str, header: str, line_end: str
) -> None:
    lines = [separator.join(map(str, row)) + line_end for row in ROWS]
    path = zip_with(tmp_path / "ml.zip", header + "".join(lines), member)
    table = table_from(Movielens(member, separator, bool(header)), path)
    assert tuple(table.columns) == COLUMNS
    assert table.to_numpy().tolist() == [list(row) for row in ROWS]


def test_half_stars_are_read(tmp_path: Path) -> None:
    path = zip_with(tmp_path / "ml.zip", "1::122::4.5::838985046\n", "ml-10M100K/ratings.dat")
    table = table_from(Movielens("ml-10M100K/ratings.dat", "::"), path)
    assert table["rating"].tolist() == [4.5]


def test_both_sources_give_the_same_table_and_fingerprint(tmp_path: Path) -> None:
    table = table_of_rows(ROWS)
    write_movielens_zip(table, tmp_path / "ml-100k.zip")
    write_movielens_parquet(table, tmp_path / "ml-100k.parquet")
    from_zip = table_from(U_DATA, tmp_path / "ml-100k.zip")
    from_parquet = table_from(publishers.movielens_parquet, tmp_path / "ml-100k.parquet")
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
        "1\t2\t3\t881250949\t5\n",
        "1\t2\t3\t881250949\n1\t2\t3\n",
        "1\t2\t3\t881250949\n1\t2\t3\t881250949\t5\n",
        "1,2,3,881250949\n",
        "1::2::3::881250949\n",
        "1\t2\tgood\t881250949\n",
        "1\t2\t3\tyesterday\n",
        "1\t2\t3\t881250949\n1\t2\tgood\t881250949\n",
        b"\xff\xfe\x00\x01",
    ],
)
def test_an_archive_with_other_content_is_refused(tmp_path: Path, content: str | bytes) -> None:
    refusal(U_DATA, zip_with(tmp_path / "ml-100k.zip", content))


def test_the_line_of_a_bad_rating_is_told(tmp_path: Path) -> None:
    content = "1\t2\t3\t881250949\n1\t2\tgood\t881250949\n"
    message = refusal(U_DATA, zip_with(tmp_path / "ml-100k.zip", content))
    assert "ml-100k/u.data: line 2: the rating 'good' is not a number" in message


def test_the_line_of_an_id_that_is_no_number_is_told(tmp_path: Path) -> None:
    content = "1\t2\t3\t881250949\nanna\t2\t3\t881250949\n"
    message = refusal(U_DATA, zip_with(tmp_path / "ml-100k.zip", content))
    assert "ml-100k/u.data: line 2: the user id 'anna' is not a whole number" in message


def test_an_archive_of_another_data_set_is_refused(tmp_path: Path) -> None:
    path = zip_with(tmp_path / "ml-100k.zip", "1::2::3::4\n", member="ml-1m/ratings.dat")
    assert "no ml-100k/u.data in it; delete the file and run again" in refusal(U_DATA, path)


def test_members_of_an_archive_are_never_unpacked(tmp_path: Path) -> None:
    """Neither one that would land outside the folder, nor any other."""
    path = tmp_path / "inner" / "ml-100k.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../outside.txt", "written?")
        archive.writestr("ml-100k/u.data", "1\t2\t3\t881250949\n")
    assert len(table_from(U_DATA, path)) == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["inner", "ml-100k.zip"]


@pytest.mark.parametrize("content", [b"", b"<html>Not found</html>"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ml-100k.zip"
    path.write_bytes(content)
    refusal(U_DATA, path)


def test_a_missing_archive_is_refused(tmp_path: Path) -> None:
    refusal(U_DATA, tmp_path / "ml-100k.zip")


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
            pd.testing.assert_frame_equal(table_from(U_DATA, path), table)
        except DataError:
            refused += 1
    assert refused > 100


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ml-100k.zip"
    write_movielens_zip(table_of_rows(ROWS), path)
    path.write_bytes(path.read_bytes()[:-30])
    refusal(U_DATA, path)


@pytest.mark.parametrize("missing", ["user_id", "movie_id", "rating", "timestamp"])
def test_a_parquet_without_a_column_is_refused(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "ml-100k.parquet"
    write_movielens_parquet(table_of_rows(ROWS), path)
    pd.read_parquet(path).drop(columns=missing).to_parquet(path)
    assert missing in refusal(publishers.movielens_parquet, path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"user_id,movie_id\n1,2\n"])
def test_what_is_no_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ml-100k.parquet"
    path.write_bytes(content)
    message = refusal(publishers.movielens_parquet, path)
    assert ": not the expected parquet (" in message
    assert message.endswith("); delete the file and run again")


# Foursquare

CHECKINS = (
    "470\t49bbd6c0f964a520f4531fe3\t4bf58dd8d48988d127951735\tArts & Crafts Store\t40.719810375488"
    "535\t-74.00258103213994\t-240\tTue Apr 03 18:00:09 +0000 2012\r\n"
    '979\t4a43c0aef964a520c6a61fe3\t4bf58dd8d48988d1df941735\tCaf\xe9 "Bridge\t40.60679958140643\t'
    "-74.04416981025437\t-240\tTue Apr 03 18:00:25 +0000 2012\r\n"
)


@pytest.mark.parametrize("zipped", [True, False])
def test_foursquare_is_read(tmp_path: Path, zipped: bool) -> None:
    member = "dataset_tsmc2014/dataset_TSMC2014_NYC.txt"
    content = CHECKINS.encode("latin-1")
    path = tmp_path / "raw"
    zip_with(path, content, member) if zipped else path.write_bytes(content)
    table = table_from(Foursquare(member), path)
    assert table[USER].tolist() == [470, 979]
    assert table[ITEM].tolist() == ["49bbd6c0f964a520f4531fe3", "4a43c0aef964a520c6a61fe3"]
    six = seconds(2012, 4, 3, 18)
    assert table[TIMESTAMP].tolist() == [six + 9, six + 25]
    assert "rating" not in table


# Steam


def steam_line(user: str, *reviews: tuple[str, str]) -> str:
    """A line as the publisher writes it: Python's own notation, quotes as they come."""
    record = {
        "user_id": user,
        "user_url": f"http://steamcommunity.com/profiles/{user}",
        "reviews": [
            {
                "funny": "",
                "posted": posted,
                "last_edited": "",
                "item_id": item,
                "helpful": "No ratings yet",
                "recommend": True,
                "review": 'It\'s "great" \u2026',
            }
            for item, posted in reviews
        ],
    }
    return repr(record) + "\n"


STEAM = (
    steam_line(
        "76561197970982479",
        ("1250", "Posted November 5, 2011."),
        ("22200", "Posted July 15, 2013."),
    )
    + steam_line("js41637", ("251610", "Posted June 24."), ("227300", "Posted September 8, 2015."))
    + steam_line("evcentric", ("248820", "Posted."))
)


@pytest.mark.parametrize("zipped", [True, False])
def test_steam_is_read_and_days_without_a_year_are_those_of_the_collection(
    tmp_path: Path, zipped: bool
) -> None:
    path = tmp_path / "australian_user_reviews"
    path.write_bytes(gzip.compress(STEAM.encode()) if zipped else STEAM.encode())
    said: list[str] = []
    (table,) = steam(path, said.append)
    assert table[USER].tolist() == ["76561197970982479"] * 2 + ["js41637"] * 2
    assert table[ITEM].tolist() == ["1250", "22200", "251610", "227300"]
    days = [seconds(2011, 11, 5), seconds(2013, 7, 15), seconds(2016, 6, 24), seconds(2015, 9, 8)]
    assert (table[TIMESTAMP] // 1_000_000).tolist() == days
    assert said == [
        f"{path}: 5 reviews, 1 of a day without a year, taken as 2016; 1 without a legible day "
        f"left out"
    ]


def test_steam_is_never_run_as_code(tmp_path: Path) -> None:
    path = tmp_path / "reviews.json"
    trace = tmp_path / "trace"
    path.write_text(f"{{'user_id': open({str(trace)!r}, 'w').name, 'reviews': []}}\n")
    assert ": line 1: not readable (" in refusal(steam, path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'user_id': 'a'", "line 2: not readable ("),
        ("['a']", "line 2: not readable (not an object with names, but list)"),
        ("{'user_id': 'a'}", "line 2: no 'user_id' with 'reviews'"),
        ("{'reviews': []}", "line 2: no 'user_id' with 'reviews'"),
        ("{'user_id': 'a', 'reviews': [3]}", "line 2: a review without an 'item_id'"),
        (steam_line("a", ("1", "Posted February 30, 2013.")), "line 2: the timestamp 'February 30"),
        (steam_line("a", ("1", "Posted Febuary 3, 2013.")), "line 2: the timestamp 'Febuary 3"),
    ],
)
def test_a_broken_line_of_steam_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "reviews.json"
    path.write_text(steam_line("b", ("1", "Posted June 1, 2013.")) + line)
    assert message in refusal(steam, path)


# Amazon

REVIEW = {
    "overall": 5.0,
    "verified": True,
    "reviewTime": "09 1, 2016",
    "reviewerID": "A3CIUOJXQ5VDQ2",
    "asin": "B0000530HU",
    "style": {"Size:": " 7.0 oz"},
    "reviewerName": "Shelly F",
    "reviewText": "As advertised",
    "unixReviewTime": 1472688000,
}


@pytest.mark.parametrize("zipped", [True, False])
def test_amazon_reviews_are_read(tmp_path: Path, zipped: bool) -> None:
    other = REVIEW | {"overall": 3.0, "asin": "0123456789", "vote": "2"}
    content = "".join(json.dumps(review) + "\n" for review in (REVIEW, other)).encode()
    path = tmp_path / "All_Beauty"
    path.write_bytes(gzip.compress(content) if zipped else content)
    table = table_from(amazon_json, path)
    assert table.to_numpy().tolist() == [
        ["A3CIUOJXQ5VDQ2", "B0000530HU", 5.0, 1472688000],
        ["A3CIUOJXQ5VDQ2", "0123456789", 3.0, 1472688000],
    ]


def test_amazon_ratings_are_read_as_item_and_user(tmp_path: Path) -> None:
    """Item ids can look like numbers, and keep their zeros."""
    path = tmp_path / "All_Beauty.csv"
    path.write_text("0143026860,A1V6B6TNIC10QE,1.0,1424304000\n0143026860,A2F5,4.0,1418860800\n")
    table = table_from(amazon_csv, path)
    assert table.to_numpy().tolist() == [
        ["A1V6B6TNIC10QE", "0143026860", 1.0, 1424304000],
        ["A2F5", "0143026860", 4.0, 1418860800],
    ]


@pytest.mark.parametrize("key", ["reviewerID", "asin", "overall", "unixReviewTime"])
def test_a_review_without_what_is_needed_is_named(tmp_path: Path, key: str) -> None:
    path = tmp_path / "All_Beauty.json"
    short = {name: value for name, value in REVIEW.items() if name != key}
    path.write_text(json.dumps(REVIEW) + "\n" + json.dumps(short) + "\n")
    assert f"line 2: no '{key}'" in refusal(amazon_json, path)


# All of them


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_says_where_it_is_from(name: str) -> None:
    dataset = DATASETS[name]
    assert dataset.page.startswith("https://")
    assert dataset.licence
    assert min(dataset.users, dataset.items, dataset.interactions) > 0
    assert len({file.name for file in dataset.files}) == len(dataset.files)


def test_a_file_of_another_length_is_refused(tmp_path: Path) -> None:
    path = zip_with(tmp_path / "ml-100k.zip", "1\t2\t3\t881250949\n")
    file = RawFile("ml-100k.zip", U_DATA, rows=100_000)
    with pytest.raises(DataError, match="expected 100000 interactions, but got 1; delete"):
        list(published.read(file, path, silent))


READERS: list[Reader] = [U_DATA, Foursquare("any"), steam, amazon_json, amazon_csv]
SOUND = [
    "1\t2\t3\t881250949\n" * 3,
    CHECKINS,
    STEAM,
    json.dumps(REVIEW) + "\n",
    "0143026860,A1V6B6TNIC10QE,1.0,1424304000\n",
]


@given(st.data())
@settings(max_examples=200)
def test_whatever_a_file_holds_the_reader_takes_or_refuses_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Anything at all, or a sound file with some bytes replaced; only our own errors come out."""
    which = data.draw(st.integers(0, len(READERS) - 1))
    content = SOUND[which].encode("latin-1", errors="replace")
    if data.draw(st.booleans()):
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, min(len(content), start + 8)))
        content = content[:start] + data.draw(st.binary(max_size=6)) + content[stop:]
    else:
        content = data.draw(st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
    if data.draw(st.booleans()):
        content = gzip.compress(content)
    path = tmp_path_factory.mktemp("fuzz") / "raw"
    path.write_bytes(content)
    if READERS[which] is U_DATA:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as writer:
            writer.writestr("ml-100k/u.data", content)
        path.write_bytes(archive.getvalue())
    with contextlib.suppress(TuneSRSError):
        list(READERS[which](path, silent))
