"""Prepared data: histories and futures, and the folder of flat arrays that keeps them."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tune_srs.datasets.histories import Histories, Items, Split, Times
from tune_srs.errors import ConfigError, DataError
from tune_srs.files import described

FORMAT_VERSION = 6


@dataclass(frozen=True)
class PreparedData:
    """A data set after filtering, numbering and splitting.

    A split holds three things: the histories to train on, the histories to predict from, and the
    futures to predict. `validation` is all that training and search may see: it never holds test
    futures. `test` predicts the test futures from what was known before them.
    """

    validation: Split
    test_futures: Items  # (W, K), filled up as in `Split`
    item_ids: pd.Series  # original id of item i at position i - 1
    user_ids: pd.Series  # original id of user v of `validation` at position v
    test_user_ids: pd.Series  # original id of user w of `test` at position w
    manifest: dict[str, Any]
    test_histories: Histories | None = None  # of W users, where they are not those of `validation`
    item_titles: pd.Series | None = None  # of item i at position i - 1, where titles are known
    before_moment: Histories | None = None  # all that precedes the test, if a moment begins it

    @property
    def test(self) -> Split:
        """The test futures, and what was known before them.

        If validation and test have the same users, each test history is the validation history plus
        the validation futures; the training histories stay those of the validation. With
        `split.kind` `users` or `time`, the test has users and histories of its own.
        """
        validation, histories = self.validation, self.test_histories
        if histories is None:
            histories = validation.histories.followed_by(validation.futures)
        return Split(validation.training, histories, self.test_futures)

    @property
    def everything(self) -> Histories:
        """All interactions, futures included.

        Raises `ConfigError` for `split.kind=time`, which does not keep all interactions.
        """
        test = self.test.histories.followed_by(self.test_futures)
        if self.test_histories is None:
            return test
        if self.before_moment is not None:
            raise ConfigError(
                "data.split.kind=time: the prepared data lack some interactions, so a model cannot "
                "be trained on all of them; use --refit validation, or split by last or users"
            )
        return _one_after_another(self.before_test, test)

    @property
    def before_test(self) -> Histories:
        """All interactions that precede the test: training and validation, without times.

        With `split.kind=users` those who test are not among them.
        """
        if self.before_moment is not None:
            return self.before_moment
        known = self.validation.histories.followed_by(self.validation.futures)
        if self.test_histories is None:
            return known
        return _one_after_another(self.validation.training, known)

    @property
    def fingerprint(self) -> str:
        """sha256 of the arrays: two sources of one data set share it."""
        return str(self.manifest["fingerprint"])

    @property
    def inputs(self) -> list[str]:
        """sha256 of each file that was read; empty for generated data."""
        return [str(one["sha256"]) for one in self.manifest["inputs"]]


def _one_after_another(*parts: Histories) -> Histories:
    lengths = np.concatenate([part.lengths for part in parts])
    return Histories(
        np.concatenate([part.items for part in parts]),
        np.concatenate([[0], np.cumsum(lengths)]),
        parts[0].num_items,
    )


def fingerprint(arrays: Iterable[npt.NDArray[Any]]) -> str:
    """Return the sha256 of types, shapes and contents."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def arrays_of(data: PreparedData) -> dict[str, npt.NDArray[Any]]:
    """Return all arrays but the times, by the names of their files, without `.npy`.

    The fingerprint is of these: two sources of one data set have the same items in the same order,
    but one may tell times more finely, or not at all.
    """
    split = data.validation
    arrays: dict[str, npt.NDArray[Any]] = {
        "items": split.histories.items,
        "offsets": split.histories.offsets,
        "validation": split.futures,
        "test": data.test_futures,
    }
    if split.training is not split.histories:
        arrays |= {
            "training_items": split.training.items,
            "training_offsets": split.training.offsets,
        }
    if data.test_histories is not None:
        arrays |= {
            "test_items": data.test_histories.items,
            "test_offsets": data.test_histories.offsets,
        }
    if data.before_moment is not None:
        arrays |= {
            "before_items": data.before_moment.items,
            "before_offsets": data.before_moment.offsets,
        }
    return arrays


