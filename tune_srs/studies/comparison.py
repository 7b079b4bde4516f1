"""The tables of a study: each configuration against the reference, on each data set.

P values are adjusted within a family: all comparisons of one metric, on all data sets. Each
metric is a family of its own, since the metrics judge the same rankings. The verdict rests on the
family of the study's primary metric alone.

With several tunings the sample of trainings is a sample of tunings: a tuning counts once, as the
mean over its seeds. Seeds are nested in tunings, and in a nested design the mean square between
units of the upper level, which holds the luck of both levels, is the error of the mean
(Montgomery, "Design and Analysis of Experiments", the chapter on nested designs). That tuning is a
source of chance like the seed: Bouthillier et al., "Accounting for Variance in Machine Learning
Benchmarks", MLSys 2021.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tune_srs.evaluation.resampling import Array, bootstrap, sign_flip
from tune_srs.studies import run as runs
from tune_srs.studies import significance
from tune_srs.studies.run import Facts, Task
from tune_srs.studies.significance import Estimate
from tune_srs.studies.spec import Study

COMPARED = (
    "dataset", "configuration", "metric", "runs", "failed", "tunings", "users",
    "mean", "mean_low", "mean_high", "pairs", "difference", "difference_low", "difference_high",
    "p", "p_holm", "percent", "percent_low", "percent_high", "users_low", "users_high", "p_users",
    "p_users_holm", "seeds_low", "seeds_high", "p_seeds", "p_seeds_holm", "p_seeds_exact",
    "verdict",
)  # fmt: skip
CHANGES = (
    "dataset", "first_dataset", "configuration", "metric", "paired", "change", "change_low",
    "change_high", "p", "p_holm",
)  # fmt: skip

LEVEL = 0.05
Training = tuple[int, int]  # tuning, seed


@dataclass(frozen=True)
class Results:
    """The outcomes of a study's runs so far."""

    study: Study
    facts: dict[Task, Facts]  # all runs that have ended
    values: dict[tuple[str, str], dict[Training, Array]]  # by data set, configuration: (M, U)
    users: dict[str, pd.Series]  # original ids of each data set's test users, in their order

    @classmethod
    def load(cls, study: Study, folder: Path) -> "Results":
        """Read the files of all runs that have ended; a `DataError` if one is damaged."""
        results = cls(study, {}, {}, {})
        for task in runs.tasks(study):
            path = task.path(folder)
            facts = runs.read_facts(path)
            if facts is None:
                continue
            results.facts[task] = facts
            if facts.failure is None:
                table = runs.read_users(path)
                results.users.setdefault(task.dataset, table["user"])
                values = results.values.setdefault((task.dataset, task.configuration), {})
                values[task.tuning, task.seed] = table[study.metrics].to_numpy(np.float64).T
        return results

    def scores(self, dataset: str, configuration: str, trainings: list[Training]) -> Array:
        """Return scores (M, S, U): metrics, sample, users.

        The sample are these trainings, or with several tunings the means over each one's trainings.
        """
        values = self.values[dataset, configuration]
        if self.study.tunings == 1:
            return np.stack([values[training] for training in trainings], axis=1)
        means = [
            np.mean([values[tuning, seed] for tuning, seed in trainings if tuning == one], axis=0)
            for one in tunings(trainings)
        ]
        return np.stack(means, axis=1)

    def trainings(self, *which: tuple[str, str]) -> list[Training]:
        """Return the trainings of which all these data sets and configurations have a score."""
        ended = (set(self.values.get(pair, {})) for pair in which)
        return sorted(set.intersection(*ended))

    def differences(self, dataset: str, configuration: str, trainings: list[Training]) -> Array:
        """Return differences from the reference (M, S, U), paired by seed and user."""
        reference = self.scores(dataset, self.study.reference, trainings)
        return self.scores(dataset, configuration, trainings) - reference


def tunings(trainings: list[Training]) -> list[int]:
    """Return the tunings from which these trainings come."""
    return sorted({tuning for tuning, _ in trainings})


def compare(results: Results) -> pd.DataFrame:
    """Return one row per data set, configuration and metric.

    `runs`: number of runs with a score. `failed`: number of runs without one. `tunings`: number of
    tunings that the runs come from. `users`: number of test users. `mean`: over runs and users,
    with its 95 % interval. The other columns compare with the reference, over the `pairs` of runs
    with the same seed. `difference`, with interval and `p`: for other users and seeds. `percent`:
    the same, in percent of the reference. `users_…` and `p_users`: for other users only. `seeds_…`,
    `p_seeds` and `p_seeds_exact`: for other seeds only (see `significance`). `…_holm`: p, adjusted
    for the family. `verdict`, of the primary metric alone: `better` or `worse` if `p_holm` is below
    0.05, else `not shown`, or that so few trainings cannot tell. Where there are several tunings,
    these take the place of the seeds.
    """
    rows: list[dict[str, Any]] = []
    for dataset in results.study.datasets:
        for configuration in results.study.configurations:
            rows += _rows(results, dataset, configuration)
    table = pd.DataFrame(rows, columns=list(COMPARED))
    for name in ("p", "p_users", "p_seeds"):
        table[f"{name}_holm"] = _adjusted(table, name, len(results.study.datasets), results)
    table["verdict"] = [_verdict(results, row) for row in table.to_dict("records")]
    return table


