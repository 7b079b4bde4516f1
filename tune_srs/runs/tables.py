"""The tables of a run, out of the records of its trials and out of its files."""

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tune_srs.config.yaml import NULL
from tune_srs.errors import DataError
from tune_srs.files import write_aside
from tune_srs.runs.journal import TrialRecord
from tune_srs.space.objective import Objective
from tune_srs.space.search import SearchSettings
from tune_srs.space.space import Space

FIRST_COLUMNS = ("trial", "status", "epochs", "best_epoch", "seconds", "reason")


Choose = Callable[[pd.DataFrame], pd.DataFrame]  # some rows of a table, in some order


SHOWN_METRICS = ("ndcg@10", "ndcg_rel@10", "hr@10", "next/ndcg@10")


def read_trials(path: Path) -> pd.DataFrame:
    """Return the table in `trials.csv`, see `Run.trials`; a damaged one is a `DataError`."""
    try:
        table = _read_csv(path)
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); restore it, or search again") from error
    missing = set(FIRST_COLUMNS) - set(table)
    if missing:
        raise DataError(f"{path}: damaged, no column {min(missing)}; restore it, or search again")
    return table


def _read_csv(path: Path) -> pd.DataFrame:
    """As it was written: missing is what is empty, and a null makes no text of its column."""
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    for name in table:
        if (table[name] == NULL).any():
            table[name] = table[name].astype(object).map(_parsed)
    return table


def _parsed(value: object) -> object:
    """What a cell of a column with nulls held before it was text."""
    for read in (int, float, {"True": True, "False": False}.__getitem__):
        if isinstance(value, str):
            with suppress(ValueError, KeyError):
                value = read(value)
    return value


def spelled(value: object) -> str:
    """A parameter's value as text, as in `Run.trials`."""
    return NULL if value is None else str(value)


def with_nulls(values: dict[str, Any]) -> dict[str, Any]:
    """A chosen null as text, for in a table None would be missing."""
    return {name: NULL if value is None else value for name, value in values.items()}


def write_trials(path: Path, records: Sequence[TrialRecord], space: Space) -> None:
    """Write what `read_trials` reads."""
    table = trial_table(records, space.search, space.params)
    write_aside(path, lambda aside: table.to_csv(aside, index=False))


def trial_table(
    records: Sequence[TrialRecord], search: SearchSettings, searched_params: Iterable[str]
) -> pd.DataFrame:
    """Return one row per trial; see `Run.trials`."""
    rows = [
        {
            "trial": record.number,
            "status": record.status,
            "epochs": record.epochs,
            "best_epoch": record.best_epoch,
            "seconds": round(record.seconds, 3),
            "reason": record.reason,
            **with_nulls(record.values),
            **record.best_metrics,
        }
        for record in records
    ]
    table = pd.DataFrame(rows, columns=None if rows else list(FIRST_COLUMNS))
    metrics = search.metrics
    if len(metrics) > 1 and set(metrics) <= set(table):
        alive = table[metrics].where(table["status"] != "failed")
        table["pareto"] = pareto(alive, search.objectives)
    params = [name for name in searched_params if name in table]
    first = [*FIRST_COLUMNS, *(["pareto"] if "pareto" in table else []), *params]
    return table[[*first, *(name for name in table if name not in first)]]


def pareto(values: pd.DataFrame, objectives: Sequence[Objective]) -> list[bool]:
    """Which rows no other row dominates: as good in every column, and better in one."""
    scores = values.to_numpy(dtype=float) * [one.sign for one in objectives]
    return [
        bool(np.isfinite(own).all())
        and not ((scores >= own).all(axis=1) & (scores > own).any(axis=1)).any()
        for own in scores
    ]


def read_json(path: Path) -> Any:
    """What a JSON file of a run holds; a damaged file is a `DataError`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); restore it, or search again") from error


class Summary(NamedTuple):
    """A table made for reading."""

    title: str
    frame: pd.DataFrame


def trial_summary(
    trials: pd.DataFrame, baselines: pd.DataFrame, metrics: Sequence[str], params: Sequence[str]
) -> Summary:
    """Return the trials and below them the baselines, with the metrics that most people read."""
    table = trials.astype({"trial": "string"})
    both = pd.concat([table, baselines], ignore_index=True)
    columns = ["trial", "status", "pareto", "epochs", "best_epoch", *params, *_shown(metrics)]
    if (table["status"] == "failed").any():
        columns.append("reason")
    title = "trials and baselines, on the validation futures"
    return Summary(title, both.reindex(columns=[name for name in columns if name in both]))


def test_summary(test: pd.DataFrame, metrics: Sequence[str]) -> Summary:
    """Return the test scores of the winner and of the baselines."""
    names = [name.replace("val/", "test/") for name in _shown(metrics)]
    table = test[[name for name in names if name in test]].rename_axis("scorer").reset_index()
    return Summary("the best trial and the baselines, on the test futures", table)


def _shown(metrics: Sequence[str]) -> list[str]:
    """The searched metrics and those that most people read."""
    return list(dict.fromkeys([*metrics, *(f"val/{name}" for name in SHOWN_METRICS)]))


def learned_in_words(refit: bool) -> str:
    """Return what the weights that scored the test have learned."""
    return "training and validation" if refit else "the training histories"


def conclusion(trials: pd.DataFrame, best: dict[str, Any], metric: str) -> list[str]:
    """Return a line on all trials and one on the best; `best` is what `metrics.json` holds."""
    count = trials["status"].value_counts()
    lines = [
        f"{len(trials)} trials: {count.get('complete', 0)} complete, {count.get('stopped', 0)} "
        f"stopped early, {count.get('failed', 0)} failed; {trials['epochs'].sum()} epochs"
    ]
    value = best["validation"]["best"][metric]
    line = f"best: trial {best['trial']} at epoch {best['epoch']}, {metric} {value:.4f}"
    on_test = metric.replace("val/", "test/")
    if on_test in best["test"]["best"]:
        scores = ", ".join(f"{name} {values[on_test]:.4f}" for name, values in best["test"].items())
        line += f"; {on_test}: {scores}"
    learned = learned_in_words(bool(best["refit"]))
    lines += [line, f"the test was scored with weights that learned from {learned}"]
    if "pareto" in trials:
        numbers = ", ".join(map(str, trials.loc[trials["pareto"], "trial"]))
        lines.append(f"the Pareto set: trials {numbers}")
    return lines
