"""One search or several of them, as tables: to be read, or for a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tune_srs.runs import tables
from tune_srs.runs.tables import SHOWN_METRICS, Choose, Summary, best_first, summaries
from tune_srs.tables.text import as_text


def shown(folders: Sequence[Path], choose: Choose) -> list[Summary]:
    """For reading: the tables of one run, or one table of several."""
    if len(folders) == 1:
        return summaries(folders[0], choose)
    return [Summary("searches, the best trial of each", choose(compared(folders)))]


def for_file(folders: Sequence[Path], choose: Choose, form: str) -> str:
    """The content of a file; of one run the trials, all their columns if a program reads it."""
    if len(folders) == 1 and form in ("csv", "json"):
        return as_text(choose(best_first(folders[0])), form)
    return as_text(shown(folders, choose)[0].frame, form)


def compared(folders: Sequence[Path]) -> pd.DataFrame:
    """One row a run.

    Columns: `run`, `data` (name and the beginning of its fingerprint: scores on other data cannot
    be compared), `trials`, `failed`, `epochs` (of all trials), `seconds` (s, summed over trials
    that ran side by side), `metric` (the searched one that decides), `best` (number of the trial),
    `value` (its metric) and, once a search has ended, `test` and `test markov` and so on (the same
    of the winner and of each baseline) and further test metrics of the winner.
    """
    return pd.DataFrame([_row(folder) for folder in folders]).convert_dtypes()


def _row(folder: Path) -> dict[str, Any]:
    run, search = tables.load(folder), tables.searched(folder)
    table, data = run.trials, run.settings["data"]
    metric = search.metrics[0]
    return {
        "run": folder.name,
        "data": f"{data['settings']['name']} {data['fingerprint'][:8]}",
        "trials": len(table),
        "failed": int((table["status"] == "failed").sum()),
        "epochs": table["epochs"].sum(),
        "seconds": round(table["seconds"].sum()),
        "metric": metric.removeprefix("val/"),
        **_best(table, metric, search.modes[0]),
        **_test(run.test, metric.removeprefix("val/")),
    }


def _best(table: pd.DataFrame, metric: str, mode: str) -> dict[str, Any]:
    alive = table[table["status"] != "failed"]
    if metric not in alive or alive[metric].isna().all():
        return {}
    best = alive.sort_values(metric, ascending=mode == "min", kind="stable").iloc[0]
    return {"best": best["trial"], "value": best[metric]}


def _test(scores: pd.DataFrame | None, metric: str) -> dict[str, Any]:
    if scores is None:
        return {}
    row = {}
    if f"test/{metric}" in scores:  # train/loss has none
        named = {
            scorer: "test" if scorer == "best" else f"test {scorer}" for scorer in scores.index
        }
        row = {named[scorer]: value for scorer, value in scores[f"test/{metric}"].items()}
    shown = [f"test/{name}" for name in SHOWN_METRICS if f"test/{name}" in scores]
    return row | {name: scores.at["best", name] for name in shown}