def _verdict(results: Results, row: Mapping[Hashable, Any]) -> str | None:
    """Return what a row says of its comparison; None if it makes none, or is not to say it."""
    study = results.study
    if row["metric"] != study.primary_metric or pd.isna(row["difference"]):
        return None
    if len(results.facts) < len(runs.tasks(study)):
        return "when all runs have ended"
    if pd.isna(row["p_holm"]):
        return f"cannot tell from fewer than {significance.FEWEST} {study.sample}"
    if row["p_holm"] >= LEVEL:
        return "not shown"
    return "better" if row["difference"] > 0 else "worse"


def changes(results: Results) -> pd.DataFrame:
    """Return how the differences on other data sets deviate from those on the first data set.

    One row per further data set, configuration and metric. `change`: the difference from the
    reference minus that on `first_dataset`, with interval and p for other users and seeds. It is
    `paired` by user and seed if both data sets have the same users, as with added noise.
    """
    first_dataset, *others = results.study.datasets
    rows: list[dict[str, Any]] = []
    for dataset in others:
        for configuration in results.study.configurations:
            if configuration != results.study.reference:
                rows += _change_rows(results, first_dataset, dataset, configuration)
    table = pd.DataFrame(rows, columns=list(CHANGES))
    table["p_holm"] = _adjusted(table, "p", len(others), results)
    return table


def _rows(results: Results, dataset: str, configuration: str) -> list[dict[str, Any]]:
    study = results.study
    ended = results.trainings((dataset, configuration))
    failed = sum(
        facts.failure is not None
        for task, facts in results.facts.items()
        if (task.dataset, task.configuration) == (dataset, configuration)
    )
    columns: dict[str, Any] = {
        "dataset": dataset,
        "configuration": configuration,
        "metric": study.metrics,
        "runs": len(ended),
        "failed": failed,
        "tunings": len(tunings(ended)),
    }
    if ended:
        columns["users"] = len(results.users[dataset])
        scores = results.scores(dataset, configuration, ended)
        columns |= _estimated("mean", significance.crossed(scores))
    pairs = results.trainings((dataset, configuration), (dataset, study.reference))
    if configuration != study.reference and pairs:
        columns |= {"pairs": len(pairs)} | _against_reference(
            results, dataset, configuration, pairs
        )
    return _transposed(columns, len(study.metrics))


def _against_reference(
    results: Results, dataset: str, configuration: str, pairs: list[Training]
) -> dict[str, Any]:
    differences = results.differences(dataset, configuration, pairs)
    scores = results.scores(dataset, configuration, pairs)
    relative = significance.relative(
        scores, results.scores(dataset, results.study.reference, pairs)
    )
    of_user = differences.mean(axis=1)
    users_low, users_high = bootstrap(of_user.T)
    crossed, over_seeds = significance.crossed(differences), significance.over_seeds(differences)
    return {
        **_estimated("difference", crossed),
        "p": crossed.p,
        **_estimated("percent", relative.scaled(100)),
        "users_low": users_low,
        "users_high": users_high,
        "p_users": sign_flip(of_user),
        **_estimated("seeds", over_seeds),
        "p_seeds": over_seeds.p,
        "p_seeds_exact": significance.exact_over_seeds(differences),
    }


def _change_rows(
    results: Results, first_dataset: str, dataset: str, configuration: str
) -> list[dict[str, Any]]:
    reference, metrics = results.study.reference, results.study.metrics
    here = results.trainings((dataset, configuration), (dataset, reference))
    there = results.trainings((first_dataset, configuration), (first_dataset, reference))
    if not here or not there:
        return []
    paired = results.users[dataset].equals(results.users[first_dataset])
    if paired:
        both = [training for training in here if training in there]
        if not both:
            return []
        estimate = significance.crossed(
            results.differences(dataset, configuration, both)
            - results.differences(first_dataset, configuration, both)
        )
    else:
        estimate = significance.unpaired(
            significance.crossed(results.differences(dataset, configuration, here)),
            significance.crossed(results.differences(first_dataset, configuration, there)),
        )
    columns = {
        "dataset": dataset,
        "first_dataset": first_dataset,
        "configuration": configuration,
        "metric": metrics,
        "paired": paired,
        **_estimated("change", estimate),
        "p": estimate.p,
    }
    return _transposed(columns, len(metrics))


def _estimated(name: str, estimate: Estimate) -> dict[str, Array]:
    low, high = estimate.interval
    return {name: estimate.mean, f"{name}_low": low, f"{name}_high": high}


def _transposed(columns: dict[str, Any], rows: int) -> list[dict[str, Any]]:
    """Return rows from columns, each of which holds one value for all rows or one per row."""
    return [
        {
            name: column[i] if isinstance(column, list | np.ndarray) else column
            for name, column in columns.items()
        }
        for i in range(rows)
    ]


def _adjusted(table: pd.DataFrame, name: str, datasets: int, results: Results) -> pd.Series:
    """Return Holm's adjusted p values; each metric is a family of its own.

    All comparisons count that the study makes on so many data sets, whatever came of them.
    """
    size = datasets * (len(results.study.configurations) - 1)
    p = table[name].astype(float)
    return p.groupby(table["metric"]).transform(lambda one: significance.holm(one.to_numpy(), size))
