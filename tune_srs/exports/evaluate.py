"""The scores of an exported model on its own data set or another: means with intervals."""

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tune_srs.config.data import DataConfig, LogConfig
from tune_srs.config.settings import TrialConfig
from tune_srs.datasets.histories import Histories, Items, Split
from tune_srs.datasets.prepare import is_known, prepare
from tune_srs.datasets.prepared import PreparedData
from tune_srs.datasets.statistics import of_repeats
from tune_srs.errors import ConfigError, DataError, Say
from tune_srs.evaluation.evaluator import Evaluation, Evaluator, Scorer
from tune_srs.exports.exported import Exported
from tune_srs.exports.vocabulary import numbers_of
from tune_srs.tensors import rows_between

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Appraisal:
    """The scores of a model on the futures of a data set.

    `summary`: one row per split, kind of candidates and metric, with the columns `split`
    (validation, test), `candidates` (all, sampled), `metric`, `mean`, and `low` and `high`, the
    ends of its 95 % interval over users; NaN for scores that chose the model, or of futures that it
    has learned.
    `per_user`: one row per split, kind of candidates and user, with the columns `split`,
    `candidates`, `user` (the original id), and one per metric.
    """

    summary: pd.DataFrame
    per_user: pd.DataFrame

    def tables(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """Yield a title and a table of metrics for each kind of candidates, for reading.

        With one future, hr, recall and hit are equal, and so are ndcg and ndcg_rel: one is shown.
        """
        interval = " [" + self.summary["low"].map("{:.4f}".format) + ", "
        interval += self.summary["high"].map("{:.4f}".format) + "]"
        cells = self.summary["mean"].map("{:.4f}".format)
        cells += interval.where(self.summary["low"].notna(), "")
        shown = self.summary.assign(cell=cells)
        shown = shown[~shown["metric"].str.match("next/(hr|recall|ndcg_rel)@")]
        for kind, rows in shown.groupby("candidates", sort=False):
            table = rows.pivot(index="metric", columns="split", values="cell")
            order = rows["metric"].drop_duplicates()
            columns = [name for name in ("validation", "test") if name in table]
            yield f"among {kind} candidates", table.loc[order, columns].reset_index()


def appraise(
    exported: Exported,
    data_folder: Path,
    overrides: Mapping[str, Any] | None = None,
    say: Say = print,
) -> Appraisal:
    """Score an export on validation and test futures, among all items and among sampled ones.

    `overrides`, by dotted name, replace its settings of `data` and `evaluation`. If they lead to
    other data, items are matched by their original ids. Unknown items of a history are skipped,
    unknown futures count as missed, and a history without any known item is scored by popularity.
    `say` receives a message about that, and a warning if the model may have learned the futures.

    Raises `ConfigError` for settings that have no effect here, `DataError` for data that cannot be
    read or that have no item in common with the model.
    """
    config = _config(exported.config, overrides or {})
    data = prepare(config.data, data_folder, say)
    for doubt in _doubts(exported, config.data, data):
        say(doubt)
    say(of_repeats(data.manifest, config.evaluation.exclude_history))
    told = _flattered(exported, data)
    if exported.facts["refit"] is None and told:
        say("the validation scores chose this model: they are optimistic and have no interval")
    scorer, validation, test = _matched(exported, data, say)
    summaries, users = [], []
    for name, split, ids in (
        ("validation", validation, data.user_ids),
        ("test", test, data.test_user_ids),
    ):
        for kind in ("all", "sampled"):
            among = config.evaluation.model_copy(update={"candidates": kind})
            try:
                evaluator = Evaluator(split, among, CPU)
            except DataError as error:  # too few items to draw from
                say(f"{name}, sampled candidates: left out, {error}")
                continue
            evaluation = evaluator(scorer)
            names = {"split": name, "candidates": kind}
            of_all = _summary(evaluation, name in told)
            summaries.append(of_all.assign(**names))
            users.append(pd.DataFrame(names | {"user": ids} | evaluation.per_user))
    return Appraisal(
        pd.concat(summaries, ignore_index=True)[
            ["split", "candidates", "metric", "mean", "low", "high"]
        ],
        pd.concat(users, ignore_index=True),
    )


def _config(config: TrialConfig, overrides: Mapping[str, Any]) -> TrialConfig:
    idle = [key for key in overrides if not key.startswith(("data.", "evaluation."))]
    if idle:
        raise ConfigError(f"evaluate: {idle[0]} has no effect on a trained model; leave it out")
    if "evaluation.candidates" in overrides:
        raise ConfigError(
            "evaluate: evaluation.candidates: both kinds are always shown; leave it out"
        )
    config = config.with_overrides(overrides, "evaluate")
    if is_known(config.data.name):  # it is not read from a log, so those settings do not matter
        data = config.data.model_copy(update={"log": LogConfig()})
        config = config.model_copy(update={"data": data})
    return config


def _doubts(exported: Exported, config: DataConfig, data: PreparedData) -> Iterator[str]:
    """Yield warnings about scores that say less than they seem to."""
    learned = exported.facts["data"]
    unchanged = data.fingerprint == learned["fingerprint"]
    elsewhere = (
        bool(data.inputs) and data.inputs == learned["inputs"]
    )  # the same files at another path
    if config.name != learned["name"] and not elsewhere:
        return
    if refit := exported.facts["refit"]:
        which = "" if refit == "all" else "validation "
        yield (
            f"warning: this model has learned the {which}futures of {config.name}: its "
            f"{which}scores say nothing about how good it is"
        )
    elif not unchanged:
        yield (
            f"warning: {config.name} has changed since the model was trained, or is split "
            f"differently: the model may have learned some of the futures it is scored on"
        )


def _matched(exported: Exported, data: PreparedData, say: Say) -> tuple[Scorer, Split, Split]:
    """Return a scorer, and both splits with the model's item numbers."""
    vocabulary, ids = pd.Index(exported.items["item"]), pd.Index(data.item_ids)
    if ids.equals(vocabulary):
        return exported.model, data.validation, data.test
    numbers = numbers_of(ids, vocabulary)  # (J,)
    unknown = numbers == 0
    if unknown.all():
        raise DataError(
            f"evaluate: the model knows none of the {len(ids)} items of this data set: its own "
            f"ids look like {vocabulary[0]!r}, these like {ids[0]!r}; give data with the same ids"
        )
    numbers[unknown] = len(vocabulary) + 1 + np.arange(unknown.sum(), dtype=np.int32)
    scorer = _KnownItems(exported)
    validation = _renumbered(data.validation, numbers, len(vocabulary))
    test = _renumbered(data.test, numbers, len(vocabulary))
    futures = np.concatenate([one.futures[one.futures > 0] for one in (validation, test)])
    say(
        f"items are matched by id: the model knows {(~unknown).sum()} of {len(ids)}; "
        f"{(futures > len(vocabulary)).mean():.1%} of the futures are unknown and count as missed"
    )
    return scorer, validation, test


def _renumbered(split: Split, numbers: Items, num_known: int) -> Split:
    """Return the split with item j called `numbers[j - 1]`; those above `num_known` are unknown."""
    num_items = max(num_known, int(numbers.max()))
    training, histories = (
        Histories(numbers[one.items - 1], one.offsets, num_items)
        for one in (split.training, split.histories)
    )
    return Split(training, histories, np.append(np.int32(0), numbers)[split.futures])


class _KnownItems:
    """A model on data with items that it does not know; their numbers are above its own.

    Unknown items score -inf and are left out of histories. A history without a known item is scored
    by popularity.
    """

    max_length = sys.maxsize  # before unknown items are left out

    def __init__(self, exported: Exported) -> None:
        self._model = exported.model
        counts = exported.items["count"].to_numpy(np.float32)
        self._counts = torch.from_numpy(np.append(np.float32(0), counts))  # (I + 1,)

    def queries(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Return (B, D + 1): the model's queries, and 1 where a history has no known item."""
        known = (items > 0) & (items <= self._model.num_items)
        count = known.sum(dim=1)
        ends = count.cumsum(0)
        starts = ends - count.clamp(max=self._model.max_length)
        lengths = (ends - starts).clamp(min=1)  # where there is no item, any one stands in
        flat = torch.cat([items[known], items.new_ones(1)])
        rows, present = rows_between(flat, starts, starts + lengths)
        features = self._model.queries(rows * present, lengths)
        return torch.cat([features, (count == 0)[:, None]], dim=1)

    def scores(self, queries: Tensor, items: slice) -> Tensor:
        scores = queries.new_full((len(queries), items.stop - items.start), -math.inf)
        known = slice(items.start, min(items.stop, self._model.num_items + 1))
        if known.start < known.stop:
            of_model = self._model.scores(queries[:, :-1], known)
            scores[:, : known.stop - known.start] = torch.where(
                queries[:, -1:] > 0, self._counts[known], of_model
            )
        return scores


def _flattered(exported: Exported, data: PreparedData) -> tuple[str, ...]:
    """Return the splits whose scores chose the model, or whose futures it has learned."""
    if data.fingerprint != exported.facts["data"]["fingerprint"]:
        return ()
    return ("validation", "test") if exported.facts["refit"] == "all" else ("validation",)


def _summary(evaluation: Evaluation, flattered: bool) -> pd.DataFrame:
    means = evaluation.means()
    none = dict.fromkeys(means, (math.nan, math.nan))
    intervals = none if flattered else evaluation.intervals()
    rows = [(name, mean, *intervals[name]) for name, mean in means.items()]
    return pd.DataFrame(rows, columns=["metric", "mean", "low", "high"])
