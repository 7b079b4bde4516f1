"""Prepared sequences: flat arrays on disk and in memory, split into histories and futures."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tune_srs.errors import ConfigError, DataError

FORMAT_VERSION = 5

Items = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]
Times = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sequences:
    """Histories to learn from or to continue, and the futures to be predicted from them.

    Items are 1 … `num_items`; 0 is padding and never occurs here.
    """

    items: Items  # (T,) every user's history, one after another, oldest first
    offsets: Offsets  # (U + 1,) user u's history is items[offsets[u]:offsets[u + 1]]
    futures: Items  # (U, K) the K interactions that follow the history, nearest first
    num_items: int
    learned_from: "Sequences | None" = None  # the histories that train, where they are others
    times: Times | None = None  # (T,) of `items`, where they train: s since 1970, see `training`

    @property
    def training(self) -> "Sequences":
        """The histories to learn from: these, unless the users scored are held out or fewer.

        They have `times`, rounded down to whole seconds, unless the log only tells the order. A
        user's never descend, but in histories of shared accounts (`NoiseConfig.shared`).
        """
        return self if self.learned_from is None else self.learned_from

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
        """These histories followed by their futures, with new `futures` (U, K) to predict.

        Without times, since those of the futures are not kept.
        """
        ends = np.repeat(self.offsets[1:], self.num_futures)
        items = np.insert(self.items, ends, self.futures.ravel())
        offsets = self.offsets + np.arange(self.num_users + 1) * self.num_futures
        return Sequences(items, offsets, futures, self.num_items)


@dataclass(frozen=True)
class OtherUsers:
    """Who tests, where they are others than those who validate."""

    items: Items  # their histories, as in `Sequences`
    offsets: Offsets
    ids: pd.Series  # original id of each


@dataclass(frozen=True)
class PreparedData:
    """A data set after filtering, indexing and splitting.

    `validation` is all that training and search may see. `test` continues it: its histories are
    the training part and the validation futures together. Where users are held out, or a moment
    decides, the users of `test` are others.
    """

    validation: Sequences
    test_futures: Items  # (U, K), or of the users of `test_users`
    item_ids: pd.Series  # original id of item i at place i - 1
    user_ids: pd.Series  # original id of user u of `validation` at place u
    manifest: dict[str, Any]
    test_users: OtherUsers | None = None
    item_titles: pd.Series | None = None  # of item i at place i - 1, where titles are known

    @property
    def test(self) -> Sequences:
        """What was known before the test → test futures."""
        if self.test_users is None:
            return self.validation.advanced(self.test_futures)
        histories = (self.test_users.items, self.test_users.offsets)
        return Sequences(*histories, self.test_futures, self.validation.num_items)

    @property
    def test_user_ids(self) -> pd.Series:
        """Original id of user u of `test` at place u."""
        return self.user_ids if self.test_users is None else self.test_users.ids

    @property
    def everything(self) -> Sequences:
        """All interactions, futures included, as histories to learn from; no futures: (U, 0).

        Raises `ConfigError` where a moment splits: prepared are not all interactions then.
        """
        if self.test_users is None:
            return self.test.advanced(_none(self.test))
        if self.manifest["settings"]["split"]["kind"] == "time":
            raise ConfigError(
                "data.split.kind=time: not all interactions are in the prepared data, so none can "
                "be trained on all of them; use the kinds last or users"
            )
        parts = [part.advanced(_none(part)) for part in (self.validation, self.test)]
        parts.insert(0, self.validation.training)
        items = np.concatenate([part.items for part in parts])
        lengths = np.concatenate([part.lengths for part in parts])
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return Sequences(
            items, offsets, np.empty((len(lengths), 0), np.int32), self.validation.num_items
        )

    @property
    def fingerprint(self) -> str:
        """sha256 of the arrays: two sources of one data set share it."""
        return str(self.manifest["fingerprint"])

    @property
    def inputs(self) -> list[str]:
        """sha256 of each file that was read; none of generated data."""
        return [str(one["sha256"]) for one in self.manifest["inputs"]]


def _none(sequences: Sequences) -> Items:
    """Futures (U, 0)."""
    return np.empty((sequences.num_users, 0), np.int32)


def fingerprint(arrays: Iterable[npt.NDArray[Any]]) -> str:
    """sha256 of types, shapes and contents."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def arrays_of(data: PreparedData) -> dict[str, npt.NDArray[Any]]:
    """All arrays but the times, by the names of their files, without `.npy`.

    What the fingerprint is of: two sources of one data set have the same items in the same order,
    but one may tell times more finely, or not at all.
    """
    scored, learned = data.validation, data.validation.learned_from
    arrays: dict[str, npt.NDArray[Any]] = {
        "items": scored.items,
        "offsets": scored.offsets,
        "validation": scored.futures,
        "test": data.test_futures,
    }
    if learned is not None:
        arrays |= {"training_items": learned.items, "training_offsets": learned.offsets}
    if data.test_users is not None:
        arrays |= {"test_items": data.test_users.items, "test_offsets": data.test_users.offsets}
    return arrays


