"""From a raw data set to prepared sequences: filter, index, split, add noise, cache."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from tune_srs.config import DataConfig, nearest
from tune_srs.datasets import fetch, sequences, synthetic
from tune_srs.datasets.formats import ITEM, RATING, TIMESTAMP, USER
from tune_srs.datasets.noise import add_noise
from tune_srs.datasets.sequences import FORMAT_VERSION, PreparedData, Sequences
from tune_srs.errors import ConfigError, DataError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Dataset:
    """A data set that is known by name."""

    description: str
    licence: str
    read: Callable[[DataConfig, Path, Say], Iterable[pd.DataFrame]]  # a chunk at a time


DATASETS = {
    "ml-100k": Dataset(
        "MovieLens 100K: 100,000 ratings, 943 users, 1,682 films, 1997-98",
        "GroupLens: research use, no redistribution",
        lambda config, raw, say: [fetch.movielens_100k(raw, say)],
    ),
    "synthetic": Dataset(
        "generated: the next item depends on taste, popularity and the last two items",
        "none needed",
        lambda config, raw, say: [synthetic.generate(config.synthetic)],
    ),
}


def prepared_folder(config: DataConfig, data_folder: Path) -> Path:
    """Where these settings are cached: other settings or another format, another folder."""
    settings = json.dumps([FORMAT_VERSION, config.model_dump(mode="json")], sort_keys=True)
    digest = hashlib.sha256(settings.encode()).hexdigest()[:12]
    return data_folder / "prepared" / f"{config.name}-{digest}"


def known_dataset(name: str) -> Dataset:
    if name not in DATASETS:
        raise ConfigError(f"data.name: unknown data set {name}{nearest(name, DATASETS)}")
    return DATASETS[name]


def prepare(config: DataConfig, data_folder: Path, say: Say = print) -> PreparedData:
    """The prepared data of `config`, from the cache under `data_folder` or made now.

    Raises `ConfigError` for a name that is not known, `DataError` for data that cannot be had or
    that is too short for the futures asked. `say` is told what is fetched and dropped.
    """
    dataset = known_dataset(config.name)
    folder = prepared_folder(config, data_folder)
    if not folder.exists():
        chunks = dataset.read(config, data_folder / "raw" / config.name, say)
        data = split_chunks(chunks, config, say)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".aside-", dir=folder.parent) as aside:
            whole = Path(aside) / folder.name
            whole.mkdir()
            sequences.save(data, whole)
            try:
                whole.rename(folder)
            except OSError:
                if not folder.exists():  # otherwise another process was quicker, with the same data
                    raise
    return sequences.load(folder)


class Codes:
    """Ids as numbers from 0, for a column that is seen chunk by chunk."""

    def __init__(self) -> None:
        self._ids: pd.Index | None = None  # in the order of appearance

    def of(self, column: pd.Series) -> npt.NDArray[np.int32]:
        """The number of each id in `column`, by first appearance."""
        places, ids = pd.factorize(column)
        found = pd.Index(ids)
        if self._ids is None:
            self._ids = found[:0]
        numbers = self._ids.get_indexer(found)
        new = numbers < 0
        numbers[new] = len(self._ids) + np.arange(new.sum())
        self._ids = self._ids.append(found[new])
        return numbers[places].astype(np.int32)

    def ordered(self) -> tuple[pd.Index, npt.NDArray[np.int32]]:
        """All ids in ascending order, and the place there of each number."""
        assert self._ids is not None
        order = self._ids.argsort()
        places = np.empty(len(order), np.int32)
        places[order] = np.arange(len(order), dtype=np.int32)
        return self._ids[order], places


def split(table: pd.DataFrame, config: DataConfig, say: Say = print) -> PreparedData:
    """A whole interactions table → prepared data, see `split_chunks`."""
    return split_chunks([table], config, say)


def split_chunks(
    chunks: Iterable[pd.DataFrame], config: DataConfig, say: Say = print
) -> PreparedData:
    """Interactions, a chunk at a time → filtered, indexed, split into training, validation, test.

    Of each chunk what is rated enough stays, as numbers: 16 bytes an interaction. Equal timestamps
    of a user keep their order. The last K interactions of a user are the test futures, the K before
    them the validation futures. Users with fewer than 2 K + 1 interactions are dropped, and `say`
    is told how many.
    """
    users, items, parts = Codes(), Codes(), []
    for chunk in chunks:
        if config.min_rating is not None:
            chunk = chunk[chunk[RATING] >= config.min_rating]
        codes = {USER: users.of(chunk[USER]), ITEM: items.of(chunk[ITEM])}
        parts.append(pd.DataFrame(codes | {TIMESTAMP: chunk[TIMESTAMP].to_numpy()}))
    table = pd.concat(parts, ignore_index=True)
    parts.clear()
    (user_ids, user_places), (item_ids, item_places) = users.ordered(), items.ordered()
    table[USER], table[ITEM] = user_places[table[USER]], item_places[table[ITEM]]
    table = _filter(table, config)
    table = table.sort_values([USER, TIMESTAMP], kind="stable")
    needed = 2 * config.num_futures + 1
    enough = table.groupby(USER)[ITEM].transform("size") >= needed
    dropped = table[USER].nunique() - table.loc[enough, USER].nunique()
    if not enough.any():
        raise DataError(
            f"{config.name}: no user has the {needed} interactions that num_futures="
            f"{config.num_futures} needs (2 K + 1); lower data.num_futures or the filters"
        )
    if dropped:
        say(f"{config.name}: {dropped} users with fewer than {needed} interactions left out")
    return _index(table[enough], user_ids, item_ids, config)


def _filter(table: pd.DataFrame, config: DataConfig) -> pd.DataFrame:
    """As in the paper: rarely used items, then users of few items."""
    if config.min_users_per_item > 1:
        table = table[table.groupby(ITEM)[USER].transform("size") >= config.min_users_per_item]
    if config.min_items_per_user > 1:
        table = table[table.groupby(USER)[ITEM].transform("size") >= config.min_items_per_user]
    return table


def _index(
    table: pd.DataFrame, user_ids: pd.Index, item_ids: pd.Index, config: DataConfig
) -> PreparedData:
    """The sorted `table` of numbers, whose ids these are, as sequences of what is left of them."""
    user_codes, users_left = pd.factorize(table[USER], sort=True)
    item_codes, items_left = pd.factorize(table[ITEM], sort=True)
    user_ids, item_ids = user_ids[users_left], item_ids[items_left]
    items = (item_codes + 1).astype(np.int32)
    ends = np.cumsum(np.bincount(user_codes))  # (U,) the table is sorted by user
    futures = config.num_futures
    back = np.arange(-2 * futures, 0)
    held_out = items[ends[:, None] + back]  # (U, 2 K)
    trains = np.ones(len(items), dtype=bool)
    trains[(ends[:, None] + back).ravel()] = False
    lengths = np.diff(ends, prepend=0) - 2 * futures
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    train_items, offsets = add_noise(items[trains], offsets, config.noise)

    validation = np.ascontiguousarray(held_out[:, :futures])
    test = np.ascontiguousarray(held_out[:, futures:])
    manifest = {
        "format_version": FORMAT_VERSION,
        "settings": config.model_dump(mode="json"),
        "users": len(user_ids),
        "items": len(item_ids),
        "interactions": len(items),
        "training_interactions": len(train_items),
        "fingerprint": sequences.fingerprint(train_items, offsets, validation, test),
    }
    return PreparedData(
        Sequences(train_items, offsets, validation, num_items=len(item_ids)),
        test,
        pd.Series(item_ids, name="item"),
        pd.Series(user_ids, name="user"),
        manifest,
    )