def _times_of(data: PreparedData) -> dict[str, Times]:
    """Return the times of the histories that train, if there are any, named as in `arrays_of`."""
    split = data.validation
    name = "times" if split.training is split.histories else "training_times"
    return {} if split.training.times is None else {name: split.training.times}


def save(data: PreparedData, folder: Path) -> None:
    """Write `data` into the existing, empty `folder`: the same data give the same bytes."""
    for name, array in (arrays_of(data) | _times_of(data)).items():
        np.save(folder / f"{name}.npy", array)
    _write_ids(data.item_ids, folder / "item_ids.arrow")
    _write_ids(data.user_ids, folder / "user_ids.arrow")
    if data.item_titles is not None:
        _write_ids(data.item_titles, folder / "item_titles.arrow")
    if data.test_histories is not None:
        _write_ids(data.test_user_ids, folder / "test_user_ids.arrow")
    files = {path.name: described(path) for path in sorted(folder.iterdir())}
    manifest = json.dumps(data.manifest | {"files": files}, indent=2)
    (folder / "manifest.json").write_text(manifest, encoding="utf-8")


def _write_ids(ids: pd.Series, path: Path) -> None:
    import pyarrow as pa  # here: a worker that receives the arrays does not need it

    table = pa.table({"id": pa.array(ids)})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def _read_ids(path: Path, name: str) -> pd.Series:
    """Return the ids memory-mapped: nothing is read yet."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
        column = reader.read_all()["id"]
    dtype = "str" if pa.types.is_large_string(column.type) else None
    values = pd.array(column, dtype=dtype) if dtype else column.combine_chunks().to_numpy()
    return pd.Series(values, name=name, copy=False)


def verify(folder: Path) -> None:
    """Read every byte that `save` wrote; raise `DataError` if one has changed."""
    try:
        files = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
        for name, description in files.items():
            if described(folder / name) != description:
                raise ValueError(f"{name} is not what was written")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder, error) from error


def load(folder: Path) -> PreparedData:
    """Return what `save` wrote, memory-mapped: at once, whatever its size.

    Checks the files' sizes, types and shapes, and raises `DataError` where they do not fit;
    `verify` reads all of the files.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        for name, description in manifest["files"].items():
            if (folder / name).stat().st_size != description["bytes"]:
                raise ValueError(f"{name} does not have its {description['bytes']} bytes")
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

    def histories(prefix: str) -> Histories | None:
        if f"{prefix}items" not in arrays:
            return None
        items, offsets = arrays[f"{prefix}items"], arrays[f"{prefix}offsets"]
        return Histories(items, offsets, len(item_ids), arrays.get(f"{prefix}times"))

    scored, test_histories = histories(""), histories("test_")
    assert scored is not None
    split = Split(histories("training_") or scored, scored, arrays["validation"])
    _check_shapes(split, user_ids, manifest)
    titles, test_user_ids = None, user_ids
    if "item_titles.arrow" in manifest["files"]:
        titles = _read_ids(folder / "item_titles.arrow", "title")
    if test_histories is not None:
        test_user_ids = _read_ids(folder / "test_user_ids.arrow", "user")
    return PreparedData(
        split,
        arrays["test"],
        item_ids,
        user_ids,
        test_user_ids,
        manifest,
        test_histories,
        titles,
        histories("before_"),
    )


def _check_shapes(split: Split, user_ids: pd.Series, manifest: dict[str, Any]) -> None:
    sizes = {split.num_users, split.histories.num_users, len(user_ids)}
    if len(sizes) > 1 or split.histories.offsets[-1] != len(split.histories.items):
        raise ValueError("its files do not belong together")
    times = split.training.times
    if times is not None and len(times) != len(split.training.items):
        raise ValueError("its times are not those of its items")
    if len(str(manifest["fingerprint"])) != 64:
        raise ValueError("manifest.json has no fingerprint")


def _damaged(folder: Path, error: Exception) -> DataError:
    return DataError(f"{folder}: damaged prepared data ({error}); delete this folder and run again")