def _times_of(data: PreparedData) -> dict[str, Times]:
    """The times there are, named as in `arrays_of`."""
    name = "times" if data.validation.learned_from is None else "training_times"
    times = data.validation.training.times
    return {} if times is None else {name: times}


def save(data: PreparedData, folder: Path) -> None:
    """Write `data` into the existing, empty `folder`: the same data, the same bytes."""
    for name, array in (arrays_of(data) | _times_of(data)).items():
        np.save(folder / f"{name}.npy", array)
    _write_ids(data.item_ids, folder / "item_ids.arrow")
    _write_ids(data.user_ids, folder / "user_ids.arrow")
    if data.item_titles is not None:
        _write_ids(data.item_titles, folder / "item_titles.arrow")
    if data.test_users is not None:
        _write_ids(data.test_users.ids, folder / "test_user_ids.arrow")
    files = {path.name: described(path) for path in sorted(folder.iterdir())}
    manifest = json.dumps(data.manifest | {"files": files}, indent=2)
    (folder / "manifest.json").write_text(manifest, encoding="utf-8")


def described(path: Path) -> dict[str, Any]:
    """Size and sha256 of a file, for a manifest."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _write_ids(ids: pd.Series, path: Path) -> None:
    import pyarrow as pa  # here: who is given the arrays needs nothing of it

    table = pa.table({"id": pa.array(ids)})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def _read_ids(path: Path, name: str) -> pd.Series:
    """Memory-mapped: nothing of it is read yet."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
        column = reader.read_all()["id"]
    dtype = "str" if pa.types.is_large_string(column.type) else None
    values = pd.array(column, dtype=dtype) if dtype else column.combine_chunks().to_numpy()
    return pd.Series(values, name=name, copy=False)


def verify(folder: Path) -> None:
    """Read every byte that `save` wrote; `DataError` if one is another."""
    try:
        files = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
        for name, description in files.items():
            if described(folder / name) != description:
                raise ValueError(f"{name} is not what was written")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder, error) from error


def load(folder: Path) -> PreparedData:
    """What `save` wrote, memory-mapped, whatever its size at once; a `DataError` if damaged.

    Looked at are the files' sizes, types and shapes; `verify` reads all of them.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        for name, description in manifest["files"].items():
            if (folder / name).stat().st_size != description["bytes"]:
                raise ValueError(f"{name} has not the {description['bytes']} bytes it was given")
        return _loaded(folder, manifest)
    except Exception as error:  # damaged files make numpy and pyarrow raise almost anything
        raise _damaged(folder, error) from error


def _loaded(folder: Path, manifest: dict[str, Any]) -> PreparedData:
    # as plain arrays, since a np.memmap would be copied out of Ray's object store
    arrays = {
        name.removesuffix(".npy"): np.asarray(
            np.load(folder / name, mmap_mode="r", allow_pickle=False)
        )
        for name in manifest["files"]
        if name.endswith(".npy")
    }
    item_ids = _read_ids(folder / "item_ids.arrow", "item")
    user_ids = _read_ids(folder / "user_ids.arrow", "user")
    validation, test = arrays["validation"], arrays["test"]
    learned, test_users = None, None
    if "training_items" in arrays:
        offsets = arrays["training_offsets"]
        none = np.empty((len(offsets) - 1, 0), np.int32)
        times = arrays.get("training_times")
        learned = Sequences(arrays["training_items"], offsets, none, len(item_ids), times=times)
    if "test_items" in arrays:
        test_ids = _read_ids(folder / "test_user_ids.arrow", "user")
        test_users = OtherUsers(arrays["test_items"], arrays["test_offsets"], test_ids)
    titles = None
    if "item_titles.arrow" in manifest["files"]:
        titles = _read_ids(folder / "item_titles.arrow", "title")
    histories = (arrays["items"], arrays["offsets"])
    times = arrays.get("times")
    scored = Sequences(*histories, validation, len(item_ids), learned, times)
    _check_shapes(scored, user_ids, manifest)
    return PreparedData(scored, test, item_ids, user_ids, manifest, test_users, titles)


def _check_shapes(scored: Sequences, user_ids: pd.Series, manifest: dict[str, Any]) -> None:
    sizes = {len(scored.futures), len(scored.offsets) - 1, len(user_ids)}
    if len(sizes) > 1 or scored.offsets[-1] != len(scored.items):
        raise ValueError("its files do not belong together")
    times = scored.training.times
    if times is not None and len(times) != len(scored.training.items):
        raise ValueError("its times are not those of its items")
    if len(str(manifest["fingerprint"])) != 64:
        raise ValueError("manifest.json has no fingerprint")


def _damaged(folder: Path, error: Exception) -> DataError:
    return DataError(f"{folder}: damaged prepared data ({error}); delete this folder and run again")
