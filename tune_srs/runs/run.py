"""A run as Python objects: each file of its folder is opened at most once, when it is asked for.

What reads a run needs neither torch nor Ray nor Optuna.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pandas as pd

from tune_srs.datasets.prepared import PreparedData
from tune_srs.runs import journal, ranks, tables
from tune_srs.runs.journal import History, TrialRecord, best_trial
from tune_srs.runs.paths import RunPaths, find_run
from tune_srs.runs.plan import Plan, read_settings
from tune_srs.runs.resumable import check_unchanged
from tune_srs.runs.tables import Choose, Summary
from tune_srs.space.objective import Objective
from tune_srs.space.space import Space


class Run:
    """The run in `folder`, which may still be running: its properties show what is there so far.

    Every property raises `ConfigError` or `DataError` if the file it needs is missing or damaged.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.paths = RunPaths(self.folder)

    @classmethod
    def load(cls, run: Path | str, results_folder: Path | str = "results") -> Self:
        """Return the run of this name in `results_folder`, or the one in this folder.

        Raises a `ConfigError` that names the runs that exist if there is no such run.
        """
        return cls(find_run(Path(results_folder), str(run)))

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """`search.yaml`: everything that is needed to run the search again."""
        return read_settings(self.paths.settings)

    @cached_property
    def plan(self) -> Plan:
        """The search as it was planned: its space, seed and resources."""
        return Plan.from_settings(self.settings, self.paths.settings)

    @property
    def space(self) -> Space:
        """The searched space."""
        return self.plan.space

    @property
    def objective(self) -> Objective:
        """The objective that decides which trial wins, on the validation futures."""
        return self.space.search.objectives[0]

    @property
    def metric(self) -> str:
        """The name of the objective's metric, such as `val/ndcg_rel@10`."""
        return self.objective.metric

    @cached_property
    def history(self) -> History:
        """What the journal tells; empty before the first trial."""
        if not self.paths.journal.exists():
            return History()
        return journal.read(self.folder, self.space.search.objectives)

    @property
    def records(self) -> list[TrialRecord]:
        """One record per trial, by number."""
        return self.history.trials

    @cached_property
    def scored(self) -> list[TrialRecord]:
        """The trials that have not failed and have reported an epoch."""
        return [record for record in self.records if record.status != "failed" and record.epochs]

    def value(self, record: TrialRecord) -> float:
        """Return the metric of the objective at the best epoch of a scored trial."""
        return record.best_metrics[self.metric]

    @property
    def winner(self) -> TrialRecord | None:
        """The best trial so far, the earlier one of equals; None before the first epoch."""
        return best_trial(self.records, self.objective)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row per trial, by number.

        Columns: `trial` (its number, from 0), `status` (`complete`, `stopped` early, `failed` or
        `unfinished`), `epochs` (trained), `best_epoch` (from 1), `seconds` (s of wall-clock time
        since it began, pauses left out), `reason` (why it was stopped or failed), its parameters by
        dotted name, and its metrics at its best epoch: `val/…` in 0 … 1, `train/loss`, `time/…` in
        s per epoch. A parameter is missing where it is inactive, and the text `null` where null was
        chosen. If several metrics are searched, `pareto` is True unless another trial is as good in
        all of them and better in one.
        """
        if _up_to_date(self.paths.trials, self.paths.journal):
            return tables.read_trials(self.paths.trials)
        return tables.trial_table(self.records, self.space.search, self.space.params)

    @cached_property
    def best_first(self) -> pd.DataFrame:
        """`trials`, ordered by the objective."""
        return self.objective.sort(self.trials)

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """One row per trial and epoch, in this order.

        Columns: `trial` (its number, from 0), `epoch` (from 1), the trial's parameters as in
        `trials`, and the metrics of the epoch: `val/…` in 0 … 1, `train/loss` (mean of its steps),
        `time/train_s` and `time/evaluate_s` (s).
        """
        curves = self.history.curves.table()
        values = [
            {"trial": record.number, **tables.with_nulls(record.values)}
            for record in self.records
            if record.epochs
        ]
        if not values:
            return curves
        table = curves[["trial", "epoch"]].merge(pd.DataFrame(values), on="trial", how="left")
        return pd.concat([table, curves.drop(columns=["trial", "epoch"])], axis=1)

    @cached_property
    def baselines(self) -> pd.DataFrame:
        """One row per baseline: `trial` (its name), and its validation metrics."""
        if not self.paths.baselines.exists():
            return pd.DataFrame()
        values = tables.read_json(self.paths.baselines)
        return pd.DataFrame([{"trial": name, **metrics} for name, metrics in values.items()])

    @cached_property
    def best_metrics(self) -> dict[str, Any] | None:
        """What `best/metrics.json` holds; None before the search has ended."""
        path = self.paths.best_metrics
        return tables.read_json(path) if path.exists() else None

    @cached_property
    def test(self) -> pd.DataFrame | None:
        """Rows `best` and the baselines, columns the test metrics; None before the end."""
        if self.best_metrics is None:
            return None
        return pd.DataFrame.from_dict(self.best_metrics["test"], orient="index")

    @cached_property
    def ranks(self) -> pd.DataFrame | None:
        """The rank of every test future, see `ranks.read`; None before the search has ended."""
        return ranks.read(self.paths.test_ranks)

    def summaries(self, choose: Choose = lambda table: table) -> list[Summary]:
        """Return the trials beside the baselines, best first, and the test scores if there are any.

        `choose` may leave out and order the trials.
        """
        metrics = self.space.search.metrics
        trials = tables.trial_summary(
            choose(self.best_first), self.baselines, metrics, list(self.space.params)
        )
        return [trials] if self.test is None else [trials, tables.test_summary(self.test, metrics)]

    def conclusion(self) -> list[str]:
        """Return a line on all trials, and one on the best, of a search that has ended."""
        assert self.best_metrics is not None
        return tables.conclusion(self.trials, self.best_metrics, self.metric)

    def check_data(self, data: PreparedData) -> None:
        """Raise a `ConfigError` if `data` are not those that the run began with."""
        began = self.settings["data"]["fingerprint"]
        check_unchanged(began, data.fingerprint, f"{self.folder}:", self.plan.COMMAND)


def _up_to_date(table: Path, record: Path) -> bool:
    """Return whether `table` is at least as new as `record`; without a record, any table is."""
    if not table.exists():
        return False
    return not record.exists() or table.stat().st_mtime >= record.stat().st_mtime
