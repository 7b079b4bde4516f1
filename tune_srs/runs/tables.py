"""A results folder → pandas tables. Reads files only: Ray need not be there."""

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tune_srs.config.validation import nearest, validated
from tune_srs.config.yaml import NULL, read_yaml
from tune_srs.errors import ConfigError, DataError
from tune_srs.files import write_aside
from tune_srs.runs import journal
from tune_srs.runs.journal import TrialRecord
from tune_srs.space.search import SearchSettings
from tune_srs.space.space import Space
from tune_srs.storage import trial_name

FIRST_COLUMNS = ("trial", "status", "epochs", "best_epoch", "seconds", "reason")


Choose = Callable[[pd.DataFrame], pd.DataFrame]  # some rows of a table, in some order


SHOWN_METRICS = ("ndcg@10", "ndcg_rel@10", "hr@10", "next/ndcg@10")


@dataclass(frozen=True)
class Run:
    """What the folder of a run tells, as tables.

    `folder`: where it lies. `settings`: what `search.yaml` holds. `trials`: one row a trial,
    `epochs`: one a trial and epoch, `baselines`: one a baseline, as the functions of these names
    read them. `test`: what `test_scores` reads, None before the search has ended.
    """

    folder: Path
    settings: dict[str, Any]
    trials: pd.DataFrame
    epochs: pd.DataFrame
    baselines: pd.DataFrame
    test: pd.DataFrame | None


def load(run: str | Path, results_folder: str | Path = "results") -> Run:
    """The run of this name in `results_folder`, or in this folder.

    Raises `ConfigError` if there is none, `DataError` if a file of it is damaged.
    """
    folder = run_folder(Path(results_folder), str(run))
    return Run(
        folder,
        settings(folder),
        trials(folder),
        epochs(folder),
        baselines(folder),
        test_scores(folder),
    )


def run_folder(results: Path, name: str) -> Path:
    """The folder of an existing search, or a `ConfigError` that names those there are.

    `name`: of a run in `results`, or the path of one.
    """
    for folder in (results / name, Path(name)):
        if (folder / "search.yaml").is_file():
            return folder
        if (folder / "study.yaml").is_file():
            raise ConfigError(
                f"{folder}: a study, not a search; tune-srs results {name} shows how it stands"
            )
    runs = sorted(path.parent.name for path in results.glob("*/search.yaml"))
    hint = nearest(name, runs) if runs else "; there are none yet, see tune-srs search --help"
    raise ConfigError(f"{results}: no results named {name}{hint}")


def trial_folder(folder: Path, number: int) -> Path:
    """Where a trial of the run in `folder` keeps its TensorBoard events and its checkpoints."""
    return folder / "tune" / trial_name(number)


def trials(folder: Path) -> pd.DataFrame:
    """One row a trial: out of `trials.csv` or, where that is not up to date, the journal.

    Columns: `trial` (its number, from 0), `status` (`complete`, `stopped` early, `failed` or
    `unfinished`), `epochs` (that it has trained), `best_epoch` (from 1), `seconds` (s of wall-clock
    from its begin, pauses left out), `reason` (why it was stopped or failed), its parameters by
    dotted name, and its metrics at its best epoch: `val/…` in 0 … 1, `train/loss`, `time/…` in s an
    epoch. A parameter is missing where it is inactive, and the text `null` where null was chosen.
    Of several searched metrics also `pareto`: whether no other trial is better in all of them.
    """
    path, record = folder / "trials.csv", folder / journal.FILE
    if record.exists() and not (path.exists() and path.stat().st_mtime >= record.stat().st_mtime):
        search = searched(folder)
        records, _ = journal.replay(folder, search.metrics, search.modes)
        return trial_table(records, search, settings(folder)["space"]["params"])
    if not path.exists():
        return pd.DataFrame(columns=list(FIRST_COLUMNS))
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
    """A parameter's value as text, as in `trials`."""
    return NULL if value is None else str(value)


def with_nulls(values: dict[str, Any]) -> dict[str, Any]:
    """A chosen null as text, for in a table None would be missing."""
    return {name: NULL if value is None else value for name, value in values.items()}


def write_trials(folder: Path, records: Sequence[TrialRecord], space: Space) -> None:
    """Write what `trials` reads."""
    table = trial_table(records, space.search, space.params)
    write_aside(folder / "trials.csv", lambda aside: table.to_csv(aside, index=False))


def trial_table(
    records: Sequence[TrialRecord], search: SearchSettings, searched_params: Iterable[str]
) -> pd.DataFrame:
    """See `trials`."""
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
        table["pareto"] = pareto(alive, search.modes)
    params = [name for name in searched_params if name in table]
    first = [*FIRST_COLUMNS, *(["pareto"] if "pareto" in table else []), *params]
    return table[[*first, *(name for name in table if name not in first)]]


def pareto(values: pd.DataFrame, modes: Sequence[str]) -> list[bool]:
    """Which rows no other row dominates: as good in every column, and better in one."""
    signs = np.array([1.0 if mode == "max" else -1.0 for mode in modes])
    scores = values.to_numpy(dtype=float) * signs
    return [
        bool(np.isfinite(own).all())
        and not ((scores >= own).all(axis=1) & (scores > own).any(axis=1)).any()
        for own in scores
    ]


