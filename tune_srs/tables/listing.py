"""One search or several of them, as tables: to be read, or for a file."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from tune_srs.runs.run import Run
from tune_srs.runs.tables import SHOWN_METRICS, Choose, Summary
from tune_srs.tables.text import as_text


def shown(runs: Sequence[Run], choose: Choose) -> list[Summary]:
    """Return the tables of one run, or one table of several, for a reader."""
    if len(runs) == 1:
        return runs[0].summaries(choose)
    return [Summary("searches, the best trial of each", choose(compared(runs)))]


def for_file(runs: Sequence[Run], choose: Choose, form: str) -> str:
    """Return the content of a file: of one run the trials, with all columns for a program."""
    if len(runs) == 1 and form in ("csv", "json"):
        return as_text(choose(runs[0].best_first), form)
    return as_text(shown(runs, choose)[0].frame, form)


def compared(runs: Sequence[Run]) -> pd.DataFrame:
    """Return one row per run.

    Columns: `run`, `data` (name and the beginning of its fingerprint: scores on other data cannot
    be compared), `trials`, `failed`, `epochs` (of all trials), `seconds` (s, summed over trials
    that ran side by side), `metric` (the searched one that decides), `best` (number of the trial),
    `value` (its metric) and, once a search has ended, `test` and `test markov` and so on (the same
    of the winner and of each baseline) and further test metrics of the winner.
    """
    return pd.DataFrame([_row(run) for run in runs]).convert_dtypes()


def _row(run: Run) -> dict[str, Any]:
    table, data = run.trials, run.settings["data"]
    metric = run.objective.metric.removeprefix("val/")
    return {
        "run": run.folder.name,
        "data": f"{data['settings']['name']} {data['fingerprint'][:8]}",
        "trials": len(table),
        "failed": int((table["status"] == "failed").sum()),
        "epochs": table["epochs"].sum(),
        "seconds": round(table["seconds"].sum()),
        "metric": metric,
        **_best(run),
        **_test(run.test, metric),
    }


def _best(run: Run) -> dict[str, Any]:
    table, metric = run.best_first, run.objective.metric
    alive = table[table["status"] != "failed"]
    if metric not in alive or alive[metric].isna().all():
        return {}
    best = alive.iloc[0]
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
