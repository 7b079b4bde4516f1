"""The runs of a study → its tables, on files written by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.small_study import METRICS, TUNE, keep_run, study_of

from tune_srs.errors import DataError
from tune_srs.evaluation.resampling import Array
from tune_srs.studies import comparison, run, significance
from tune_srs.studies.comparison import Results, changes, compare
from tune_srs.studies.run import Task
from tune_srs.studies.spec import Study

SEEDS = 4


def values_of(task: Task, users: int = 30) -> Array:
    """(U,) that depend on the run."""
    key = [task.seed, *task.dataset.encode(), *task.configuration.encode()]
    better = 0.1 * (task.configuration != "plain") + 0.2 * (task.dataset == "noisy")
    return np.asarray(np.random.default_rng(key).random(users) + better)


def filled(folder: Path, study: Study, leave: tuple[Task, ...] = ()) -> Results:
    for task in run.tasks(study):
        if task not in leave:
            keep_run(folder, study, task, values_of(task))
    return Results.load(study, folder)


def row(table: pd.DataFrame, dataset: str, configuration: str) -> pd.Series:
    at = (table["dataset"] == dataset) & (table["configuration"] == configuration)
    return table[at & (table["metric"] == METRICS[1])].iloc[0]


def matrix(dataset: str, configuration: str) -> Array:
    """(S, U)."""
    tasks = (Task(seed, dataset, configuration) for seed in range(1, SEEDS + 1))
    return np.stack([values_of(task) for task in tasks])


def test_a_row_compares_a_configuration_with_the_reference(tmp_path: Path) -> None:
    study = study_of(tmp_path, seeds=SEEDS)
    table = compare(filled(tmp_path, study))
    assert list(table) == list(comparison.COMPARED)
    assert len(table) == 2 * 2 * 2  # data sets x configurations x metrics
    one = row(table, "clean", "wide-linear")
    own, reference = matrix("clean", "wide-linear"), matrix("clean", "plain")
    assert (one["runs"], one["pairs"], one["failed"], one["users"]) == (SEEDS, SEEDS, 0, 30)
    assert one["mean"] == pytest.approx(own.mean())
    assert one["difference"] == pytest.approx(own.mean() - reference.mean())
    assert one["percent"] == pytest.approx(100 * (own.mean() / reference.mean() - 1))
    over_seeds = stats.ttest_rel(own.mean(axis=1), reference.mean(axis=1))
    assert one["p_seeds"] == pytest.approx(over_seeds.pvalue)
    crossed = significance.crossed(own - reference)
    assert one["p"] == pytest.approx(crossed.p)
    assert [one["difference_low"], one["difference_high"]] == pytest.approx(crossed.interval)
    assert pd.isna(row(table, "clean", "plain")["difference"])


def test_p_is_corrected_within_a_metric_over_all_data_sets(tmp_path: Path) -> None:
    table = compare(filled(tmp_path, study_of(tmp_path, seeds=SEEDS)))
    both = [row(table, dataset, "wide-linear") for dataset in ("clean", "noisy")]
    smaller, larger = sorted(both, key=lambda one: float(one["p"]))
    assert smaller["p_holm"] == pytest.approx(min(1, 2 * smaller["p"]))
    assert larger["p_holm"] == pytest.approx(max(smaller["p_holm"], larger["p"]))


def test_only_runs_of_the_same_seed_are_paired(tmp_path: Path) -> None:
    study = study_of(tmp_path, seeds=SEEDS)
    missing = (Task(1, "clean", "plain"), Task(2, "clean", "wide-linear"))
    table = compare(filled(tmp_path, study, missing))
    one = row(table, "clean", "wide-linear")
    assert (one["runs"], one["pairs"]) == (SEEDS - 1, SEEDS - 2)
    rest = [2, 3]  # of seeds 1 … 4
    difference = (matrix("clean", "wide-linear") - matrix("clean", "plain"))[rest]
    assert one["difference"] == pytest.approx(difference.mean())


def test_a_tuning_counts_once_as_the_mean_of_its_runs(tmp_path: Path) -> None:
    study = study_of(tmp_path, seeds=2, tune=TUNE | {"tunings": 3})
    one = row(compare(filled(tmp_path, study)), "clean", "wide-linear")
    assert (one["runs"], one["pairs"], one["tunings"]) == (6, 6, 3)
    seeds = np.ravel([study.seeds_of(tuning) for tuning in (1, 2, 3)])
    own, reference = (
        np.stack([values_of(Task(int(seed), "clean", name)) for seed in seeds])
        for name in ("wide-linear", "plain")
    )
    of_tuning = (own - reference).reshape(3, 2, -1).mean(axis=1)
    crossed = significance.crossed(of_tuning)
    assert one["difference"] == pytest.approx(crossed.mean)
    assert one["p"] == pytest.approx(crossed.p)
    over_tunings = stats.ttest_1samp(of_tuning.mean(axis=1), 0)
    assert one["p_seeds"] == pytest.approx(over_tunings.pvalue)


def test_a_tuning_that_lost_a_run_counts_by_the_others(tmp_path: Path) -> None:
    study = study_of(tmp_path, seeds=2, tune=TUNE | {"tunings": 3})
    missing = (Task(4, "clean", "plain", 2),)
    one = row(compare(filled(tmp_path, study, missing)), "clean", "wide-linear")
    assert (one["runs"], one["pairs"], one["tunings"]) == (6, 5, 3)
    assert not np.isnan(one["p"])


@pytest.mark.parametrize("primary", METRICS)
def test_the_verdict_rests_on_the_primary_metric_alone(tmp_path: Path, primary: str) -> None:
    study = study_of(tmp_path, seeds=SEEDS, primary=primary)
    for task in run.tasks(study):
        better = 0.3 * (task.configuration != "plain") * (1 if task.dataset == "clean" else -1)
        keep_run(tmp_path, study, task, 0.1 * values_of(task) + better)
    table = compare(Results.load(study, tmp_path))
    said = table[table["verdict"].notna()]
    assert set(said["metric"]) == {primary}
    assert said[["dataset", "verdict"]].to_numpy().tolist() == [
        ["clean", "better"],
        ["noisy", "worse"],
    ]


@pytest.mark.parametrize("tunings", [1, 2])
def test_two_seeds_or_two_tunings_cannot_tell(tmp_path: Path, tunings: int) -> None:
    study = study_of(tmp_path, seeds=2, tune=TUNE | {"tunings": tunings}, primary=METRICS[1])
    one = row(compare(filled(tmp_path, study)), "clean", "wide-linear")
    assert one[["mean_low", "difference_low", "percent_low", "p", "p_seeds"]].isna().all()
    assert one[["difference", "percent", "p_users"]].notna().all()
    sample = "tunings" if tunings > 1 else "seeds"
    assert one["verdict"] == f"cannot tell from fewer than 3 {sample}"


def test_a_failed_run_is_counted_and_left_out(tmp_path: Path) -> None:
    study = study_of(tmp_path, seeds=SEEDS)
    filled(tmp_path, study)
    keep_run(tmp_path, study, Task(1, "clean", "wide-linear"), None)
    one = row(compare(Results.load(study, tmp_path)), "clean", "wide-linear")
    assert (one["runs"], one["failed"]) == (SEEDS - 1, 1)
    assert one["mean"] == pytest.approx(matrix("clean", "wide-linear")[1:].mean())


def test_the_change_between_data_sets_is_paired_where_their_users_are_the_same(
    tmp_path: Path,
) -> None:
    study = study_of(tmp_path, seeds=SEEDS)
    one = changes(filled(tmp_path, study)).iloc[0]
    here, there = (
        matrix(dataset, "wide-linear") - matrix(dataset, "plain") for dataset in ("noisy", "clean")
    )
    assert (one["dataset"], one["first_dataset"], one["paired"]) == ("noisy", "clean", True)
    assert one["change"] == pytest.approx(here.mean() - there.mean())
    assert one["p"] == pytest.approx(significance.crossed(here - there).p)


def test_the_change_between_data_sets_of_other_users_is_unpaired(tmp_path: Path) -> None:
    study = study_of(tmp_path, seeds=SEEDS)
    filled(tmp_path, study)
    for task in run.tasks(study):
        if task.dataset == "noisy":
            keep_run(tmp_path, study, task, values_of(task), np.arange(30) + 1)
    one = changes(Results.load(study, tmp_path)).iloc[0]
    here, there = (
        matrix(dataset, "wide-linear") - matrix(dataset, "plain") for dataset in ("noisy", "clean")
    )
    expected = significance.unpaired(significance.crossed(here), significance.crossed(there))
    assert not one["paired"]
    assert one["p"] == pytest.approx(expected.p)


def test_an_unfinished_study_has_tables_of_what_there_is(tmp_path: Path) -> None:
    study = study_of(tmp_path, seeds=SEEDS)
    nothing = Results.load(study, tmp_path)
    assert compare(nothing)["runs"].tolist() == [0] * 8
    assert len(changes(nothing)) == 0
    keep_run(tmp_path, study, Task(1, "clean", "plain"), values_of(Task(1, "clean", "plain")))
    one = row(compare(Results.load(study, tmp_path)), "clean", "plain")
    assert one["mean"] == pytest.approx(matrix("clean", "plain")[0].mean())
    assert pd.isna(one["mean_low"])  # one training does not tell


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    filled(tmp_path, study)
    path = Task(1, "clean", "plain").path(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"seed-1.parquet: damaged .* delete it"):
        Results.load(study, tmp_path)