def epochs(folder: Path) -> pd.DataFrame:
    """One row a trial and epoch, in that order.

    Columns: `trial` (its number, from 0), `epoch` (from 1), the trial's parameters as in `trials`,
    and the metrics of the epoch: `val/…` in 0 … 1, `train/loss` (mean of its steps), `time/train_s`
    and `time/evaluate_s` (s).
    """
    if not (folder / journal.FILE).exists():
        return pd.DataFrame({"trial": pd.Series(dtype=int), "epoch": pd.Series(dtype=int)})
    values: dict[int, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    for event in journal.events(folder):
        trial = event["trial"]
        if "begin" in event:
            values[trial] = with_nulls(event["begin"])
        elif "epoch" in event:
            rows.append(
                {"trial": trial, "epoch": event["epoch"], **values[trial], **event["metrics"]}
            )
    table = pd.DataFrame(rows, columns=None if rows else ["trial", "epoch"])
    return table.sort_values(["trial", "epoch"], ignore_index=True)


def settings(folder: Path) -> dict[str, Any]:
    """`search.yaml`: everything needed to run the search again."""
    path = folder / "search.yaml"
    values = read_yaml(path)
    for key in (
        "name",
        "seed",
        "resources",
        "space.description",
        "space.search",
        "space.params",
        "data.fingerprint",
        "data.settings",
        "data.users",
        "data.items",
        "data.interactions",
    ):
        section: Any = values
        for part in key.split("."):
            section = section.get(part) if isinstance(section, dict) else None
        if section is None:
            raise ConfigError(f"{path}: damaged, {key} is missing; start a new search")
    return values


def read_json(path: Path) -> Any:
    """What a JSON file of a run holds; a damaged file is a `DataError`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); restore it, or search again") from error


def baselines(folder: Path) -> pd.DataFrame:
    """One row a baseline: `trial` (its name), and its validation metrics."""
    path = folder / "baselines.json"
    if not path.exists():
        return pd.DataFrame()
    values = read_json(path)
    return pd.DataFrame([{"trial": name, **metrics} for name, metrics in values.items()])


def test_scores(folder: Path) -> pd.DataFrame | None:
    """Rows `best` and the baselines, columns the test metrics; None before a search has ended."""
    path = folder / "best" / "metrics.json"
    if not path.exists():
        return None
    return pd.DataFrame.from_dict(read_json(path)["test"], orient="index")


@dataclass(frozen=True)
class Summary:
    """A table made for reading."""

    title: str
    frame: pd.DataFrame


def searched(folder: Path) -> SearchSettings:
    """What a run searches for, and how."""
    return validated(SearchSettings, settings(folder)["space"]["search"], f"{folder}/search.yaml")


def best_first(folder: Path) -> pd.DataFrame:
    """The trials by the metric that decides; see `trials`."""
    table, search = trials(folder), searched(folder)
    metric = search.metrics[0]
    if metric not in table:
        return table
    return table.sort_values(metric, ascending=search.modes[0] == "min", kind="stable")


def summaries(folder: Path, choose: Choose = lambda table: table) -> list[Summary]:
    """The trials beside the baselines, best first; then the test scores, once they are there.

    `choose` may leave out and order the trials.
    """
    plan, search = settings(folder), searched(folder)
    shown = list(dict.fromkeys([*search.metrics, *(f"val/{name}" for name in SHOWN_METRICS)]))
    table = choose(best_first(folder)).astype({"trial": "string"})
    both = pd.concat([table, baselines(folder)], ignore_index=True)
    columns = ["trial", "status", "pareto", "epochs", "best_epoch", *plan["space"]["params"]]
    columns += [*shown, "reason"] if (table["status"] == "failed").any() else shown
    title = "trials and baselines, on the validation futures"
    tables = [Summary(title, both.reindex(columns=[c for c in columns if c in both]))]
    test = test_scores(folder)
    if test is not None:
        names = [name.replace("val/", "test/") for name in shown]
        test = test[[name for name in names if name in test]].rename_axis("scorer").reset_index()
        tables.append(Summary("the best trial and the baselines, on the test futures", test))
    return tables


def conclusion(folder: Path) -> list[str]:
    """What a search came to: a line on its trials, and one on the best of them."""
    table, metric = trials(folder), searched(folder).metrics[0]
    count = table["status"].value_counts()
    lines = [
        f"{len(table)} trials: {count.get('complete', 0)} complete, {count.get('stopped', 0)} "
        f"stopped early, {count.get('failed', 0)} failed; {table['epochs'].sum()} epochs"
    ]
    best = read_json(folder / "best" / "metrics.json")
    value = best["validation"]["best"][metric]
    line = f"best: trial {best['trial']} at epoch {best['epoch']}, {metric} {value:.4f}"
    on_test = metric.replace("val/", "test/")
    if on_test in best["test"]["best"]:
        scores = ", ".join(f"{name} {values[on_test]:.4f}" for name, values in best["test"].items())
        line += f"; {on_test}: {scores}"
    lines.append(line)
    if "pareto" in table:
        numbers = ", ".join(map(str, table.loc[table["pareto"], "trial"]))
        lines.append(f"the Pareto set: trials {numbers}")
    return lines
