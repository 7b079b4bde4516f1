"""Recommendations from an exported model: original ids in, original ids and scores out.

Shapes: N histories, T ids in all of them, I items, k recommendations per history.
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
WARN: Warn = partial(warnings.warn, stacklevel=3)  # the line that calls `recommend`


class Recommender:
    """An exported model that recommends original ids; `tune_srs.load` returns one."""

    def __init__(self, contents: Exported) -> None:
        self.contents = contents
        self._vocabulary = pd.Index(contents.items["item"])
        # popular items first, equal ones in their order
        self._by_count = np.argsort(-contents.items["count"].to_numpy(), kind="stable") + 1

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the model in a folder; a `DataError` if it is not exactly what was exported."""
        return cls(exported.read(folder))

    def recommend(
        self,
        histories: Iterable[Sequence[Id]] | pd.Series,
        k: int = 10,
        exclude_history: bool | None = None,
        warn: Warn = WARN,
    ) -> pd.DataFrame:
        """Return the `k` items that are most likely to follow each history, best first.

        A history is a list of original ids, the oldest first. With `exclude_history` its items are
        not recommended; the default is the setting with which the model was evaluated. Ids that the
        model does not know are skipped, and `warn` receives a message. For a history without any
        known id the most popular items are returned.

        The table has one row per recommendation: `history` (the position of the history; for a
        series its label, under the name of the index), `rank` (from 1), `item` (the original id),
        `title` (if titles are known), `score` (higher is better, comparable within one history) and
        `by` (`model` or `popularity`; for popularity the score is how often the item occurs). A
        history has fewer than k rows if the catalogue is smaller. Raises `ConfigError` for k < 1.
        """
        if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
            raise ConfigError(f"top-k: must be a whole number >= 1, but got {k!r}")
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
        """Score the model on its own data or on other data; see `exports.evaluate.appraise`."""
        return appraise(self.contents, Path(data_folder), overrides, say)

    def _popular(self, rows: int, k: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return the most popular items (rows, k), and how often they occur."""
        best = self._by_count[:k]
        counts = self.contents.items["count"].to_numpy()[best - 1]
        return np.tile(best, (rows, 1)), np.tile(counts.astype(np.float32), (rows, 1))

    def _numbered(
        self, histories: list[Sequence[Id]], warn: Warn
    ) -> tuple[npt.NDArray[np.int32], Offsets]:
        """Return the known items (T,) of all histories, by number, and offsets (N + 1,)."""
        ids = pd.Index(list(chain.from_iterable(histories)), dtype=object)  # keeps each id as it is
        if pd.api.types.infer_dtype(ids, skipna=True) not in ID_TYPES:
            raise ConfigError("histories: an id must be a number or text; give lists of ids")
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
    """Return the histories in a Parquet file.

    It has a column `history` of lists, and perhaps a column `user` that names them; or rows of
    `user` and `item`, in the order of time or with a column `timestamp`. A `DataError` says what is
    wrong.
    """
    try:
        table = parquet.read_table(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: not a Parquet file ({error}); write it as one") from error
    names = table.column_names
    _check_types(path, table.schema)
    if "user" in names and (missing := table["user"].null_count):
        raise DataError(f"{path}: {missing} rows have no user; name the users or drop the rows")
    if "history" in names:
        users = table["user"].to_pandas() if "user" in names else range(table.num_rows)
        index = pd.Index(users, name="user" if "user" in names else "history")
        listed = [history or [] for history in table["history"].to_pylist()]
        return pd.Series(listed, index=index, dtype=object)
    rows = table.select([name for name in ("user", "timestamp") if name in names]).to_pandas()
    rows["item"] = pd.Series(
        table["item"].to_pylist(), dtype=object
    )  # a null must not make floats of the ids
    if "timestamp" in rows:
        rows = rows.sort_values("timestamp", kind="stable")
    return pd.Series(rows.groupby("user")["item"].agg(list), dtype=object)


def _check_types(path: Path, schema: pa.Schema) -> None:
    """Raise a `DataError` for columns that do not hold histories."""
    if "history" in schema.names:
        history = schema.field("history").type
        lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
        if not any(is_list(history) for is_list in lists) or pa.types.is_nested(history.value_type):
            raise DataError(f"{path}: the column history must hold lists of ids; write it so")
    elif not {"user", "item"} <= set(schema.names):
        raise DataError(
            f"{path}: has neither a column history nor columns user and item; rename them"
        )
    for name in {"user", "item", "timestamp"} & set(schema.names):
        if pa.types.is_nested(schema.field(name).type):
            raise DataError(f"{path}: the column {name} holds lists; write one value per row")


def _listed(history: Any) -> Sequence[Id]:
    if isinstance(history, str | bytes) or not hasattr(history, "__len__"):
        raise TypeError(f"a history is a list of ids, but got {history!r}; give a list of lists")
    return history  # type: ignore[no-any-return]
