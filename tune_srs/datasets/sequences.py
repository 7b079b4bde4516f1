"""Prepared sequences: flat arrays on disk and in memory, split into histories and futures."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tune_srs.errors import DataError

FORMAT_VERSION = 1

Items = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sequences:
    """Histories to learn from or to continue, and the futures to be predicted from them.

    Items are 1 … `num_items`; 0 is padding and never occurs here.
    """

    items: Items  # (T,) every user's history, one after another, oldest first
    offsets: Offsets  # (U + 1,) user u's history is items[offsets[u]:offsets[u + 1]]
    futures: Items  # (U, K) the K interactions that follow the history, nearest first
    num_items: int

    @property
    def num_users(self) -> int:
        return len(self.futures)

    @property
    def num_futures(self) -> int:
        return int(self.futures.shape[1])

    @property
    def lengths(self) -> Offsets:
        """(U,) interactions in each history."""
        return np.diff(self.offsets)

    def users(self) -> Offsets:
        """(T,) the user of each interaction in `items`."""
        return np.repeat(np.arange(self.num_users), self.lengths)

    def advanced(self, futures: Items) -> "Sequences":
        """These histories followed by their futures, with new `futures` (U, K) to predict."""
        ends = np.repeat(self.offsets[1:], self.num_futures)
        items = np.insert(self.items, ends, self.futures.ravel())
        offsets = self.offsets + np.arange(self.num_users + 1) * self.num_futures
        return Sequences(items, offsets, futures, self.num_items)


@dataclass(frozen=True)
class PreparedData:
    """A data set after filtering, indexing and splitting.

    `validation` is all that training and search may see. `test` continues it: its histories are
    the training part and the validation futures together.
    """

    validation: Sequences
    test_futures: Items  # (U, K)
    item_ids: pd.Series  # original id of item i at place i - 1
    user_ids: pd.Series  # original id of user u at place u
    manifest: dict[str, Any]

    @property
    def test(self) -> Sequences:
        """Training part + validation futures → test futures."""
        return self.validation.advanced(self.test_futures)

    @property
    def fingerprint(self) -> str:
        """sha256 of the arrays: two sources of one data set share it."""
        return str(self.manifest["fingerprint"])


def fingerprint(*arrays: npt.NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


_ARRAYS = ("items", "offsets", "validation", "test")


def save(data: PreparedData, folder: Path) -> None:
    """Write `data` into the existing, empty `folder`."""
    train = data.validation
    arrays: list[npt.NDArray[Any]] = [train.items, train.offsets, train.futures, data.test_futures]
    for name, array in zip(_ARRAYS, arrays, strict=True):
        np.save(folder / f"{name}.npy", array)
    _write_ids(data.item_ids, folder / "item_ids.parquet")
    _write_ids(data.user_ids, folder / "user_ids.parquet")
    (folder / "manifest.json").write_text(json.dumps(data.manifest, indent=2), encoding="utf-8")


def _write_ids(ids: pd.Series, path: Path) -> None:
    ids.to_frame().to_parquet(path, write_page_checksum=True)


def _read_ids(path: Path) -> pd.Series:
    return pd.read_parquet(path, page_checksum_verification=True).iloc[:, 0]


def load(folder: Path) -> PreparedData:
    """Read what `save` wrote, memory-mapped; a damaged folder is a `DataError`."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        # as plain arrays, since a np.memmap would be copied out of Ray's object store
        items, offsets, validation, test = (
            np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
            for name in _ARRAYS
        )
        item_ids = _read_ids(folder / "item_ids.parquet")
        user_ids = _read_ids(folder / "user_ids.parquet")
        if fingerprint(items, offsets, validation, test) != manifest["fingerprint"]:
            raise ValueError("the arrays do not match the fingerprint in manifest.json")
    except Exception as error:  # damaged files make numpy and pyarrow raise almost anything
        raise DataError(
            f"{folder}: damaged prepared data ({error}); delete this folder and run again"
        ) from error
    sequences = Sequences(items, offsets, validation, num_items=len(item_ids))
    return PreparedData(sequences, test, item_ids, user_ids, manifest)
