"""Recommendations from an exported model: original ids in, original ids and scores out.

Shapes: N histories, T ids of all of them, I items, k recommendations a history.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from tune_srs.datasets.histories import Offsets
from tune_srs.errors import ConfigError, DataError, Say
from tune_srs.exports import exported
from tune_srs.exports.evaluate import Appraisal, appraise
from tune_srs.exports.exported import Exported
from tune_srs.exports.top_items import top_items
from tune_srs.exports.vocabulary import numbers_of

Id = int | str
ID_TYPES = ("empty", "string", "integer", "mixed-integer", "floating", "mixed-integer-float")
COLUMNS = ("rank", "item", "title", "score", "by")
Warn = Callable[[str], object]
WARN: Warn = partial(warnings.warn, stacklevel=3)  # of the line that calls `recommend`


class Recommender:
    """An exported model that answers in original ids; `tune_srs.load` makes one."""

    def __init__(self, contents: Exported) -> None:
        self.contents = contents
        self._vocabulary = pd.Index(contents.items["item"])
        # popular items first; of equal ones the first
        self._by_count = np.argsort(-contents.items["count"].to_numpy(), kind="stable") + 1

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises `DataError` for a folder that is not exactly what was exported."""
        return cls(exported.read(folder))

    def recommend(
        self,
        histories: Iterable[Sequence[Id]] | pd.Series,
        k: int = 10,
        exclude_history: bool | None = None,
        warn: Warn = WARN,
    ) -> pd.DataFrame:
        """The `k` items that each history is most likely to go on with, best first.

        A history is a list of original ids, oldest first. With `exclude_history`, by default as
        the model was evaluated, its items are not recommended. Ids that the model does not know are
        skipped, and `warn` is told; a history without any known id is answered by popularity.

        Returns a row a recommendation: `history` (the place of the history, or its label in a
        series, under the name of its index), `rank` (from 1), `item` (its original id), `title`
        (where titles are known), `score` (higher is better; of one history, comparable), `by`
        (`model` or `popularity`, whose score is how often the item occurs). There are fewer than k
        rows for a history where the catalogue has no more. Raises `ConfigError` for k < 1.
        """
        if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
            raise ConfigError(f"top-k: must be at least 1, a whole number, but got {k!r}")
        labels = histories.index if isinstance(histories, pd.Series) else None
        items, offsets = self._numbered([_listed(history) for history in histories], warn)
        if exclude_history is None:
            exclude_history = self.contents.config.evaluation.exclude_history
        k = min(k, len(self._vocabulary))
        best, scores = self._popular(len(offsets) - 1, k)
        known = np.flatnonzero(np.diff(offsets))
        if len(known):
            compact = offsets[np.append(known, len(offsets) - 1)]
            top = top_items(self.contents.model, items, compact, k, exclude_history)
            best[known], scores[known] = (tensor.numpy() for tensor in top)
        by = np.full(len(best), "popularity", dtype=object)
        by[known] = "model"
        return self._table(best, scores, by, labels)

    def evaluate(
        self,
        overrides: Mapping[str, Any] | None = None,
        data_folder: Path | str = "data",
        say: Say = print,
    ) -> Appraisal:
        """How good the model is on its own data, or on others; see `appraisal.appraise`."""
        return appraise(self.contents, Path(data_folder), overrides, say)

    def _popular(self, rows: int, k: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The most popular items (rows, k), and how often they occur."""
        best = self._by_count[:k]
        counts = self.contents.items["count"].to_numpy()[best - 1]
        return np.tile(best, (rows, 1)), np.tile(counts.astype(np.float32), (rows, 1))

    def _numbered(
        self, histories: list[Sequence[Id]], warn: Warn
    ) -> tuple[npt.NDArray[np.int32], Offsets]:
        """The model's items (T,) in all histories, unknown ids left out, and offsets (N + 1,)."""
        ids = pd.Index(list(chain.from_iterable(histories)), dtype=object)  # each as it is
        if pd.api.types.infer_dtype(ids, skipna=True) not in ID_TYPES:
            raise ConfigError("histories: an id is a number or a text; give lists of such")
        lengths = np.fromiter(map(len, histories), np.int64, len(histories))
        items = numbers_of(ids, self._vocabulary)
        known = items > 0
        if not known.all():
            unknown = ids[~known].infer_objects().to_list()
            warn(
                f"{len(unknown)} of {len(ids)} ids are unknown to the model and are skipped, "
                f"such as {unknown[0]!r}"
            )
        kept = np.append(0, np.cumsum(known))[np.append(0, np.cumsum(lengths))]
        return items[known], kept

    def _table(
        self,
        best: npt.NDArray[np.int64],
        scores: npt.NDArray[np.float32],
        by: npt.NDArray[np.object_],
        labels: pd.Index | None,
    ) -> pd.DataFrame:
        row, place = np.nonzero(np.isfinite(scores))
        taken = self.contents.items.take(best[row, place] - 1)
        name = "history" if labels is None or labels.name in (None, *COLUMNS) else str(labels.name)
        columns: dict[str, Any] = {
            name: row if labels is None else labels[row],
            "rank": place + 1,
            "item": taken["item"].to_numpy(),
        }
        if "title" in taken:
            columns["title"] = taken["title"].to_numpy()
        return pd.DataFrame(columns | {"score": scores[row, place], "by": by[row]})


def read_histories(path: Path) -> pd.Series:
    """Histories in a Parquet file: a column `history` of lists, or rows of `user` and `item`.

    The former may have a column `user` that names them; the rows of the latter are in time order,
    or have a column `timestamp`. Raises `DataError` that says what is wrong.
    """
    try:
        table = parquet.read_table(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: no Parquet file ({error}); write it as one") from error
    names = table.column_names
    _check_types(path, table.schema)
    if "user" in names and (missing := table["user"].null_count):
        raise DataError(f"{path}: {missing} rows have no user; name or drop them")
    if "history" in names:
        users = table["user"].to_pandas() if "user" in names else range(table.num_rows)
        index = pd.Index(users, name="user" if "user" in names else "history")
        listed = [history or [] for history in table["history"].to_pylist()]
        return pd.Series(listed, index=index, dtype=object)
    rows = table.select([name for name in ("user", "timestamp") if name in names]).to_pandas()
    rows["item"] = pd.Series(table["item"].to_pylist(), dtype=object)  # a null makes no floats
    if "timestamp" in rows:
        rows = rows.sort_values("timestamp", kind="stable")
    return pd.Series(rows.groupby("user")["item"].agg(list), dtype=object)


def _check_types(path: Path, schema: pa.Schema) -> None:
    """Raises `DataError` for columns that hold no histories."""
    if "history" in schema.names:
        history = schema.field("history").type
        lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
        if not any(is_list(history) for is_list in lists) or pa.types.is_nested(history.value_type):
            raise DataError(f"{path}: its column history holds no lists of ids; make it so")
    elif not {"user", "item"} <= set(schema.names):
        raise DataError(f"{path}: neither a column history nor user and item; name them so")
    for name in {"user", "item", "timestamp"} & set(schema.names):
        if pa.types.is_nested(schema.field(name).type):
            raise DataError(f"{path}: its column {name} holds lists; give one value a row")


def _listed(history: Any) -> Sequence[Id]:
    if isinstance(history, str | bytes) or not hasattr(history, "__len__"):
        raise TypeError(f"a history is a list of ids, but got {history!r}; give a list of lists")
    return history  # type: ignore[no-any-return]
